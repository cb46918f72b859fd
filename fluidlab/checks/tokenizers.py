"""Checks of notebook 01: PSNR, unpacking, the nearest code, and what a codebook is worth."""

import math

import torch

from fluidlab.checks.check import Check, waves
from fluidlab.tokenizer.metrics import code_perplexity, psnr
from fluidlab.tokenizer.patches import unpack
from fluidlab.viz.toy_tokens import nearest


def _mse(images, reconstructions):
    return (images - reconstructions).square().mean(dim=(1, 2, 3))                    # (B,)


check_psnr = Check(
    "psnr", psnr,
    cases={"a grey picture that comes back too bright by 0.2": (torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)),
           "one picture": (waves(1, 3, 4, 6), 0.9 * waves(1, 3, 4, 6)),
           "two pictures, the second with the larger error": (
               waves(2, 3, 4, 4), torch.tensor([0.95, 0.6])[:, None, None, None] * waves(2, 3, 4, 4))},
    mistakes={
        "the peak is 1 here: it is the width of the range, which is 2 for pixels in [-1, 1].":
            lambda x, y: 10 * torch.log10(1 / _mse(x, y)),
        "the peak is 255 here: that is for bytes; pixels in [-1, 1] have a peak of 2.":
            lambda x, y: 10 * torch.log10(255**2 / _mse(x, y)),
        "the peak is taken from the pixels at hand: it is the width of the range that pixels may have, which is 2.":
            lambda x, y: 10 * torch.log10((x.max() - x.min()).square() / _mse(x, y)),
        "the peak is not squared: the formula has peak^2, which is 4.": lambda x, y: 10 * torch.log10(2 / _mse(x, y)),
        "one number for the whole batch: take the mean over channels, rows and columns, so that each picture keeps its "
        "own error.": lambda x, y: 10 * torch.log10(4 / (x - y).square().mean()),
        "this is the natural logarithm: decibels need the logarithm to base 10, torch.log10.":
            lambda x, y: 10 * torch.log(4 / _mse(x, y)),
        "the error is not squared: MSE is the mean of the squared differences.":
            lambda x, y: 10 * torch.log10(4 / (x - y).abs().mean(dim=(1, 2, 3))),
        "a root too many: 10 belongs to the mean squared error itself, 20 would belong to its root.":
            lambda x, y: 10 * torch.log10(2 / _mse(x, y).sqrt()),
        "the factor is 20: it belongs to the root of MSE, and 10 to MSE itself.":
            lambda x, y: 20 * torch.log10(4 / _mse(x, y)),
        "the squared differences are summed up: take their mean, or a larger picture would be a worse one.":
            lambda x, y: 10 * torch.log10(4 / (x - y).square().sum(dim=(1, 2, 3))),
        "the sign is wrong: the error stands below the line, so that a smaller error gives more decibels.":
            lambda x, y: 10 * torch.log10(_mse(x, y) / 4),
        "every picture gets the error of the whole batch: the mean of each runs over its own numbers, dim=(1, 2, 3).":
            lambda x, y: 10 * torch.log10(4 / (x - y).square().mean()).expand(len(x)),
    })


