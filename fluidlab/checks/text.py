"""Checks of notebook 02: cosine similarity, a mean without padding, attention over text, and what a word is worth."""

import torch
from torch.nn.functional import normalize

from fluidlab.checks.check import Check, waves
from fluidlab.layers import attend
from fluidlab.viz.plots_text import cosine_similarities

check_cosine_similarities = Check(
    "cosine_similarities", cosine_similarities,
    cases={"the vectors (1, 0), (2, 0), (0, 3) and (-1, 0)": (
               torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]),),
           "3 vectors of 5 numbers": (waves(3, 5),),
           "4 vectors, each longer than the one before": (waves(4, 6) * torch.arange(1.0, 5)[:, None],)},
    mistakes={
        "these are the plain products: divide by the lengths of both vectors.": lambda x: x @ x.T,
        "only one of the two lengths is divided out: the result must have 1 on its diagonal.":
            lambda x: normalize(x, dim=1) @ x.T,
        "divided by the squared lengths: a length is the root of the sum of squares.":
            lambda x: (x / x.square().sum(dim=1, keepdim=True)) @ (x / x.square().sum(dim=1, keepdim=True)).T,
        "the columns have been brought to length 1: a vector is a row, so the length runs over dim=1.":
            lambda x: normalize(x, dim=0) @ normalize(x, dim=0).T,
        "this compares the E numbers with each other: put the transposed matrix on the right, which gives (M, M).":
            lambda x: normalize(x, dim=1).T @ normalize(x, dim=1),
        "this is the cosine distance, 0 for the same direction: the similarity is 1 minus it.":
            lambda x: 1 - cosine_similarities(x),
        "the length is that of the whole matrix: each row has its own.": lambda x: (x / x.norm()) @ (x / x.norm()).T,
        "the sign is lost: opposite directions have -1.": lambda x: cosine_similarities(x).abs(),
    })


def _masked_mean(features, mask):
    kept = torch.where(mask[..., None], features, 0.0)                                # (B, S, E)
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)               # (B, E)


def _mask(*lengths):
    return torch.arange(max(*lengths, 1)) < torch.tensor(lengths)[:, None]            # (B, S)


def _kept(features, mask):
    return (features * mask[..., None]).sum(dim=1)                                    # (B, E)


check_masked_mean = Check(
    "masked_mean", _masked_mean,
    cases={"one prompt of 3 tokens, without padding": (waves(1, 3, 2), _mask(3)),
           "prompts of 4 and of 2 tokens": (waves(2, 4, 3), _mask(4, 2)),
           "prompts of 2, 3 and no tokens": (waves(3, 3, 5, phase=1.0), _mask(2, 3, 0))},
    mistakes={
        "padding is in the mean: only tokens whose mask is True count.": lambda features, mask: features.mean(dim=1),
        "divided by S: divide by the number of real tokens of each prompt.":
            lambda features, mask: _kept(features, mask) / mask.shape[1],
        "this is the sum: divide by the number of real tokens of each prompt.": _kept,
        "the empty prompt gives 0 / 0, which is not a number: divide by at least 1 (clamp).":
            lambda features, mask: _kept(features, mask) / mask.sum(dim=1, keepdim=True),
        "the padding is kept and the tokens are dropped: True means a real token.":
            lambda features, mask: _masked_mean(features, ~mask),
        "every prompt is divided by the same number: count the real tokens along dim=1, one count for each prompt.":
            lambda features, mask: _kept(features, mask) / mask.sum(),
        "one token too many is counted: clamp(min=1) keeps an empty prompt from dividing by 0, adding 1 changes all.":
            lambda features, mask: _kept(features, mask) / (mask.sum(dim=1, keepdim=True) + 1),
        "the mean runs over the numbers of a token: it must run over the tokens, dim=1, which leaves (B, E).":
            lambda features, mask: features.mean(dim=2),
        "one mean for all prompts together: each prompt has its own, (B, E).": lambda features, mask: (
            _kept(features, mask).sum(dim=0) / mask.sum()),
        "the count is right, but padding is in the sum: multiply the features by the mask before they are summed.":
            lambda features, mask: features.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1),
    })


def _scores(q, k):
    return q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5                              # (B, H, N, S)


def _seen(mask):
    return mask[:, None, None]                                                        # (B, 1, 1, S)


def _text_attention(q, k, mask):
    (B, H), S = q.shape[:2], k.shape[2]
    return attend(q, k, torch.eye(S).expand(B, H, S, S), _seen(mask))                 # the values are a one each


def _softmax_of(scores, mask, dim=-1):
    return scores.masked_fill(~_seen(mask), -torch.inf).softmax(dim=dim)


