"""Recorded attention is the layer's own, influence finds every leak and no other, figures show what they are given."""

import pytest
import torch
from helpers import batch, seeded, variant

from fluidlab.layers import Attention
from fluidlab.sample.generate import generate
from fluidlab.viz.plots_orders import (
    SIDES,
    change_map_figure,
    context_figure,
    influence,
    influence_figure,
    known_neighbours,
    mask_ratio_figure,
    may_look,
    neighbours_figure,
    orders_figure,
    rules_figure,
    schedule_figure,
    sight_figure,
    weights_figure,
)
from fluidlab.viz.plots_text import (
    NULL_LABEL,
    accuracy_figure,
    attention_heatmaps,
    attention_lift,
    attention_weights,
    attention_when_drawn,
    cosine_similarities,
    mask_figure,
    overlay_figure,
    pieces_html,
    record_attention,
    similarity_figure,
    text_labels,
)
from fluidlab.viz.show import png_bytes


@pytest.mark.parametrize("cross, masked, causal", [(True, True, False), (True, False, False), (False, False, True),
                                                   (False, False, False), (False, True, False)])
def test_recorded_weights_times_values_are_the_layers_output(cross, masked, causal):
    layer, x = Attention(32, 4), torch.randn(3, 7, 32)
    context = torch.randn(3, 5, 32) if cross else None
    S = 5 if cross else 7
    mask = torch.arange(S) < torch.tensor([[S], [2], [1]]) if masked else None
    weights = attention_weights(layer, x, context, mask, causal)
    values = layer.keys_values(x if context is None else context)[1]
    ours = layer.to_out((weights @ values).transpose(1, 2).flatten(2))
    assert torch.allclose(ours, layer(x, context, mask, causal), atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 4, 7), atol=1e-5)
    assert mask is None or (weights.masked_select(~mask[:, None, None, :].expand_as(weights)) == 0).all()


@pytest.mark.parametrize("order", ["raster", "random"])
def test_recording_changes_nothing_and_ends_with_its_block(order):
    model = variant(order, "diffusion")
    tokens, features, mask = batch(model)
    plain = model(tokens, features, mask, seeded(1))
    with record_attention(model, "self_attention") as records:
        watched = model(tokens, features, mask, seeded(1))
    assert torch.equal(plain, watched)
    assert [len(record) for record in records] == [1] * len(model.backbone.blocks)
    looked = (records[0][0] > 0).all(dim=0).all(dim=0)                             # (N, N)
    assert torch.equal(looked, may_look(model.order.causal, 16))
    model(tokens, features, mask, seeded(1))
    assert len(records[0]) == 1


def test_a_cache_cannot_be_recorded():
    model = variant("raster", "softmax")
    _, features, mask = batch(model)
    with record_attention(model, "self_attention"), pytest.raises(ValueError, match="use_cache=False"):
        generate(model, features, mask)


def test_influence_raster_sees_only_what_came_before():
    model = variant("raster", "diffusion")
    tokens, features, mask = batch(model, B=1)
    moved = influence(model, tokens, features, mask, torch.ones(1, 16, dtype=torch.bool), torch.randn(1, 16, 16))
    assert torch.equal(moved > 0, torch.ones(16, 16, dtype=torch.bool).tril(-1))   # z_i knows tokens 0 .. i-1


@pytest.mark.parametrize("head", ["softmax", "diffusion"])
def test_influence_random_known_tokens_reach_all_and_hidden_ones_none(head):
    model = variant("random", head)
    tokens, features, mask = batch(model, B=1)
    hidden = (torch.arange(16) % 3 == 0)[None]
    other = (tokens + 1) % 64 if head == "softmax" else torch.randn(1, 16, 16)
    moved = influence(model, tokens, features, mask, hidden, other)
    assert torch.equal(moved > 0, ~hidden.expand(16, 16))


class Pipe:
    """A pipeline of untrained parts, with a tokenizer that draws nothing."""

    def __init__(self, order):
        self.model, self.tokenizer, self.text_encoder = variant(order, "diffusion"), self, Words()

    def decode(self, tokens):
        return torch.zeros(len(tokens), 3, 64, 64)


class Words:
    def __call__(self, prompts):
        features = torch.randn(1, 3, 128, generator=seeded(0))
        return features, torch.ones(1, 3, dtype=torch.bool)

    def tokenize(self, prompt):
        return ["\u2581red", "\u2581cat", "</s>"]


