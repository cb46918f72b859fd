"""Editing, which random order gives for free: keep some tokens, forget the others, and sample only those.

A raster model can be asked too, and shows why order matters: it fills a hole from what stands above and to the left
and cannot look at what comes after it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fluidlab.model.fluid import Fluid
from fluidlab.sample.generate import generate


def token_mask(pixel_mask: Tensor, patch_size: int = 16, ring: int = 1) -> Tensor:
    """Which tokens must be drawn anew when these pixels may change.

    A decoder mixes neighbouring tokens, so the mask grows by `ring` tokens on every side; otherwise the old object
    shines through at the border.

    Args:
        pixel_mask: (H, W) bool, True = may change; H and W are multiples of `patch_size`.
        ring: tokens to grow by, 0 or more.

    Returns:
        (N,) bool over the token grid, row by row.
    """
    if pixel_mask.ndim != 2 or pixel_mask.dtype != torch.bool:
        raise ValueError(f"the mask must be bool of shape (H, W), got {pixel_mask.dtype} of shape "
                         f"{tuple(pixel_mask.shape)}.")
    if ring < 0:
        raise ValueError(f"ring must be at least 0, got {ring}.")
    H, W = pixel_mask.shape
    if H % patch_size or W % patch_size:
        raise ValueError(f"the mask's sides must be multiples of {patch_size} pixels, got {H}x{W}.")
    touched = F.max_pool2d(pixel_mask[None, None].float(), patch_size)                      # (1, 1, h, w)
    grown = F.max_pool2d(touched, 2 * ring + 1, stride=1, padding=ring)                     # (1, 1, h, w)
    return grown.flatten().bool()                                                           # (N,)


def inpaint(model: Fluid, tokens: Tensor, unknown: Tensor, features: Tensor, mask: Tensor, **options) -> Tensor:
    """Draw the unknown tokens anew and keep every other one exactly.

    Args:
        tokens: (B, N) or (B, N, C) of the pictures.  unknown: (N,) or (B, N) bool, True = draw anew.
        features, mask: of the text that describes the whole picture.  options: of `generate`.
    """
    unknown = unknown.expand(len(tokens), -1) if unknown.ndim == 1 else unknown
    return generate(model, features, mask, tokens=tokens, unknown=unknown, **options)


def paste(original: Tensor, edited: Tensor, pixel_mask: Tensor) -> Tensor:
    """(B, 3, H, W) images: edited where the (H, W) mask allows, original elsewhere, so that no other pixel changes."""
    return torch.where(pixel_mask, edited, original)
