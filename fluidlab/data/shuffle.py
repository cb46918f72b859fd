"""Which row stands at which place of an endless training: epoch behind epoch, each in an order of its own.

Nothing here knows what a row is. Notice that no state is kept: the row at place p follows from (seed, p) alone, and the
batch size where rows are dealt, so a run resumes in the middle of an epoch by asking for the next place.
"""

import functools

import numpy as np
import torch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def _by_epoch(places: np.ndarray, num_rows: int):
    """Each epoch that places (P,) fall into, and which do (P,)."""
    epochs = places // num_rows
    for epoch in np.unique(epochs).tolist():
        yield epoch, epochs == epoch


class FullShuffle:
    """Every epoch is a permutation of all rows: the best mixing, for rows that can be read anywhere at once."""

    def __init__(self, num_rows: int):
        self.num_rows = num_rows
        self._order = functools.lru_cache(2)(self._permutation)

    def __call__(self, seed: int, places: np.ndarray, batch_size: int) -> np.ndarray:
        """Row numbers at places (P,) of the training; batches of any size go through the same order."""
        rows = np.empty_like(places)
        for epoch, here in _by_epoch(places, self.num_rows):
            rows[here] = self._order(seed, epoch)[places[here] - epoch * self.num_rows]
        return rows

    def _permutation(self, seed: int, epoch: int) -> np.ndarray:
        return torch.randperm(self.num_rows, generator=epoch_generator(seed, epoch)).numpy()


class WindowShuffle:
    """Every epoch permutes the shards and the rows in each, and deals the long row that they form to `window` lanes.

    Lane l fills the l-th part of every batch from the l-th part of the long row, shard by shard. So a batch mixes the
    rows of `window` shards; a shard is needed in one stretch of an epoch, or in two where lanes meet; every row comes
    once an epoch; and a process that computes a part of each batch needs the shards of its own lanes alone.

    Args:
        sizes: rows of each shard.
        window: shards whose rows are mixed; all of them if there are fewer.
    """

    def __init__(self, sizes, window: int):
        self.sizes = np.asarray(sizes, np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.sizes)])                          # (shards + 1,)
        self.num_rows, self.lanes = int(self.first[-1]), min(window, len(self.sizes))
        self._plan = functools.lru_cache(3)(self._permuted_shards)                     # a batch can touch three epochs
        self._mixed = functools.lru_cache(2 * self.lanes + 2)(self._permuted_rows)

    def __call__(self, seed: int, places: np.ndarray, batch_size: int) -> np.ndarray:
        """Row numbers at places (P,) of the training."""
        rows = np.empty_like(places)
        for epoch, here in _by_epoch(places, self.num_rows):
            _, at = self._dealt(epoch, places[here], batch_size)
            order, ends, seeds = self._plan(seed, epoch)
            which = np.searchsorted(ends, at, side="right")
            for w in np.unique(which).tolist():
                of_it, size = which == w, int(self.sizes[order[w]])
                at[of_it] = self.first[order[w]] + self._mixed(seeds[w], size)[at[of_it] - ends[w] + size]
            rows[here] = at
        return rows

    def shards_around(self, seed: int, places: np.ndarray, batch_size: int) -> dict[int, tuple[int, int, int]]:
        """Where the lanes of places (P,) stand behind them: lane -> its shard, its next one, the batches until then."""
        found = {}
        for epoch, here in _by_epoch(places, self.num_rows):
            lane, at = self._dealt(epoch, places[here], batch_size)
            order, ends, _ = self._plan(seed, epoch)
            begins, speed = self._parts(epoch, batch_size)[0], np.diff(self._edges(batch_size))
            for k, place in dict(zip(lane.tolist(), at.tolist(), strict=True)).items():    # the last of each lane
                w = np.searchsorted(ends, place, side="right")
                end = min(ends[w], begins[k + 1])
                following = order[w + 1] if ends[w] < begins[k + 1] else self._first_shard(seed, epoch + 1, k,
                                                                                           batch_size)
                found[k] = int(order[w]), int(following), int((end - place - 1) // speed[k] + 1)
        return found

    def _first_shard(self, seed: int, epoch: int, lane: int, batch_size: int) -> int:
        order, ends, _ = self._plan(seed, epoch)
        begin = self._parts(epoch, batch_size)[0][lane]
        return order[min(np.searchsorted(ends, begin, side="right"), len(order) - 1)]      # a lane may have no rows

    def _dealt(self, epoch: int, places: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """The lane of places (P,) of an epoch, and where in the epoch's long row each stands (P,)."""
        begins, before = self._parts(epoch, batch_size)
        edges, (step, place) = self._edges(batch_size), np.divmod(places, batch_size)
        lane = ((place + 1) * self.lanes - 1) // batch_size
        return lane, begins[lane] - before[lane] + step * np.diff(edges)[lane] + place - edges[lane]

    def _parts(self, epoch: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each lane's part of an epoch's long row begins (L + 1,), and rows it gave in all epochs before (L,)."""
        edges = self._edges(batch_size)
        step, place = np.divmod(np.array([[epoch], [epoch + 1]]) * self.num_rows, batch_size)
        before, after = step * np.diff(edges) + np.clip(place - edges[:-1], 0, np.diff(edges))
        return np.concatenate([[0], np.cumsum(after - before)]), before

    def _edges(self, batch_size: int) -> np.ndarray:
        """Where in a batch each lane's part begins (L + 1,); of parts of almost one size."""
        return np.arange(self.lanes + 1) * batch_size // self.lanes

    def _permuted_shards(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """An epoch's shards in their order, where each ends in the long row, and a seed for the rows of each."""
        generator = epoch_generator(seed, epoch)
        order = torch.randperm(len(self.sizes), generator=generator).numpy()
        seeds = torch.randint(2 ** 62, (len(order),), generator=generator).tolist()
        return order, np.cumsum(self.sizes[order]), seeds

    def _permuted_rows(self, seed: int, num_rows: int) -> np.ndarray:
        return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed)).numpy()
