"""SentencePiece, span corruption and the pre-training of the small text encoder."""

import json

import pytest
import sentencepiece
import torch

from fluidlab.config import data_dir
from fluidlab.text.corrupt import choose_cuts, corrupt, pad
from fluidlab.text.encoder import load_text_encoder
from fluidlab.text.fit import fit_text, learning_rate
from fluidlab.text.pieces import build_tokenizer, normalize, train_sentencepiece, words_of
from fluidlab.text.probe import linear_probe, token_of

NOUNS = ("cat", "dog", "umbrella", "book")
CAPTIONS = [f"{count} {color} {noun}{'s' if count == 'two' else ''}"
            for count in ("a", "two") for color in ("red", "green", "blue") for noun in NOUNS] * 20
DOCUMENTS = [(caption, caption) if i % 2 else caption for i, caption in enumerate(CAPTIONS)]


@pytest.fixture(scope="module")
def spiece():
    return train_sentencepiece(CAPTIONS, 256 + 3 + 40)


def test_pieces_round_trip(spiece):
    tokenizer = build_tokenizer(spiece, 4, 128)
    for text in (*CAPTIONS[:24], "zebra", "naïve 猫", "a quokka"):
        ids = tokenizer(text)["input_ids"]
        assert ids[-1] == 1 and tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == len(tokenizer) - 1


def test_the_tokenizer_is_the_sentencepiece_model(spiece):
    ours, theirs = build_tokenizer(spiece, 4, 128), sentencepiece.SentencePieceProcessor(model_proto=spiece)
    for text in (*CAPTIONS[:24], "A  Red  UMBRELLA ", "ｃａｔ", "catdog books"):
        assert ours(text)["input_ids"] == [*theirs.encode(text), 1]


def test_words():
    assert words_of(" A Cat, left-of  a_DOG! ") == ["a", "cat", "left", "of", "a", "dog"]
    assert normalize("Ｃafé.") == "café"


def test_corruption_loses_nothing():
    """Putting the spans of the target back where their sentinels stand gives the document again."""
    generator = torch.Generator().manual_seed(0)
    owner = torch.tensor([[0, 0, 0, 0, 0, -1, 1, 1, 1, -1], [0, 0, -1, -1, -1, -1, -1, -1, -1, -1]])
    ids = [[10, 11, 12, 13, 14, 1, 15, 16, 17, 1], [10, 11, 1]]
    names = [99, 98, 97, 96, 95, 94]
    for _ in range(50):
        for row, cut in zip(ids, choose_cuts(owner, 0.3, 0.5, generator).tolist(), strict=True):
            source, target = corrupt(row, cut, names, 1)
            assert target[-1] == 1 and target[0] == names[0] and sum(cut) >= 1
            spans, rebuilt = {}, []
            for token in target[:-1]:
                if token in names:
                    spans[token] = []
                    last = token
                else:
                    spans[last].append(token)
            for token in source:
                rebuilt += spans.get(token, [token])
            assert rebuilt == row and list(spans) == names[:len(spans)]


def test_cuts_spare_the_ends_and_hit_the_rate():
    """10,000 tokens, rate 0.3: the share is 1 - (1 - 0.15)(1 - 0.1)(1 - 0.05) = 0.273, its deviation below 0.008."""
    owner = torch.zeros(200, 64, dtype=torch.long)
    owner[:, 50:] = -1
    cut = choose_cuts(owner, 0.3, 1.0, torch.Generator().manual_seed(0))
    assert not cut[:, 50:].any() and 0.24 < cut[:, :50].float().mean() < 0.31
    owner[:, 25:50] = 1
    whole = choose_cuts(owner, 0.0, 1.0, torch.Generator().manual_seed(0))
    assert whole.sum(1).eq(25).all() and 60 < whole[:, 0].sum() < 140    # one caption of the two, either one


def test_pad():
    assert pad([[1, 2, 3], [4]], -1).tolist() == [[1, 2, 3], [4, -1, -1]]


def test_learning_rate():
    rates = [learning_rate(step, 100, 10) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[10] == 1.0 and rates[-1] < 0.02
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_fit_learns_saves_and_repeats(tmp_path):
    dials = dict(steps=40, batch_size=32, warmup_steps=4, vocab_size=300, width=16, depth=1, num_heads=2,
                 decoder_depth=1, lr=1e-2)
    first = fit_text(DOCUMENTS, CAPTIONS[:24], tmp_path / "one", **dials)
    for loss in ("span", "window"):
        assert first["validation_loss_after"][loss] < 0.7 * first["validation_loss_before"][loss]
    again = fit_text(DOCUMENTS, CAPTIONS[:24], tmp_path / "two", **dials)
    assert again == first
    encoder, copy = load_text_encoder(tmp_path / "one"), load_text_encoder(tmp_path / "two")
    assert encoder.fingerprint() == copy.fingerprint() and encoder.dim == 16
    assert encoder.words == set(" ".join(CAPTIONS).split())
    assert json.loads((tmp_path / "one" / "fit.json").read_text())["steps"] == 40


@pytest.mark.parametrize("change, sentence", [
    (dict(steps=0), "steps must be a whole number at least 1, got 0"),
    (dict(vocab_size=100), "vocab_size must be a whole number at least 260, got 100"),
    (dict(precision="fp16"), "precision must be one of float32, bf16, got 'fp16'"),
    (dict(width=30, num_heads=4), "got width 30 and num_heads 4"),
])
def test_wrong_dials(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_text(CAPTIONS, CAPTIONS, tmp_path, **change)


@pytest.mark.parametrize("documents, sentence", [
    ([], "got 0 and 480"), (["a cat", ""], "none of them empty, got ''"), ([3], "got 3"), ([("a", 3)], "got ")])
def test_wrong_documents(tmp_path, documents, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_text(documents, CAPTIONS, tmp_path)


def test_a_linear_probe_finds_what_is_there_and_nothing_else():
    """Labels that the features decide are read almost always; random ones (2000 tries, 1 in 4) within 6 deviations."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 8, generator=generator)
    true, dice = x[:, :4].argmax(1), torch.randint(4, (4000,), generator=generator)
    assert linear_probe(x[:2000], true[:2000], x[2000:], true[2000:]) > 0.9
    assert abs(linear_probe(x[:2000], dice[:2000], x[2000:], dice[2000:]) - 0.25) < 0.06


def test_token_of():
    encoder = load_text_encoder("scenes-t5")
    caption = "a red teddy bear left of three traffic lights"
    pieces = encoder.tokenize(caption)
    assert pieces[token_of(encoder, caption, "teddy bear")] == "▁bear"
    assert pieces[token_of(encoder, caption, "red")] == "▁red"
    assert token_of(encoder, caption, "cat") is None and token_of(encoder, "a cat and a cat", "cat") is None


def test_the_shipped_encoder_says_how_it_was_made():
    report = json.loads((data_dir() / "scenes-t5" / "fit.json").read_text())
    before, after = report["validation_loss_before"], report["validation_loss_after"]
    assert all(after[loss] < 0.5 * before[loss] for loss in ("span", "window"))
    sp = sentencepiece.SentencePieceProcessor(model_file=str(data_dir() / "scenes-t5" / "spiece.model"))
    encoder = load_text_encoder("scenes-t5")
    caption = "a photo of three purple umbrellas"
    assert encoder.tokenize(caption) == [*sp.encode(caption, out_type=str), "</s>"]
