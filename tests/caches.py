"""Small caches whose tokens tell which image they came from, and processes that are stopped while they write one."""

import os
import traceback

import torch
from torch import nn

from fluidlab.data.token_cache import write_cache


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

    def __init__(self, name="text", factor=1.0):
        self.name, self.factor = name, factor

    def fingerprint(self):
        return self.name

    def __call__(self, prompts):
        lengths = torch.tensor([len(p.split()) for p in prompts])
        mask = torch.arange(lengths.max()) < lengths[:, None]
        return self.factor * torch.ones(len(prompts), lengths.max(), 3) * lengths[:, None, None] * mask[..., None], mask


def tokenizers(scale=1.0):
    return {"vae": FakeTokenizer("continuous", scale), "vq": FakeTokenizer("discrete")}


def small_cache(folder, source=None, num_images=50, **options):
    """50 images in shards of 12, encoded 8 at a time: 5 shards, the last one of 2."""
    options = {"tokenizers": tokenizers(), "text_encoder": FakeText(), "batch_size": 8, "shard_size": 12, **options}
    return write_cache(folder, source or Source(), num_images, progress=False, **options)


def files(folder):
    """All files of a folder, by their names in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def forked(work) -> int:
    """Start `work()` in a forked process; returns its id, for `ended`."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """The exit status of a forked process: 0, an exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
