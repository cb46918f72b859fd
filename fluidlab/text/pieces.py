"""SentencePiece: from captions to pieces, and the same pieces as an ordinary Hugging Face tokenizer.

The unigram model is trained by the `sentencepiece` package on nothing but captions; the tokenizer that the encoder
uses holds its pieces and scores in a `tokenizer.json`, which every version of transformers reads without a network.
Prompts are folded to lower case and their punctuation counts as a space, because captions have neither; a letter that
no caption contains falls back to its UTF-8 bytes, so that every prompt has pieces and `<unk>` never stands for a word.
"""

import io
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"           # ids 0, 1, 2, as in T5
NOT_A_WORD = r"[^\w\s]|_"                          # punctuation; "t-shirt" becomes two words


def normalize(text: str) -> str:
    """A text as the tokenizer reads it: NFKC, lower case, no punctuation, single spaces."""
    return " ".join(re.sub(NOT_A_WORD, " ", unicodedata.normalize("NFKC", text).lower()).split())


def words_of(text: str) -> list[str]:
    """The words of a text as the tokenizer sees them, in order."""
    return normalize(text).split()


def train_sentencepiece(captions: Iterable[str], vocab_size: int) -> bytes:
    """Train a unigram SentencePiece model with T5's ids (pad 0, eos 1, unk 2, no bos).

    Args:
        captions: texts to learn the pieces from.
        vocab_size: pieces in all, the 256 bytes among them; fewer come back where the captions have no more to give.

    Returns:
        The bytes of a `spiece.model`.

    Source: Kudo, "Subword Regularization", ACL 2018.
    """
    captions, model = list(captions), io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder, "seeds.tsv")
        seeds.write_text(_seeds(captions), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(captions), model_writer=model, model_type="unigram", vocab_size=vocab_size,
            seed_sentencepieces_file=str(seeds), hard_vocab_limit=False, byte_fallback=True, character_coverage=1.0,
            normalization_rule_name="nmt_nfkc_cf", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1,
            minloglevel=2)
    return model.getvalue()


def _seeds(captions: list[str]) -> str:
    """Candidate pieces with their counts, one a line: every part of every word.

    Left to itself SentencePiece proposes only what two different words share, so that "and", the commonest word of
    a small lexicon, could never be a piece.
    """
    counts = Counter()
    for word, count in Counter(word for caption in captions for word in words_of(caption)).items():
        word = "\u2581" + word
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + 16) + 1):
                counts[word[start:end]] += count
    return "".join(f"{piece}\t{count}\n" for piece, count in sorted(counts.items()))


def sentinel(k: int) -> str:
    """The name of the k-th sentinel, the token that stands for the k-th span cut out of a text."""
    return f"<extra_id_{k}>"


def tokenizer_from_pieces(model: bytes, num_sentinels: int = 100, max_length: int = 512):
    """A published T5's tokenizer from its `spiece.model` alone, without the protobuf package.

    Most T5 repositories hold no tokenizer.json. The pieces and scores come from the `sentencepiece` package, and the
    table that normalises the letters is read from the file itself; the ids are those of SentencePiece, the sentinels
    behind them.

    Args:
        model: the bytes of a `spiece.model` of a unigram model.
        num_sentinels: how many `<extra_id_k>` follow the pieces.  max_length: stored with the tokenizer.

    Raises:
        ValueError: these bytes are no SentencePiece model.
    """
    from transformers import PreTrainedTokenizerFast  # seconds to import: only when loading
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        charsmap = _field(_field(model, 3), 2)                           # NormalizerSpec.precompiled_charsmap
    except (RuntimeError, IndexError, KeyError) as error:
        raise ValueError(f"spiece.model is no SentencePiece model ({error}); fetch it again.") from error
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    sentinels = [sentinel(k) for k in range(num_sentinels)]
    vocabulary += [(name, 0.0) for name in reversed(sentinels)]
    fallback = any(pieces.is_byte(i) for i in range(len(pieces)))
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=pieces.unk_id(), byte_fallback=fallback))
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    end = [(EOS, pieces.eos_id())]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=end)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in (PAD, EOS, UNK, *sentinels)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNK,
                                   model_max_length=max_length, clean_up_tokenization_spaces=False)


def _field(message: bytes, wanted: int) -> bytes:
    """The bytes of one field of a serialised protocol buffer, b"" if it is not there.

    Source: protobuf.dev, "Encoding": a key (field number and wire type) as a varint, then a varint, 8 bytes, a length
    and as many bytes, or 4 bytes.
    """
    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if message[at - 1] < 128:
                return value, at
    at = 0
    while at < len(message):
        key, at = varint(at)
        number, wire = key >> 3, key & 7
        size, at = varint(at) if wire in (0, 2) else ({1: 8, 5: 4}[wire], at)
        if wire == 0:
            continue
        if number == wanted and wire == 2:
            return message[at:at + size]
        at += size
    return b""


def build_tokenizer(model: bytes, num_sentinels: int, max_length: int):
    """Give a SentencePiece model's pieces and scores the form that `AutoTokenizer` reads.

    Args:
        model: the bytes of a `spiece.model`.
        num_sentinels: how many `<extra_id_k>` to append; the last id is `<extra_id_0>`, as in T5.
        max_length: tokens of the longest prompt, `</s>` included; stored with the tokenizer.
    """
    from transformers import PreTrainedTokenizerFast  # seconds to import: only when training
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    sentinels = [sentinel(k) for k in range(num_sentinels)]
    vocabulary += [(name, 0.0) for name in reversed(sentinels)]
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(NOT_A_WORD), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    tokenizer.decoder = decoders.Sequence([
        decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, 1)])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in (PAD, EOS, UNK, *sentinels)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNK,
                                   model_max_length=max_length, clean_up_tokenization_spaces=False)
