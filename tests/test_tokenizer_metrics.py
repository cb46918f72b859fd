"""The measures against their closed forms."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from fluidlab.tokenizer import VAEConfig, VAETokenizer, VQConfig, VQTokenizer
from fluidlab.tokenizer.metrics import (
    bits_per_image,
    code_perplexity,
    codebook_usage,
    evaluate_tokenizer,
    gaussian_bits,
    psnr,
    ssim,
)


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_psnr_of_a_known_error_and_against_scikit_image():
    x = images(2, 3, 16, 16) * 0.5
    assert torch.allclose(psnr(x, x + 0.02), torch.full((2,), 40.0), atol=1e-2)
    y = x + 0.1 * images(2, 3, 16, 16).flip(0)
    expected = [peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=2.0) for a, b in zip(x, y, strict=True)]
    assert psnr(x, y).tolist() == pytest.approx(expected, abs=1e-3)


def test_ssim_is_one_for_equal_images_and_less_for_noise():
    x = images(2, 3, 16, 16)
    assert ssim(x, x).tolist() == pytest.approx([1.0, 1.0])
    assert (ssim(x, x.flip(0)) < 0.5).all()


def test_bits():
    vae, vq = VAETokenizer(VAEConfig(width=16, coarse_width=16)), VQTokenizer(VQConfig(width=16, coarse_width=16))
    assert bits_per_image(vq, 16) == 16 * 12
    assert bits_per_image(vae, 16) == 16 * 16 * 16


def test_gaussian_bits_against_the_counted_entropy_of_rounded_normals():
    """A million normals rounded to 0.1: the plug-in entropy is within 0.01 bits of the formula."""
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    _, counts = (x / 0.1).round().unique(return_counts=True)
    share = counts / counts.sum()
    assert gaussian_bits(x.reshape(-1, 1, 1), 0.1) == pytest.approx(-(share * share.log2()).sum().item(), abs=0.01)


def test_usage_and_perplexity():
    codes = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    assert codebook_usage(codes, 8) == 0.5
    assert code_perplexity(codes, 8) == pytest.approx(4.0)
    assert code_perplexity(torch.zeros(2, 4, dtype=torch.long), 8) == pytest.approx(1.0)


def test_evaluate_gives_plain_numbers_for_both_kinds():
    x = images(3, 3, 32, 48)
    small = {"width": 16, "coarse_width": 16}
    for tokenizer in (VAETokenizer(VAEConfig(**small)), VQTokenizer(VQConfig(**small))):
        result = evaluate_tokenizer(tokenizer, x, batch_size=2)
        assert {"psnr", "ssim", "bits_per_image"} <= set(result)
        assert all(isinstance(value, float) and math.isfinite(value) for value in result.values())
