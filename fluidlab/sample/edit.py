"""Editing, which random order gives for free: keep some tokens, forget the others, and sample only those.

Three ways to choose what is forgotten: a hole (`inpaint`), a random share (`forget`), all that lies around the picture
(`outpaint`). In each of them a given token never changes. Positions are learned for one square grid, the canvas, so a
picture can only grow by moving the canvas over it, always half of it on what is known; the model never sees more than
that at once.

A raster model can be asked too, and shows why order matters: it fills a hole from what stands above and to the left
and cannot look at what comes after it. Growing to the right and downwards suits it best.
"""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from fluidlab.config import check_range, check_type
from fluidlab.model.fluid import Fluid
from fluidlab.model.noise import Streams, streams, uniform
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
    check_type("the mask", pixel_mask, Tensor, "a bool tensor (H, W)")
    check_range("patch_size", patch_size, 1, kind=int)
    check_range("ring", ring, 0, kind=int)
    if pixel_mask.ndim != 2 or pixel_mask.dtype != torch.bool:
        raise ValueError(f"the mask must be bool of shape (H, W), got {pixel_mask.dtype} of shape "
                         f"{tuple(pixel_mask.shape)}.")
    H, W = pixel_mask.shape
    if not H * W or H % patch_size or W % patch_size:
        raise ValueError(f"the mask's sides must be multiples of {patch_size} pixels, got {H}x{W}.")
    touched = F.max_pool2d(pixel_mask[None, None].float(), patch_size)[0, 0]                # (h, w)
    return grow(touched.bool(), ring).flatten()                                             # (N,)


def grow(mask: Tensor, ring: int) -> Tensor:
    """(h, w) bool, and `ring` tokens more on every side of what is True."""
    ring = min(ring, max(mask.shape))                                   # more than the whole grid is the whole grid
    return F.max_pool2d(mask[None, None].float(), 2 * ring + 1, stride=1, padding=ring)[0, 0].bool()


def forget(strength: float, allowed: Tensor, batch: int, generator: Streams = None) -> Tensor:
    """A random share of the tokens, for each image its own, as many in each: what a variation draws anew.

    Args:
        strength: share of the allowed tokens, from 0 to 1; the number is rounded.
        allowed: (N,) bool, which tokens may be forgotten.  generator: one, or a list of one per image.

    Returns:
        (B, N) bool.

    Raises:
        ValueError: strength is out of range, or so small that no token would be forgotten.
    """
    check_range("strength", strength, 0, 1)
    number = round(strength * int(allowed.sum()))
    if number == 0:
        raise ValueError(f"strength {strength} of {int(allowed.sum())} tokens is 0 tokens, so nothing would be drawn; "
                         f"the least is one token.")
    lots = uniform((batch, len(allowed)), streams(generator, batch), allowed.device)        # (B, N)
    return lots.masked_fill(~allowed, 2.0).argsort(dim=1).argsort(dim=1) < number           # (B, N)


def inpaint(model: Fluid, tokens: Tensor, unknown: Tensor, features: Tensor, mask: Tensor, **options) -> Tensor:
    """Draw the unknown tokens anew and keep every other one exactly.

    Args:
        tokens: (B, N) or (B, N, C) of the pictures.  unknown: (N,) or (B, N) bool, True = draw anew.
        features, mask: of the text that describes the whole picture.  options: of `generate`.
    """
    check_type("tokens", tokens, Tensor, "a tensor (B, N) or (B, N, C)")
    check_type("unknown", unknown, Tensor, "a bool tensor (N,) or (B, N)")
    unknown = unknown.expand(len(tokens), -1) if unknown.ndim == 1 else unknown
    return generate(model, features, mask, tokens=tokens, unknown=unknown, **options)


