"""diffusers' classes, small and random, saved to a folder or put into a cache and loaded through the same door."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel, VQModel
from hub_cache import put_into_cache
from torch.nn import functional as F

from fluidlab.data.token_cache import tokens_fingerprint
from fluidlab.tokenizer import load_tokenizer
from fluidlab.tokenizer.chunks import PIXELS_AT_ONCE, Chunks
from fluidlab.tokenizer.patches import unpack
from fluidlab.tokenizer.statistics import (
    Statistics,
    keep_statistics,
    measure_statistics,
    statistics_file,
)

SIGNED = (-1.0, 1.0)


def kl(levels=4, **changes):
    """As Stable Diffusion's VAE, but 8 channels wide."""
    return AutoencoderKL(**{
        "block_out_channels": (8,) * levels, "norm_num_groups": 4, "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels, "scaling_factor": 0.5, **changes}).eval()  # fmt: skip


def vq(**changes):
    """As a VQGAN of 16x16 pixels a code, but 8 channels wide; the codes are features of other images."""
    model = VQModel(**{
        "block_out_channels": (8,) * 5, "norm_num_groups": 4, "down_block_types": ("DownEncoderBlock2D",) * 5,
        "up_block_types": ("UpDecoderBlock2D",) * 5, "num_vq_embeddings": 24, "vq_embed_dim": 4, "latent_channels": 4,
        **changes}).eval()  # fmt: skip
    with torch.no_grad():
        features = model.encode(images(2, seed=9)).latents.movedim(1, -1).flatten(0, 2)     # (30, E)
        model.quantize.embedding.weight[:24] = features[:24]
    return model


def images(batch=2, height=48, width=80, seed=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def loaded(model, folder, **options):
    model.save_pretrained(folder)
    return load_tokenizer(folder, **options)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUIDLAB_CACHE", str(tmp_path / "user-cache"))
    return tmp_path / "user-cache"


# scale of the configuration -> what is subtracted from each of C channels, and what it is then multiplied with
SCALES = {
    "scaling": ({"scaling_factor": 0.18215}, [0.0] * 4, [0.18215] * 4),
    "16 channels": ({"latent_channels": 16, "shift_factor": 0.1, "scaling_factor": 1.5, "use_quant_conv": False,
                     "use_post_quant_conv": False}, [0.1] * 16, [1.5] * 16),
    "each channel": ({"latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [1.0, 2.0, 4.0, 8.0],
                      "scaling_factor": 0.5}, [1.0, 2.0, 3.0, 4.0], [1.0, 0.5, 0.25, 0.125]),
}


@torch.no_grad()
@pytest.mark.parametrize("config, shift, factor", SCALES.values(), ids=SCALES)
def test_an_autoencoder_kl_is_diffusers_own_scaled_and_packed(config, shift, factor, tmp_path):
    model = kl(**config)
    tokenizer = loaded(model, tmp_path)
    tokens = tokenizer.encode(images())
    C = model.config.latent_channels
    assert (tokenizer.kind, tokens.shape) == ("continuous", (2, 15, 4 * C)) and tokenizer.token_dim == 4 * C
    latents = model.encode(images()).latent_dist.mean
    shift, factor = (torch.tensor(values).view(1, C, 1, 1) for values in (shift, factor))
    assert torch.allclose(unpack(tokens, (3, 5)), (latents - shift) * factor, atol=1e-4)
    expected = model.decode(latents).sample.clamp(-1, 1)
    assert torch.allclose(tokenizer.decode(tokens, (3, 5)), expected, atol=1e-4)
    drawn = model.encode(images()).latent_dist.sample(torch.Generator().manual_seed(3))
    sampled = tokenizer.encode(images(), torch.Generator().manual_seed(3))
    assert torch.allclose(unpack(sampled, (3, 5)), (drawn - shift) * factor, atol=1e-4)


@torch.no_grad()
def test_256_pixels_are_256_tokens_of_16_channels(tmp_path):
    vae, codes = loaded(kl(), tmp_path / "vae"), loaded(vq(num_vq_embeddings=8192), tmp_path / "vq")
    picture = images(1, 256, 256)
    assert vae.encode(picture).shape == (1, 256, 16) and vae.grid == (16, 16) and vae.seq_len == 256
    assert codes.encode(picture).shape == (1, 256) and codes.seq_len == 256 and codes.codebook_size == 8192
    assert vae.decode(torch.zeros(1, 256, 16)).shape == codes.decode(codes.encode(picture)).shape == picture.shape
    small = load_tokenizer(tmp_path / "vae", image_size=64)
    assert (small.grid, small.seq_len) == ((4, 4), 16) and load_tokenizer("scenes-vae", image_size=128).seq_len == 64
    with pytest.raises(ValueError, match="image size is 100, but must be a positive multiple of 16"):
        load_tokenizer(tmp_path / "vae", image_size=100)


@torch.no_grad()
@pytest.mark.parametrize("changes", [
    {}, {"lookup_from_codebook": True}, {"vq_embed_dim": 6, "latent_channels": 5},
    {"norm_type": "spatial", "norm_num_groups": 32, "block_out_channels": (32,) * 5}], ids=str)
def test_the_codes_of_a_vqmodel_are_the_nearest_looked_up_by_hand(changes, tmp_path):
    """And images are decoded from exactly these codes, whatever the quantizer's habits."""
    model = vq(**changes)
    tokenizer = loaded(model, tmp_path)
    tokens = tokenizer.encode(images())
    assert (tokenizer.kind, tokenizer.codebook_size) == ("discrete", 24)
    assert tokens.shape == (2, 15) and tokens.dtype == torch.long
    features = model.quant_conv(model.encoder(images()))                                  # (B, E, 3, 5)
    codebook = model.quantize.embedding.weight                                            # (V, E)
    for b in range(2):
        for n in range(15):
            here = features[b, :, n // 5, n % 5]
            assert tokens[b, n] == (codebook - here).square().sum(dim=1).argmin()
    assert len(tokens.unique()) > 3
    codes = codebook[tokens].reshape(2, 3, 5, -1).permute(0, 3, 1, 2)                     # (B, E, 3, 5)
    spatial = codes if model.config.norm_type == "spatial" else None
    expected = model.decoder(model.post_quant_conv(codes), spatial).clamp(-1, 1)
    assert torch.allclose(tokenizer.decode(tokens, (3, 5)), expected, atol=1e-4)


@torch.no_grad()
def test_amused_sees_pixels_from_0_to_1(tmp_path):
    """Its pipeline says so and its model does not; a copy remembers it."""
    model = vq(lookup_from_codebook=True)
    model.save_pretrained(tmp_path / "vqvae")
    (tmp_path / "model_index.json").write_text(json.dumps(
        {"_class_name": "AmusedPipeline", "vqvae": ["diffusers", "VQModel"]}))
    tokenizer = load_tokenizer(tmp_path)
    expected = model.quantize(model.encode((images() + 1) / 2).latents)[2][2].reshape(2, 15)
    assert tokenizer.encode(images()).equal(expected)
    shape = (2, 3, 5, 4)
    decoded = model.decode(expected.flatten(), force_not_quantize=True, shape=shape).sample.clip(0, 1) * 2 - 1
    assert torch.allclose(tokenizer.decode(expected, (3, 5)), decoded, atol=1e-4)
    tokenizer.save_pretrained(tmp_path / "copy")
    copy, signed = load_tokenizer(tmp_path / "copy"), load_tokenizer(tmp_path, pixel_range=SIGNED)
    assert copy.encode(images()).equal(expected) and not signed.encode(images()).equal(expected)
    assert tokens_fingerprint(copy) == tokens_fingerprint(tokenizer) != tokens_fingerprint(signed)


class TestChunks:
    """Memory does not grow with the batch, and the answer does not depend on how it was cut."""

    @pytest.mark.parametrize("build", [kl, vq])
    def test_no_more_images_at_once_than_asked_for(self, build, tmp_path):
        model = build()
        model.save_pretrained(tmp_path)
        whole, cut = load_tokenizer(tmp_path, max_batch=7), load_tokenizer(tmp_path, max_batch=3)
        seen = []
        for part in (cut.model.encoder, cut.model.decoder):
            part.register_forward_hook(lambda module, given, made: seen.append(len(given[0])))
        x = images(7, 16, 16)
        tokens = cut.encode(x)
        assert seen == [3, 3, 1] and torch.allclose(tokens.float(), whole.encode(x).float(), atol=1e-4)
        assert torch.allclose(cut.decode(tokens), whole.decode(tokens), atol=1e-4) and seen == [3, 3, 1] * 2

    @pytest.mark.parametrize("side, at_once", [(64, 128), (256, 8), (512, 2), (1024, 1), (4096, 1)])
    def test_by_itself_it_goes_by_pixels(self, side, at_once):
        assert Chunks().size(side * side) == at_once and PIXELS_AT_ONCE == 8 * 256 * 256

    @pytest.mark.parametrize("name", ["scenes-vae", "scenes-vq"])
    def test_the_shipped_ones_too(self, name):
        x = images(5, 64, 64)
        whole, cut = load_tokenizer(name), load_tokenizer(name, max_batch=2)
        seen = []
        cut.encoder.register_forward_hook(lambda module, given, made: seen.append(len(given[0])))
        tokens = cut.encode(x)
        assert seen == [2, 2, 1] and torch.allclose(tokens.float(), whole.encode(x).float(), atol=1e-4)
        assert torch.allclose(cut.decode(tokens), whole.decode(tokens), atol=1e-4)

    @pytest.mark.parametrize("options, sentence", [
        ({"dtype": torch.float16}, "dtype must be one of torch.float32, torch.bfloat16, got torch.float16"),
        ({"max_batch": 0}, "max_batch must be a whole number at least 1, got 0"),
        ({"max_batch": 2.5}, "max_batch must be a whole number at least 1, got 2.5"),
    ])
    def test_what_is_refused(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            load_tokenizer("scenes-vae", **options)


@pytest.mark.parametrize("build", [kl, vq])
def test_half_precision_computes_in_it_and_answers_in_float32(build, tmp_path):
    full = loaded(build(), tmp_path)
    half, seen = load_tokenizer(tmp_path, dtype=torch.bfloat16), []
    half.model.decoder.conv_in.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    tokens = half.encode(images())
    pixels = half.decode(tokens, (3, 5))
    assert seen == [torch.bfloat16] and pixels.dtype == torch.float32
    assert tokens_fingerprint(half) == tokens_fingerprint(full)             # a cache made in either fits the other
    if half.kind == "continuous":
        exact = full.encode(images())
        assert tokens.dtype == torch.float32 and 0 < (tokens - exact).abs().mean() < 0.02 * exact.abs().mean()
    error = (pixels - full.decode(tokens, (3, 5))).abs().mean()
    assert 0 < error < 0.02


@pytest.mark.parametrize("name", ["scenes-vae", "scenes-vq"])
def test_the_shipped_ones_in_half_precision(name):
    full, half, seen = load_tokenizer(name), load_tokenizer(name, dtype=torch.bfloat16), []
    half.decoder.conv.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    tokens, pixels = half.encode(images(2, 64, 64)), half.decode(full.encode(images(2, 64, 64)))
    assert seen == [torch.bfloat16] and pixels.dtype == torch.float32
    exact = full.encode(images(2, 64, 64)).float()
    other = (tokens != exact).float().mean() if half.kind == "discrete" else (tokens - exact).abs().mean()
    assert other < (0.2 if half.kind == "discrete" else 0.05)
    assert 0 < (pixels - full.decode(full.encode(images(2, 64, 64)))).abs().mean() < 0.02


@pytest.mark.parametrize("build", [kl, vq])
def test_weights_moved_to_another_precision_still_answer_in_float32(build, tmp_path):
    tokenizer = loaded(build(), tmp_path).to(torch.float64)
    tokens = tokenizer.encode(images())
    assert tokens.dtype == (torch.float32 if tokenizer.kind == "continuous" else torch.long)
    assert tokenizer.decode(tokens, (3, 5)).dtype == torch.float32


class TestStatistics:
    """What `fluidlab stats` measures, keeps, and `load_tokenizer` uses."""

    @torch.no_grad()
    def test_they_are_the_mean_and_deviation_of_every_channel(self, tmp_path):
        model = kl()
        tokenizer = loaded(model, tmp_path)
        found = measure_statistics(tokenizer, [images(3, seed=1), images(2, seed=2)], "noise")
        latents = torch.cat([model.encode(images(3, seed=1)).latent_dist.mean,
                             model.encode(images(2, seed=2)).latent_dist.mean])
        assert torch.allclose(torch.tensor(found.mean), latents.mean(dim=(0, 2, 3)), atol=1e-5)
        assert torch.allclose(torch.tensor(found.std), latents.std(dim=(0, 2, 3), correction=0), atol=1e-5)
        assert (found.images, found.image_size, found.source) == (5, 80, "noise")

    def test_they_give_unit_variance_until_one_says_no(self, tmp_path, cache):
        model = kl()
        plain = loaded(model, tmp_path / "vae")
        found = measure_statistics(plain, [images(8, 64, 64)])
        path = keep_statistics(found, plain.model, plain.pixel_range)
        assert path == statistics_file(model, SIGNED) and path.parent == cache / "statistics"
        scaled = load_tokenizer(tmp_path / "vae")
        latents = unpack(scaled.encode(images(8, 64, 64)), (4, 4))
        assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
        assert (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-2
        assert torch.allclose(scaled.decode(scaled.encode(images(1, 64, 64))), plain.decode(plain.encode(
            images(1, 64, 64))), atol=1e-4)
        without = load_tokenizer(tmp_path / "vae", statistics=False)
        assert without.encode(images()).equal(plain.encode(images()))
        assert tokens_fingerprint(without) == tokens_fingerprint(plain) != tokens_fingerprint(scaled)

    def test_they_are_of_one_encoder_alone(self, tmp_path):
        plain, other = loaded(kl(), tmp_path / "one"), loaded(kl(), tmp_path / "two")
        keep_statistics(Statistics(mean=[1.0] * 4, std=[2.0] * 4), plain.model, SIGNED)
        assert load_tokenizer(tmp_path / "one").latent_mean.tolist() == [1.0] * 4
        assert load_tokenizer(tmp_path / "two").latent_mean.equal(other.latent_mean)
        assert load_tokenizer(tmp_path / "one", pixel_range=(0.0, 1.0)).latent_mean.equal(plain.latent_mean)

    def test_a_saved_tokenizer_keeps_its_own(self, tmp_path):
        """A model was trained on these tokens; what is measured later must not change them."""
        model = kl()
        plain = loaded(model, tmp_path / "vae")
        keep_statistics(Statistics(mean=[1.0] * 4, std=[2.0] * 4), model, SIGNED)
        load_tokenizer(tmp_path / "vae").save_pretrained(tmp_path / "copy")
        keep_statistics(Statistics(mean=[5.0] * 4, std=[6.0] * 4), model, SIGNED)
        assert load_tokenizer(tmp_path / "vae").latent_std.tolist() == [6.0] * 4
        assert load_tokenizer(tmp_path / "copy").latent_std.tolist() == [2.0] * 4
        assert load_tokenizer(tmp_path / "copy", statistics=False).latent_std.equal(plain.latent_std)

    @pytest.mark.parametrize("text", ["{", "[]", '{"mean": [1.0]}', '{"mean": [1.0], "std": [0.0]}',
                                      '{"mean": [1.0, 2.0], "std": [1.0]}', '{"mean": [NaN], "std": [1.0]}'])
    def test_a_broken_file_is_named(self, text, tmp_path):
        path = keep_statistics(Statistics(mean=[1.0] * 4, std=[2.0] * 4), loaded(kl(), tmp_path).model, SIGNED)
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read as statistics of latents .*: remove it, or"):
            load_tokenizer(tmp_path)

    def test_what_cannot_be_measured(self, tmp_path):
        with pytest.raises(ValueError, match="one is discrete: its tokens are codes"):
            measure_statistics(load_tokenizer("scenes-vq"), [images()])
        with pytest.raises(ValueError, match="need at least one image, got none"):
            measure_statistics(loaded(kl(), tmp_path), [])
        with pytest.raises(ValueError, match="statistics of 3 channels, but this AutoencoderKL has 4"):
            type(loaded(kl(), tmp_path))(kl(), statistics=Statistics(mean=[0.0] * 3, std=[1.0] * 3))
        flat = Statistics(mean=[0.0], std=[1.0])
        with pytest.raises(ValueError, match="all finite and the latter positive, got mean .0.0,. and std .0.0,."):
            replace(flat, std=(0.0,))


def test_by_its_name_from_the_local_cache(tmp_path):
    """No hub is asked: the snapshot of another revision, and a pipeline's part, lie where a download puts them."""
    first, second, part = kl(), kl(), kl(latent_channels=16)
    put_into_cache(tmp_path, "stabilityai/sd-vae-ft-ema", first.save_pretrained)
    put_into_cache(tmp_path, "stabilityai/sd-vae-ft-ema", second.save_pretrained, "v2", "2" * 40)

    def pipeline(folder):
        (folder / "model_index.json").write_text(json.dumps({"vae": ["diffusers", "AutoencoderKL"]}))
        part.save_pretrained(folder / "vae")
    put_into_cache(tmp_path, "someone/pipeline", pipeline)
    for name, model, options in (("stabilityai/sd-vae-ft-ema", first, {}), ("stabilityai/sd-vae-ft-ema@v2", second, {}),
                                 ("stabilityai/sd-vae-ft-ema", second, {"revision": "2" * 40}),
                                 ("someone/pipeline/vae", part, {}), ("someone/pipeline", part, {}),
                                 ("someone/pipeline", part, {"subfolder": "vae"})):
        tokenizer = load_tokenizer(name, cache_dir=tmp_path, **options)
        weight = tokenizer.model.decoder.conv_in.weight
        assert weight.equal(model.decoder.conv_in.weight) and tokenizer.kind == "continuous", (name, options)
    with pytest.raises(ValueError, match="'stabilityai/sd-vae-ft-ema@v3' cannot be loaded, .* HF_HUB_OFFLINE .*"
                                         "`hf download stabilityai/sd-vae-ft-ema --revision v3`"):
        load_tokenizer("stabilityai/sd-vae-ft-ema@v3", cache_dir=tmp_path)


def test_other_scales_and_classes_are_refused(tmp_path):
    kl(levels=3).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="shrinks images by 4, but a token of 16x16 pixels needs one by 8"):
        load_tokenizer(tmp_path / "small")
    kl(in_channels=4).save_pretrained(tmp_path / "alpha")
    with pytest.raises(ValueError, match="takes 4 and gives 3 channels, but images have 3"):
        load_tokenizer(tmp_path / "alpha")
    UNet2DModel(block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
                up_block_types=("UpBlock2D",) * 2).save_pretrained(tmp_path / "unet")  # fmt: skip
    with pytest.raises(ValueError, match="UNet2DModel, but only AutoencoderKL, VQModel"):
        load_tokenizer(tmp_path / "unet")
    with pytest.raises(ValueError, match=r"kind as None and not as one of vae, vq \(it is of a t5\): is it another"):
        load_tokenizer("data/scenes-t5")


def test_broken_weights_are_named(tmp_path):
    kl().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="AutoencoderKL in .* cannot be read .*: make or download the folder again"):
        load_tokenizer(tmp_path)


def test_images_and_tokens_that_do_not_fit_are_refused(tmp_path):
    vae = loaded(kl(), tmp_path)
    with pytest.raises(ValueError, match="uint8, but must be floating point in .-1, 1."):
        vae.encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"must be floats \(B, N, 16\)"):
        vae.decode(F.one_hot(torch.zeros(1, 16, dtype=torch.long), 12).float())
