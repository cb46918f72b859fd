"""Small models and batches that many tests share. Nothing here is random beyond a seed."""

import itertools

import torch

from fluidlab.model.fluid import Fluid
from fluidlab.model.heads import HEADS
from fluidlab.model.orders import ORDERS
from fluidlab.presets import preset

VARIANTS = list(itertools.product(ORDERS, HEADS))
V = 64


def variant(order: str, head: str, **changes) -> Fluid:
    """A nano model that is awake: a zero-initialised output would hide every leak and every cache error."""
    torch.manual_seed(0)
    model = Fluid(preset("nano", order=order, head=head, **{"codebook_size": V, **changes}))
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1 and p.std() < 0.05:
                p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def batch(model: Fluid, B: int = 4, S: int = 6, seed: int = 0):
    """Tokens of the model's kind, features and a mask with padding in every row but the first."""
    g, c = torch.Generator().manual_seed(seed), model.config
    if model.head.token_kind == "discrete":
        tokens = torch.randint(0, c.codebook_size, (B, c.seq_len), generator=g)
    else:
        tokens = torch.randn(B, c.seq_len, c.token_dim, generator=g)
    features = torch.randn(B, S, c.text_dim, generator=g)
    mask = torch.arange(S) < torch.tensor([S] + [1 + i % (S - 1) for i in range(1, B)])[:, None]
    return tokens, features, mask


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
