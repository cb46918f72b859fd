"""The frozen text encoder: what goes in, what comes out, what it says when a prompt is not for it."""

import functools
import io
import json
import warnings

import pytest
import sentencepiece
import torch
from hub_cache import put_into_cache
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from fluidlab.config import data_dir
from fluidlab.text.encoder import FOR_THE_WORLD, MAX_LENGTH, SUGGESTED, load_text_encoder

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


LONG = "a small brown dog on a red chair beside a window " * 20
WEB = ["A photo of a café, isn't it?", "two cats", "", "a red umbrella left of a dog"]


def web_t5(folder, dtype=torch.float32, tokenizer=True, **changes):
    """A T5 v1.1 in small, as its repository is: safetensors, and of the tokenizer only a spiece.model."""
    torch.manual_seed(1)
    model = T5EncoderModel(T5Config(**{
        "vocab_size": 256, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, **changes})).eval()
    model.to(dtype).save_pretrained(folder)
    if tokenizer:
        put_spiece(folder)
    return model.float()


def put_spiece(folder):
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(spiece())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "model_max_length": 512}')


@functools.cache
def spiece():
    model = io.BytesIO()
    text = "A photo of {} cats, isn't it? two dogs on a red chair beside a café window № {}"
    texts = [text.format(i, 7 * i) for i in range(200)]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, model_type="unigram",
                                             vocab_size=90, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1,
                                             minloglevel=2)
    return model.getvalue()


