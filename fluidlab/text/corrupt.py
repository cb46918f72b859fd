"""Span corruption, T5's pre-training task: cut spans out of a text, and write down what was cut.

    a red cat </s> a cat that is red </s>   ->   a <extra_id_0> cat </s> <extra_id_1> </s>
                                                 <extra_id_0> red <extra_id_1> a cat that is red </s>

A document is one caption, or several captions that say the same thing. In such a document sometimes a whole caption
is cut, and only who has understood the other one, which thing is red and which stands left, can write it again. A
lone caption would not teach that: its colours and sides are drawn by dice, and no context tells them.
"""

import torch
from torch import Tensor

IGNORED = -100                                     # a label that cross-entropy leaves out


def choose_cuts(owner: Tensor, rate: float, whole: float, generator: torch.Generator) -> Tensor:
    """Choose which tokens of each document are cut.

    Args:
        owner: (B, L) long, which caption of its document a token belongs to; -1 for what is never cut (</s>, padding).
        rate: share of the tokens of a caption that is cut, in spans of 1 to 3 tokens.
        whole: probability that one caption of a document of several is cut as a whole.
        generator: on the CPU.

    Returns:
        cut (B, L) bool; at least one token is True in every document that has one to cut.
    """
    B, L = owner.shape
    free = owner >= 0
    lengths = torch.randint(1, 4, (B, L), generator=generator)                     # (B, L) mean 2
    starts = torch.rand(B, L, generator=generator) < rate / 2
    cut = starts.clone()
    for reach in (1, 2):
        cut[:, reach:] |= (starts & (lengths > reach))[:, :-reach]
    captions = owner.max(dim=1).values + 1                                         # (B,)
    chosen = (torch.rand(B, generator=generator) * captions).long()                # (B,) one caption of each document
    wholly = (captions > 1) & (torch.rand(B, generator=generator) < whole)
    cut |= wholly[:, None] & (owner == chosen[:, None])
    luck = torch.rand(B, L, generator=generator).masked_fill(~free, -1.0)
    first = torch.zeros_like(cut).scatter_(1, luck.argmax(dim=1, keepdim=True), True)
    cut |= first & ~(cut & free).any(dim=1, keepdim=True)
    return cut & free


def corrupt(ids: list[int], cut: list[bool], sentinels: list[int], eos: int) -> tuple[list[int], list[int]]:
    """Cut one document.

    Args:
        ids: its tokens.  cut: True where a token is to go.
        sentinels: ids of `<extra_id_0>`, `<extra_id_1>`, ...; a document's first span gets the first.
        eos: the id of `</s>`.

    Returns:
        source: the document with one sentinel for each span; target: each sentinel and what it stands for, then eos.
    """
    source, target, spans = [], [], 0
    for i, (token, gone) in enumerate(zip(ids, cut, strict=False)):
        if not gone:
            source.append(token)
            continue
        if i == 0 or not cut[i - 1]:
            name = sentinels[min(spans, len(sentinels) - 1)]
            source.append(name)
            target.append(name)
            spans += 1
        target.append(token)
    return source, target + [eos]


def pad(rows: list[list[int]], value: int) -> Tensor:
    """Rows of unequal length as one (B, longest) long tensor."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
