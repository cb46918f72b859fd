"""The reconstruction lab from control to picture, and the functions behind it."""

import datetime
import io
import math
import struct
import zlib

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from fluidlab.data.photos import load_photo
from fluidlab.tokenizer import VAEConfig, VAETokenizer, VQConfig, VQTokenizer
from fluidlab.viz.plots_tokenizers import (
    changed_pixels,
    code_shares,
    code_usage,
    comparison,
    crop,
    drift,
    error_map,
    latent_channels,
    nearest_codes,
    rate_curve,
    reconstruction_rows,
    vocabulary_curves,
)
from fluidlab.viz.reconstruction_lab import (
    OWN_FILE,
    ReconstructionLab,
    code_length,
    few_codes,
    heat,
    read_upload,
    reconstruct_one,
    spoil,
    spread_codes,
    view_box,
)
from fluidlab.viz.show import figure_html


@pytest.fixture(scope="module")
def lab():
    torch.manual_seed(0)
    small = {"width": 8, "encoder_depth": 1, "decoder_depth": 1, "coarse_width": 8}
    vae = VAETokenizer(VAEConfig(**small, coarse_depth=1)).eval()
    vq = VQTokenizer(VQConfig(**small, codebook_size=8, coarse_encoder_depth=1, coarse_decoder_depth=1)).eval()
    pictures = {name: lambda size, name=name: load_photo(name, size) for name in ("chelsea", "coffee")}
    return ReconstructionLab({"continuous": vae, "discrete": vq}, pictures, fallback="chelsea")


def set_all(lab, **values):
    start = {"picture": "chelsea", "size": 64, "tokenizer": "continuous", "zoom": 1.0, "x": 50, "y": 50,
             "errors": True, "step": 0.0, "channels": 4, "code_bits": 3}
    for name, value in {**start, **values}.items():
        lab.explorer.controls[name].value = value
    return lab.explorer.picture.widget.value


def png_file(color):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, "PNG")
    return {"name": "mine.png", "type": "image/png", "size": 1, "content": memoryview(buffer.getvalue()),
            "last_modified": datetime.datetime(2024, 1, 1)}


@pytest.mark.parametrize("change", [{"picture": "coffee"}, {"tokenizer": "discrete"}, {"zoom": 4.0}, {"errors": False},
                                    {"step": 2.0}, {"channels": 1}, {"size": 128}])
def test_every_control_changes_the_picture(lab, change):
    assert set_all(lab) != set_all(lab, **change)


def test_the_numbers_below_the_picture_are_those_of_the_tokenizer(lab):
    assert "192 bits" not in set_all(lab)
    assert "4,096 bits in 16 tokens" in set_all(lab)
    assert "48 bits in 16 tokens" in set_all(lab, tokenizer="discrete")         # 16 tokens of log2(8) bits
    assert "2,048 bits" in set_all(lab, channels=2)
    assert "32 bits in 16 tokens of 4 codes" in set_all(lab, tokenizer="discrete", code_bits=2)


def test_an_uploaded_file_is_shown_and_a_broken_one_is_told_of(lab):
    assert "no file yet, so chelsea" in set_all(lab, picture=OWN_FILE)
    set_all(lab)
    lab.upload.value = (png_file("red"),)
    assert lab.explorer.controls["picture"].value == OWN_FILE
    assert 'alt="your own file' in lab.explorer.picture.widget.value
    lab.upload.value = ({**png_file("red"), "name": "notes.txt", "content": memoryview(b"no picture")},)
    assert "&#x27;notes.txt&#x27; cannot be read as a picture" in lab.explorer.picture.widget.value
    lab.upload.value = ()
    assert "no file yet" in lab.explorer.picture.widget.value


def test_upload_reads_the_newest_file():
    assert read_upload(()) is None
    assert read_upload((png_file("red"), png_file("blue"))).getpixel((0, 0)) == (0, 0, 255)


