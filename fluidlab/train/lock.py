"""One run, one writer: a folder that is being trained into refuses a second training.

The lock is the operating system's, on a file that says who holds it. The system lets go of it when its process ends,
however it ends, so a lock file that a killed run left behind refuses nobody. Notice that the file stays: to remove a
file that others may be waiting for would let two of them in.
"""

import json
import os
import socket
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

LOCK = "run.lock"
BEHIND = 2 ** 30            # the byte that Windows locks: far behind what is written, or nobody could read that


class FolderLock:
    """The right to write into a folder, held by one process of all that can see it.

    Args:
        folder: an existing one.

    Attributes:
        holder: who holds it, in words, if it is not this process; else None.
    """

    def __init__(self, folder: Path):
        self.path, self.holder, self._file = Path(folder) / LOCK, None, None

    def take(self) -> bool:
        """Take the lock, or learn who holds it; False if another does.

        Raises:
            OSError: the folder cannot be written to.
        """
        file = open(self.path, "a+", encoding="utf-8")
        try:
            if not _lock(file):
                self.holder = _words(file)
                file.close()
                return False
        except OSError as error:                         # some network disks have no locks
            warnings.warn(f"{self.path} cannot be locked ({error}), so nothing refuses a second run here.",
                          stacklevel=2)
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
        file.flush()
        self._file = file
        return True

    def release(self) -> None:
        """Let go of it, if it was taken."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


@contextmanager
def only_run(world, run: Path):
    """Hold a run's folder for all processes of a world.

    Raises:
        ValueError: another training holds it.
    """
    import torch
    run.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(run)
    refused = torch.tensor([float(world.rank == 0 and not lock.take())], device=world.device)
    try:
        if world.read(world.sum(refused))[0]:
            raise ValueError(f"{run} is being trained into by {lock.holder or 'another training'}: wait for it, stop "
                             f"it, or name another folder.")
        yield
    finally:
        lock.release()


def _lock(file) -> bool:
    """Ask the system; False if another has it, OSError if the disk has no locks."""
    if sys.platform == "win32":
        import msvcrt
        file.seek(BEHIND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
    import fcntl
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _words(file) -> str:
    file.seek(0)
    try:
        found = json.loads(file.read())
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError, TypeError):            # it is being written just now
        return "another process"
