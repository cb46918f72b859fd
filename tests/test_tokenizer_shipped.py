"""What the course ships must be what data/README.md says it is: floors a little below the measured numbers."""

import pytest

from fluidlab.data.scenes import EmojiScenes
from fluidlab.tokenizer import load_tokenizer
from fluidlab.tokenizer.metrics import codebook_usage, evaluate_tokenizer


@pytest.mark.parametrize("name, psnr, ssim", [("scenes-vae", 26.4, 0.91), ("scenes-vq", 22.5, 0.84)])
def test_held_out_scenes_come_back(name, psnr, ssim):
    """128 of the 512 scenes of the table; their mean lies within 0.3 dB of the whole."""
    images = EmojiScenes("test").batch(range(128))[0].float() / 127.5 - 1
    result = evaluate_tokenizer(load_tokenizer(name), images)
    assert result["psnr"] > psnr and result["ssim"] > ssim


def test_tokens_have_unit_variance_and_every_code_can_be_met():
    images = EmojiScenes("test").batch(range(1024))[0].float() / 127.5 - 1
    tokens = load_tokenizer("scenes-vae").encode(images[:256])
    assert tokens.shape == (256, 16, 16) and tokens.mean().abs() < 0.1 and abs(tokens.std().item() - 1) < 0.1
    codes = load_tokenizer("scenes-vq").encode(images)
    assert codebook_usage(codes, 4096) > 0.8           # 16,384 tokens, four for each code
