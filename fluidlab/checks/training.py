"""Checks of notebook 05: the mean over hidden tokens, the learning rate, the running mean of weights, clipping."""

import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from fluidlab.checks.check import Check
from fluidlab.config import TrainConfig
from fluidlab.model.fluid import Fluid
from fluidlab.train.optim import EMA, learning_rate


def _mean_over_hidden(losses, hidden):
    model = SimpleNamespace(token_losses=lambda *_: (losses, hidden))
    return Fluid.forward(model, None, None, None)


def _mean_of_means(losses, hidden, dim):
    counts = hidden.sum(dim=dim)
    return ((losses * hidden).sum(dim=dim)[counts > 0] / counts[counts > 0]).mean()


_LOSSES = torch.tensor([[4.0, 1.0, 2.0, 0.5], [3.0, 2.5, 0.2, 6.0], [1.5, 0.7, 5.0, 2.2]])

check_mean_over_hidden = Check(
    "mean_over_hidden", _mean_over_hidden,
    cases={"one image, 2 of 4 hidden": (_LOSSES[:1], torch.tensor([[True, False, False, True]])),
           "two images, 3 and 1 hidden": (_LOSSES[:2], torch.tensor([[True, True, False, True],
                                                                     [False, False, True, False]])),
           "three images": (_LOSSES, torch.tensor([[True, True, True, True], [False, False, False, True],
                                                   [False, True, False, True]]))},
    mistakes={
        "the known tokens are counted too: they have a loss, but nobody asked for it; leave them out.":
            lambda losses, hidden: losses.mean(),
        "the known tokens count as zeros: divide by the number of hidden tokens, not by that of all.":
            lambda losses, hidden: (losses * hidden).mean(),
        "it is the mean of the images' means: each hidden token counts the same, so sum all, then divide once.":
            lambda losses, hidden: _mean_of_means(losses, hidden, 1),
        "it is the mean of the positions' means: each hidden token counts the same, so sum all, then divide once.":
            lambda losses, hidden: _mean_of_means(losses, hidden, 0),
        "the sum has not been divided: it would grow with the batch.": lambda losses, hidden: (losses * hidden).sum(),
        "the sum is divided by the number of images: divide it by the number of hidden tokens.":
            lambda losses, hidden: (losses * hidden).sum() / len(losses),
        "hidden and known are exchanged: True means hidden, and these count.":
            lambda losses, hidden: losses[~hidden].sum() / (~hidden).sum().clamp(min=1),
    })


def _rate(step, steps, warmup, peak, floor):
    return learning_rate(TrainConfig(steps=steps, warmup_steps=warmup, lr=peak, final_lr=floor), step)


def _after_warmup(fall, progress=lambda step, steps, warmup: (step - warmup) / (steps - warmup)):
    """A rate with the right warm-up and another way down: a function of progress and floor to a share of the peak."""
    def rate(step, steps, warmup, peak, floor):
        if step < warmup:
            return _rate(step, steps, warmup, peak, floor)
        return peak * fall(progress(step, steps, warmup), floor)
    return rate


def _fall(progress, floor):
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


check_rate = Check(
    "rate", _rate,
    cases={"step 0 of 20": (0, 20, 5, 2.0, 0.1), "step 4 of 20, the last of the warm-up": (4, 20, 5, 2.0, 0.1),
           "step 5 of 20, the first behind it": (5, 20, 5, 2.0, 0.1), "step 9 of 20": (9, 20, 5, 2.0, 0.1),
           "step 19 of 20": (19, 20, 5, 2.0, 0.1), "step 30 of 40 without warm-up": (30, 40, 0, 1.0, 0.0)},
    mistakes={
        "the first rate is 0, which wastes a step: step 0 is already the first part of the climb, 1 / warmup.":
            lambda step, steps, warmup, peak, floor: peak * step / warmup if step < warmup else _rate(
                step, steps, warmup, peak, floor),
        "the cosine begins at step 0: it begins where the warm-up ends, or the rate jumps there.":
            _after_warmup(_fall, lambda step, steps, warmup: step / steps),
        "it is a quarter of a cosine: half a period is wanted, from 1 to -1, so the angle runs to pi.":
            _after_warmup(lambda progress, floor: floor + (1 - floor) * math.cos(math.pi / 2 * progress)),
        "the rate falls to 0: it must fall to floor x peak.":
            _after_warmup(lambda progress, floor: _fall(progress, 0.0)),
        "the floor is added on top: the cosine's part has to shrink to 1 - floor, or the fall begins above the peak.":
            _after_warmup(lambda progress, floor: floor + _fall(progress, 0.0)),
        "the floor is taken for a rate: it is a share of the peak.":
            lambda step, steps, warmup, peak, floor: _rate(step, steps, warmup, peak, floor / peak),
        "it falls along a straight line, not along a cosine.":
            _after_warmup(lambda progress, floor: floor + (1 - floor) * (1 - progress)),
        "the fall reaches its floor one step too early: divide by steps - warmup.":
            _after_warmup(_fall, lambda step, steps, warmup: (step - warmup) / (steps - warmup - 1)),
        "there is no warm-up: below step `warmup` the rate climbs.":
            lambda step, steps, warmup, peak, floor: peak * _fall(max(0, step - warmup) / (steps - warmup), floor),
        "the warm-up lasts a step too long: step `warmup` is the first of the fall, so ask step < warmup.":
            lambda step, steps, warmup, peak, floor: peak * (step + 1) / warmup if 0 < warmup == step else _rate(
                step, steps, warmup, peak, floor),
        "the fall to 0 is cut off at the floor: it has to reach the floor with the last step, flat at both ends.":
            _after_warmup(lambda progress, floor: max(floor, _fall(progress, 0.0))),
    })


