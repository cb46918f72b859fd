"""Reading a token cache: what was written, in an order that follows from seed and step alone."""

import json
import re

import numpy as np
import pytest
import torch
from caches import FakeText, Source, small_cache, tokenizers

from fluidlab.data import token_cache
from fluidlab.data.token_cache import TokenCache, cache_tokenizer, write_cache


@pytest.fixture
def folder(tmp_path):
    return write_cache(tmp_path / "cache", Source(), 50, tokenizers(), FakeText(), batch_size=16, progress=False)


@pytest.fixture
def sharded(tmp_path):
    return small_cache(tmp_path / "sharded")


@pytest.fixture
def first_layout(tmp_path):
    """The same 50 images as the caches of the first layout were kept: one data set of `datasets`, text flat."""
    from datasets import Array2D, Dataset, Features, List, Value
    columns = {"length": Value("int16"), "text": List(Value("float16")), "vae": Array2D((16, 2), "float16"),
               "vq": List(Value("int32"), length=16)}
    cache = TokenCache(small_cache(tmp_path / "new"), "vae"), TokenCache(tmp_path / "new", "vq")
    rows = [{"length": len(cache[0][i][1]), "text": cache[0][i][1].reshape(-1), "vae": cache[0][i][0],
             "vq": cache[1][i][0]} for i in range(50)]
    table = {name: [row[name] for row in rows] for name in columns}
    Dataset.from_dict(table, features=Features(columns)).save_to_disk(str(tmp_path / "old" / "arrow"))
    manifest = {name: cache[0].manifest[name] for name in ("num_images", "tokenizers", "source", "text", "max_length")}
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "old"


def same(one, other):
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_what_was_written_is_read(folder):
    vae, vq = TokenCache(folder, "vae"), TokenCache(folder, "vq")
    assert len(vae) == len(vq) == 50 and vae.max_length == 4
    tokens, features, mask = vae.gather([49, 0, 6])
    assert tokens.shape == (3, 16, 2) and tokens.dtype == torch.float32
    assert torch.allclose(tokens[:, 0, 0], torch.tensor([49, 0, 6]) / 256, atol=1e-3)
    assert vq.gather([49, 0, 6])[0][:, 3].tolist() == [49, 0, 6]
    assert mask.sum(1).tolist() == [2, 1, 3] and features.shape == (3, 4, 3)
    assert torch.equal(features[..., 0], mask * torch.tensor([[2.0], [1.0], [3.0]]))
    assert vae.model_facts() == {"seq_len": 16, "text_dim": 3, "token_dim": 2}
    assert vq.model_facts() == {"seq_len": 16, "text_dim": 3, "codebook_size": 256}


def test_an_epoch_shows_every_image_once_and_any_step_can_be_read_first(folder):
    cache = TokenCache(folder, "vq")
    epoch = torch.cat([cache.batch(step, 10, seed=3)[0][:, 0] for step in range(5)])
    assert sorted(epoch.tolist()) == list(range(50))
    again = torch.cat([cache.batch(step, 10, seed=3)[0][:, 0] for step in range(5, 10)])
    assert sorted(again.tolist()) == list(range(50)) and not torch.equal(epoch, again)
    straddling = TokenCache(folder, "vq").batch(1, 30, seed=3)[0][:, 0]
    assert torch.equal(straddling, torch.cat([epoch[30:], again[:10]]))
    assert not torch.equal(cache.batch(0, 10, seed=4)[0], cache.batch(0, 10, seed=3)[0])


def test_a_cache_is_kept_if_it_is_the_same_and_refused_if_not(folder):
    before = (folder / "manifest.json").stat().st_mtime_ns
    write_cache(folder, Source(), 50, tokenizers(), FakeText(), progress=False)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    for changed in ((60, tokenizers()), (50, tokenizers(scale=2.0))):
        with pytest.raises(ValueError, match="holds another cache .50 images"):
            write_cache(folder, Source(), *changed, FakeText(), progress=False)


def test_the_wrong_tokenizer_and_index_are_named(folder):
    with pytest.raises(ValueError, match="this cache holds tokens of vae, vq, got 'sd'"):
        TokenCache(folder, "sd")
    with pytest.raises(IndexError, match="index must be from 0 to 49, got 50"):
        TokenCache(folder, "vae")[50]
    assert cache_tokenizer(folder, "discrete") == "vq"
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["tokenizers"]["vq"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="holds 0 discrete tokenizers of vae; name one"):
        cache_tokenizer(folder, "discrete")
    assert TokenCache(folder).tokenizer == "vae"


def test_rows_are_views_of_the_file(folder):
    tokens, text = TokenCache(folder, "vae")[3]
    assert tokens.dtype == np.float16 and not tokens.flags.owndata and text.shape == (4, 3)


def test_shards_make_no_difference(folder, sharded):
    for name in ("vae", "vq"):
        one, many = TokenCache(folder, name), TokenCache(sharded, name)
        assert len(one.manifest["shards"]) == 1 and len(many.manifest["shards"]) == 5
        for step in (0, 1, 7):
            assert same(one.batch(step, 16, seed=3), many.batch(step, 16, seed=3))
        assert same(one.gather([49, 0, 12, 11, 0]), many.gather(torch.tensor([49, 0, 12, 11, 0])))


