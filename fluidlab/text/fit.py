"""Pre-train the small text encoder on captions alone, then throw its decoder away.

SentencePiece first, then T5's span corruption (Raffel et al., JMLR 2020, section 3.1.4) with a shallow decoder, and
beside it linear readers that ask each feature for its neighbours (`Window` says why). Images play no part. The
captions come in as an argument; this file knows no data set.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

from fluidlab.config import check_choice, check_range
from fluidlab.text.corrupt import IGNORED, choose_cuts, corrupt, pad
from fluidlab.text.encoder import MAX_LENGTH, TextEncoder
from fluidlab.text.pieces import build_tokenizer, sentinel, train_sentencepiece, words_of
from fluidlab.whole import write_json

NUM_SENTINELS = 16
RATE = 0.3                                         # T5 cuts 15 %, but of 512 tokens; a caption has 8
WHOLE = 0.5                                        # of the documents of several captions: one caption is cut whole
REACH = 4                                          # a feature is asked for the four tokens on either side


def fit_text(documents: Iterable[str | tuple[str, ...]], validation: Iterable[str | tuple[str, ...]], out: str | Path,
             *, steps: int = 900, batch_size: int = 64, lr: float = 2e-3, warmup_steps: int = 100,
             vocab_size: int = 400, width: int = 128, depth: int = 3, num_heads: int = 4, decoder_depth: int = 1,
             precision: str = "float32", seed: int = 0) -> dict:
    """Train a SentencePiece model and a T5 encoder on texts, and save them as a folder for `load_text_encoder`.

    Args:
        documents: texts to train on; a tuple is several captions of the same scene, which teaches far more.
        validation: texts that the loss is measured on, before and after, with fixed cuts.
        out: the folder to write: config.json, model.safetensors, tokenizer.json, spiece.model, words.json, fit.json.
        steps, batch_size: optimizer steps, and documents in each.
        lr, warmup_steps: peak learning rate, linear warm-up, cosine decay to a hundredth.
        vocab_size: pieces, the 256 bytes among them; 16 sentinels are added.
        width, depth, num_heads: of the encoder (width is text_dim E).  decoder_depth: of what is thrown away.
        precision: "float32" or "bf16" (autocast).  seed: of weights, batches and cuts.

    Returns:
        What fit.json holds: settings, both validation losses (nats a token), the number of parameters that are kept.
    """
    settings = {k: v for k, v in locals().items() if k not in ("documents", "validation", "out")}
    for name in ("steps", "batch_size", "width", "depth", "num_heads", "decoder_depth"):
        check_range(name, settings[name], 1, kind=int)
    check_range("vocab_size", vocab_size, 256 + 3 + 1, kind=int)
    check_choice("precision", precision, ("float32", "bf16"))
    documents, validation = ([_as_tuple(text) for text in texts] for texts in (documents, validation))
    if not documents or not validation:
        raise ValueError(f"fit_text needs at least one text to train on and one to validate on, got {len(documents)} "
                         f"and {len(validation)}.")
    captions = [caption for document in documents for caption in document]
    pieces = train_sentencepiece(captions, vocab_size)
    tokenizer = build_tokenizer(pieces, NUM_SENTINELS, MAX_LENGTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_t5(len(tokenizer), width, depth, num_heads, decoder_depth)
        window = Window(width, len(tokenizer))
    held_out = encode_documents(tokenizer, validation)
    before = measure(model, window, tokenizer, held_out, batch_size)
    train(model, window, tokenizer, encode_documents(tokenizer, documents), settings)
    after = measure(model, window, tokenizer, held_out, batch_size)
    words = sorted({word for caption in captions for word in words_of(caption)})
    encoder = TextEncoder(encoder_of(model), tokenizer, words)
    out = Path(out)
    encoder.save_pretrained(out)
    (out / "spiece.model").write_bytes(pieces)
    report = {**settings, "documents": len(documents), "validation_loss_before": before,
              "validation_loss_after": after, "pieces": len(tokenizer), "words": len(words),
              "parameters": sum(p.numel() for p in encoder.parameters())}
    write_json(out / "fit.json", report)
    return report


class Window(nn.Module):
    """Linear readers: from one feature of the encoder, the tokens that stand up to REACH places around it.

    Span corruption alone teaches a decoder to guess from the bag of words first, and on this budget never gets
    further: the same word had the same feature wherever it stood. The readers ask every feature for its surroundings,
    so "cat" has to know that "red" stands before it and "left of" behind it. (word2vec's skip-gram, Mikolov et al.
    2013, asked of contextual features; the readers are thrown away with the decoder.)
    """

    def __init__(self, width: int, vocab_size: int):
        super().__init__()
        self.readers = nn.Linear(width, (2 * REACH + 1) * vocab_size, bias=False)
        nn.init.normal_(self.readers.weight, std=width ** -0.5)

    def forward(self, features: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of (B, S, E) features on their neighbours in `ids` (B, S); mask True = real token."""
        S = ids.shape[1]
        logits = self.readers(features).unflatten(-1, (2 * REACH + 1, -1))                   # (B, S, 2R+1, V)
        around = nn.functional.pad(ids.masked_fill(~mask, IGNORED), (REACH, REACH), value=IGNORED)
        wanted = torch.stack([around[:, k:k + S] for k in range(2 * REACH + 1)], dim=-1)     # (B, S, 2R+1)
        wanted = wanted.masked_fill(~mask[..., None], IGNORED)
        return nn.functional.cross_entropy(logits.flatten(0, 2).float(), wanted.flatten(), ignore_index=IGNORED)