check_text_attention = Check(
    "text_attention", _text_attention,
    cases={"2 image tokens, 3 text tokens, no padding": (
               waves(1, 1, 2, 4), 2 * waves(1, 1, 3, 4, phase=0.5), _mask(3)),
           "two prompts of 4 and 2 tokens, 2 image tokens": (
               2 * waves(2, 1, 2, 6), 2 * waves(2, 1, 4, 6, phase=1.0), _mask(4, 2)),
           "two prompts, two heads, 5 image tokens": (
               waves(2, 2, 5, 9), waves(2, 2, 3, 9, phase=2.0), _mask(1, 3))},
    mistakes={
        "the mask comes after the softmax, so a row with padding no longer sums to 1: hide the scores before it.":
            lambda q, k, mask: _scores(q, k).softmax(dim=-1) * _seen(mask),
        "the scores of padding are 0, and e^0 = 1 takes its share: they must be -infinity.":
            lambda q, k, mask: (_scores(q, k) * _seen(mask)).softmax(dim=-1),
        "padding is looked at: hide the scores where the mask is False.":
            lambda q, k, mask: _scores(q, k).softmax(dim=-1),
        "the mask is read the wrong way round: True may be looked at.":
            lambda q, k, mask: _softmax_of(_scores(q, k), ~mask),
        "the scores are not divided by the root of d, the last number in the shape of q.":
            lambda q, k, mask: _softmax_of(q @ k.transpose(-1, -2), mask),
        "the scores are divided by d: it is the root of d.":
            lambda q, k, mask: _softmax_of(_scores(q, k) * q.shape[-1] ** -0.5, mask),
        "d is the length of a query, the last dimension of q; it is not the number of text tokens.":
            lambda q, k, mask: _softmax_of(q @ k.transpose(-1, -2) * k.shape[2] ** -0.5, mask),
        "the softmax runs over the image tokens: each of them shares its weight among the text tokens, dim=-1.":
            lambda q, k, mask: _softmax_of(_scores(q, k), mask, dim=-2),
        "these are the scores: their softmax is still to come.":
            lambda q, k, mask: _scores(q, k).masked_fill(~_seen(mask), -torch.inf),
        "the mask is lined up with the wrong dimensions: (B, S) needs two new ones between, mask[:, None, None, :].":
            lambda q, k, mask: _scores(q, k).masked_fill(~mask, -torch.inf).softmax(dim=-1),
    })


START = "▁"                     # of a word, as SentencePiece marks it


def _words(pieces):
    """The columns of each word's pieces; column 0 is the null token's, and </s> is no word."""
    starts = [s for s, piece in enumerate(pieces) if piece.startswith(START)]
    return [list(range(a + 1, b + 1)) for a, b in zip(starts, [*starts[1:], len(pieces) - 1], strict=True)]


def _by_word(join, columns=_words):
    """An answer that joins the weights (N, n) of a word's columns to (N,)."""
    return lambda weights, pieces: torch.stack([join(weights[:, c]) for c in columns(pieces)], dim=1)


def _words_and_end(pieces):
    """The same, with the end token taken for a piece of the last word."""
    *words, last = _words(pieces)
    return [*words, [*last, len(pieces)]]


_word_attention = _by_word(lambda of_word: of_word.sum(dim=1))


def _example(*pieces):
    """Weights (3, S+1) whose rows sum to 1, and the pieces with their end."""
    pieces = [*pieces, "</s>"]
    return waves(3, len(pieces) + 1).mul(2).softmax(dim=1), pieces


check_word_attention = Check(
    "word_attention", _word_attention,
    cases={"a cat": _example("▁a", "▁cat"),
           "three umbrellas": _example("▁three", "▁umbrella", "s"),
           "a quokka, bears": _example("▁a", "▁", "<0x71>", "u", "o", "k", "k", "a", "▁bear", "s")},
    mistakes={
        "one column too early: column 0 of the weights is the null token's, so piece s has column s + 1.":
            lambda weights, pieces: _word_attention(weights.roll(1, dims=1), pieces),
        "the mean of the pieces: weights are shares, and the share of a whole is the sum of its parts.":
            _by_word(lambda of_word: of_word.mean(dim=1)),
        "the largest of the pieces: weights are shares, and the share of a whole is the sum of its parts.":
            _by_word(lambda of_word: of_word.amax(dim=1)),
        "only the first piece of each word: pieces without the mark of a start belong to the word before them.":
            _by_word(lambda of_word: of_word[:, 0]),
        "only the last piece of each word is left: add to what the word has, do not overwrite it.":
            _by_word(lambda of_word: of_word[:, -1]),
        "the end token is counted as a part of the last word: </s> belongs to no word.":
            _by_word(lambda of_word: of_word.sum(dim=1), _words_and_end),
        "the rows have been made to sum to 1: what is missing there is what the null token and </s> have.":
            lambda weights, pieces: normalize(_word_attention(weights, pieces), p=1, dim=1),
        "the null token and </s> have columns of their own: they are no words.": lambda weights, pieces: torch.cat(
            [weights[:, :1], _word_attention(weights, pieces), weights[:, -1:]], dim=1),
        "one column for each piece: join the pieces of a word.": lambda weights, pieces: weights[:, 1:-1],
    })
