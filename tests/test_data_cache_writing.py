"""Writing a token cache: killed anywhere, by several at once, and never mixed."""

import json
import os
import shutil
import signal

import pytest
import torch
from caches import FakeText, FakeTokenizer, Source, ended, files, forked, small_cache, tokenizers

from fluidlab.data.token_cache import TokenCache, missing_shards, what_is_missing


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return small_cache(tmp_path_factory.mktemp("whole") / "cache")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "cache")


def count_events(monkeypatch, at, do):
    """Calls `do` before the event number `at` (from 1): an image batch asked for, a file flushed, linked or renamed."""
    seen = [0]

    def counted(function):
        def call(*args, **options):
            seen[0] += 1
            if seen[0] == at:
                do()
            return function(*args, **options)
        return call
    for name in ("fsync", "replace", "link"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(Source, "batch", counted(Source.batch))
    return seen


def test_killed_before_any_of_its_acts_it_goes_on_to_the_same_bytes(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        events = count_events(patch, 0, None)
        small_cache(tmp_path / "counted")
    assert events[0] > 30 and files(tmp_path / "counted") == files(whole)
    kept = set()
    for at in range(1, events[0] + 1):
        def killed(at=at):
            with monkeypatch.context() as patch:
                count_events(patch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
                small_cache(tmp_path / str(at))
        assert ended(forked(killed)) == -signal.SIGKILL
        with pytest.raises(ValueError, match="holds no token cache"):
            TokenCache(tmp_path / str(at), "vae")
        done = {p: p.stat().st_mtime_ns for p in (tmp_path / str(at)).glob("shards/*.arrow")
                if p.with_suffix(".json").exists()}
        kept.add(len(done))
        small_cache(tmp_path / str(at))
        assert files(tmp_path / str(at)) == files(whole), f"killed before act {at}"
        assert all(p.stat().st_mtime_ns == then for p, then in done.items()), "a finished shard was written again"
    assert kept == {0, 1, 2, 3, 4, 5}


def test_parts_written_at_once_are_the_cache_of_one_writer(whole, tmp_path):
    class Meets(Source):
        """Goes on only when the other process writes too."""

        def __init__(self, mine, other):
            self.mine, self.other, self.met = mine, other, False

        def batch(self, indices):
            if not self.met:
                os.write(self.other[1], b".")
                assert os.read(self.mine[0], 1) == b"."
                self.met = True
            return super().batch(indices)
    for name, parts in (("parts", ((0, 2), (1, 2))), ("same", ((0, 1), (0, 1)))):
        pipes = os.pipe(), os.pipe()
        pids = [forked(lambda i=i, part=part, of=of, pipes=pipes, name=name: small_cache(
            tmp_path / name, Meets(pipes[i], pipes[1 - i]), part=part, parts=of)) for i, (part, of) in enumerate(parts)]
        assert [ended(pid) for pid in pids] == [0, 0]
        assert files(tmp_path / name) == files(whole)


def test_a_writer_that_is_overtaken_before_any_of_its_acts_does_no_harm(whole, tmp_path, monkeypatch):
    """The other one finishes the cache and clears away the first one's unfinished file."""
    at, seen = 0, [1]
    while seen[0] > at:
        at += 1
        with monkeypatch.context() as patch:
            seen = count_events(patch, at, lambda at=at: small_cache(tmp_path / str(at)))
            small_cache(tmp_path / str(at))
        assert files(tmp_path / str(at)) == files(whole), f"overtaken before act {at}"
    assert at > 30


def test_what_is_missing_is_said_until_all_parts_are_there(whole, tmp_path):
    folder = tmp_path / "cache"
    with pytest.raises(ValueError, match="holds no token cache; `fluidlab cache` makes one"):
        missing_shards(folder)
    small_cache(folder, part=1, parts=3)
    assert missing_shards(folder) == [0, 2, 3] and what_is_missing(folder) == "3 of 5 shards are missing (0, 2, 3)"
    with pytest.raises(ValueError, match=r"no token cache that is complete: 3 of 5 shards are missing \(0, 2, 3\); "):
        TokenCache(folder, "vae")
    small_cache(folder, part=2, parts=3)
    small_cache(folder, part=0, parts=3)
    assert missing_shards(folder) == [] and files(folder) == files(whole)


def test_an_interrupted_writer_leaves_no_half_file(whole, tmp_path):
    class Stops(Source):
        def batch(self, indices):
            if 30 in indices:
                raise KeyboardInterrupt
            return super().batch(indices)
    with pytest.raises(KeyboardInterrupt):
        small_cache(tmp_path / "cache", Stops())
    assert not list((tmp_path / "cache").rglob("*.part")) and missing_shards(tmp_path / "cache") == [2, 3, 4]
    with pytest.raises(ValueError, match="holds a cache begun with shards of 12 images, got 10"):
        small_cache(tmp_path / "cache", shard_size=10)
    with pytest.raises(ValueError, match="holds another cache .50 images"):
        small_cache(tmp_path / "cache", num_images=60)
    assert files(small_cache(tmp_path / "cache")) == files(whole)


@pytest.mark.parametrize("change", [{"num_images": 60}, {"tokenizers": tokenizers(2.0)}, {"description": {"seed": 1}},
                                    {"text_encoder": FakeText("other")}, {"tokenizers": {"vae": tokenizers()["vae"]}}])
def test_another_making_is_refused_and_the_same_kept(folder, change):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    small_cache(folder)
    small_cache(folder, shard_size=7)                       # it is whole: how it was cut does not matter any more
    with pytest.raises(ValueError, match="holds another cache .50 images"):
        small_cache(folder, **change)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_description_that_json_changes_is_the_same_when_it_comes_again(tmp_path):
    for _ in range(2):
        small_cache(tmp_path / "cache", description={"sizes": (64, 32)})


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds thesis.tex and no token cache; name a new folder or an empty one"):
        small_cache(tmp_path)


def spoil_truncated(folder, other):
    path = folder / "shards" / "00001.arrow"
    path.write_bytes(path.read_bytes()[:-100])


def spoil_swapped(folder, other):
    one, two = (folder / "shards" / f"0000{k}.arrow" for k in (1, 2))
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


def spoil_foreign(folder, other):
    shutil.copy(other / "shards" / "00001.arrow", folder / "shards" / "00001.arrow")


def spoil_removed(folder, other):
    (folder / "shards" / "00001.arrow").unlink()


def spoil_garbage(folder, other):
    path = folder / "shards" / "00001.arrow"
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("spoil, sentence", [
    (spoil_truncated, r"00001.arrow has \d+ bytes, its manifest says \d+; `fluidlab cache` with the options"),
    (spoil_swapped, r"00001.arrow (is shard 2 with 12 rows, not shard 1 with 12|has \d+ bytes)"),
    (spoil_foreign, r"00001.arrow belongs to another cache \(\w{12}, not \w{12}\)"),
    (spoil_removed, "00001.arrow is missing; `fluidlab cache` with the options"),
    (spoil_garbage, "00001.arrow is no Arrow file of a token cache"),
])
def test_a_spoiled_shard_is_refused_and_written_again(whole, folder, tmp_path, spoil, sentence):
    other = small_cache(tmp_path / "other", tokenizers=tokenizers(2.0))
    spoil(folder, other)
    with pytest.raises(ValueError, match=sentence):
        TokenCache(folder, "vae")
    assert files(small_cache(folder)) == files(whole)
    assert len(TokenCache(folder, "vae")) == 50


def test_a_swap_of_equal_sizes_is_seen(folder):
    one, two = (folder / "shards" / f"0000{k}.arrow" for k in (1, 2))
    assert one.stat().st_size == two.stat().st_size         # else the size alone would have told
    spoil_swapped(folder, None)
    with pytest.raises(ValueError, match="00001.arrow is shard 2 with 12 rows, not shard 1 with 12"):
        TokenCache(folder, "vae")


def test_a_turned_bit_is_found_by_verify(folder):
    TokenCache(folder, "vae").verify()
    path = folder / "shards" / "00003.arrow"
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"00003.arrow has SHA-256 \w{12}, its manifest says \w{12}"):
        TokenCache(folder, "vae").verify()


def test_the_manifest_tells_rows_bytes_and_making(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert [s["rows"] for s in manifest["shards"]] == [12, 12, 12, 12, 2] and manifest["max_length"] == 4
    assert [s["bytes"] for s in manifest["shards"]] == [(whole / "shards" / f"{k:05d}.arrow").stat().st_size
                                                        for k in range(5)]
    assert manifest["text"] == {"dim": 3, "fingerprint": "text"} and set(manifest["tokenizers"]) == {"vae", "vq"}


def test_datasets_reads_a_shard(whole):
    from datasets import Dataset
    rows = Dataset.from_file(str(whole / "shards" / "00001.arrow"))
    assert len(rows) == 12 and rows[2]["vq"] == [14] * 16
    assert rows[2]["text"] == [[3.0] * 3] * 3, "text is kept without padding"


def test_what_float16_cannot_hold_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"the text features of 'word word word word ' are not finite in float16 "
                                         r"\(the largest is 8e\+04, allowed are up to 65504\)"):
        small_cache(tmp_path / "text", text_encoder=FakeText(factor=20_000.0))
    with pytest.raises(ValueError, match="the text features of 'word ' are not finite in float16 .the largest is nan"):
        small_cache(tmp_path / "nan", text_encoder=FakeText(factor=float("nan")))

    class Large(FakeTokenizer):
        def encode(self, images):
            return torch.where(super().encode(images) > 0.05, 1e6, 0.0)
    with pytest.raises(ValueError, match=r"the vae tokens of the image 'word word ' are not .*\(the largest is 1e"):
        small_cache(tmp_path / "tokens", tokenizers={"vae": Large("continuous")})
    assert missing_shards(tmp_path / "tokens") == [1, 2, 3, 4]


@pytest.mark.parametrize("wrong, sentence", [
    ({"shard_size": 0}, "shard_size must be a whole number at least 1, got 0"),
    ({"part": 2, "parts": 2}, "part must be a whole number from 0 to 1, got 2"),
    ({"parts": 0}, "parts must be a whole number at least 1, got 0"),
    ({"batch_size": 0}, "batch_size must be a whole number at least 1, got 0"),
])
def test_numbers_out_of_range_are_named(tmp_path, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_cache(tmp_path / "cache", **wrong)
    assert not (tmp_path / "cache").exists()