def _ema_update(mean, weights, decay, n):
    ema = EMA(nn.ParameterList(mean), decay)
    ema.updates = n
    ema.update(nn.ParameterList(weights))
    return list(ema.weights.values())


def _mixed(kept):
    """A running mean that keeps another share of the old one: a function of (decay, n)."""
    def update(mean, weights, decay, n):
        share = kept(decay, n)
        return [share * old + (1 - share) * new for old, new in zip(mean, weights, strict=True)]
    return update


def _warm(decay, n):
    return min(decay, (1 + n) / (10 + n))


_MEAN = [torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([4.0, -1.0, 2.0])]
_WEIGHTS = [torch.tensor([[3.0, 1.0], [-0.5, 2.0]]), torch.tensor([1.0, 1.0, -2.0])]

check_ema_update = Check(
    "ema_update", _ema_update,
    cases={"the first update": (_MEAN, _WEIGHTS, 0.99, 0), "update 3": (_MEAN, _WEIGHTS, 0.99, 3),
           "update 5 with a low decay": (_MEAN, _WEIGHTS, 0.3, 5), "update 100,000": (_MEAN, _WEIGHTS, 0.9, 100_000)},
    mistakes={
        "the two shares are exchanged: the decay is what is kept of the old mean.":
            _mixed(lambda decay, n: 1 - _warm(decay, n)),
        "there is no warm-up: at update n the decay is the smaller one of decay and (1 + n) / (10 + n).":
            _mixed(lambda decay, n: decay),
        "the larger one is taken: the warm-up has to keep the decay low at first, so take the smaller.":
            _mixed(lambda decay, n: max(decay, (1 + n) / (10 + n))),
        "the warm-up never ends: it must not climb beyond the given decay.":
            _mixed(lambda decay, n: (1 + n) / (10 + n)),
        "off by one: n counts the updates before this one, so the first has n = 0 and keeps 1/10.":
            _mixed(lambda decay, n: _warm(decay, n + 1)),
        "all weights so far count the same: the old ones have to fade.": _mixed(lambda decay, n: n / (n + 1)),
        "the mean is gone: the weights have been put in its place.": lambda mean, weights, decay, n: weights,
    })


def _clip_gradients(gradients, limit):
    parameters = [None if g is None else nn.Parameter(torch.zeros_like(g)) for g in gradients]
    taking_part = [p for p in parameters if p is not None]
    for p, g in zip(taking_part, (g for g in gradients if g is not None), strict=True):
        p.grad = g.detach().clone()
    norm = nn.utils.clip_grad_norm_(taking_part, limit)
    return [None if p is None else p.grad for p in parameters], norm


def _length(gradients) -> Tensor:
    return torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt()


def _scaled(factor, length=_length, told=lambda norm, clipped: norm):
    """Clipping with another factor, another length, or another number told."""
    def clip(gradients, limit):
        norm = length(gradients)
        clipped = [None if g is None else factor(limit, norm) * g for g in gradients]
        return clipped, told(norm, clipped)
    return clip


def _shorter(limit, norm):
    return min(1.0, limit / max(float(norm), 1e-12))


_GRADIENTS = [torch.tensor([[3.0, -1.0], [0.5, 2.0]]), torch.tensor([-4.0, 1.0, 0.3])]

check_clip_gradients = Check(
    "clip_gradients", _clip_gradients,
    cases={"a long gradient": (_GRADIENTS, 1.0), "a short one": ([g / 20 for g in _GRADIENTS], 1.0),
           "a parameter without gradient": ([None, *_GRADIENTS], 2.0),
           "a gradient of zeros": ([torch.zeros(3)], 1.0)},
    mistakes={
        "each tensor is clipped by its own length: that turns the gradient; there is one length for all of them.":
            lambda gradients, limit: ([g if g is None else _shorter(limit, g.norm()) * g for g in gradients],
                                      _length(gradients)),
        "the numbers are cut off one by one: that turns the gradient; multiply all of them by one factor.":
            lambda gradients, limit: ([g if g is None else g.clamp(-limit, limit) for g in gradients],
                                      _length(gradients)),
        "a short gradient has been made longer: clipping only shortens, so the factor is at most 1.":
            _scaled(lambda limit, norm: limit / norm),
        "the lengths of the tensors are added: add the squares of all numbers, then take one root.":
            _scaled(_shorter, lambda gradients: torch.stack([g.norm() for g in gradients if g is not None]).sum()),
        "the root is missing: this is the square of the length.":
            _scaled(_shorter, lambda gradients: _length(gradients) ** 2),
        "it is the mean of the squares: the length has their sum, however many numbers there are.":
            _scaled(_shorter, lambda gradients: torch.cat(
                [g.flatten() for g in gradients if g is not None]).square().mean().sqrt()),
        "the length after clipping is returned: wanted is the one before, since it is worth a look.":
            _scaled(_shorter, told=lambda norm, clipped: _length(clipped)),
        "the largest number stands in for the length: add the squares of all, then take the root.":
            _scaled(_shorter, lambda gradients: torch.stack([g.abs().max() for g in gradients if g is not None]).max()),
        "a gradient of zeros has the length 0, and limit / 0 is no number: divide by max(length, 1e-12).":
            _scaled(lambda limit, norm: min(1.0, limit / float(norm))),
        "only the gradients are returned: return them and the length before clipping, in this order.":
            lambda gradients, limit: _clip_gradients(gradients, limit)[0],
        "the two are exchanged: return the gradients first, then the length.":
            lambda gradients, limit: _clip_gradients(gradients, limit)[::-1],
        "None is left out: it keeps its place in the list, or gradients and weights no longer belong together.":
            lambda gradients, limit: _clip_gradients([g for g in gradients if g is not None], limit),
    })
