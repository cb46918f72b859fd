"""A streamed cache gives what the folder gives, fetches and keeps what its lanes need, and says what failed."""

import shutil
from contextlib import closing

import fsspec
import numpy as np
import pytest
import torch
from caches import small_cache

from fluidlab.data import streaming
from fluidlab.data.token_cache import TokenCache, cache_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_cache(tmp_path_factory.mktemp("stream") / "cache", num_images=70)


@pytest.fixture
def memory(folder):
    """The cache in fsspec's file system in memory."""
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/stored", recursive=True)
    yield files
    files.rm("/stored", recursive=True)


@pytest.fixture
def fetched(monkeypatch):
    """Names of all fetched files, and how many shards lay on disk beside each."""
    names, fetch = [], streaming.fetch

    def noted(files, remote, local, url):
        names.append((local.name, len(list(local.parent.glob("*.arrow")))))
        return fetch(files, remote, local, url)
    monkeypatch.setattr(streaming, "fetch", noted)
    return names


@pytest.fixture
def no_waiting(monkeypatch):
    waits = []
    monkeypatch.setattr(streaming.time, "sleep", waits.append)
    return waits


def same(one, other):
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["vae", "vq"])
@pytest.mark.parametrize("scheme", ["memory", "file", "folder"])
def test_a_stream_gives_what_the_folder_gives(folder, memory, name, scheme):
    url = {"memory": "memory://stored", "file": f"file://{folder}/", "folder": folder}[scheme]
    stream, mapped = TokenCache(url, name, stream=True, window=2), TokenCache(folder, name, window=2)
    assert len(stream) == 70 and stream.facts() == mapped.facts() and stream.fingerprints() == mapped.fingerprints()
    assert stream.model_facts() == mapped.model_facts()
    for step in (0, 1, 2, 3, 4, 11, 2):                                          # 3 and 4 lie over an epoch's end
        assert same(stream.batch(step, 20, seed=5), mapped.batch(step, 20, seed=5))
    assert same(stream.gather([69, 0, 30]), mapped.gather([69, 0, 30]))
    stream.close()


def test_each_shard_is_fetched_once_an_epoch_and_the_window_alone_is_kept(memory, fetched):
    stream = TokenCache("memory://stored", "vq", stream=True, window=2)
    fetched.clear()
    seen = torch.cat([stream.batch(step, 7, seed=1)[0][:, 0] for step in range(10)])
    assert sorted(seen.tolist()) == list(range(70))
    names = [name for name, _ in fetched]
    assert set(names) == {f"{k:05d}.arrow" for k in range(6)} and len(names) <= 6 + 1, "one twice, where lanes meet"
    assert max(beside for _, beside in fetched) == 1, "a second shard may lie beside the one that comes"
    scratch = stream._shards.folder
    assert len(list(scratch.rglob("*.arrow"))) == 2
    stream.close()
    assert not scratch.exists()


def test_it_resumes_in_the_middle_of_an_epoch_with_what_its_lanes_need_alone(memory, fetched):
    first = TokenCache("memory://stored", "vq", stream=True, window=2)
    whole = [first.batch(step, 10, seed=2) for step in range(14)]
    again = TokenCache("memory://stored", "vq", stream=True, window=2)
    fetched.clear()
    assert same(again.batch(9, 10, seed=2), whole[9])
    assert 1 <= len(fetched) <= 4                                                # of two lanes, each in one or in two
    assert all(same(again.batch(step, 10, seed=2), whole[step]) for step in range(10, 14))


def settled(stream):
    """Wait until all that is fetched ahead has come, or failed."""
    for shard in list(stream._shards._kept.values()):
        shard.exception()


@pytest.fixture
def even(folder, memory):
    """A cache of 8 full shards, so that each of 2 or 4 lanes has whole ones; in a folder and in memory."""
    even = small_cache(folder.parent / "even", num_images=96)
    memory.put(str(even), "/stored/even", recursive=True)
    return even, "memory://stored/even"


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("parts", [[range(8)], [range(0, 4), range(4, 8)], [range(0, 6), range(6, 8)]],
                         ids=["whole", "micro-batches", "across lanes"])
