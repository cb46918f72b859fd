"""The most memory that a process and its children held at once, looked at four times a second."""

import threading

import psutil

SECONDS = 0.25


class PeakMemory:
    """A context; afterwards `gb` is the largest resident set that was seen, of a process and all below it.

    Args:
        process: () -> a process number, or None while there is none yet.
    """

    def __init__(self, process):
        self.process, self.gb = process, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(SECONDS):
            self.gb = max(self.gb, resident(self.process()) / 1e9)


def resident(number):
    """Bytes that a process and its children hold; 0 where there is none."""
    try:
        top = psutil.Process(number) if number else None
        return sum(p.memory_info().rss for p in [top, *top.children(recursive=True)]) if top else 0
    except psutil.Error:            # it ended while we looked
        return 0
