"""2x2 packing: an eighth-resolution latent of C channels and a row of tokens of 4C channels are the same numbers.

A VAE that shrinks by 8 gives 32x32 latents for a 256-pixel image. Fluid packs every 2x2 block of them into one token,
so that its continuous tokens are as many as its discrete ones: one token, 16x16 pixels. Nothing is computed here,
numbers only change places, which is why the round trip is exact.
"""

import math

from torch import Tensor


def pack(latents: Tensor, patch: int = 2) -> Tensor:
    """Latents (B, C, h, w) to tokens (B, N, C*patch*patch) in raster order, N = (h/patch)(w/patch).

    The channels of a token run over (row in the patch, column in the patch, latent channel).
    """
    B, C, h, w = latents.shape
    if h % patch or w % patch:
        raise ValueError(f"The latent grid is {h}x{w}, but both sides must be multiples of {patch} to be packed.")
    x = latents.reshape(B, C, h // patch, patch, w // patch, patch)  # (B, C, h/p, p, w/p, p)
    x = x.permute(0, 2, 4, 3, 5, 1)                                  # (B, h/p, w/p, p, p, C)
    return x.reshape(B, (h // patch) * (w // patch), patch * patch * C)


def unpack(tokens: Tensor, grid: tuple[int, int], patch: int = 2) -> Tensor:
    """Tokens (B, N, C*patch*patch) on a `grid` of (rows, columns) back to latents (B, C, rows*patch, columns*patch)."""
    B, N, D = tokens.shape
    rows, columns = grid
    if rows * columns != N:
        raise ValueError(f"There are {N} tokens, but a grid of {rows}x{columns} holds {rows * columns}.")
    if D % patch**2:
        raise ValueError(f"A token has {D} channels, but that must be a multiple of {patch**2} to be unpacked.")
    x = tokens.reshape(B, rows, columns, patch, patch, D // patch**2)  # (B, h, w, p, p, C)
    x = x.permute(0, 5, 1, 3, 2, 4)                                    # (B, C, h, p, w, p)
    return x.reshape(B, D // patch**2, rows * patch, columns * patch)


def square_grid(num_tokens: int) -> tuple[int, int]:
    """The grid (side, side) of a square image, for a `decode` that was told no grid."""
    side = math.isqrt(num_tokens)
    if side * side != num_tokens:
        raise ValueError(
            f"{num_tokens} tokens do not fill a square (nearest: {side}x{side} = {side * side}): pass grid=."
        )
    return side, side