def lists(kind, *sizes):
    """A pattern of Arrow's name for lists of fixed sizes, outermost first."""
    for size in reversed(sizes):
        kind = f"fixed_size_list<item: {kind}>[{size}]"
    return re.escape(kind)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name, claim, column, found, said", [
    ("vae", lambda m: m["tokenizers"]["vae"].update(token_dim=4), "vae", lists("halffloat", 16, 2),
     lists("halffloat", 16, 4)),
    ("vq", lambda m: m["tokenizers"]["vq"].update(seq_len=8), "vq", lists("int32", 16), lists("int32", 8)),
    ("vq", lambda m: m["text"].update(dim=6), "text", f".*{lists('halffloat', 3)}>", f".*{lists('halffloat', 6)}>"),
    ("sd", lambda m: m["tokenizers"].update(sd=m["tokenizers"]["vq"]), "sd", "None", lists("int32", 16))])
def test_columns_that_the_manifest_does_not_speak_of_are_refused(sharded, stream, name, claim, column, found, said):
    """The bytes, the rows and the cache are right; both types are named when the shard is opened."""
    manifest = json.loads((sharded / "manifest.json").read_text())
    claim(manifest)
    (sharded / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f"column {column} of shard .*00000.arrow is of type {found}, its manifest "
                                         f"says {said};"):
        TokenCache(sharded, name, stream=stream).gather([0])


@pytest.mark.parametrize("small", [1, 2 ** 13], ids=["parts", "whole"])
def test_texts_without_a_token_and_of_the_longest_length_come_padded(tmp_path, monkeypatch, small):
    """In both ways of padding; an empty text is one that a mask hides whole."""
    monkeypatch.setattr(token_cache, "SMALL", small)

    class Lengths(FakeText):
        def __call__(self, prompts):
            features, mask = super().__call__(prompts)
            return features, mask & (mask.sum(1, keepdim=True) != 2)
    cache = TokenCache(small_cache(tmp_path / "cache", text_encoder=Lengths()), "vq")
    tokens, features, mask = cache.gather([3, 1, 5, 0, 3])
    assert mask.sum(1).tolist() == [4, 0, 0, 1, 4]
    assert torch.equal(features[..., 2], mask * torch.tensor([4.0, 0, 0, 1, 4])[:, None])
    assert features.dtype == torch.float32 and tokens[:, 0].tolist() == [3, 1, 5, 0, 3]


def test_a_batch_is_what_its_rows_are_one_by_one(sharded):
    cache = TokenCache(sharded, "vae")
    tokens, features, mask = cache.gather(range(49, -1, -1))
    for place, index in enumerate(range(49, -1, -1)):
        row, text = cache[index]
        assert np.array_equal(tokens[place].half().numpy(), row) and mask[place].sum() == len(text)
        assert np.array_equal(features[place, :len(text)].half().numpy(), text)
        assert not features[place, len(text):].any()


@pytest.mark.parametrize("window", [None, 2])
def test_processes_read_slices_of_the_same_batch(sharded, window):
    cache = TokenCache(sharded, "vq", window=window)
    for step in (0, 2, 5):                                                       # 5 lies over the end of an epoch
        whole = cache.batch(step, 20, seed=1)
        for size in (1, 2, 4):
            share = 20 // size
            parts = [cache.batch(step, 20, 1, range(r * share, (r + 1) * share)) for r in range(size)]
            assert same(whole, [torch.cat(columns) for columns in zip(*parts, strict=True)])


def test_the_full_order_is_the_permutation_it_always_was(sharded):
    cache = TokenCache(sharded, "vq")
    for epoch in (0, 1):
        expected = torch.randperm(50, generator=torch.Generator().manual_seed(3 * 1_000_003 + epoch))
        seen = torch.cat([cache.batch(epoch * 5 + step, 10, seed=3)[0][:, 0] for step in range(5)])
        assert torch.equal(seen, expected)


def test_caches_of_the_first_layout_open(first_layout, sharded):
    for name in ("vae", "vq"):
        old, new = TokenCache(first_layout, name), TokenCache(sharded, name)
        assert len(old) == 50 and same(old.batch(1, 16, seed=2), new.batch(1, 16, seed=2))
        assert old.model_facts() == new.model_facts() and old.facts() == new.facts()
    before = sorted(first_layout.rglob("*"))
    small_cache(first_layout)                                                    # of the same making: it is kept
    assert sorted(first_layout.rglob("*")) == before
    with pytest.raises(ValueError, match="holds another cache"):
        small_cache(first_layout, num_images=60)
    with pytest.raises(ValueError, match="old is a cache of the layout without shards, which cannot be streamed"):
        TokenCache(first_layout, "vae", stream=True)


def test_a_thousand_shards_do_not_use_up_the_open_files(tmp_path):
    import resource
    folder = small_cache(tmp_path / "cache", shard_size=1, num_images=100)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, hard))
    try:
        assert len(TokenCache(folder, "vq").batch(0, 100)[0].unique()) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_windowed_order_is_part_of_what_a_resumed_run_must_find(sharded):
    assert TokenCache(sharded, "vq").facts() == {"images": 50, "source": {}}
    assert TokenCache(sharded, "vq", window=2).facts() == {"images": 50, "source": {}, "order": "lanes", "window": 2,
                                                           "shard_size": 12}
    with pytest.raises(ValueError, match="window must be a whole number at least 1, got 0"):
        TokenCache(sharded, "vq", window=0)