def build_t5(vocab_size: int, width: int, depth: int, num_heads: int, decoder_depth: int) -> T5ForConditionalGeneration:
    """An untrained T5 with the gated GELU of v1.1 and relative positions."""
    if width % num_heads:
        raise ValueError(f"width must be a multiple of num_heads, got width {width} and num_heads {num_heads}.")
    config = T5Config(vocab_size=vocab_size, d_model=width, d_kv=width // num_heads, d_ff=2 * width, num_layers=depth,
                      num_decoder_layers=decoder_depth, num_heads=num_heads, feed_forward_proj="gated-gelu",
                      dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    model = T5ForConditionalGeneration(config)
    for stack in (model.encoder, model.decoder):      # transformers' 0.09 starts blind to the order of the words
        nn.init.normal_(stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight, std=1.0)
    return model


def encoder_of(model: T5ForConditionalGeneration) -> T5EncoderModel:
    """The encoder alone, with the same weights."""
    weights = {name: value for name, value in model.state_dict().items() if name.startswith(("encoder.", "shared."))}
    config = T5Config(**{**model.config.to_dict(), "is_encoder_decoder": False, "use_cache": False})
    encoder = T5EncoderModel(config)
    encoder.load_state_dict(weights)
    return encoder


def encode_documents(tokenizer, documents: list[tuple[str, ...]]) -> list[list[list[int]]]:
    """Token ids of every caption of every document, each with its `</s>`."""
    flat = iter(tokenizer([caption for document in documents for caption in document])["input_ids"])
    return [[next(flat) for _ in document] for document in documents]


def make_batch(tokenizer, documents: list[list[list[int]]], rate: float, whole: float, generator) -> dict:
    """Cut a batch of encoded documents: input_ids, attention_mask and labels, as transformers' T5 takes them."""
    eos, rows, owners = tokenizer.eos_token_id, [], []
    for document in documents:
        rows.append([token for caption in document for token in caption])
        owners.append([-1 if token == eos else k for k, caption in enumerate(document) for token in caption])
    cuts = choose_cuts(pad(owners, -1), rate, whole, generator).tolist()
    sentinels = tokenizer.convert_tokens_to_ids([sentinel(k) for k in range(NUM_SENTINELS)])
    pairs = [corrupt(row, cut[:len(row)], sentinels, eos) for row, cut in zip(rows, cuts, strict=True)]
    ids = pad([source for source, _ in pairs], tokenizer.pad_token_id)                       # (B, S)
    return {"input_ids": ids, "attention_mask": (ids != tokenizer.pad_token_id).long(),
            "labels": pad([target for _, target in pairs], IGNORED)}                         # (B, T)


def losses(model, window, batch: dict) -> tuple[Tensor, Tensor]:
    """Both losses of one batch, in nats a token: span corruption, and the window around every feature."""
    answer = model(**batch)
    return answer.loss, window(answer.encoder_last_hidden_state, batch["input_ids"], batch["attention_mask"].bool())


@torch.no_grad()
def measure(model, window, tokenizer, documents, batch_size: int) -> dict[str, float]:
    """Both losses over all documents, with the same cuts at every call."""
    generator = torch.Generator().manual_seed(0)
    model.eval()
    found = []
    for start in range(0, len(documents), batch_size):
        batch = make_batch(tokenizer, documents[start:start + batch_size], RATE, WHOLE, generator)
        found.append([loss.item() for loss in losses(model, window, batch)])
    spans, around = torch.tensor(found).mean(dim=0).tolist()
    return {"span": round(spans, 4), "window": round(around, 4)}


def train(model, window, tokenizer, documents, settings: dict) -> None:
    """AdamW with warm-up and cosine decay; the documents of step n depend on (seed, n) alone."""
    learned = [*model.parameters(), *window.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=settings["lr"], betas=(0.9, 0.98), weight_decay=0.01)
    steps, warmup = settings["steps"], settings["warmup_steps"]
    model.train()
    bar = tqdm(range(steps), desc="text encoder", unit="step", mininterval=1.0)
    for step in bar:
        generator = torch.Generator().manual_seed(settings["seed"] * 1_000_003 + step)
        chosen = torch.randint(len(documents), (settings["batch_size"],), generator=generator).tolist()
        batch = make_batch(tokenizer, [documents[i] for i in chosen], RATE, WHOLE, generator)
        for group in optimizer.param_groups:
            group["lr"] = settings["lr"] * learning_rate(step, steps, warmup)
        spans, around = _step(model, window, batch, optimizer, settings["precision"] == "bf16")
        if step % 20 == 0:
            if not math.isfinite(spans + around):
                raise RuntimeError(f"the loss is {spans + around} at step {step}; try an lr below {settings['lr']}.")
            bar.set_postfix(span=f"{spans:.3f}", window=f"{around:.3f}")
    model.eval()


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: up in a straight line, down to a hundredth as half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _step(model, window, batch: dict, optimizer, bf16: bool) -> tuple[float, float]:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        spans, around = losses(model, window, batch)
    optimizer.zero_grad(set_to_none=True)
    (spans + around).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return spans.item(), around.item()


def _as_tuple(text) -> tuple[str, ...]:
    parts = (text,) if isinstance(text, str) else text
    listed = isinstance(parts, tuple | list) and len(parts) > 0
    if not listed or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError(f"a document must be a text or a tuple of texts, none of them empty, got {text!r}.")
    return tuple(parts)