def outpaint(model: Fluid, tokens: Tensor, unknown: Tensor, features: Tensor, mask: Tensor, *,
             generator: Streams = None, on_step=None, **options) -> Tensor:
    """Draw the unknown tokens of a grid larger than the canvas, one canvas after the other.

    Args:
        tokens: (B, H, W) or (B, H, W, C), the picture somewhere in it.
        unknown: (H, W) bool, True = draw, False in one rectangle.
        features, mask: of the text, the same for every canvas.  options: of `generate`.
        on_step: as in `generate`; the index counts on from canvas to canvas.

    Returns:
        tokens as they came in, filled.
    """
    (h, w), tokens, unknown = model.config.grid, tokens.clone(), unknown.clone()
    generator, done, stopped = streams(generator, len(tokens)), 0, False

    def watch(step):
        nonlocal done, stopped
        stopped = on_step is not None and on_step(dataclasses.replace(step, index=done)) is False
        done += 1
        return not stopped

    for row, column, _ in canvases(unknown, (h, w)):
        at = (slice(row, row + h), slice(column, column + w))
        inside, hole = tokens[:, *at], unknown[at]
        filled = inpaint(model, inside.flatten(1, 2), hole.flatten(), features, mask, generator=generator,
                         on_step=watch, **options)                                          # (B, N[, C])
        tokens[:, *at], unknown[at] = filled.view_as(inside), False
        if stopped:
            break
    return tokens


def surround(tokens: Tensor, margins: tuple[int, int, int, int], blank: Tensor) -> tuple[Tensor, Tensor]:
    """A picture's tokens on a larger grid, blank around it.

    Args:
        tokens: (B, h, w) or (B, h, w, C).  margins: tokens to add at the top, bottom, left and right.
        blank: as many tokens as the larger grid holds, (B, H W) or (B, H W, C), that say nothing.

    Returns:
        tokens (B, H, W) or (B, H, W, C), and what lies outside the picture, (H, W) bool.
    """
    (h, w), (top, bottom, left, right) = tokens.shape[1:3], margins
    at, grid = (slice(top, top + h), slice(left, left + w)), (top + h + bottom, left + w + right)
    larger = blank.unflatten(1, grid).clone()
    larger[:, *at] = tokens.to(blank.dtype)
    outside = torch.ones(grid, dtype=torch.bool, device=tokens.device)
    outside[at] = False
    return larger, outside


def canvases(unknown: Tensor, canvas: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Where the canvas stands, one place after the other: each half on what is known, all unknown tokens covered.

    Args:
        unknown: (H, W) bool, False in one rectangle: the picture.  canvas: (h, w).

    Returns:
        row and column of the canvas, and how many tokens it draws there.

    Raises:
        ValueError: nothing is known, nothing is unknown, or the grid is smaller than the canvas.
    """
    known = ~unknown
    if not known.any() or known.all():
        raise ValueError(f"some tokens of the grid must be known and some unknown, got {int(known.sum())} known of "
                         f"{known.numel()}.")
    if any(have < need for have, need in zip(unknown.shape, canvas, strict=True)):
        raise ValueError(f"the grid must be at least as large as the canvas of {canvas[0]}x{canvas[1]} tokens, got "
                         f"{unknown.shape[0]}x{unknown.shape[1]}.")
    rows, columns = (_stops(torch.nonzero(known.any(dim=1 - axis)).flatten().tolist(), unknown.shape[axis],
                            canvas[axis]) for axis in (0, 1))
    places = sorted((far_down + far_right, row, column) for far_down, row in rows for far_right, column in columns)
    open_, chosen = unknown.clone(), []
    for _, row, column in places:
        inside = open_[row:row + canvas[0], column:column + canvas[1]]
        if inside.any():
            chosen.append((row, column, int(inside.sum())))
            inside[:] = False
    assert not open_.any(), "the canvases cover the whole grid"
    return chosen


def _stops(known: list[int], length: int, side: int) -> list[tuple[int, int]]:
    """Along one axis: (how many moves from the picture, where the canvas begins), near ones first."""
    begin, end, half, last = known[0], known[-1] + 1, max(1, side // 2), length - side
    over = range(begin, max(begin + 1, end - side + half), half)
    ways = (enumerate(range(min(end - half, last), last + half, half), 1),
            enumerate(range(max(begin - half, 0), -half, -half), 1))
    stops = [*((0, start) for start in over), *(stop for way in ways for stop in way)]
    return [(far, max(0, min(start, last))) for far, start in stops]


def paste(original: Tensor, edited: Tensor, pixel_mask: Tensor) -> Tensor:
    """(B, 3, H, W) images: edited where the (H, W) mask allows, original elsewhere, so that no other pixel changes."""
    return torch.where(pixel_mask, edited, original)
