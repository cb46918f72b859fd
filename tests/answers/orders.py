import numpy as np
import torch


def filled(N, K):
    left, sizes = N, []
    for k in range(1, K + 1):
        wanted = int(np.floor(round(N * np.cos(np.pi * k / (2 * K)), 9)))
        now = max(1, left - wanted)                      # at least one now ...
        now = min(now, left - (K - k))                   # ... and one for each step to come
        sizes.append(now)
        left -= now
    return sizes


ANSWERS = {
    "causal_mask": [
        lambda n: torch.arange(n)[:, None] >= torch.arange(n),
        lambda n: torch.tensor([[j <= i for j in range(n)] for i in range(n)]),
        lambda n: ~torch.triu(torch.ones(n, n), diagonal=1).bool()],
    "shift_by_one": [
        lambda x, start: torch.stack([torch.stack([start, *row])[:-1] for row in x]),
        lambda x, start: torch.where(torch.arange(x.shape[1])[:, None] == 0, start, x.roll(1, dims=1))],
    "cosine_schedule": [filled, lambda N, K: torch.tensor(filled(N, K))],
}
