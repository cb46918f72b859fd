"""What both tokenizers promise about the images and tokens that cross their border, checked in one place.

A wrong image does not crash a convolution: bytes of 0..255, or floats of 0..1, encode to tokens that look like any
others and only the pictures come out wrong, hours later. So everything is refused here, at the door.
"""

import torch
from torch import Tensor, nn

from fluidlab.config import check_range, check_type
from fluidlab.tokenizer.patches import square_grid

PATCH_SIZE = 16  # pixels a token covers in each direction, in every tokenizer, so that token counts are equal


class Tokenizer(nn.Module):
    """What all tokenizers are besides: a part of a pipeline, which wants to know where a part is and how precise."""

    patch_size = PATCH_SIZE

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def check_images(images: Tensor) -> None:
    """Refuse what is not a batch (B, 3, H, W) of floats in [-1, 1] with H and W multiples of 16."""
    check_type("images", images, Tensor, "a tensor (B, 3, H, W)")
    if images.device.type == "meta":
        raise ValueError("Images are on the device meta, but must be on one whose tensors have numbers.")
    if not torch.is_floating_point(images):
        raise ValueError(f"Images are {images.dtype}, but must be floating point in [-1, 1], e.g. bytes / 127.5 - 1.")
    if images.ndim != 4:
        raise ValueError(f"Images have {images.ndim} dimensions, but must have 4: (B, 3, H, W).")
    B, C, H, W = images.shape
    if C != 3:
        raise ValueError(f"Images have {C} channels, but must have 3 (red, green, blue).")
    if B == 0 or H == 0 or W == 0 or H % PATCH_SIZE or W % PATCH_SIZE:
        raise ValueError(
            f"The batch is {B} images of {H}x{W} pixels, but must be at least 1, both sides multiples of {PATCH_SIZE}."
        )
    low, high = images.min().item(), images.max().item()
    if not (low >= -1.001 and high <= 1.001):  # written so that NaN fails too; 1e-3 is for resizing in bf16
        raise ValueError(f"Images range from {low:.3f} to {high:.3f}, but must lie in [-1, 1].")


def resolve_grid(num_tokens: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """The (rows, columns) to decode on: the given one if it fits `num_tokens`, else the square."""
    if grid is None:
        return square_grid(num_tokens)
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise ValueError(f"grid must be two numbers, rows and columns, got {grid!r}.")
    for name, side in zip(("rows", "columns"), grid, strict=True):
        check_range(f"{name} of the grid", side, 1, kind=int)
    rows, columns = grid
    if rows * columns != num_tokens:
        raise ValueError(f"There are {num_tokens} tokens, but a grid of {rows}x{columns} holds {rows * columns}.")
    return rows, columns


def image_grid(image_size: int) -> tuple[int, int]:
    """The token grid of a square image, or a refusal if the size is no multiple of 16."""
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1 or image_size % PATCH_SIZE:
        raise ValueError(f"The image size is {image_size!r}, but must be a positive multiple of {PATCH_SIZE} pixels.")
    return image_size // PATCH_SIZE, image_size // PATCH_SIZE


def check_tokens(tokens: Tensor, token_dim: int) -> None:
    """Refuse continuous tokens that are not (B, N, token_dim) finite floats, at least one."""
    check_type("tokens", tokens, Tensor, f"a tensor (B, N, {token_dim})")
    if tokens.ndim != 3 or tokens.shape[-1] != token_dim or not torch.is_floating_point(tokens):
        raise ValueError(
            f"Tokens are {tokens.dtype} of shape {tuple(tokens.shape)}, but must be floats (B, N, {token_dim})."
        )
    if not tokens.numel() or not torch.isfinite(tokens).all():
        raise ValueError(f"Tokens of shape {tuple(tokens.shape)} must be finite numbers, at least one token.")


def check_codes(codes: Tensor, codebook_size: int) -> None:
    """Refuse discrete tokens that are not (B, N) int64 in 0..codebook_size-1."""
    check_type("tokens", codes, Tensor, "a tensor (B, N)")
    if codes.ndim != 2 or codes.dtype != torch.long or not codes.numel():
        raise ValueError(f"Tokens are {codes.dtype} of shape {tuple(codes.shape)}, but must be int64 of shape (B, N).")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= codebook_size:
        raise ValueError(f"Tokens range from {low} to {high}, but must lie in 0..{codebook_size - 1}.")
