"""Pictures keep their pixels, and none goes out without its alternative text."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from fluidlab.viz.show import (
    LINE_STYLES,
    MARKERS,
    VARIANT_COLORS,
    figure_html,
    image_grid,
    show,
    to_array,
    variant_style,
)


def decoded(text):
    """The image inside a figure's HTML, as RGB."""
    data = re.search(r'src="data:image/png;base64,([^"]+)"', text).group(1)
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def test_an_image_survives_the_way_into_html_bit_for_bit():
    image = torch.randint(0, 256, (3, 48, 32), dtype=torch.uint8)
    assert np.array_equal(np.asarray(decoded(figure_html(image, "noise"))), image.permute(1, 2, 0).numpy())


def test_float_images_map_minus_one_to_black_and_one_to_white():
    image = torch.tensor([-1.0, 0.0, 1.0]).expand(3, 1, 3)
    assert to_array(image)[0, :, 0].tolist() == [0, 128, 255]


def test_bfloat16_and_gradients_are_no_obstacle():
    image = torch.zeros(3, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    assert to_array(image).shape == (4, 4, 3)


def test_grid_enlarges_without_smoothing_and_places_every_image():
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    grid = np.asarray(image_grid(images, columns=3, scale=4, gap=2))
    assert grid.shape == (2 * 66 - 2, 3 * 66 - 2, 3)
    for i in range(5):
        y, x = (i // 3) * 66, (i % 3) * 66
        assert np.array_equal(grid[y:y + 64:4, x:x + 64:4], images[i].permute(1, 2, 0).numpy())
        assert np.array_equal(grid[y:y + 64:4], grid[y + 3:y + 64:4])


def test_titles_are_drawn_below_and_cut_to_the_width_of_their_image():
    black = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    grid = np.asarray(image_grid(black, titles=["a", "w" * 200], scale=1, gap=20))
    assert grid.shape[0] == 64 + 18
    assert (grid[64:, :64] < 128).any()
    assert (grid[:, 64:84] == 255).all()


def test_a_closed_figure_leaves_no_second_picture():
    figure, axis = plt.subplots()
    axis.plot([0, 1])
    text = figure_html(figure, "a rising line", caption="1 < 2")
    assert figure.number not in plt.get_fignums()
    assert "<figcaption>1 &lt; 2</figcaption>" in text
    assert decoded(text).size == (800, 400)


def test_plots_are_small_files():
    figure, axis = plt.subplots()
    axis.plot(np.sin(np.arange(200) / 10))
    assert len(figure_html(figure, "a sine")) < 60_000


def test_alt_text_reaches_the_page_escaped():
    assert 'alt="a &quot;cat&quot; &amp; a dog"' in figure_html(torch.zeros(3, 4, 4), 'a "cat" & a dog')


def test_show_displays_the_figure(monkeypatch):
    shown = []
    monkeypatch.setattr("fluidlab.viz.show.display", shown.append)
    show(torch.zeros(2, 3, 8, 8), alt="two grey squares")
    assert 'alt="two grey squares"' in shown[0].data


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_no_picture_without_alt_text(alt):
    with pytest.raises(ValueError, match="every picture needs a sentence"):
        figure_html(torch.zeros(3, 4, 4), alt)


@pytest.mark.parametrize("image, sentence", [
    (torch.zeros(4, 8, 8), r"\(8, 8, 4\); allowed are"),
    (torch.zeros(8, 8), r"\(8, 8\); allowed are"),
    (torch.full((3, 8, 8), 255.0), r"must lie in \[-1, 1\]"),
    (torch.full((3, 8, 8), float("nan")), r"must lie in \[-1, 1\]"),
    (np.zeros((8, 8, 3)), "float64"),
    ("cat.png", "allowed are a PIL image"),
])
def test_what_is_no_image_is_refused(image, sentence):
    with pytest.raises(ValueError, match=sentence):
        to_array(image)


def test_a_grid_refuses_what_does_not_fit_together():
    with pytest.raises(ValueError, match="all of one size"):
        image_grid([torch.zeros(3, 8, 8), torch.zeros(3, 16, 16)])
    with pytest.raises(ValueError, match="needs at least one"):
        image_grid([])
    with pytest.raises(ValueError, match="1 titles for 2 images"):
        image_grid(torch.zeros(2, 3, 8, 8), titles=["one"])


def test_every_variant_has_its_own_colour_and_a_second_mark_beside_it():
    assert len(set(VARIANT_COLORS.values())) == len(VARIANT_COLORS)
    styles = [variant_style(*name.split("-")) for name in VARIANT_COLORS]
    assert len({(s["linestyle"], s["marker"]) for s in styles}) == len(LINE_STYLES) * len(MARKERS)
    with pytest.raises(ValueError, match="no variant 'spiral-softmax'"):
        variant_style("spiral", "softmax")
