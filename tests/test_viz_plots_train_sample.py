"""Arrows of gradients are drawn as long as they are; bars of probabilities and scales are as high as they are."""

import torch

from fluidlab.viz.plots_sample import probability_bars, scales_figure
from fluidlab.viz.plots_train import clip_figure


def test_arrows_keep_their_length_and_the_circle_is_the_limit():
    before = torch.tensor([[3.0, 4.0], [0.3, 0.0]])
    after = {"clipped": torch.tensor([[0.6, 0.8], [0.3, 0.0]])}
    axis = clip_figure(before, after, 1.0).axes[0]
    grey, coloured = axis.collections
    assert grey.U.tolist() == before[:, 0].tolist() and grey.V.tolist() == before[:, 1].tolist()
    assert coloured.U.tolist() == after["clipped"][:, 0].tolist()
    assert axis.patches[0].radius == 1 and axis.get_xlim()[1] >= 4 and axis.get_title() == "clipped"


def test_probabilities_are_bars_of_their_height():
    left, right = probability_bars({"cold": torch.tensor([1.0, 0.0]), "warm": torch.tensor([0.5, 0.25])}).axes
    assert [bar.get_height() for bar in right.patches] == [0.5, 0.25] and left.get_title() == "cold"


def test_a_step_is_as_wide_as_its_tokens_and_as_high_as_its_scale():
    axis = scales_figure({"two steps": ([4, 12], [2.0, 5.0])}).axes[0]
    assert [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axis.patches] == [(0, 4, 2), (4, 12, 5)]
