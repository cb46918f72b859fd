"""The lecture demo without a browser: its states, its numbers, its page."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fluidlab import EmojiScenes, load_tokenizer
from fluidlab.cli import main
from fluidlab.tokenizer.metrics import psnr
from fluidlab.viz.demo import data_uri, demo_page, states
from fluidlab.viz.reconstruction_lab import reconstruct_one


def scene(size):
    return EmojiScenes("test", size, 0)[2]["image"]


@pytest.fixture(scope="module")
def made():
    return states(load_tokenizer("scenes-vq"), load_tokenizer("scenes-vae"), {"scene </script>": scene}, sizes=(64,),
                  levels=((4096, 4), (16, 1)))


def test_a_state_says_what_is_kept_with_its_quality_and_bits(made):
    found, _ = made
    image = scene(64) / 127.5 - 1
    result, _ = reconstruct_one(load_tokenizer("scenes-vq"), image, codes=16)
    assert found[1].discrete_said == f"16 codes: {psnr(image[None], result[None]).item():.1f} dB, 64 bits"
    assert found[0].discrete_said.endswith("192 bits") and found[0].discrete_said.startswith("4,096 codes")
    assert found[1].continuous_said.startswith("4 numbers a token") and found[1].continuous_said.endswith("1,024 bits")


def test_every_picture_of_a_state_is_there_and_the_original_is_exact(made):
    found, sources = made
    for state in found:
        keys = [state.original, state.discrete, state.discrete_error, state.continuous, state.continuous_error]
        assert len({sources[key] for key in keys}) == 5
    data = base64.b64decode(sources[found[0].original].split(",")[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), scene(64).permute(1, 2, 0).numpy())


def test_the_page_holds_its_table_and_refers_to_nothing_else(made):
    page = demo_page(*made)
    [table] = re.findall(r'<script id="table" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert json.loads(table)["states"][1]["picture"] == "scene </script>" and "@table@" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "http" not in page
    assert page.count("<img") == 3 and "CC BY-SA 4.0" in page


def test_a_picture_in_the_page_is_without_loss():
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    back = Image.open(io.BytesIO(base64.b64decode(data_uri(Image.fromarray(noise)).split(",")[1])))
    assert np.array_equal(np.asarray(back), noise)


def test_the_command_writes_the_page(tmp_path, capsys):
    out = tmp_path / "new" / "demo.html"
    assert main(["demo", "--out", str(out), "--sizes", "80"]) == 0
    assert "15 states" in capsys.readouterr().out and out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert main(["demo", "--out", str(out), "--sizes", "81"]) == 2
