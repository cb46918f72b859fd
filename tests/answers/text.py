import math

import torch
from torch.nn import functional as F


def mean_one_by_one(features, mask):
    return torch.stack([f[m].mean(dim=0) if m.any() else torch.zeros(f.shape[-1])
                        for f, m in zip(features, mask, strict=True)])


def mean_as_a_product(features, mask):
    share = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)                         # (B, S)
    return (share[:, None] @ features)[:, 0]


def exponentials(q, k, mask):
    scores = torch.einsum("bhnd,bhsd->bhns", q, k) / math.sqrt(q.shape[-1])
    powers = scores.exp() * mask[:, None, None, :]
    return powers / powers.sum(dim=-1, keepdim=True)


def added_infinity(q, k, mask):
    hidden = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    return F.softmax(q @ k.mT / q.shape[-1] ** 0.5 + hidden[:, None, None], dim=-1)


def words_by_adding(weights, pieces):
    columns = []
    for piece, column in zip(pieces[:-1], weights.T[1:], strict=False):
        if piece.startswith("▁"):
            columns.append(column)
        else:
            columns[-1] = columns[-1] + column
    return torch.stack(columns, dim=1)


def words_by_numbers(weights, pieces):
    number = torch.tensor([piece[0] == "▁" for piece in pieces[:-1]]).cumsum(0) - 1
    return torch.zeros(len(weights), int(number[-1]) + 1).index_add(1, number, weights[:, 1:-1])


ANSWERS = {
    "cosine_similarities": [
        lambda x: F.cosine_similarity(x[:, None], x[None], dim=-1),
        lambda x: x @ x.T / (x.norm(dim=1)[:, None] * x.norm(dim=1)),
        lambda x: [[(a @ b / (a @ a * (b @ b)).sqrt()).item() for b in x] for a in x]],
    "masked_mean": [mean_one_by_one, mean_as_a_product],
    "text_attention": [exponentials, added_infinity],
    "word_attention": [words_by_adding, words_by_numbers],
}
