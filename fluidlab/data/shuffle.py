"""Which row stands at which place of an endless training: epoch behind epoch, each in an order of its own.

Nothing here knows what a row is. Notice that no state is kept: place p follows from (seed, p) alone, so a run resumes
in the middle of an epoch by asking for the next place.
"""

import numpy as np
import torch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


class FullShuffle:
    """Every epoch is a permutation of all rows: the best mixing, for rows that can be read anywhere at once."""

    def __init__(self, num_rows: int):
        self.num_rows, self._last = num_rows, (None, None)

    def __call__(self, seed: int, epoch: int, order: np.ndarray) -> np.ndarray:
        """Row numbers at places `order` (each 0 to num_rows - 1) of an epoch."""
        key, permutation = self._last
        if key != (seed, epoch):
            permutation = torch.randperm(self.num_rows, generator=epoch_generator(seed, epoch)).numpy()
            self._last = ((seed, epoch), permutation)
        return permutation[order]


class WindowShuffle:
    """Every epoch permutes the shards, and then the rows inside every `window` shards that stand together.

    For streams: only a window's shards are needed at any place, and each is needed in one stretch of an epoch.

    Args:
        sizes: rows of each shard.
        window: shards whose rows are mixed.
    """

    def __init__(self, sizes, window: int):
        self.sizes, self.window = np.asarray(sizes, np.int64), window
        self.first = np.concatenate([[0], np.cumsum(self.sizes)])                          # (shards + 1,)
        self.num_rows, self._epoch, self._rows = int(self.first[-1]), (None, None), {}

    def __call__(self, seed: int, epoch: int, order: np.ndarray) -> np.ndarray:
        """Row numbers at places `order` (each 0 to num_rows - 1) of an epoch."""
        windows, ends, seeds = self._plan(seed, epoch)
        which = np.searchsorted(ends, order, side="right")
        rows = np.empty_like(order)
        for w in np.unique(which):
            begin, here = (ends[w - 1] if w else 0), which == w
            rows[here] = self._mixed((seed, epoch, int(w)), windows[w], seeds[w])[order[here] - begin]
        return rows

    def shards_around(self, seed: int, epoch: int, place: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards of a place's window, and those of the next window, be it of the next epoch."""
        windows, ends, _ = self._plan(seed, epoch)
        now = int(np.searchsorted(ends, place, side="right"))
        following = windows[now + 1] if now + 1 < len(windows) else self._made_plan(seed, epoch + 1)[0][0]
        return windows[now], following

    def _plan(self, seed: int, epoch: int) -> tuple:
        """An epoch's windows of shards, the place behind each, and the seed of each; the last epoch is remembered."""
        key, plan = self._epoch
        if key != (seed, epoch):
            plan = self._made_plan(seed, epoch)
            self._epoch = ((seed, epoch), plan)
        return plan

    def _made_plan(self, seed: int, epoch: int) -> tuple:
        g = epoch_generator(seed, epoch)
        shards = torch.randperm(len(self.sizes), generator=g).numpy()
        windows = [shards[i:i + self.window] for i in range(0, len(shards), self.window)]
        ends = np.cumsum([self.sizes[w].sum() for w in windows])
        return windows, ends, torch.randint(2 ** 62, (len(windows),), generator=g).tolist()

    def _mixed(self, key: tuple, shards: np.ndarray, seed: int) -> np.ndarray:
        """The rows of a window's shards in their order; the last two windows are remembered."""
        rows = self._rows.get(key)
        if rows is None:
            rows = np.concatenate([np.arange(self.first[k], self.first[k + 1]) for k in shards])
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).numpy()]
            self._rows = {**dict(list(self._rows.items())[-1:]), key: rows}
        return rows
