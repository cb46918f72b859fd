"""How a run ends early: asked to stop by a signal, or left alone by another process."""

import re
import signal
import threading
from contextlib import contextmanager

from fluidlab.train.trainer import Trainer


@contextmanager
def stop_signals(trainer: Trainer):
    """Ctrl-C and SIGTERM ask the trainer to stop after this step, all processes at the same one; twice means now.

    On Windows a Ctrl-Break does too, which is what `fl.launch` sends there.
    """
    def ask(number, frame):
        if trainer.stop_asked:
            raise KeyboardInterrupt
        trainer.stop_asked = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    old = {number: signal.signal(number, ask) for name in names if (number := getattr(signal, name, None)) is not None}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def peers(trainer: Trainer):
    """A process that is gone shows as an error of whatever was being sent: say so in one sentence."""
    try:
        yield
    except RuntimeError as error:
        if trainer.world.size == 1 or not re.search(r"(?i)gloo|nccl|connection|peer|timed? ?out", str(error)):
            raise
        raise ConnectionError(f"process {trainer.world.rank} of {trainer.world.size} lost another one after step "
                              f"{trainer.done}: start all of them again with --resume ({error}).") from error
