"""Draws take turns: one at a time in the whole process, in a thread of their own, and the newest one wins.

    turns = Turns(work)
    turns.soon(0.15)        # work() runs in a thread when nothing newer was asked for during 0.15 s
    turns.now()             # work() has run, here, when this returns
    turns.stop()            # what waits is dropped, what runs is told

Jupyter hears of no button while its own thread draws, so a draw that can be cancelled must run in another one. No
thread can be stopped from outside; work that takes long asks `wanted()` between its parts, or hands it to a sampling
loop as `on_step`, and ends when the answer is False. What to notice: whoever comes second, a newer value or the cancel
button, makes the same thing happen: the number of the newest turn changes.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar

_one_at_a_time = threading.RLock()              # models, matplotlib and warnings are made for one thread
_asked: ContextVar[Callable[[], bool]] = ContextVar("asked", default=lambda: True)


def wanted(step=None) -> bool:
    """Is the answer of the work that runs here still wanted? Outside of any turn it is. Made to be an `on_step`."""
    return _asked.get()()


class Turns:
    """When a piece of work runs.

    Args:
        work: called without arguments.  timer: what waits, as `threading.Timer` does; a test gives its own.
    """

    def __init__(self, work: Callable[[], None], timer=threading.Timer):
        self._work, self._timer = work, timer
        self._newest, self._waiting, self.busy = 0, None, False

    def soon(self, delay: float) -> None:
        """Run the work in a thread after `delay` seconds, if nothing newer comes."""
        turn = self._next()
        self._waiting = self._timer(delay, self._take, [turn])
        self._waiting.daemon = True             # a kernel that ends does not wait for a picture
        self._waiting.start()

    def now(self) -> None:
        """Run the work in this thread; a running one ends first, unfinished."""
        self._take(self._next())

    def stop(self) -> bool:
        """Let nothing come of what waits or runs; says whether there was anything."""
        was_busy = self.busy
        self._next()
        self.busy = False
        return was_busy

    def _next(self) -> int:
        if self._waiting is not None:
            self._waiting.cancel()
        self._newest, self.busy = self._newest + 1, True
        return self._newest

    def _take(self, turn: int) -> None:
        with _one_at_a_time:
            if turn != self._newest:
                return
            before = _asked.set(lambda: turn == self._newest)
            try:
                self._work()
            finally:
                _asked.reset(before)
                if turn == self._newest:
                    self.busy = False


class Pace:
    """How long a draw takes, from the draws before it: seconds for one unit of each kind of work."""

    def __init__(self):
        self._rates: dict[str, float] = {}

    def note(self, kind: str, amount: float, seconds: float) -> None:
        """A draw of some amount of work took so long."""
        self._rates[kind] = seconds / amount

    def expect(self, kind: str, amount: float) -> float | None:
        """Seconds for that amount; of a kind that was never seen, as for the slowest; None before the first draw."""
        rate = self._rates.get(kind, max(self._rates.values(), default=None))
        return None if rate is None else rate * amount
