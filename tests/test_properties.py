"""Whatever is given: either the documented ValueError, or an answer that keeps its promise. Nothing else comes out."""

import json
import math
import warnings

import pytest
import torch
from helpers import seeded, variant
from hypothesis import given, settings
from hypothesis import strategies as st

import fluidlab as fl
from fluidlab.evaluate.frechet import frechet_distance
from fluidlab.evaluate.powerlaw import fit_power_law
from fluidlab.model.orders import ORDERS
from fluidlab.pipeline import FluidPipeline
from fluidlab.tokenizer import VAEConfig, VAETokenizer, VQConfig, VQTokenizer

settings.register_profile("few", derandomize=True, deadline=None, max_examples=300, database=None)
settings.load_profile("few")
FEW = settings(max_examples=80)

WEIRD = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-2 ** 70, 2 ** 70), st.floats(),
                  st.text(max_size=5), st.lists(st.integers(), max_size=3), st.binary(max_size=3),
                  st.dictionaries(st.text(max_size=2), st.none(), max_size=1))
HEADS = st.sampled_from(["softmax", "diffusion"])
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)            # with halves of surrogate pairs


def mostly(good, other=WEIRD):
    """One in ten is something else, so that several together are often all good."""
    return st.integers(0, 9).flatmap(lambda lot: other if lot == 9 else good)


SIDES = mostly(st.sampled_from([16, 32, 64]), st.integers(0, 80))
SMALL = dict(width=16, encoder_depth=1, decoder_depth=1)


@pytest.fixture(scope="module")
def text():
    return fl.load_text_encoder("scenes-t5")


@pytest.fixture(scope="module")
def tokenizers():
    torch.manual_seed(0)
    return (VAETokenizer(VAEConfig(coarse_width=16, coarse_depth=1, pixel_width=32, **SMALL)).eval(),
            VQTokenizer(VQConfig(codebook_size=64)).eval())


@pytest.fixture(scope="module")
def models(text):
    return {head: variant("random", head, text_dim=text.dim) for head in ("softmax", "diffusion")}


def answer(call):
    """What a call gives, or None where it refuses with one sentence."""
    try:
        return call()
    except ValueError as error:
        assert type(error) in (ValueError, IndexError) and str(error).endswith(".") and "\n" not in str(error)
        return None


CONFIGS = {config: sorted(config().to_dict()) for config in (fl.ModelConfig, fl.TrainConfig, fl.SampleConfig)}


@given(st.data(), st.sampled_from(list(CONFIGS)))
@settings(max_examples=1000)
def test_a_configuration_is_refused_or_travels(data, config):
    field = data.draw(st.sampled_from(CONFIGS[config]))
    made = answer(lambda: config(**{field: data.draw(st.one_of(WEIRD, st.integers(1, 64), st.floats(0, 1)))}))
    if made is not None:
        assert config.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@given(ANY_TEXT)
def test_any_text_is_read_or_refused(text, prompt):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)                      # words that nobody has seen
        found = answer(lambda: text(prompt))
    can_be_written = not any(0xD800 <= ord(letter) < 0xE000 for letter in prompt)
    assert (found is not None) == can_be_written
    if found is not None:
        features, mask = found
        assert features.shape == (1, mask.shape[1], text.dim) and mask.shape[1] <= text.max_length
        assert torch.isfinite(features).all() and not features[~mask].any()


@given(ANY_TEXT, mostly(st.integers(0, 2 ** 62)), mostly(st.floats(0, 100)), mostly(st.floats(0, 10)),
       mostly(st.integers(1, 16)), HEADS)
@FEW
def test_a_pipeline_draws_or_refuses(models, tokenizers, text, prompt, seed, scale, temperature, steps, head):
    pipe = FluidPipeline(models[head], tokenizers[head == "softmax"], text)

    def draw():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)                  # words that nobody has seen
            return pipe(prompt, seed=seed, guidance_scale=scale, temperature=temperature, num_inference_steps=steps,
                        num_denoising_steps=2)
    found = answer(draw)
    if found is not None:
        assert found.images[0].size == (64, 64) and torch.isfinite(found.pixels).all()
        assert found.pixels.abs().max() <= 1 and torch.isfinite(found.tokens.float()).all()
        alone = found if seed is None else draw()
        assert torch.equal(alone.tokens, found.tokens)


