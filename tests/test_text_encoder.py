"""The frozen text encoder: what goes in, what comes out, what it says when a prompt is not for it."""

import warnings

import pytest
import torch
from transformers import AutoTokenizer, T5EncoderModel

from fluidlab.config import data_dir
from fluidlab.text.encoder import MAX_LENGTH, load_text_encoder

PROMPTS = ["a photo of a cat", "a red umbrella to the left of a green dog", "", "three books"]


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("scenes-t5")


def test_shapes_mask_and_scale(encoder):
    features, mask = encoder(PROMPTS)
    longest = max(len(encoder.tokenize(p)) for p in PROMPTS)
    assert features.shape == (4, longest, encoder.dim) and features.dtype == torch.float32
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == [len(encoder.tokenize(p)) for p in PROMPTS]
    assert features[~mask].eq(0).all()                                   # padding is exactly zero
    assert 0.5 < features[mask].std() < 2.0


def test_a_text_is_a_batch_of_one(encoder):
    assert encoder("a cat")[0].equal(encoder(["a cat"])[0])


def test_features_do_not_depend_on_the_batch(encoder):
    features, mask = encoder(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone, own = encoder(prompt)
        assert own.sum() == mask[row].sum()
        assert torch.allclose(alone[own], features[row][mask[row]], atol=1e-5)


def test_pad_to_adds_only_padding(encoder):
    features, mask = encoder(PROMPTS)
    padded, longer = encoder(PROMPTS, pad_to=30)
    S = features.shape[1]
    assert padded.shape[1] == 30 and longer[:, :S].equal(mask) and not longer[:, S:].any()
    assert torch.allclose(padded[:, :S], features, atol=1e-5) and padded[:, S:].eq(0).all()


@pytest.mark.parametrize("nothing", ["", "   ", "\n\t", "...", " ?! "])
def test_no_words_mean_no_text(encoder, nothing):
    features, mask = encoder(nothing)
    assert features.shape == (1, 1, encoder.dim) and not mask.any() and features.eq(0).all()
    assert encoder.tokenize(nothing) == []


def test_case_and_punctuation_say_nothing(encoder):
    assert encoder("A photo of a CAT, left of a dog.")[0].equal(encoder("a photo of a cat left of a dog")[0])


def test_the_word_order_is_in_the_features(encoder):
    here, there = encoder("a cat left of a dog")[0][0], encoder("a dog left of a cat")[0][0]
    pieces = encoder.tokenize("a cat left of a dog")
    cat, dog = pieces.index("▁cat"), pieces.index("▁dog")
    assert (here[cat] - there[dog]).abs().max() > 0.1                    # the same word, the other role


def test_a_long_prompt_is_cut_and_said_so(encoder):
    prompt = "a cat and " * 100
    with pytest.warns(UserWarning, match=r"'a cat and .* has 301 tokens and the text encoder takes 128"):
        features, mask = encoder(prompt)
    assert features.shape[1] == MAX_LENGTH == encoder.max_length and mask.all()
    with pytest.warns(UserWarning):
        assert encoder.tokenize(prompt)[-1] == "</s>"


def test_unknown_words_are_named(encoder):
    with pytest.warns(UserWarning, match="never trained on 'quokka', 'zeppelin'") as caught:
        _, mask = encoder("a Quokka under a zeppelin beside a quokka, or a cat")
    assert "'cat'" not in str(caught[0].message) and "beside" in str(caught[0].message)
    assert mask.all() and "<unk>" not in encoder.tokenize("a cat") + encoder.tokenizer.tokenize("猫 quokka")


def test_known_words_are_not(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(["a photo of three purple suitcases", "a cat at the top and a tv at the bottom", ""])


def test_frozen(encoder):
    assert not any(p.requires_grad for p in encoder.parameters())
    encoder.train()
    assert not any(m.training for m in encoder.modules())
    assert not encoder("a cat")[0].requires_grad


def test_save_and_load(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "copy")
    again = load_text_encoder(tmp_path / "copy")
    assert again.words == encoder.words and again.max_length == encoder.max_length
    assert again.fingerprint() == encoder.fingerprint()
    assert again(PROMPTS)[0].equal(encoder(PROMPTS)[0])


def test_the_fingerprint_sees_a_changed_weight(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = load_text_encoder(tmp_path)
    next(again.parameters()).data.view(-1)[0] += 1e-3
    assert again.fingerprint() != encoder.fingerprint()


def test_transformers_reads_the_shipped_folder(encoder):
    folder = data_dir() / "scenes-t5"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), T5EncoderModel.from_pretrained(folder)
    batch = tokenizer(["a photo of a cat", "three books"], return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    ours, mask = encoder(["a photo of a cat", "three books"])
    assert batch["attention_mask"].bool().equal(mask)
    assert torch.allclose(theirs[mask], ours[mask], atol=1e-6)
    assert (folder / "model.safetensors").stat().st_size < 4e6


def test_a_web_encoder_does_not_warn(encoder):
    plain = type(encoder)(encoder.model, encoder.tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain("a quokka")


@pytest.mark.parametrize("wrong", [3, None, [], ["a cat", 3], {"a cat": 1}])
def test_prompts_that_are_no_text(encoder, wrong):
    with pytest.raises(ValueError, match="prompts must be a text or a list of one or more texts, got"):
        encoder(wrong)


@pytest.mark.parametrize("pad_to", [2, 129, 8.0, True])
def test_pad_to_out_of_range(encoder, pad_to):
    with pytest.raises(ValueError, match=f"from 6 .* to 128, got {pad_to}"):
        encoder("a photo of a cat", pad_to=pad_to)


def test_a_name_that_is_nothing():
    with pytest.raises(ValueError, match="'nobody/has-this' cannot be loaded, because it is neither shipped .sce"):
        load_text_encoder("nobody/has-this")
    for wrong in (None, "", 3):
        with pytest.raises(ValueError, match="named by a shipped name, a folder or a Hugging Face id, got"):
            load_text_encoder(wrong)


def test_folders_that_are_no_encoder(encoder, tmp_path):
    with pytest.raises(ValueError, match="lacks config.json: give a folder that `save_pretrained` wrote"):
        load_text_encoder(tmp_path)
    encoder.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be read .* make or download the folder again"):
        load_text_encoder(tmp_path)


def test_the_features_bind(encoder):
    """The colour of a noun is read from its feature by the nearest of eight means, on three nouns that made none.

    24 questions, chance is 1 in 8: 20 right answers by luck have a probability below 1e-13.
    """
    colors = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

    def at_noun(nouns):                                                                        # -> (8, 7 x nouns, E)
        prompts = [f"{'an' if color[0] in 'aeiou' else 'a'} {color} {noun} and a {other} train"
                   for color in colors for noun in nouns for other in colors if other != color]
        return encoder(prompts)[0][:, 2].unflatten(0, (8, -1))

    means = at_noun(("cat", "dog", "book", "chair", "horse")).mean(dim=1)                      # (8, E)
    asked = at_noun(("bicycle", "umbrella", "clock"))[:, ::7]                                  # (8, 3, E)
    hits = torch.cdist(asked, means[None]).argmin(dim=-1) == torch.arange(8)[:, None]          # (8, 3)
    assert hits.sum() >= 20
