"""Loss maps say which tokens count, arrows of gradients are drawn as long as they are."""

import torch

from fluidlab.viz.plots_train import clip_figure, loss_maps


def test_a_loss_map_colours_the_tokens_that_count_and_writes_every_loss():
    losses, hidden = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[True, False, False, True]])
    axis = loss_maps(losses, hidden, (2, 2), ["two count"]).axes[0]
    assert axis.images[0].get_array().tolist() == [[1, 0], [0, 1]] and axis.get_title() == "two count"
    assert [(text.get_text(), text.get_weight()) for text in axis.texts] == [
        ("1.0", "bold"), ("2.0", "normal"), ("3.0", "normal"), ("4.0", "bold")]
    assert [text.get_position() for text in axis.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_arrows_keep_their_length_and_the_circle_is_the_limit():
    before = torch.tensor([[3.0, 4.0], [0.3, 0.0]])
    after = {"clipped": torch.tensor([[0.6, 0.8], [0.3, 0.0]])}
    axis = clip_figure(before, after, 1.0).axes[0]
    grey, coloured = axis.collections
    assert grey.U.tolist() == before[:, 0].tolist() and grey.V.tolist() == before[:, 1].tolist()
    assert coloured.U.tolist() == after["clipped"][:, 0].tolist()
    assert axis.patches[0].radius == 1 and axis.get_xlim()[1] >= 4 and axis.get_title() == "clipped"
