"""Both orders: every row once an epoch, no state, and lanes of which a process needs its own alone."""

import numpy as np
import pytest

from fluidlab.data.shuffle import FullShuffle, WindowShuffle

SIZES = [12, 12, 12, 12, 12, 12, 5]
TOTAL = sum(SIZES)
# sizes of the shards, window, batch size: they divide nothing, or there are more than there is to share
UNEVEN = [(SIZES, 3, 10), ([8] * 5 + [3], 3, 7), ([5, 5, 5, 2], 2, 4), ([10], 4, 3), ([4] * 10, 4, 64),
          ([3] * 20, 16, 5), ([1] * 7, 7, 1)]


def orders():
    return {"full": FullShuffle(TOTAL), "window": WindowShuffle(SIZES, 3), "one": WindowShuffle(SIZES, 1),
            "wider than all": WindowShuffle(SIZES, 50)}


@pytest.mark.parametrize("sizes, window, batch_size", UNEVEN)
def test_every_row_comes_once_an_epoch_and_no_place_needs_another(sizes, window, batch_size):
    for order in (WindowShuffle(sizes, window), FullShuffle(sum(sizes))):
        for epoch in range(4):
            places = np.arange(epoch * order.num_rows, (epoch + 1) * order.num_rows)
            rows = order(3, places, batch_size)
            assert sorted(rows) == list(range(order.num_rows))
            backwards = [order(3, places[i:i + 1], batch_size)[0] for i in reversed(range(len(places)))]
            assert backwards[::-1] == rows.tolist()


@pytest.mark.parametrize("name", orders())
def test_no_two_epochs_or_seeds_are_alike(name):
    shuffle, places = orders()[name], np.arange(TOTAL)
    seen = [shuffle(seed, places + epoch * TOTAL, 10) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({rows.tobytes() for rows in seen}) == 6


@pytest.mark.parametrize("name", orders())
def test_any_place_can_be_asked_for_first_and_in_any_order(name):
    whole = orders()[name](4, np.arange(5 * TOTAL), 10)
    used = orders()[name]
    for places in ([3 * TOTAL - 1], [240, 3, 76, 3], list(range(30, 250)), [0]):
        used(9, np.array([9 * TOTAL]), 10)                              # another epoch between: nothing is confused
        assert used(4, np.array(places), 10).tolist() == whole[places].tolist()
        assert orders()[name](4, np.array(places), 10).tolist() == whole[places].tolist()


def test_what_a_batch_is_follows_from_its_size_too():
    """So a run cannot go on with another; the full order's rows come as they come, whatever the batches."""
    places = np.arange(TOTAL)
    one, other = (WindowShuffle(SIZES, 3)(0, places, batch_size) for batch_size in (10, 20))
    assert (one != other).any()
    assert (FullShuffle(TOTAL)(0, places, 10) == FullShuffle(TOTAL)(0, places, 20)).all()


def test_a_batch_mixes_the_shards_of_a_window_in_no_order():
    order = WindowShuffle([1000] * 64, 8)
    rows = order(0, 30 * 128 + np.arange(128), 128)
    count = np.bincount(rows // 1000, minlength=64)
    assert sorted(count[count > 0]) == [16] * 8
    assert (np.diff(rows.reshape(8, 16)) > 0).mean() < 0.75             # by chance half; 0.75 of 120 is 5 deviations


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_a_process_needs_the_shards_of_its_own_lanes_alone(processes):
    order, batch_size, needed = WindowShuffle([1000] * 64, 8), 128, []
    for rank in range(processes):
        rows = np.arange(rank * batch_size // processes, (rank + 1) * batch_size // processes)
        places = (np.arange(500)[:, None] * batch_size + rows).ravel()  # 500 steps are one epoch
        needed.append(set((order(0, places, batch_size) // 1000).tolist()))
    assert [len(shards) for shards in needed] == [64 // processes] * processes
    assert set.union(*needed) == set(range(64))


@pytest.mark.parametrize("sizes, window, batch_size", [UNEVEN[0], ([40] * 9 + [17], 4, 16), ([30] * 8, 2, 12)])
def test_the_next_shard_of_a_lane_is_foretold(sizes, window, batch_size):
    """Of each lane, in every batch of five epochs: the shard it stands in, the one it reads next, and when."""
    order = WindowShuffle(sizes, window)
    shard_of, steps = np.repeat(np.arange(len(sizes)), sizes), range(5 * sum(sizes) // batch_size)
    edges = np.arange(window + 1) * batch_size // window
    read = [shard_of[order(5, step * batch_size + np.arange(batch_size), batch_size)] for step in steps]
    checked = 0
    for step in steps:
        around = order.shards_around(5, step * batch_size + np.arange(batch_size), batch_size)
        assert sorted(around) == list(range(window))
        for lane, (now, following, batches) in around.items():
            mine = [batch[edges[lane]:edges[lane + 1]] for batch in read[step:]]
            assert mine[0][-1] == now
            if batches < len(mine) and following != now:
                assert all(set(rows) == {now} for rows in mine[1:batches]) and following in mine[batches]
                checked += 1
    assert checked > 3 * len(steps) / 2


def test_a_billion_rows_take_no_memory_of_that_size():
    order = WindowShuffle([8192] * 122_071, 64)
    assert order.num_rows > 1_000_000_000
    rows = order(0, 300_000 * 2048 + np.arange(1024, 1280), 2048)
    assert len(set(rows.tolist())) == 256 and order._mixed.cache_info().currsize == 8