@given(st.integers(1, 3), st.integers(1, 16), st.integers(0, 2 ** 62), HEADS, st.data())
@FEW
def test_given_tokens_never_change_and_all_others_are_drawn(models, batch, hole, seed, head, data):
    model, size = models[head], (batch, 16) if head == "softmax" else (batch, 16, 16)
    tokens = torch.randint(0, 64, size, generator=seeded(seed)) if head == "softmax" else torch.randn(
        size, generator=seeded(seed))
    unknown = torch.rand(batch, 16, generator=seeded(seed)).argsort(dim=1) < hole
    features, seen = torch.randn(batch, 3, 128, generator=seeded(seed)), []
    drawn = fl.generate(model, features, torch.ones(batch, 3, dtype=torch.bool), tokens=tokens, unknown=unknown,
                        num_inference_steps=data.draw(st.integers(1, hole)), num_denoising_steps=1,
                        generator=seeded(seed), on_step=seen.append)
    assert torch.equal(drawn[~unknown], tokens[~unknown])
    filled = torch.cat([step.positions for step in seen], dim=1).sort(dim=1).values
    assert torch.equal(filled, unknown.nonzero()[:, 1].view(batch, hole))


@given(st.integers(0, 2), mostly(st.just(3), st.integers(0, 5)), SIDES, SIDES,
       st.sampled_from([torch.float32, torch.float64, torch.float16, torch.uint8, torch.bool]),
       st.sampled_from([0.0, 1.0, -1.0, 1.5, math.nan, math.inf]))
def test_pictures_are_encoded_and_come_back_in_their_size_or_are_refused(tokenizers, B, C, H, W, dtype, value):
    images = torch.full((B, C, H, W), value).to(dtype)
    good = B > 0 and C == 3 and H > 0 and W > 0 and not H % 16 and not W % 16
    good = good and dtype.is_floating_point and abs(value) <= 1
    for tokenizer in tokenizers:
        tokens = answer(lambda tokenizer=tokenizer: tokenizer.encode(images))
        assert (tokens is not None) == good
        if good:
            back = tokenizer.decode(tokens, (H // 16, W // 16))
            assert back.shape == images.shape and back.abs().max() <= 1


@given(st.lists(st.integers(-1, 70), max_size=20), WEIRD)
def test_tokens_are_decoded_or_refused(tokenizers, codes, grid):
    vae, vq = tokenizers
    found = answer(lambda: vq.decode(torch.tensor([codes], dtype=torch.long), grid))
    if found is not None:
        assert all(0 <= code < 64 for code in codes) and found.numel() == 3 * 256 * len(codes)
    answer(lambda: vae.decode(torch.tensor(codes, dtype=torch.float32).view(1, -1, 1).expand(-1, -1, 16), grid))


@given(st.sampled_from(["train", "validation", "test"]), mostly(st.sampled_from([64, 80, 256])),
       mostly(st.integers(0, 2 ** 63)), mostly(st.integers(0, 999)), st.integers(3, 49), st.integers(1, 9))
@FEW
def test_a_scene_is_drawn_or_refused(split, size, seed, index, classes, colors):
    def draw():
        try:
            return fl.EmojiScenes(split, size, seed, num_classes=classes, num_colors=colors)[index]
        except IndexError as error:
            raise ValueError(str(error) + ("" if str(error).endswith(".") else ".")) from error
    scene = answer(draw)
    if scene is not None:
        assert scene["image"].shape == (3, size, size) and scene["image"].dtype == torch.uint8 and scene["caption"]
        for thing in scene["objects"]:
            x0, y0, x1, y1 = thing["box"]
            assert 0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size


NUMBERS = mostly(st.floats(-1e9, 1e9), st.floats())
ROWS = st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=6)


@given(ROWS, ROWS)
def test_a_distance_is_finite_and_not_negative_or_refused(first, second):
    first, second = (torch.tensor(rows, dtype=torch.float64) for rows in (first, second))
    found = answer(lambda: frechet_distance(first, second))
    if found is not None:
        assert found >= 0 and math.isfinite(found)
        assert frechet_distance(first, first) <= 1e-6 * max(1.0, float(first.square().sum()))


PAIRS = st.lists(st.tuples(mostly(st.floats(1, 1e12), st.floats()), mostly(st.floats(1e-3, 1e3), st.floats())),
                 min_size=2, max_size=6)


@given(PAIRS, st.booleans(), mostly(st.integers(0, 3), st.sampled_from([-1, 1.5, None, "3", 2 ** 70])))
@FEW
def test_a_law_is_finite_or_refused(pairs, floor, bootstrap):
    sizes, losses = zip(*pairs, strict=True)
    law = answer(lambda: fit_power_law(sizes, losses, floor=floor, bootstrap=bootstrap))
    if law is not None:
        assert all(map(math.isfinite, (law.b, law.c))) and law.r2 <= 1 + 1e-9 and 0 <= law.c <= min(losses)


@given(st.sampled_from(list(ORDERS)), st.one_of(st.integers(-1, 20), WEIRD))
def test_an_order_fills_every_place_once_or_refuses(order, steps):
    sizes = answer(lambda: ORDERS[order](16).chunk_sizes(16, fl.SampleConfig(num_inference_steps=steps)
                                                         .num_inference_steps))
    if sizes is not None:
        assert sum(sizes) == 16 and min(sizes) >= 1 and (steps is None or len(sizes) == steps)
