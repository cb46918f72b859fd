"""Start a command of fluidlab over several processes, from a notebook or a script, and show what it says live."""

import codecs
import signal
import subprocess
import sys
from collections.abc import Sequence

from fluidlab.config import check_range


def launch(arguments: Sequence[str], processes: int = 1) -> None:
    """Run `fluidlab ARGUMENTS`: in this process, or in several that torchrun starts and that share one training.

    Ctrl-C (a kernel's stop button) is passed on: the run saves its last step first.

    Args:
        arguments: of the command line, such as ["train", "--order", "random", ...].
        processes: one per device; on a CPU any number that the cores bear.

    Raises:
        ValueError: processes is below 1, or the command refused its arguments.
        ChildProcessError: a process ended with an error, which it has printed.
        KeyboardInterrupt: after Ctrl-C, once the run has stopped.
    """
    check_range("processes", processes, 1, kind=int)
    arguments = [str(a) for a in arguments]
    if processes == 1:
        from fluidlab.cli import run
        run(arguments)
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               "-m", "fluidlab", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        try:
            _show(child.stdout)
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            _show(child.stdout)
            raise
    if child.returncode:
        raise ChildProcessError(f"fluidlab {' '.join(arguments[:1])} on {processes} processes ended with exit code "
                                f"{child.returncode}; what went wrong stands above.")


def _show(stream) -> None:
    """Characters as they come, carriage returns of progress bars among them."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while chunk := stream.read1():
        sys.stdout.write(decoder.decode(chunk))
        sys.stdout.flush()