def test_the_next_shards_come_before_they_are_needed_and_none_twice(even, fetched, ahead, parts):
    folder, url = even
    stream, mapped = TokenCache(url, "vq", stream=True, window=2, ahead=ahead), TokenCache(folder, "vq", window=2)
    fetched.clear()
    late, before = [], 0
    for step in range(36):                                                       # three epochs of twelve
        needed = {int(k) for k in mapped._homes(mapped.batch(step, 8, seed=2)[0][:, 0].numpy())}
        late.append(len(needed - set(stream._shards._kept)))
        for rows in parts:
            assert same(stream.batch(step, 8, 2, rows), mapped.batch(step, 8, 2, rows))
            settled(stream)
            on_disk = {int(p.stem) for p in stream._shards.folder.rglob("*.arrow")}
            assert on_disk == set(stream._shards._kept) and len(on_disk) <= 2 + ahead
            before = max(before, len(on_disk))
    assert late[0] == 2 and before == 2 + ahead
    assert set(late[1:]) == {0, 2 - ahead}, "both lanes change their shards in the same step"
    assert len(fetched) <= 3 * 8 + ahead, "a shard was fetched again"


@pytest.mark.parametrize("ahead", [0, 4])
def test_a_process_of_four_fetches_its_own_quarter(even, fetched, ahead):
    """And 1, 2 and 4 processes that stream see the batches of one that reads a folder."""
    folder, url = even
    whole = [TokenCache(folder, "vq", window=4).batch(step, 8, seed=3) for step in range(12)]          # one epoch
    for size in (1, 2, 4):
        parts, counts, share = [], [], 8 // size
        for rank in range(size):
            rows, lanes = range(rank * share, (rank + 1) * share), 4 // size     # with two shards an epoch each
            with closing(TokenCache(url, "vq", stream=True, window=4, ahead=ahead)) as stream:
                fetched.clear()
                parts.append([])
                for step in range(12):
                    parts[-1].append(stream.batch(step, 8, 3, rows))
                    assert len(stream._shards._kept) <= lanes + min(ahead, lanes)
                settled(stream)
                counts.append({name for name, _ in fetched})
                assert len(fetched) <= 2 * lanes + min(ahead, lanes), "of the next epoch, if at all"
        for step, batch in enumerate(whole):
            assert same(batch, [torch.cat(columns) for columns in zip(*(part[step] for part in parts), strict=True)])
        assert set.union(*counts) == {f"{k:05d}.arrow" for k in range(8)}
        assert ahead or sum(map(len, counts)) == 8, "no shard came to two processes"


def test_a_failure_ahead_reaches_who_needs_the_shard(even, memory, no_waiting):
    folder, url = even
    stream, mapped = TokenCache(url, "vq", stream=True, window=2, ahead=2), TokenCache(folder, "vq", window=2)
    shuffle, places = stream._shuffle, np.arange(8)
    broken = shuffle.shards_around(2, places + 3 * 8, 8)[1][1]                   # of lane 1, the third it reads
    name = f"/stored/even/shards/{broken:05d}.arrow"
    content = memory.cat_file(name)
    memory.rm(name)
    with pytest.raises(ValueError, match=f"memory:/{name} could not be read"):
        for step in range(9):
            assert same(stream.batch(step, 8, seed=2), mapped.batch(step, 8, seed=2))
    assert step == 6
    memory.pipe_file(name, content)
    assert same(stream.batch(step, 8, seed=2), mapped.batch(step, 8, seed=2))
    threads = list(stream._shards._threads._threads)
    stream.close()
    assert threads and not any(t.is_alive() for t in threads)


def test_ahead_is_for_streams_and_no_more_than_a_window(folder):
    with pytest.raises(ValueError, match="ahead must be a whole number from 0 to 2, got 3"):
        TokenCache(folder, "vq", stream=True, window=2, ahead=3)


def test_views_outlive_their_shard(memory):
    stream = TokenCache("memory://stored", "vq", stream=True, window=1)
    tokens, _ = stream[3]
    stream.gather([20, 40, 60])
    assert tokens.tolist() == [3] * 16


