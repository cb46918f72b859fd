"""The validation loss taken apart: by how much is known, in bits, and on scenes that were never cached."""

import math

import pytest
import torch
from helpers import VARIANTS, batch, seeded, variant

from fluidlab.data.scenes import EmojiScenes
from fluidlab.evaluate.loss import EncodedScenes, loss_when_known, nats_to_bits, validation_loss
from fluidlab.evaluate.results import read_results
from fluidlab.pipeline import FluidPipeline


class Memory:
    def __init__(self, model, size=12):
        self.tensors = batch(model, B=size)

    def __len__(self):
        return len(self.tensors[0])

    def gather(self, indices):
        return tuple(t[torch.as_tensor(list(indices))] for t in self.tensors)


@pytest.mark.parametrize(("order", "head"), VARIANTS)
def test_raster_losses_by_place_have_the_validation_loss_as_their_mean(order, head):
    """With nothing known all N tokens are asked in random order; in raster order every k asks another one."""
    model = variant(order, head)
    data, N = Memory(model), model.config.seq_len
    by_known = [loss_when_known(model, data, k, 12) for k in range(N)]
    assert by_known[3] == loss_when_known(model, data, 3, 12) and all(math.isfinite(value) for value in by_known)
    assert loss_when_known(model, data, 3, 12, seed=1) != by_known[3] or (order, head) == ("raster", "softmax")
    if head == "softmax" and order == "raster":  # no time, no noise, no mask: nothing is drawn at all
        assert sum(by_known) / N == pytest.approx(validation_loss(model, data, 12), rel=1e-5)
    if head == "softmax" and order == "random":
        tokens, features, mask = data.gather(range(12))
        z = model.hidden(tokens, torch.ones(12, N, dtype=torch.bool), *model.aligner(features, mask))
        assert by_known[0] == pytest.approx(model.head.loss(z, tokens, seeded(0)).mean().item(), rel=1e-5)


def test_numbers_out_of_range_are_refused():
    model = variant("random", "softmax")
    data = Memory(model)
    with pytest.raises(ValueError, match="known must be a whole number from 0 to 15, got 16"):
        loss_when_known(model, data, 16, 12)
    with pytest.raises(ValueError, match="repeats must be a whole number at least 1, got 0"):
        loss_when_known(model, data, 0, 12, repeats=0)
    with pytest.raises(ValueError, match="num_images must be from 1 to 12, got 13"):
        loss_when_known(model, data, 0, 13)


def test_bits_are_coin_tosses():
    assert nats_to_bits(math.log(4096)) == pytest.approx(12.0)


@pytest.mark.parametrize("name", ["raster-softmax-mini", "random-diffusion-mini"])
def test_the_shipped_loss_is_the_one_that_training_wrote_down(name):
    """results.csv has the loss over 2,048 cached scenes, here over 512 of them encoded anew: within 3 %."""
    pipe = FluidPipeline.from_pretrained(name)
    order, head, preset = name.split("-")
    data = EncodedScenes(EmojiScenes("validation"), pipe.tokenizer, pipe.text_encoder, 512)
    written = read_results(order=order, head=head, preset=preset, metric="val_loss")[-1]
    assert validation_loss(pipe.model, data, 512) == pytest.approx(float(written["value"]), rel=0.03)


def test_what_is_known_makes_the_rest_easier():
    pipe = FluidPipeline.from_pretrained("random-diffusion-mini")
    data = EncodedScenes(EmojiScenes("validation"), pipe.tokenizer, pipe.text_encoder, 64)
    losses = [loss_when_known(pipe.model, data, k, 64) for k in (0, 4, 12)]
    assert losses[0] > 1.2 * losses[1] > 1.2 * losses[2]


def test_more_scenes_than_there_are_are_refused():
    pipe = FluidPipeline.from_pretrained("random-diffusion-mini")
    with pytest.raises(ValueError, match="num_images must be a whole number from 1 to 4, got 5"):
        EncodedScenes(EmojiScenes("validation", size=4), pipe.tokenizer, pipe.text_encoder, 5)
