"""diffusers' classes, small and random, saved to a folder and loaded through the same door."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel, VQModel

from fluidlab.tokenizer import load_tokenizer


def kl(levels=4):
    sizes = (8,) * levels
    return AutoencoderKL(
        block_out_channels=sizes, norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, scaling_factor=0.5,
    )  # fmt: skip


def vq():
    return VQModel(
        block_out_channels=(8,) * 5, norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5, num_vq_embeddings=24, vq_embed_dim=4, latent_channels=4,
    )  # fmt: skip


def images():
    return torch.rand(2, 3, 48, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_autoencoder_kl(tmp_path):
    model = kl().eval()
    model.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokens = tokenizer.encode(images())
    assert (tokenizer.kind, tokens.shape) == ("continuous", (2, 15, 16))
    latents = model.encode(images()).latent_dist.mean
    expected = model.decode(latents).sample.clamp(-1, 1)
    assert torch.allclose(tokens.std(), latents.std() * 0.5, atol=1e-5)  # the scaling factor
    assert torch.allclose(tokenizer.decode(tokens, (3, 5)), expected, atol=1e-4)


@torch.no_grad()
def test_vq_model(tmp_path):
    model = vq().eval()
    model.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokens = tokenizer.encode(images())
    assert (tokenizer.kind, tokenizer.codebook_size) == ("discrete", 24)
    assert tokens.shape == (2, 15) and tokens.dtype == torch.long
    expected = model(images()).sample.clamp(-1, 1)
    assert torch.allclose(tokenizer.decode(tokens, (3, 5)), expected, atol=1e-4)


def test_other_scales_and_classes_are_refused(tmp_path):
    kl(levels=3).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="shrinks images by 4, but a token of 16x16 pixels needs one by 8"):
        load_tokenizer(tmp_path / "small")
    UNet2DModel(block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
                up_block_types=("UpBlock2D",) * 2).save_pretrained(tmp_path / "unet")  # fmt: skip
    with pytest.raises(ValueError, match="UNet2DModel, but only AutoencoderKL, VQModel"):
        load_tokenizer(tmp_path / "unet")