@pytest.mark.parametrize("order", ["raster", "random"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_every_position_has_the_attention_of_the_step_that_drew_it(order, guidance_scale):
    pipe = Pipe(order)
    image, weights = attention_when_drawn(pipe, "red cat", num_denoising_steps=1, guidance_scale=guidance_scale)
    assert image.shape == (3, 64, 64) and weights.shape == (len(pipe.model.backbone.blocks), 16, 4)
    assert torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]), atol=1e-5)
    assert text_labels(pipe, "red cat") == [NULL_LABEL, "red", "cat", "</s>"]


def test_lift_is_one_where_all_positions_look_alike():
    weights = torch.tensor([[0.2, 0.8], [0.2, 0.8]])
    assert torch.allclose(attention_lift(weights), torch.ones(2, 2))


def test_cosine():
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    assert cosine_similarities(vectors).round(decimals=5).tolist()[0] == [1.0, 1.0, 0.0, -1.0]


def test_chips_are_escaped_and_counted():
    text = pieces_html([("a <cat>", ["\u2581a", "\u2581cat", "</s>"]), ("", [])])
    assert "a &lt;cat&gt;" in text and "&lt;/s&gt;" in text and text.count("<code") == 3 and "(3 pieces)" in text
    assert "(empty)" in text and "(0 pieces)" in text


def test_an_overlay_refuses_a_word_that_is_not_there():
    with pytest.raises(ValueError, match="no token 'dog'; the tokens are red, cat"):
        overlay_figure(torch.zeros(3, 64, 64), torch.full((16, 2), 0.5), ["red", "cat"], ["dog"])


FIGURES = {
    "mask": lambda: mask_figure(torch.tensor([[True, True], [True, False]]), [["a", "b"], ["c"]]),
    "similarity": lambda: similarity_figure({"one": torch.eye(3), "two": torch.ones(3, 3)}, ["a", "b", "c"]),
    "accuracy": lambda: accuracy_figure([("asked", {"here": 0.5, "there": 1.0})], [0.25]),
    "heatmaps": lambda: attention_heatmaps(torch.zeros(3, 64, 64), torch.rand(2, 16, 3), ["a", "b", "c"]),
    "overlay": lambda: overlay_figure(torch.zeros(3, 64, 64), torch.rand(16, 2), ["a", "b"], ["b"]),
    "rules": lambda: rules_figure({"raster": may_look(True, 16), "random": may_look(False, 16)}),
    "sight": lambda: sight_figure({"raster": may_look(True, 16)}, [0, 5, 15], (4, 4)),
    "influence": lambda: influence_figure({"raster": torch.eye(16)}, {"raster": torch.eye(16)[0].bool()}),
    "changes": lambda: change_map_figure({"raster": torch.rand(16)}, 5, (4, 4), {"raster": torch.eye(16)[0].bool()}),
    "ratios": lambda: mask_ratio_figure(torch.rand(1000)),
    "schedule": lambda: schedule_figure([("four", [1, 3, 5, 7]), ("sixteen", [1] * 16)]),
    "weights": lambda: weights_figure({"raster": torch.rand(16, 16).tril(), "random": torch.rand(16, 16)}),
    "neighbours": lambda: neighbours_figure({"raster": dict.fromkeys(SIDES, 0.5), "random": dict.fromkeys(SIDES, 1.0)}),
    "context": lambda: context_figure({"raster": [1.0, 0.5], "random": [0.9, 0.4], "random, twice": [0.8, 0.3]}),
    "orders": lambda: orders_figure([("raster", torch.arange(16))], (4, 4)),
}


def test_a_table_of_tokens_says_what_each_real_one_gets():
    mask, pieces = torch.tensor([[True, True], [True, False]]), [["a", "b"], ["c"]]
    texts = [text.get_text() for text in mask_figure(mask, pieces, torch.tensor([[0.25, 0.75], [1, 0]])).axes[0].texts]
    assert texts == ["a\n25%", "b\n75%", "c\n100%"]
    assert [text.get_text() for text in mask_figure(mask, pieces).axes[0].texts] == ["a", "b", "c"]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_within_a_notebooks_page(name):
    figure = FIGURES[name]()
    assert figure.get_size_inches()[0] <= 12
    assert png_bytes(figure)[:4] == b"\x89PNG"


def test_raster_never_knows_the_right_or_the_below_and_random_knows_every_side_half_of_the_time():
    """4,000 random orders, 12 pairs a side: half of them within 5 standard errors (pairs of one image share tokens)."""
    raster = known_neighbours(torch.arange(16)[None], (4, 4))
    assert raster == {"above": 1.0, "left": 1.0, "right": 0.0, "below": 0.0}
    shares = known_neighbours(torch.rand(4000, 16, generator=seeded(0)).argsort(dim=1), (4, 4))
    assert all(abs(share - 0.5) < 5 * 0.5 / 4000 ** 0.5 for share in shares.values())