def test_the_tokenizer_of_a_kind_is_found_at_an_address(memory):
    assert cache_tokenizer("memory://stored", "discrete") == "vq"


def test_a_failing_connection_is_tried_again_and_then_named(memory, monkeypatch, no_waiting):
    stream = TokenCache("memory://stored", "vq", stream=True, window=2)
    get_file, failures = type(memory).get_file, [3]

    def fails(self, *args, **options):
        if failures[0]:
            failures[0] -= 1
            raise ConnectionResetError("reset by peer")
        return get_file(self, *args, **options)
    monkeypatch.setattr(type(memory), "get_file", fails)
    assert stream.gather([5])[0][0, 0] == 5 and no_waiting == [1, 2, 4]
    failures[0] = 4
    with pytest.raises(ValueError, match=r"memory://stored/shards/00001.arrow could not be read in 4 tries "
                                         r"\(ConnectionResetError: reset by peer\); check the address, the network"):
        stream.gather([13])
    assert stream.gather([13])[0][0, 0] == 13, "a later try works again"


def test_what_is_not_there_is_named_at_once(memory, no_waiting):
    with pytest.raises(ValueError, match="memory://elsewhere/manifest.json could not be read .FileNotFoundError"):
        TokenCache("memory://elsewhere", "vq", stream=True)
    stream = TokenCache("memory://stored", "vq", stream=True)
    memory.rm("/stored/shards/00002.arrow")
    with pytest.raises(ValueError, match="memory://stored/shards/00002.arrow could not be read .FileNotFoundError"):
        stream.gather([30])
    assert no_waiting == []
    memory.pipe("/stored/portal/manifest.json", b"<html>Please log in")
    with pytest.raises(ValueError, match="memory://stored/portal/manifest.json is no JSON .*; check the address, the"):
        TokenCache("memory://stored/portal", "vq", stream=True)
    with pytest.raises(ValueError, match="nothing://x cannot be reached .*install what the protocol needs or copy"):
        TokenCache("nothing://x", "vq", stream=True)
    with pytest.raises(ValueError, match="memory://stored is an address, which is read with stream=True"):
        TokenCache("memory://stored", "vq")


@pytest.mark.parametrize("spoil", ["truncated", "turned bit", "swapped"])
def test_a_spoiled_shard_is_refused_when_it_comes(memory, spoil):
    stream = TokenCache("memory://stored", "vq", stream=True)
    content = bytearray(memory.cat_file("/stored/shards/00001.arrow"))
    if spoil == "turned bit":
        content[-200] ^= 1
    changed = {"truncated": content[:-50], "turned bit": content,
               "swapped": memory.cat_file("/stored/shards/00002.arrow")}[spoil]
    memory.pipe_file("/stored/shards/00001.arrow", bytes(changed))
    with pytest.raises(ValueError, match=r"shards/00001.arrow is not what its manifest says: \d+ bytes with SHA-256"):
        stream.gather([13])
    assert stream.gather([5])[0][0, 0] == 5


def test_a_window_on_a_folder_that_is_cut_short_is_refused_too(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "shards" / "00001.arrow").write_bytes(b"")
    assert TokenCache(copy, "vq", stream=True).gather([1])[0][0, 0] == 1          # a stream looks when it fetches
    with pytest.raises(ValueError, match="00001.arrow has 0 bytes"):
        TokenCache(copy, "vq", window=2)


def test_the_hub_says_what_is_wrong_in_the_sentence_of_all_its_failures(no_waiting):
    """Nothing is simulated here: huggingface_hub itself refuses to go online, so a second try would be in vain."""
    with pytest.raises(ValueError, match=r"The token cache 'hf://datasets/ada/tokens@v1/run/manifest.json' cannot be "
                                         r"loaded, because HF_HUB_OFFLINE forbids .* `hf download --repo-type dataset "
                                         r"ada/tokens --revision v1`"):
        TokenCache("hf://datasets/ada/tokens@v1/run", "vq", stream=True)
    assert no_waiting == []
