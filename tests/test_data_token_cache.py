import json

import numpy as np
import pytest
import torch
from torch import nn

from fluidlab.data.token_cache import TokenCache, cache_tokenizer, write_cache


class Source:
    def batch(self, indices):
        images = torch.stack([torch.full((3, 64, 64), i % 256, dtype=torch.uint8) for i in indices])
        return images, ["word " * (1 + i % 4) for i in indices]


class FakeTokenizer(nn.Module):
    """Tokens that tell which image they came from."""

    def __init__(self, kind, scale=1.0):
        super().__init__()
        self.kind, self.seq_len, self.token_dim, self.codebook_size = kind, 16, 2, 256
        self.weight = nn.Parameter(torch.tensor(scale))

    def encode(self, images):
        level = ((images[:, 0, 0, 0] + 1) * 127.5).round()
        if self.kind == "discrete":
            return level.long()[:, None].expand(-1, 16)
        return (level / 256)[:, None, None].expand(-1, 16, 2)


class FakeText:
    dim = 3

    def fingerprint(self):
        return "text"

    def __call__(self, prompts):
        lengths = [len(p.split()) for p in prompts]
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return torch.ones(len(prompts), max(lengths), 3) * torch.tensor(lengths)[:, None, None] * mask[..., None], mask


def tokenizers(scale=1.0):
    return {"vae": FakeTokenizer("continuous", scale), "vq": FakeTokenizer("discrete")}


@pytest.fixture
def folder(tmp_path):
    return write_cache(tmp_path / "cache", Source(), 50, tokenizers(), FakeText(), batch_size=16, progress=False)


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


def test_an_interrupted_cache_leaves_nothing_that_looks_whole(tmp_path):
    class Stops(Source):
        def batch(self, indices):
            if 16 in indices:
                raise KeyboardInterrupt
            return super().batch(indices)
    with pytest.raises(BaseException):  # noqa: B017 - datasets wraps it
        write_cache(tmp_path / "cache", Stops(), 50, tokenizers(), FakeText(), batch_size=16, progress=False)
    with pytest.raises(ValueError, match="holds no token cache"):
        TokenCache(tmp_path / "cache", "vae")
    write_cache(tmp_path / "cache", Source(), 50, tokenizers(), FakeText(), batch_size=16, progress=False)
    assert len(TokenCache(tmp_path / "cache", "vae")) == 50


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