def _unpacked(sizes, order):
    """An unpacking that reads a token's numbers as `sizes` says and brings the dimensions into another order."""
    def answer(tokens, grid):
        (B, _, D), (rows, columns) = tokens.shape, grid
        known = {"B": B, "h": rows, "w": columns, "y": 2, "x": 2, "C": D // 4}
        tokens = tokens.reshape(*(known[s] for s in sizes))
        return tokens.permute(*(sizes.index(s) for s in order)).reshape(B, D // 4, 2 * rows, 2 * columns)
    return answer


check_unpack = Check(
    "unpack", unpack,
    cases={"one token of 4 numbers": (torch.arange(4.0).view(1, 1, 4), (1, 1)),
           "6 tokens of 8 numbers, a grid of 2 rows and 3 columns": (torch.arange(48.0).view(1, 6, 8), (2, 3)),
           "two images of 2 x 2 tokens of 16 numbers": (torch.arange(128.0).view(2, 4, 16), (2, 2))},
    mistakes={
        "the shape is right and no number has changed its place: reshape alone does not move a 2x2 block together.":
            lambda tokens, grid: tokens.reshape(len(tokens), -1, 2 * grid[0], 2 * grid[1]),
        "the numbers of the tokens were only moved to the front and reshaped: split them into row, column and channel, "
        "so that four of them come to lie in one 2x2 block of each channel.":
            lambda tokens, grid: tokens.transpose(1, 2).reshape(len(tokens), -1, 2 * grid[0], 2 * grid[1]),
        "a token is read as (channel, row, column): its numbers run over (row, column, channel), the channel fastest.":
            _unpacked("BhwCyx", "BChywx"),
        "row and column inside a block are exchanged: the second pixel of a token is the one to the right.":
            _unpacked("BhwxyC", "BChywx"),
        "the dimensions are ordered as (grid row, grid column, row, column): the row inside a block must stand right "
        "behind the grid's row, before the grid's columns.": _unpacked("BhwyxC", "BChwyx"),
        "tokens run down the columns: in raster order the second token lies to the right of the first.":
            _unpacked("BwhyxC", "BChywx"),
        "the channels stand last: latents have the shape (B, C, h, w).":
            lambda tokens, grid: unpack(tokens, grid).permute(0, 2, 3, 1),
        "rows and columns of the grid are exchanged: grid is (rows, columns).":
            lambda tokens, grid: unpack(tokens, (grid[1], grid[0])),
    })


def _gaps(x, codes):
    return x[:, None] - codes                                                         # (M, V, E)


check_vq_lookup = Check(
    "vq_lookup", nearest,
    cases={"4 vectors, 5 codes of 2 numbers": (
               torch.tensor([[0.0, 0.1], [1.0, 1.1], [1.6, 0.3], [-2.0, 0.9]]),
               torch.tensor([[1.5, 0.0], [0.9, 0.9], [-1.0, 0.5], [3.0, 3.0], [0.2, -0.4]])),
           "2 vectors between 3 codes": (torch.tensor([[0.6, 0.0], [0.5, 0.5]]),
                                         torch.tensor([[1.6, 0.0], [1.2, 0.8], [-0.3, -0.3]])),
           "6 vectors, 7 codes of 4 numbers": (waves(6, 4, phase=0.4),
                                               waves(7, 4) * torch.arange(1.0, 8)[:, None] / 3)},
    mistakes={
        "these are the codes that lie farthest: take argmin of the distance, not argmax.":
            lambda x, codes: torch.cdist(x, codes).argmax(dim=1),
        "this is the largest product of vector and code: long codes win with it. Subtract half of the code's squared "
        "length, or take the distance.": lambda x, codes: (x @ codes.T).argmax(dim=1),
        "only the direction counts here: the distance looks at the length as well, so normalise nothing.":
            lambda x, codes: (x @ torch.nn.functional.normalize(codes, dim=1).T).argmax(dim=1),
        "the nearest vector of each code: it is the other way round, argmin must run over the dimension of the codes.":
            lambda x, codes: torch.cdist(x, codes).argmin(dim=0),
        "these are the nearest codes themselves: return their numbers in the codebook.":
            lambda x, codes: codes[nearest(x, codes)],
        "these are the distances to the nearest codes: argmin returns where the smallest stands, min what it is.":
            lambda x, codes: torch.cdist(x, codes).amin(dim=1),
        "the differences are summed up with their signs, so they cancel: square them first.":
            lambda x, codes: _gaps(x, codes).sum(dim=-1).argmin(dim=1),
        "these are sums of absolute differences: the distance is made of squared ones.":
            lambda x, codes: _gaps(x, codes).abs().sum(dim=-1).argmin(dim=1),
        "the product counts once instead of twice: |x - c|^2 = |x|^2 - 2 x c + |c|^2.":
            lambda x, codes: (codes.square().sum(dim=1) - x @ codes.T).argmin(dim=1),
        "the sign of the product is wrong: |x - c|^2 = |x|^2 - 2 x c + |c|^2.":
            lambda x, codes: nearest(-x, codes),
        "min returns the smallest values and their places: argmin returns the places alone.":
            lambda x, codes: (codes.square().sum(dim=1) - 2 * x @ codes.T).min(dim=1),
    })


def _share(codes, V):
    return torch.bincount(codes.flatten(), minlength=V).double() / codes.numel()      # (V,)


def _entropy(share):
    """In nats."""
    return torch.special.entr(share).sum()


check_perplexity = Check(
    "perplexity", code_perplexity,
    cases={"8 codes, each used twice": (torch.arange(16) % 8, 8),
           "6 codes, one of them used four times as often as two others": (torch.tensor([0, 0, 0, 0, 3, 5]), 6),
           "two images of 4 codes from a vocabulary of 5": (torch.tensor([[0, 0, 1, 2], [2, 2, 2, 4]]), 5)},
    mistakes={
        "this is the entropy: the perplexity is its exponential.": lambda codes, V: _entropy(_share(codes, V)),
        "this is the entropy in bits: the perplexity is 2 to the power of it.":
            lambda codes, V: _entropy(_share(codes, V)) / math.log(2),
        "logarithm and exponential do not belong together: with log2 it is 2 ** entropy, with log it is exp(entropy).":
            lambda codes, V: (_entropy(_share(codes, V)) / math.log(2)).exp(),
        "2 ** entropy needs log2: with the natural logarithm it is exp(entropy).":
            lambda codes, V: 2 ** _entropy(_share(codes, V)),
        "this counts the codes that are used: a code that is used rarely must count less.":
            lambda codes, V: codes.unique().numel(),
        "a code that is never used gives 0 times minus infinity, which is not a number: leave out the shares that are "
        "0.": lambda codes, V: (-(_share(codes, V) * _share(codes, V).log()).sum()).exp(),
        "a code that is never used has the share 0, and 0 has no logarithm: leave out the shares that are 0.":
            lambda codes, V: math.exp(-sum(share * math.log(share) for share in _share(codes, V).tolist())),
        "the minus sign is missing: a logarithm of a share is negative, so the entropy is minus the sum.":
            lambda codes, V: (-_entropy(_share(codes, V))).exp(),
        "the mean over the codes instead of the sum: the shares are weights already, and they add up to 1.":
            lambda codes, V: (_entropy(_share(codes, V)) / V).exp(),
        "the counts are divided by the size of the vocabulary: a share is a count over the number of tokens.":
            lambda codes, V: _entropy(_share(codes, V) * codes.numel() / V).exp(),
        "one perplexity for each image: count the codes of all images together.":
            lambda codes, V: torch.stack([_entropy(_share(row, V)).exp() for row in codes.view(-1, codes.shape[-1])]),
        "the mean of the images' perplexities: count the codes of all images together.":
            lambda codes, V: torch.stack([_entropy(_share(row, V)).exp()
                                          for row in codes.view(-1, codes.shape[-1])]).mean(),
        "the counts are divided by the number of images: a share is a count over all tokens, codes.numel().":
            lambda codes, V: _entropy(_share(codes, V) * codes.numel() / len(codes)).exp(),
    })