class TestOfTheWeb:
    """Any other T5 is loaded by the code that loads google/t5-v1_1-xxl, from a folder or a cache."""

    @torch.no_grad()
    def test_features_are_those_of_transformers(self, tmp_path):
        model = web_t5(tmp_path)
        encoder = load_text_encoder(tmp_path)
        features, mask = encoder(WEB)
        pieces = sentencepiece.SentencePieceProcessor(model_proto=spiece())
        assert features.shape == (4, max(map(len, map(pieces.encode, WEB))) + 1, 32) and features.dtype == torch.float32
        for row, prompt in enumerate(WEB):
            ids = [*pieces.encode(prompt), 1] if prompt else []
            assert mask[row].sum() == len(ids)
            if ids:
                theirs = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
                assert torch.allclose(features[row, :len(ids)], theirs, atol=1e-5), prompt
        assert encoder.words is None and not mask[2].any() and not any(p.requires_grad for p in encoder.parameters())

    def test_it_reads_128_tokens_and_says_what_it_cuts(self, tmp_path):
        web_t5(tmp_path)
        encoder = load_text_encoder(tmp_path)
        with pytest.warns(UserWarning, match=r"has \d{3} tokens and the text encoder takes 128"):
            features, mask = encoder(LONG)
        assert encoder.max_length == 128 == features.shape[1] and mask.all()

    def test_by_its_name_from_the_local_cache_and_out_of_a_pipeline(self, tmp_path):
        put_into_cache(tmp_path, "google/t5-v1_1-xxl", web_t5)

        def pipeline(folder):
            parts = {"text_encoder": "CLIPTextModel", "text_encoder_3": "T5EncoderModel"}
            (folder / "model_index.json").write_text(json.dumps({k: ["transformers", v] for k, v in parts.items()}))
            web_t5(folder / "text_encoder_3", tokenizer=False)
            put_spiece(folder / "tokenizer_3")
        put_into_cache(tmp_path, "someone/pipeline", pipeline)
        plain = load_text_encoder("google/t5-v1_1-xxl", cache_dir=tmp_path)
        for name in ("someone/pipeline", "someone/pipeline/text_encoder_3"):
            part = load_text_encoder(name, cache_dir=tmp_path)
            assert part(WEB)[0].equal(plain(WEB)[0]) and part.fingerprint() == plain.fingerprint()
        with pytest.raises(ValueError, match="'google/t5-v1_1-xxl@v9' cannot be loaded, .*xxl --revision v9`"):
            load_text_encoder("google/t5-v1_1-xxl@v9", cache_dir=tmp_path)

    def test_a_tokenizer_json_comes_before_the_pieces(self, tmp_path):
        """As in flan-t5-base, which brings both."""
        web_t5(tmp_path)
        encoder = load_text_encoder(tmp_path)
        encoder.tokenizer.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "T5Tokenizer"}))
        (tmp_path / "spiece.model").write_bytes(b"not read")
        assert load_text_encoder(tmp_path)(WEB)[0].equal(encoder(WEB)[0])

    def test_in_bfloat16_features_are_close_and_float32_unless_asked(self, tmp_path):
        web_t5(tmp_path)
        full, half = load_text_encoder(tmp_path), load_text_encoder(tmp_path, torch.bfloat16)
        exact, mask = full(WEB)
        rounded = half(WEB)[0]
        assert next(half.parameters()).dtype == torch.bfloat16 and rounded.dtype == torch.float32
        assert 0 < (rounded - exact).abs().mean() < 0.02 * exact.abs().mean()
        assert half.fingerprint() == full.fingerprint(torch.bfloat16) != full.fingerprint()
        narrow = load_text_encoder(tmp_path, features_dtype=torch.bfloat16)(WEB)[0]
        assert narrow.dtype == torch.bfloat16 and narrow.equal(exact.bfloat16()) and narrow[~mask].eq(0).all()

    @pytest.mark.parametrize("size", ["1GB", "30KB"])
    def test_in_bfloat16_it_is_still_known_by_what_it_made_in_float32(self, size, tmp_path):
        """Its weights are read again from their folder, be they in one file or in several."""
        web_t5(tmp_path).save_pretrained(tmp_path, max_shard_size=size)
        full, half = load_text_encoder(tmp_path), load_text_encoder(tmp_path, torch.bfloat16)
        assert half.fingerprint(torch.float32) == full.fingerprint() != half.fingerprint()
        for encoder in (full, half, full.to(torch.bfloat16)):
            assert encoder.made(half.fingerprint()) and encoder.made(half.fingerprint(torch.float32))
            assert not encoder.made("0" * 64)
        before = half.fingerprint(torch.float32)
        with torch.no_grad():
            half.model.get_input_embeddings().weight[3, 4] += 1          # no longer what lies in the folder
        assert not half.made(before) and half.made(half.fingerprint())

    def test_weights_in_several_files(self, tmp_path):
        """As T5-XXL has them."""
        model = web_t5(tmp_path / "whole")
        model.save_pretrained(tmp_path / "parts", max_shard_size="30KB")
        put_spiece(tmp_path / "parts")
        shards = sorted((tmp_path / "parts").glob("model-*.safetensors"))
        assert len(shards) > 1 and load_text_encoder(tmp_path / "parts")(WEB)[0].equal(
            load_text_encoder(tmp_path / "whole")(WEB)[0])
        shards[1].unlink()
        with pytest.raises(ValueError, match=f"cannot be loaded, because it lacks {shards[1].name}: give a folder"):
            load_text_encoder(tmp_path / "parts")

    def test_a_long_list_goes_through_in_chunks(self, tmp_path):
        web_t5(tmp_path)
        whole, cut = load_text_encoder(tmp_path), load_text_encoder(tmp_path, max_batch=3)
        seen = []
        cut.model.encoder.register_forward_hook(
            lambda module, args, given, made: seen.append(given["attention_mask"].shape), with_kwargs=True)
        features, mask = cut(WEB * 2)
        expected, same = whole(WEB * 2)
        assert [len(shape) and shape[0] for shape in seen] == [3, 3, 2] and mask.equal(same)
        assert torch.allclose(features, expected, atol=1e-5)
        assert [shape[1] for shape in seen] == sorted(shape[1] for shape in seen)       # the short ones are not padded

    @pytest.mark.parametrize("options, sentence", [
        ({"dtype": torch.float16}, "dtype of a T5's weights must be one of torch.float32, torch.bfloat16, got torch"),
        ({"features_dtype": torch.float16}, "features_dtype must be one of torch.float32, torch.bfloat16, got"),
        ({"max_batch": 0}, "max_batch must be a whole number at least 1, got 0"),
    ])
    def test_what_is_refused(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            load_text_encoder("scenes-t5", **options)


def loud_t5(folder):
    """T5 as it is known: its feed-forward layers add numbers beyond float16's 65504, and a norm hides them again."""
    model = web_t5(folder)
    with torch.no_grad():
        for block in model.encoder.block:
            dense = block.layer[1].DenseReluDense
            dense.wo.weight.normal_(std=5e3, generator=torch.Generator().manual_seed(2))
            dense.wi_1.weight.mul_(20)
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def test_the_overflow_of_float16_is_why_it_is_refused(tmp_path):
    """transformers keeps a layer in float32 against it, which `.half()` undoes, and then clips: finite and wrong."""
    model = loud_t5(tmp_path)
    encoder, half = load_text_encoder(tmp_path), load_text_encoder(tmp_path, torch.bfloat16)
    exact, mask = encoder(WEB)
    theirs = T5EncoderModel.from_pretrained(tmp_path).half()
    ids = encoder.tokenizer(WEB[0], return_tensors="pt")["input_ids"]
    assert model.encoder.block[0](model.shared(ids))[0].abs().max() > 65504
    clipped = theirs(input_ids=ids).last_hidden_state[0].float()
    error = (clipped - exact[0, :len(clipped)]).abs().mean() / exact[0, :len(clipped)].abs().mean()
    assert torch.isfinite(clipped).all() and error > 0.1
    assert (half(WEB)[0] - exact).abs().mean() < 0.05 * exact.abs().mean()
    with pytest.raises(ValueError, match="dtype of a T5's weights must be one of .*, got torch.float16"):
        encoder.half()(WEB)


def test_features_that_are_not_finite_are_never_handed_out(tmp_path):
    web_t5(tmp_path)
    encoder = load_text_encoder(tmp_path)
    encoder.model.encoder.final_layer_norm.weight.data[3] = float("inf")
    with pytest.raises(ValueError, match="features of 'two cats' are not finite, because the encoder overflows in tor"):
        encoder("two cats")


def test_models_and_files_of_another_kind(tmp_path):
    web_t5(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"\x00\x01\x02 half a file")
    with pytest.raises(ValueError, match="cannot be read .*spiece.model is no SentencePiece model .*or download"):
        load_text_encoder(tmp_path)
    (tmp_path / "spiece.model").unlink()
    with pytest.raises(ValueError, match="there is neither a tokenizer.json nor a spiece.model"):
        load_text_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is of a 'bert' model and not of a 't5'; give the name of a T5"):
        load_text_encoder(tmp_path)
    with pytest.raises(ValueError, match="is of a 'vae' model and not of a 't5'"):
        load_text_encoder(data_dir() / "scenes-vae")


def test_what_is_suggested_is_sorted_by_size():
    assert list(SUGGESTED)[0] == "scenes-t5" and list(SUGGESTED)[-1] == "google/t5-v1_1-xxl"
    assert FOR_THE_WORLD in SUGGESTED
