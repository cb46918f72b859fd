import math
from collections import Counter

import torch
from torch.nn import functional as F


def psnr_one_by_one(images, reconstructions):
    return [20 * math.log10(2 / math.sqrt(((a - b) ** 2).mean().item()))
            for a, b in zip(images, reconstructions, strict=True)]


def unpack_in_loops(tokens, grid):
    (B, _, D), (rows, columns) = tokens.shape, grid
    latents = tokens.new_zeros(B, D // 4, 2 * rows, 2 * columns)
    for n in range(rows * columns):
        for i in range(4):
            y, x = 2 * (n // columns) + i // 2, 2 * (n % columns) + i % 2
            latents[:, :, y, x] = tokens[:, n, i * (D // 4):(i + 1) * (D // 4)]
    return latents


def unpack_by_shuffling_pixels(tokens, grid):
    B, _, D = tokens.shape
    channel_first = tokens.unflatten(2, (4, D // 4)).transpose(2, 3).flatten(2)       # (B, N, C, 4) -> (B, N, D)
    return F.pixel_shuffle(channel_first.transpose(1, 2).unflatten(2, grid), 2)


def expanded_square(x, codes):
    return (2 * x @ codes.T - codes.pow(2).sum(1)).argmax(-1)


def nearest_one_by_one(x, codes):
    return [min(range(len(codes)), key=lambda v: float(((vector - codes[v]) ** 2).sum())) for vector in x]


def counted(codes, codebook_size):
    numbers = codes.flatten().tolist()
    shares = [count / len(numbers) for count in Counter(numbers).values()]
    return 2 ** -sum(p * math.log2(p) for p in shares)


ANSWERS = {
    "psnr": [lambda x, y: 10 * torch.log10(4 / ((x - y) ** 2).mean((1, 2, 3))), psnr_one_by_one],
    "unpack": [unpack_in_loops, unpack_by_shuffling_pixels],
    "vq_lookup": [expanded_square, nearest_one_by_one,
                  lambda x, codes: (x[:, None] - codes).square().sum(-1).argmin(-1)],
    "perplexity": [counted, lambda codes, V: torch.distributions.Categorical(
        codes.flatten().bincount(minlength=V).double()).entropy().exp()],
}
