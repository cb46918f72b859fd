"""Do a word's features know its sentence? A linear probe asks them.

The embedding of "cat" is the same in every caption. If a linear map can read from the encoder's feature at "cat" that
this cat is red and stands on the left, then attention has carried the words "red" and "left" there: binding, without
which no image model can put the colour on the right thing. (Alain and Bengio, "Understanding intermediate layers using
linear classifier probes", ICLR 2017 workshop.)
"""

import re

import torch
from torch import Tensor


def token_of(encoder, caption: str, noun: str) -> int | None:
    """Which token of a caption is the last whole word of `noun`; None unless the noun stands there exactly once."""
    found = list(re.finditer(rf"\b{re.escape(noun)}\b", caption))
    if len(found) != 1:
        return None
    start = found[0].start() + noun.rfind(" ") + 1
    offsets = encoder.tokenizer(caption, return_offsets_mapping=True)["offset_mapping"]
    return next(i for i, (low, high) in enumerate(offsets) if low <= start < high)


@torch.no_grad()
def features_at(encoder, captions: list[str], positions: list[int]) -> tuple[Tensor, Tensor]:
    """Features (M, E) at one token of each caption, and the plain embeddings (M, E) of the same tokens."""
    features, plain = [], []
    table = encoder.model.get_input_embeddings().weight
    for start in range(0, len(captions), 256):
        chunk, at = captions[start:start + 256], positions[start:start + 256]
        rows = torch.arange(len(chunk))
        features.append(encoder(chunk)[0][rows, torch.tensor(at)])
        plain.append(table[[encoder.tokenizer(c)["input_ids"][p] for c, p in zip(chunk, at, strict=True)]])
    return torch.cat(features), torch.cat(plain).float()


def linear_probe(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, ridge: float = 1e-2) -> float:
    """Accuracy of a linear classifier, least squares on one-hot labels, fitted in closed form.

    Args:
        train, test: features (M, E) and (M', E).  labels, test_labels: (M,) and (M',) long, from 0.
        ridge: added to the diagonal of the features' covariance, relative to its mean.
    """
    mean, std = train.mean(dim=0), train.std(dim=0) + 1e-6
    x, y = ((part - mean) / std for part in (train.double(), test.double()))              # (M, E), (M', E)
    x, y = (torch.cat([part, torch.ones_like(part[:, :1])], dim=1) for part in (x, y))    # a constant for the bias
    wanted = torch.nn.functional.one_hot(labels).double()                                 # (M, K)
    gram = x.T @ x
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, x.T @ wanted)                                       # (E+1, K)
    return ((y @ weight).argmax(dim=1) == test_labels).double().mean().item()
