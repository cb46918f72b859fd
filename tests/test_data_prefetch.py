"""Reading ahead changes when a batch is read, never what is in it."""

import threading

import pytest
import torch
from caches import small_cache

from fluidlab.data.prefetch import Prefetcher, throughput
from fluidlab.data.token_cache import TokenCache


class Data:
    """Remembers what it was asked for, and by which thread."""

    def __init__(self, fails=()):
        self.asked, self.fails, self.threads = [], fails, set()

    def __len__(self):
        return 100

    def batch(self, step, batch_size, seed=0, rows=None):
        self.threads.add(threading.current_thread().name)
        self.asked.append((step, rows))
        if step in self.fails:
            raise ValueError(f"step {step} cannot be read.")
        return torch.tensor([step, batch_size, seed]), torch.tensor([-1] if rows is None else [rows.start, rows.stop])


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("fluidlab-prefetch")]


def settled(ahead):
    """Wait until all that is read ahead is read."""
    for _, batch in list(ahead._ahead):
        batch.exception()


def test_batches_are_those_of_the_cache(tmp_path):
    cache = TokenCache(small_cache(tmp_path / "cache"), "vae", window=2)
    asked = [(0, None), (1, None), (2, None), (9, None), (3, None), (4, range(0, 5)), (4, range(5, 10)),
             (5, range(0, 5)), (5, range(5, 10)), (5, range(5, 10)), (0, None)]
    with Prefetcher(cache, depth=3) as ahead:
        assert len(ahead) == 50 and ahead.fingerprints() == cache.fingerprints() and ahead.text_dim == 3
        for seed in (0, 7):
            for step, rows in asked:
                got, wanted = ahead.batch(step, 10, seed, rows), cache.batch(step, 10, seed, rows)
                assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(got, wanted, strict=True))


def test_the_next_batches_are_read_before_they_are_asked_for():
    data = Data()
    with Prefetcher(data, depth=3) as ahead:
        for step in range(4):
            ahead.batch(step, 8)
            settled(ahead)
            assert data.asked == [(n, None) for n in range(step + 4)]
    assert all(name.startswith("fluidlab-prefetch") for name in data.threads) and len(data.threads) == 1


def test_micro_batches_are_foreseen_from_the_second_step_on():
    data, rows = Data(), [range(0, 2), range(2, 4), range(4, 6)]
    with Prefetcher(data, depth=2) as ahead:
        for part in rows:
            ahead.batch(0, 6, 0, part)
        settled(ahead)
        data.asked.clear()
        for step in range(1, 5):
            for part in rows:
                ahead.batch(step, 6, 0, part)
        settled(ahead)
        assert data.asked == [(step, part) for step in range(1, 6) for part in rows][2:14]


def test_an_exception_reaches_the_caller_who_asked_for_that_step():
    with Prefetcher(Data(fails=(2,)), depth=4) as ahead:
        assert ahead.batch(0, 8)[0][0] == 0 and ahead.batch(1, 8)[0][0] == 1
        for _ in range(2):
            with pytest.raises(ValueError, match="step 2 cannot be read"):
                ahead.batch(2, 8)
        assert ahead.batch(3, 8)[0][0] == 3


def test_closing_ends_the_thread_and_reads_nothing_more():
    data, begun, go = Data(), threading.Event(), threading.Event()
    batch = data.batch

    def slow(step, *rest):
        if step == 1:
            begun.set()
            assert go.wait(30)
        return batch(step, *rest)
    data.batch = slow
    ahead = Prefetcher(data, depth=4)
    ahead.batch(0, 8)
    assert begun.wait(30) and len(threads()) == 1
    forget = ahead._forget
    ahead._forget = lambda: (forget(), go.set())                                 # step 1 is still being read
    ahead.close()
    ahead.close()
    assert threads() == [] and data.asked == [(0, None), (1, None)]
    with pytest.raises(ValueError, match="this prefetcher is closed; make a new one"):
        ahead.batch(1, 8)


def test_an_error_in_the_training_ends_the_thread():
    with pytest.raises(RuntimeError), Prefetcher(Data()) as ahead:
        ahead.batch(0, 8)
        raise RuntimeError
    assert threads() == []


def test_pinned_memory_is_asked_for_where_there_is_cuda(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: t + 1000)          # no GPU is needed to see it called
    with Prefetcher(Data(), pin=True) as ahead:
        assert ahead.batch(0, 8)[0].tolist() == [1000, 1008, 1000]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with Prefetcher(Data()) as ahead:
        assert ahead.pin and ahead.batch(0, 8)[1].tolist() == [999]
    monkeypatch.undo()
    assert Prefetcher(Data(), pin=None).pin == torch.cuda.is_available()


def test_a_depth_of_none_is_refused():
    with pytest.raises(ValueError, match="depth must be a whole number at least 1, got 0"):
        Prefetcher(Data(), depth=0)


def test_throughput_reads_different_batches():
    data = Data()
    rates = throughput(data, 8, seconds=0.01)
    assert all(rate > 0 for rate in rates) and [step for step, _ in data.asked[:2]] == [0, 1]
