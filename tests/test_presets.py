import pytest
import torch

from fluidlab.model.fluid import Fluid
from fluidlab.presets import preset

DERIVED = {"150m": 151e6, "277m": 274e6, "369m": 368e6, "665m": 656e6, "1.1b": 1.09e9, "3.1b": 3.12e9, "10.5b": 10.4e9}


@pytest.mark.parametrize("size, expected", DERIVED.items())
def test_the_papers_sizes_count_what_their_arithmetic_says(size, expected):
    """Derived, not published: 16 d^2 a block, 12 d^2 an aligner block, about 34 d^2 for the head, the text projection.

    3 % is the allowance for norms, biases, positions and the projection from T5-XXL, which the round figures leave out.
    """
    with torch.device("meta"):
        model = Fluid(preset(size))
    assert model.count_parameters()["total"] == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("size", ["nano", "mini", "277m"])
def test_forward_and_backward_have_static_shapes(size):
    """On the meta device a boolean index or an .item() raises: what compiles once for a TPU passes here."""
    for order in ("raster", "random"):
        for head in ("softmax", "diffusion", "flow"):
            with torch.device("meta"):
                model = Fluid(preset(size, order=order, head=head))
                c = model.config
                tokens = (torch.zeros(2, c.seq_len, dtype=torch.long) if head == "softmax"
                          else torch.zeros(2, c.seq_len, c.token_dim))
                features, mask = torch.zeros(2, 5, c.text_dim), torch.ones(2, 5, dtype=torch.bool)
            loss = model(tokens, features, mask, torch.Generator())
            loss.backward()
            assert loss.shape == () and model.backbone.positions.grad.shape == (c.seq_len, c.width)


def test_changes_win_over_the_table_and_unknown_sizes_are_named():
    assert preset("nano", head="flow", depth=5).depth == 5
    with pytest.raises(ValueError, match="size must be one of femto, .* got 'huge'"):
        preset("huge")
