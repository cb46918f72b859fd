"""One visible table of sizes. A run states its size's name and only what differs from it.

nano is for tests, mini is what the course ships, femto to midi are the scaling study (maxi where there is more time),
and the paper's sizes are derived: the paper gives parameter counts and not widths or depths, so each row is the
arithmetic blocks x 16 d^2 + aligner 6 x 12 d^2 + head 34 d^2 solved for a round d. `tests/test_presets.py` counts every
one of them on the meta device.
"""

from fluidlab.config import ModelConfig, check_choice

TOY = dict(seq_len=16, text_dim=128, codebook_size=4096, token_dim=16)           # scenes at 64 pixels
PAPER = dict(seq_len=256, text_dim=4096, codebook_size=8192, token_dim=16)       # 256 pixels, T5-XXL

SIZES = {
    #           width        depth     num_heads     aligner_depth    head_depth
    "femto": dict(width=32,  depth=1,  num_heads=4,  aligner_depth=1, head_depth=2, **TOY),
    "pico":  dict(width=48,  depth=2,  num_heads=4,  aligner_depth=1, head_depth=2, **TOY),
    "nano":  dict(width=64,  depth=2,  num_heads=4,  aligner_depth=1, head_depth=2, **TOY),
    "micro": dict(width=128, depth=3,  num_heads=4,  aligner_depth=1, head_depth=3, **TOY),
    "mini":  dict(width=192, depth=4,  num_heads=4,  aligner_depth=1, head_depth=3, **TOY),
    "midi":  dict(width=256, depth=5,  num_heads=4,  aligner_depth=1, head_depth=3, **TOY),
    "maxi":  dict(width=320, depth=6,  num_heads=5,  aligner_depth=1, head_depth=3, **TOY),
    "150m":  dict(width=768, depth=9,  num_heads=12, aligner_depth=6, head_depth=6, **PAPER),
    "277m":  dict(width=768, depth=22, num_heads=12, aligner_depth=6, head_depth=6, **PAPER),
    "369m":  dict(width=1024, depth=15, num_heads=16, aligner_depth=6, head_depth=6, **PAPER),
    "665m":  dict(width=1152, depth=24, num_heads=18, aligner_depth=6, head_depth=6, **PAPER),
    "1.1b":  dict(width=1536, depth=22, num_heads=24, aligner_depth=6, head_depth=6, **PAPER),
    "3.1b":  dict(width=2304, depth=30, num_heads=36, aligner_depth=6, head_depth=6, **PAPER),
    "10.5b": dict(width=4096, depth=32, num_heads=64, aligner_depth=6, head_depth=6, **PAPER),
}


def preset(size: str, *, order: str = "random", head: str = "diffusion", **changes) -> ModelConfig:
    """The configuration of one of the four variants (and the flow head) at a size of the table.

    Args:
        size: a name of `SIZES`, "nano" to "10.5b".
        order: "raster" or "random".  head: "softmax", "diffusion" or "flow".
        changes: any field of `ModelConfig` that differs from the table.
    """
    check_choice("size", size, tuple(SIZES))
    return ModelConfig.from_dict({"order": order, "head": head, **SIZES[size], **changes})
