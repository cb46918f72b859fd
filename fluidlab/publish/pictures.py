"""Pictures as people have them (PIL, numpy) and as tokenizers want them, there and back."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

KINDS = ("pil", "pt", "np")


def to_pixels(image: Tensor | Image.Image) -> Tensor:
    """One picture, PIL or (3, H, W) float in [-1, 1], as (1, 3, H, W)."""
    if isinstance(image, Image.Image):
        image = _bytes(image.convert("RGB")).permute(2, 0, 1).float() / 127.5 - 1
    if not isinstance(image, Tensor) or image.ndim != 3:
        raise ValueError(f"the picture must be a PIL picture or a tensor (3, H, W), got {_named(image)}.")
    return image[None]


def to_mask(mask: Tensor | Image.Image) -> Tensor:
    """(H, W) bool as it is, or a PIL picture: True where it is lighter than middle grey."""
    mask = _bytes(mask.convert("L")) > 127 if isinstance(mask, Image.Image) else mask
    if not isinstance(mask, Tensor):
        raise ValueError(f"the mask must be a PIL picture or a bool tensor (H, W), got {_named(mask)}.")
    return mask


def from_pixels(pixels: Tensor, kind: str = "pil"):
    """(B, 3, H, W) in [-1, 1] as PIL pictures; or in [0, 1], "pt" (B, 3, H, W) or "np" (B, H, W, 3)."""
    unit = (pixels.clamp(-1, 1) + 1) / 2
    if kind == "pt":
        return unit
    if kind == "np":
        return unit.permute(0, 2, 3, 1).cpu().numpy()
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return [Image.fromarray(array) for array in levels.cpu().numpy()]


def _named(value) -> str:
    return f"{type(value).__name__} {tuple(getattr(value, 'shape', ()))}"


def _bytes(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture))


def decode_known(tokenizer, tokens: Tensor, blank: Tensor, grid: tuple[int, int]) -> Tensor:
    """Pictures (B, 3, H, W) of tokens on a grid; those still equal to `blank` become grey squares."""
    rows, columns = grid
    unknown = (tokens == blank).reshape(*tokens.shape[:2], -1).all(dim=2)               # (B, N)
    if not unknown.any():
        return tokenizer.decode(tokens, grid)
    patch = tokenizer.patch_size
    grey = tokenizer.encode(torch.zeros(1, 3, rows * patch, columns * patch, device=tokens.device))
    chosen = unknown.view(*unknown.shape, *[1] * (tokens.ndim - 2))
    pixels = tokenizer.decode(torch.where(chosen, grey, tokens), grid)
    squares = unknown.view(-1, 1, rows, columns).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return pixels.masked_fill(squares, 0.0)
