"""The order player without a browser: what is recorded, what a frame shows, and what its controls do."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from helpers import variant
from PIL import Image

from fluidlab.sample.generate import generate
from fluidlab.tokenizer import VAEConfig, VAETokenizer, VQConfig, VQTokenizer
from fluidlab.viz.order_player import (
    GAP,
    LINE,
    NEW,
    OrderPlayer,
    attention_frame,
    describe,
    describe_look,
    film_strip,
    frame,
    look_step,
    position_at,
    record,
    side_by_side,
)

SMALL = {"width": 16, "encoder_depth": 1, "decoder_depth": 1, "coarse_width": 16}


class Letters:
    """A text encoder of one piece a letter."""

    def __init__(self, dim):
        self.dim = dim

    def tokenize(self, prompt):
        return list(prompt)

    def __call__(self, prompts):
        if not prompts[0]:
            raise ValueError("this encoder wants words.")
        features = torch.randn(1, len(prompts[0]), self.dim, generator=torch.Generator())
        return features, torch.ones(1, len(prompts[0]), dtype=torch.bool)


class Pipe:
    """A pipeline of untrained parts: the player asks for nothing else."""

    def __init__(self, order, head):
        self.model = variant(order, head)
        self.tokenizer = (VQTokenizer(VQConfig(**SMALL, codebook_size=64, code_dim=4, coarse_encoder_depth=1,
                                               coarse_decoder_depth=1)) if head == "softmax" else
                          VAETokenizer(VAEConfig(**SMALL, coarse_depth=1))).eval()

        self.text_encoder = Letters(self.model.config.text_dim)


OPTIONS = dict(num_denoising_steps=2)


@pytest.mark.parametrize("order, head", [("raster", "softmax"), ("raster", "diffusion"), ("random", "softmax"),
                                         ("random", "diffusion")])
def test_a_recording_goes_from_nothing_to_everything(order, head):
    made = record(Pipe(order, head), "cat", "title", **OPTIONS)
    assert made.pixels.shape == (made.num_steps + 1, 3, 64, 64)
    assert made.unknown[0].all() and not made.unknown[-1].any() and not made.new[0].any()
    assert torch.equal(made.new.sum(0), torch.ones(16, dtype=torch.long))          # each position is new exactly once
    assert torch.equal(made.unknown[:-1] & ~made.unknown[1:], made.new[1:])


def test_the_last_state_is_the_image_that_the_tokens_decode_to():
    pipe, last = Pipe("random", "diffusion"), []
    made = record(pipe, "cat", "title", **OPTIONS)
    with torch.no_grad():
        tokens = generate(pipe.model, *pipe.text_encoder(["cat"]), generator=[torch.Generator().manual_seed(0)],
                          on_step=last.append, **OPTIONS)
        assert torch.allclose(made.pixels[-1], pipe.tokenizer.decode(tokens)[0], atol=1e-5)
    assert len(last) == made.num_steps


def test_a_frame_outlines_the_new_and_hatches_the_unknown():
    made = record(Pipe("raster", "softmax"), "cat", "title")
    picture = frame(made, 3, scale=4)                                              # positions 0, 1, 2 are known
    orange = tuple(int(NEW[i:i + 2], 16) for i in (1, 3, 5))
    patch = [picture[64 * (n // 4):64 * (n // 4 + 1), 64 * (n % 4):64 * (n % 4 + 1)] for n in range(16)]
    assert all((patch[2][edge] == orange).all() for edge in (0, -1))
    assert not (patch[1] == orange).all(axis=-1).any()
    assert all(np.array_equal(patch[n], patch[3]) for n in range(4, 16))           # all unknown look alike
    assert not np.array_equal(patch[0], patch[3])
    assert np.array_equal(frame(made, 16), frame(made, 99))                        # ended is ended


def test_a_state_in_words():
    made = record(Pipe("raster", "softmax"), "cat", "raster")
    assert describe(made, 0) == "raster: 16 of 16 tokens unknown"
    assert describe(made, 1) == "raster: 15 of 16 tokens unknown; new at position 0"
    frames, titles = film_strip(made, [0, 16])
    assert titles == ["step 0: 16 left", "step 16: 0 left"] and frames[0].shape == (128, 128, 3)


def player():
    pipes = {order: Pipe(order, "diffusion") for order in ("raster", "random")}

    def draw(prompt, seed):
        return [record(pipes["raster"], prompt, "raster", seed, **OPTIONS),
                record(pipes["random"], prompt, "random", seed, num_inference_steps=4, **OPTIONS)]
    return OrderPlayer(draw, "cat")


def test_slider_and_box_move_the_picture():
    made = player()
    assert made.step.value == 5 and made.explorer.picture.widget.value == side_by_side(made.recordings, 5)
    made.step.slider.value = 2
    assert made.step.box.value == 2 and made.explorer.picture.widget.value == side_by_side(made.recordings, 2)
    assert "raster: 14 of 16 tokens unknown" in made.explorer.picture.widget.value
    made.step.box.value = 10_000                                                   # beyond the end: the end
    assert made.step.slider.value == 16 and "raster: 0 of 16" in made.explorer.picture.widget.value
    made.step.box.value = -5
    assert made.step.slider.value == 0 and "random: 16 of 16" in made.explorer.picture.widget.value


def test_both_recordings_stand_side_by_side():
    data = re.search(r"base64,([^\"]+)", side_by_side(player().recordings, 4)).group(1)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (2 * 256 + 16, 256 + 18)


def test_the_button_draws_another_prompt_and_a_mistake_is_told_in_place():
    made = player()
    before = made.explorer.picture.widget.value
    made.prompt.value, made.seed.value = "a dog", 7
    assert made.explorer.picture.widget.value == before                            # nothing is drawn unasked
    made.button.click()
    assert made.explorer.picture.widget.value not in ("", before) and "<img" in made.explorer.picture.widget.value
    made.prompt.value = ""
    made.button.click()
    assert "this encoder wants words." in made.explorer.picture.widget.value
    assert "<img" not in made.explorer.picture.widget.value


@pytest.mark.parametrize("order", ["raster", "random"])
def test_a_token_looks_at_words_and_at_known_positions(order):
    made = record(Pipe(order, "diffusion"), "cat", "title", **OPTIONS)
    look = made.look(4, 9)
    assert list(look.words) == ["(null)", "c", "a", "t"] and sum(look.words.values()) == pytest.approx(1, abs=1e-4)
    assert look.positions.shape == (16,) and 0 < look.positions.sum() <= 1 + 1e-4


def test_in_raster_order_nobody_looks_ahead():
    made = record(Pipe("raster", "diffusion"), "cat", "title", **OPTIONS)
    for position in (0, 5, 15):
        shares = made.look(position + 1, position).positions
        assert (shares[position:] == 0).all() and (shares[:position] > 0).all()


def test_attention_is_that_of_the_step_that_drew_the_token():
    made = record(Pipe("raster", "softmax"), "cat", "raster")
    assert [look_step(made, step, 3) for step in (0, 2, 3, 4, 16)] == [1, 3, 4, 4, 4]
    assert "position 3, still unknown, looks at" in describe_look(made, 0, 3)
    assert "position 3, drawn in step 4, looks at" in describe_look(made, 16, 3)
    brightest = attention_frame(made, 16, 3).reshape(4, 64, 4, 64, 3).max(axis=(1, 3, 4))      # (row, column)
    assert brightest[0, :3].min() > brightest[1:].max()                                        # only 0, 1, 2 were known


def test_a_click_and_a_typed_number_show_the_attention_of_a_token():
    made = player()
    before = made.explorer.picture.widget.value
    width, height = 2 * 256 + GAP, 256 + LINE
    made.explorer.picture.widget.spot = [(256 + GAP + 64 * 2 + 10) / width, (64 * 1 + 10) / height]   # right picture
    assert made.position.value == 6 and "position 6" in made.explorer.picture.widget.value
    made.explorer.picture.widget.spot = [0.01, (256 + LINE + GAP + 200) / (2 * (256 + LINE) + GAP)]   # second row
    assert made.position.value == 12
    made.position.box.value = -1
    assert made.explorer.picture.widget.value == before


def test_a_click_beside_the_frames_is_no_token():
    recordings = player().recordings
    assert position_at(recordings, 1, (260 / 528, 0.5)) is None                                # the gap
    assert position_at(recordings, 1, (0.1, 270 / 274)) is None                                # the line of text


def test_cancel_ends_the_recording_and_keeps_the_one_before(monkeypatch):
    made, kept = player(), []
    before = made.recordings
    monkeypatch.setattr("fluidlab.viz.recording.wanted", lambda: kept.append(0) or len(kept) < 3)
    monkeypatch.setattr("fluidlab.viz.order_player.wanted", lambda: False)
    made.button.click()
    assert made.recordings is before and 3 <= len(kept) <= 4        # the second recording ends after its first step