def test_uploads_are_limited_before_they_are_unpacked(monkeypatch):
    bomb = {**png_file("red"), "name": "bomb.png", "content": zeros_png(20_000)}        # 400 million pixels, 48 kB
    with pytest.raises(ValueError, match="'bomb.png' (has 400,000,000 pixels|cannot be read as a picture)"):
        read_upload((bomb,))
    wide = {**bomb, "name": "wide.png", "content": zeros_png(7_000)}
    with pytest.raises(ValueError, match="'wide.png' has 49,000,000 pixels; a picture may have at most 40,000,000"):
        read_upload((wide,))
    with pytest.raises(ValueError, match="'big' has 20,000,001 bytes; a picture may have at most 20,000,000"):
        read_upload(({"name": "big", "content": bytes(20_000_001)},))
    broken = bytearray(png_file("red")["content"])
    broken[16] ^= 0xFF                                                                   # a chunk whose sum is wrong
    with pytest.raises(ValueError, match="'red.png' cannot be read as a picture"):
        read_upload(({**png_file("red"), "name": "red.png", "content": bytes(broken)},))


def zeros_png(side):
    """A black square, one bit a pixel, which is small however large it is."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_lab_without_tokenizers_is_refused():
    with pytest.raises(ValueError, match="0 tokenizers and 1 pictures"):
        ReconstructionLab({}, {"a": None})


def test_spoil_keeps_rounds_and_drops():
    tokens = torch.randn(2, 4, 16)
    assert torch.equal(spoil(tokens), tokens)
    rounded = spoil(tokens, step=0.5)
    assert torch.equal((rounded / 0.5).round(), rounded / 0.5) and (rounded - tokens).abs().max() <= 0.25
    kept = spoil(tokens, channels=1).reshape(2, 4, 4, 4)                        # (B, N, position, latent channel)
    assert torch.equal(kept[..., 0], tokens.reshape(2, 4, 4, 4)[..., 0]) and kept[..., 1:].abs().max() == 0
    for bad in ({"step": -1.0}, {"channels": 0}, {"channels": 5}):
        with pytest.raises(ValueError, match="step must be at least 0 and channels in 1..4"):
            spoil(tokens, **bad)


def test_code_length_is_the_entropy_on_gaussian_tokens():
    # 64,000 numbers: the mean length has a standard error near 0.7 / sqrt(64000) = 0.003 bits, so 0.02 is 7 of them.
    tokens = spoil(torch.randn(10, 400, 16), step=0.5)
    per_number = code_length(tokens, 0.5).sum().item() / tokens.numel()
    assert per_number == pytest.approx(math.log2(math.sqrt(2 * math.pi * math.e) / 0.5), abs=0.02)


def test_code_length_probabilities_sum_to_one_and_far_numbers_are_finite():
    values = torch.arange(-20, 21).float().reshape(-1, 1, 1) * 0.5
    assert torch.exp2(-code_length(values, 0.5)).sum().item() == pytest.approx(1.0, abs=1e-9)
    assert torch.isfinite(code_length(torch.full((1, 1, 1), 100.0), 0.5)).all()
    with pytest.raises(ValueError, match="step is 0"):
        code_length(values, 0)


def test_view_box_stays_inside_and_keeps_its_size():
    assert view_box(64, 1.0, 0, 100) == (0, 0, 64, 64)
    assert view_box(64, 4.0, 0, 100) == (0, 48, 16, 64)
    assert view_box(64, 4.0, 50, 50) == (24, 24, 40, 40)


def test_reconstruct_one_handles_pictures_that_are_not_square(lab):
    image, bits = reconstruct_one(lab.tokenizers["discrete"], torch.zeros(3, 32, 64))
    assert image.shape == (3, 32, 64) and bits == 8 * 3


def test_error_map_is_in_levels_and_refuses_other_shapes():
    image = torch.zeros(3, 4, 4)
    assert error_map(image, image + 2 / 255).mean().item() == pytest.approx(1.0, abs=1e-4)
    none, worst, worse = heat(torch.tensor([[0.0, 64.0, 1000.0]]))[:, 0].T
    assert none.max() < 5 and worst.min() > 150 and torch.equal(worst, worse)
    with pytest.raises(ValueError, match=r"\(3, 4, 4\) and the reconstruction \(3, 4, 5\)"):
        error_map(image, torch.zeros(3, 4, 5))


def test_crop_refuses_boxes_outside():
    assert crop(torch.zeros(3, 8, 9), (1, 2, 4, 8)).shape == (3, 6, 3)
    for box in ((0, 0, 10, 8), (3, 3, 3, 5)):
        with pytest.raises(ValueError, match="image of 9x8 pixels"):
            crop(torch.zeros(3, 8, 9), box)


def test_every_plot_becomes_a_picture():
    plt.close("all")  # those of the tests before
    images = torch.zeros(2, 3, 32, 32)
    named = {"continuous": images + 0.1, "discrete": images - 0.2}
    one = {name: batch[0] for name, batch in named.items()}
    figures = [comparison({"original": images[0], **one}, (4, 4, 20, 20)), comparison(one),
               reconstruction_rows(images, named), latent_channels(images[0], torch.randn(4, 4, 4)),
               changed_pixels(images[0], one, token=3, columns=2), code_usage(torch.tensor([5, 0, 1, 90])),
               rate_curve([1, 2, 4], [10.0, 12.0, 13.0], {"discrete": (2, 11.0)}, ceiling=14.0),
               vocabulary_curves([16, 32], [10.0, 11.0], [1.0, 0.9]),
               drift(torch.tensor([0.0, 128, 255]), {"continuous": torch.tensor([1.0, 128.0, 250.0])})]
    assert all("data:image/" in figure_html(figure, alt="a plot") for figure in figures)


def test_shares_are_bars_in_per_cent_under_their_perplexity():
    left, right = code_shares({"even": torch.tensor([0.5, 0.5]), "one": torch.tensor([1.0, 0.0])},
                              {"even": 2.0, "one": 1.0}).axes
    assert [bar.get_height() for bar in left.patches] == [50, 50] and left.get_title() == "even: 2.00"
    assert [bar.get_height() for bar in right.patches] == [100, 0] and right.get_title() == "one: 1.00"


def test_each_vector_is_joined_to_its_code():
    axis = nearest_codes(torch.tensor([[0.0, 1.0], [4.0, 4.0]]), torch.tensor([[1.0, 1.0], [5.0, 5.0]]),
                         torch.tensor([0, 1])).axes[0]
    assert [line.get_xydata().tolist() for line in axis.lines if len(line.get_xdata()) == 2] == [
        [[0, 1], [1, 1]], [[4, 4], [5, 5]]]
    assert [text.get_text() for text in axis.texts] == ["0", "1"]


def test_few_codes_are_the_nearest_of_those_that_are_kept(lab):
    vq, image = lab.tokenizers["discrete"], load_photo("chelsea", 64) / 127.5 - 1
    assert torch.equal(few_codes(vq, image, 8), vq.encode(image[None]))
    kept = spread_codes(vq, 3)
    tokens = few_codes(vq, image, 3)
    assert len(set(kept.tolist())) == 3 and set(tokens.flatten().tolist()) <= set(kept.tolist())
    asked = vq.features(image[None]).flatten(2)[0].T                            # (N, E)
    distance = torch.cdist(torch.nn.functional.normalize(asked, dim=1), vq.codebook.codes[kept])
    assert torch.equal(kept[distance.argmin(dim=1)], tokens[0])
    for number in (0, 9):
        with pytest.raises(ValueError, match=f"{number} of 8 codes were asked of a VQTokenizer"):
            few_codes(vq, image, number)
