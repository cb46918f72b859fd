"""Both tokenizers, untrained and tiny: shapes, exact round trips of packing and saving, and what they refuse."""

import re

import pytest
import torch

from fluidlab.tokenizer import VAEConfig, VAETokenizer, VQConfig, VQTokenizer, load_tokenizer
from fluidlab.tokenizer.patches import pack, square_grid, unpack

SMALL = {"width": 16, "encoder_depth": 1, "decoder_depth": 1, "coarse_width": 16}


def small_vae():
    return VAETokenizer(VAEConfig(**SMALL, coarse_depth=1)).eval()


def small_vq():
    sizes = {"codebook_size": 32, "code_dim": 4, "coarse_encoder_depth": 1, "coarse_decoder_depth": 1}
    return VQTokenizer(VQConfig(**SMALL, **sizes)).eval()


BOTH = pytest.mark.parametrize("build", [small_vae, small_vq])


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_packing_round_trip_is_exact_in_both_directions():
    latents = images(2, 4, 6, 10)
    tokens = pack(latents)
    assert tokens.shape == (2, 15, 16)
    assert torch.equal(unpack(tokens, (3, 5)), latents)
    assert torch.equal(pack(unpack(tokens, (3, 5))), tokens)


def test_a_token_holds_its_own_two_by_two_block():
    latents = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    expected = latents[0, :, 2:4, 0:2].permute(1, 2, 0).flatten()
    assert torch.equal(pack(latents)[0, 2], expected)


@BOTH
@pytest.mark.parametrize("batch, height, width", [(1, 64, 64), (3, 48, 80), (2, 16, 16), (1, 128, 32)])
def test_any_batch_and_any_multiple_of_16(build, batch, height, width):
    tokenizer, x = build(), images(batch, 3, height, width)
    tokens = tokenizer.encode(x)
    assert tokens.shape[:2] == (batch, height * width // 256)
    assert tokens.dtype == (torch.long if tokenizer.kind == "discrete" else torch.float32)
    out = tokenizer.decode(tokens, grid=(height // 16, width // 16))
    assert out.shape == x.shape
    assert out.abs().max() <= 1.0


@BOTH
def test_decode_assumes_a_square_and_says_so_if_there_is_none(build):
    tokenizer = build()
    tokens = tokenizer.encode(images(1, 3, 48, 80))
    with pytest.raises(ValueError, match="15 tokens do not fill a square"):
        tokenizer.decode(tokens)
    with pytest.raises(ValueError, match="There are 15 tokens, but a grid of 4x4 holds 16"):
        tokenizer.decode(tokens, grid=(4, 4))
    assert tokenizer.decode(tokenizer.encode(images(1, 3, 64, 64))).shape == (1, 3, 64, 64)


@BOTH
def test_an_image_encodes_alike_in_any_batch(build):
    tokenizer, x = build(), images(5, 3, 32, 32)
    alone = torch.cat([tokenizer.encode(part) for part in x.split(1)])
    assert torch.allclose(alone.float(), tokenizer.encode(x).float(), atol=1e-5)


@BOTH
def test_shifting_by_a_token_shifts_the_tokens(build):
    """Far from the border, which pads with zeros, a crop must encode as the whole image does."""
    tokenizer, x = build(), images(1, 3, 256, 256)
    whole = tokenizer.encode(x).reshape(16, 16, -1)
    crop = tokenizer.encode(x[..., 16:, 32:]).reshape(15, 14, -1)
    assert torch.allclose(whole[6:12, 7:12].float(), crop[5:11, 5:10].float(), atol=1e-5)


@BOTH
def test_facts_of_the_default_size(build):
    tokenizer = build()
    assert (tokenizer.patch_size, tokenizer.grid, tokenizer.seq_len) == (16, (4, 4), 16)
    assert tokenizer.token_dim == 16 if tokenizer.kind == "continuous" else tokenizer.codebook_size == 32


@BOTH
@pytest.mark.parametrize(
    "bad, sentence",
    [
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8, but must be floating point"),
        (torch.zeros(3, 64, 64), "3 dimensions, but must have 4"),
        (torch.zeros(1, 1, 64, 64), "1 channels, but must have 3"),
        (torch.zeros(1, 3, 60, 64), "60x64 pixels, but must be at least 1, both sides multiples of 16"),
        (torch.zeros(0, 3, 64, 64), "0 images of 64x64"),
        (torch.full((1, 3, 64, 64), 255.0), "range from 255.000 to 255.000, but must lie in [-1, 1]"),
        (torch.full((1, 3, 64, 64), float("nan")), "range from nan to nan"),
    ],
)
def test_wrong_images_are_refused_with_both_numbers(build, bad, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build().encode(bad)


def test_wrong_tokens_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match=re.escape("(1, 16, 8), but must be floats (B, N, 16)")):
        small_vae().decode(torch.zeros(1, 16, 8))
    with pytest.raises(ValueError, match=re.escape("from 0 to 32, but must lie in 0..31")):
        small_vq().decode(torch.tensor([[0, 1, 2, 32]]))
    with pytest.raises(ValueError, match="torch.float32"):
        small_vq().decode(torch.zeros(1, 16))
    with pytest.raises(ValueError, match="image size is 60"):
        VAETokenizer(VAEConfig(image_size=60))


def test_the_posterior_is_sampled_only_when_asked():
    vae, x = small_vae(), images(2, 3, 32, 32)
    draw = [vae.encode(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(vae.encode(x), vae.encode(x))
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_normalisation_is_undone_by_decode():
    vae, x = small_vae(), images(2, 3, 32, 32)
    before, picture = vae.encode(x), vae.decode(vae.encode(x))
    vae.latent_mean.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
    vae.latent_std.copy_(torch.tensor([0.5, 2.0, 3.0, 1.0]))
    assert not torch.allclose(vae.encode(x), before)
    assert torch.allclose(vae.decode(vae.encode(x)), picture, atol=1e-5)


@BOTH
def test_saved_and_loaded_is_equal(build, tmp_path):
    tokenizer, x = build(), images(2, 3, 32, 48)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.config == tokenizer.config
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.encode(x), tokenizer.encode(x))
    tokens = tokenizer.encode(x)
    assert torch.equal(loaded.decode(tokens, (2, 3)), tokenizer.decode(tokens, (2, 3)))


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path):
    vae = small_vae()
    vae.save_pretrained(tmp_path / "full")
    vae.save_pretrained(tmp_path / "half", dtype=torch.float16)
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    assert load_tokenizer(tmp_path / "half").latent_mean.dtype == torch.float32


def test_load_tokenizer_names_the_id_the_cause_and_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"'no-such' cannot be loaded, because it is neither shipped \(scenes-vae, "):
        load_tokenizer("no-such")
    with pytest.raises(ValueError, match="cannot be loaded, because it lacks config.json: give a folder that `save_"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "car"}')
    with pytest.raises(ValueError, match="cannot be loaded, because it lacks weights as safetensors: give a folder"):
        load_tokenizer(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="kind as 'car' and not as one of vae, vq"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="'car', but 'vae' was asked for"):
        VAETokenizer.from_pretrained(tmp_path)


def test_square_grid():
    assert square_grid(16) == (4, 4)
    with pytest.raises(ValueError, match="15 tokens"):
        square_grid(15)
