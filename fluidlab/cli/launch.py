"""Start a command of fluidlab over several processes, from a notebook or a script, and show what it says live."""

import codecs
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fluidlab.config import check_range, check_type

# torchrun, without its advice and without its traceback after Ctrl-C; a Ctrl-Break reaches its processes besides
TORCHRUN = """
import logging, signal, sys
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.run import main
logging.disable(logging.WARNING)
if hasattr(signal, "SIGBREAK"):
    signal.signal(signal.SIGBREAK, lambda *_: None)
try:
    main()
except SignalException as stop:
    sys.exit(128 + stop.sigval)
"""


def launch(arguments: Sequence[str], processes: int = 1) -> None:
    """Run `fluidlab ARGUMENTS`: in this process, or in several that torchrun starts and that share one training.

    Ctrl-C (a kernel's stop button) is passed on: the run saves its last step first. The processes get it from here
    only, because a second one would mean "now", and a kernel sends it to everything in its session. On Windows, where
    only a Ctrl-Break can be sent to others, it is that (written for it and not run by us).

    Args:
        arguments: of the command line, such as ["train", "--order", "random", ...].
        processes: one per device; on a CPU any number that the cores bear.

    Raises:
        ValueError: processes is below 1, or the command refused its arguments.
        ChildProcessError: a process ended with an error, which it has printed.
        KeyboardInterrupt: after Ctrl-C, once the run has stopped.
    """
    check_range("processes", processes, 1, kind=int)
    check_type("arguments", arguments, (list, tuple), "a list of words of a command line")
    arguments = [str(a) for a in arguments]
    if processes == 1:
        from fluidlab.cli import run
        run(arguments)
        return
    command = [sys.executable, "-c", TORCHRUN, "--standalone", f"--nproc-per-node={processes}", "-m", "fluidlab",
               *arguments]
    apart, stop = _apart()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment(),
                          **apart) as child:
        try:
            _show(child.stdout)
        except KeyboardInterrupt:
            child.send_signal(stop)
            _show(child.stdout)
            raise
    if child.returncode:
        raise ChildProcessError(f"fluidlab {' '.join(arguments[:1])} on {processes} processes ended with exit code "
                                f"{child.returncode}; what went wrong stands above.")


def _apart() -> tuple[dict, signal.Signals]:
    """What of Popen keeps a signal to this process from its child, and the signal that then asks the child to stop.

    Windows starts a new process group with Ctrl-C switched off, so that there it must be Ctrl-Break.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}, signal.CTRL_BREAK_EVENT
    return {"start_new_session": True}, signal.SIGINT


def _environment() -> dict[str, str]:
    """With the place of this package, which a notebook may have found on a path of its own."""
    places = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def _show(stream) -> None:
    """Characters as they come, carriage returns of progress bars among them."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while chunk := stream.read1():
        sys.stdout.write(decoder.decode(chunk))
        sys.stdout.flush()
