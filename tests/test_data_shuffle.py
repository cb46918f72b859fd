"""Both orders: every row once an epoch, no state, and a window that is a window."""

import numpy as np
import pytest

from fluidlab.data.shuffle import FullShuffle, WindowShuffle

SIZES = [12, 12, 12, 12, 12, 12, 5]
TOTAL = sum(SIZES)


def orders():
    return {"full": FullShuffle(TOTAL), "window": WindowShuffle(SIZES, 3), "one": WindowShuffle(SIZES, 1),
            "wider than all": WindowShuffle(SIZES, 50)}


@pytest.mark.parametrize("name", orders())
def test_every_row_comes_once_an_epoch_and_no_two_epochs_or_seeds_are_alike(name):
    shuffle, places = orders()[name], np.arange(TOTAL)
    seen = [shuffle(seed, epoch, places) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert all(sorted(rows) == list(range(TOTAL)) for rows in seen)
    assert len({rows.tobytes() for rows in seen}) == 6


@pytest.mark.parametrize("name", orders())
def test_any_place_can_be_asked_for_first_and_in_any_order(name):
    whole = orders()[name](4, 2, np.arange(TOTAL))
    used = orders()[name]
    for places in ([TOTAL - 1], [40, 3, 76, 3], list(range(30, 50)), [0]):
        used(9, 9, np.array([1]))                                       # another epoch between: nothing is confused
        assert used(4, 2, np.array(places)).tolist() == whole[places].tolist()
        assert orders()[name](4, 2, np.array(places)).tolist() == whole[places].tolist()


def test_a_window_holds_the_rows_of_few_shards_well_mixed():
    shard_of = np.repeat(np.arange(len(SIZES)), SIZES)
    shuffle = WindowShuffle(SIZES, 3)
    for epoch in range(3):
        rows = shuffle(0, epoch, np.arange(TOTAL))
        shards, windows, begin = shard_of[rows], [], 0
        while begin < TOTAL:
            here = list(dict.fromkeys(shards[begin:]))[:3]              # the next three shards that are met
            size = sum(SIZES[k] for k in here)
            assert set(shards[begin:begin + size]) == set(here)
            assert sorted(rows[begin:begin + size]) == [r for r in range(TOTAL) if shard_of[r] in here]
            windows.append(here)
            begin += size
        assert [len(w) for w in windows] == [3, 3, 1]
        changes = np.count_nonzero(np.diff(shards[:sum(SIZES[k] for k in windows[0])]))
        assert changes > 10, "shards behind one another are not mixed: 2 changes, mixed about 23"
