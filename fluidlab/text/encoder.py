"""The frozen text encoder: prompts in, one feature vector per token out.

Any T5 encoder with its own tokenizer will do, the shipped toy as well as the paper's T5-XXL (Raffel et al., "Exploring
the limits of transfer learning with a unified text-to-text Transformer", JMLR 2020). It is never trained here, so its
features may be cached. It knows nothing of the null text: an empty prompt is a row without a single real token, and
the aligner puts its learned vector there.
"""

import contextlib
import hashlib
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from fluidlab.config import data_dir
from fluidlab.text.pieces import words_of

MAX_LENGTH = 128                                   # tokens of the longest prompt, as in the paper
WORDS_FILE = "words.json"                          # the words that a small encoder was trained on
REPORTED = 60                                      # characters of a prompt that a message shows


class TextEncoder(nn.Module):
    """A frozen T5 encoder with its tokenizer.

    Args:
        model: a `transformers.T5EncoderModel`.
        tokenizer: the tokenizer that belongs to it, which ends every prompt with its `eos_token`.
        words: every word that the encoder was trained on; another word in a prompt is named in a warning. None for an
            encoder that has read the web.
    """

    def __init__(self, model, tokenizer, words: list[str] | None = None):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.words = None if words is None else frozenset(words)
        self.dim = model.config.d_model
        self.max_length = min(MAX_LENGTH, tokenizer.model_max_length)

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; features are float32 always."""
        return self.model.get_input_embeddings().weight.dtype

    def train(self, mode: bool = True):
        """Frozen means frozen: dropout stays off even when a model around the encoder is trained."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, prompts: list[str] | str, pad_to: int | None = None) -> tuple[Tensor, Tensor]:
        """Encode prompts.

        Args:
            prompts: one text or several. A text without words (empty, spaces) means "no text".
            pad_to: tokens S of the answer, at least as many as the longest prompt has; None for exactly as many.

        Returns:
            features (B, S, E) float32, of about unit scale, zero at padding; mask (B, S) bool, True = real token.
            The row of a prompt that means "no text" is False everywhere. A prompt's features do not depend on the
            batch around it.

        Raises:
            ValueError: prompts are not text, or pad_to is outside [longest prompt, max_length].

        Warns:
            UserWarning: a prompt is longer than max_length and was cut, or has words never seen in training.
        """
        rows = [self._ids(prompt) for prompt in _as_list(prompts)]
        longest = max(1, *map(len, rows))
        if pad_to is not None and (isinstance(pad_to, bool) or not isinstance(pad_to, int)
                                   or not longest <= pad_to <= self.max_length):
            raise ValueError(f"pad_to must be a whole number from {longest} (the longest prompt here) to "
                             f"{self.max_length}, got {pad_to!r}.")
        S = longest if pad_to is None else pad_to
        ids = torch.tensor([row + [self.tokenizer.pad_token_id] * (S - len(row)) for row in rows])     # (B, S)
        mask = torch.arange(S) < torch.tensor([[len(row)] for row in rows])                            # (B, S)
        ids, mask = ids.to(self.device), mask.to(self.device)
        attended = mask.clone()
        attended[:, 0] = True                                            # a softmax over nothing would be NaN
        features = self.model(input_ids=ids, attention_mask=attended.long()).last_hidden_state.float()  # (B, S, E)
        return features.masked_fill(~mask[..., None], 0.0), mask

    def tokenize(self, prompt: str) -> list[str]:
        """The pieces of a prompt, one for each of its features, `</s>` at the end; [] for "no text"."""
        return self.tokenizer.convert_ids_to_tokens(self._ids(*_as_list(prompt)))

    def fingerprint(self) -> str:
        """SHA-256 of weights and tokenizer: features cached under another fingerprint are of another encoder."""
        spec = json.loads(self.tokenizer.backend_tokenizer.to_str())
        spec.pop("padding"), spec.pop("truncation")                      # how it was last called, not what it is
        digest = hashlib.sha256(json.dumps([spec, self.max_length], sort_keys=True).encode())
        for name, weight in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write an ordinary Hugging Face snapshot, and the words, into `folder` (made if missing)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _no_bars():
            self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        _name_old_class(folder / "tokenizer_config.json")
        if self.words is not None:
            (folder / WORDS_FILE).write_text(json.dumps(sorted(self.words), indent=0) + "\n", encoding="utf-8")

    def _ids(self, prompt: str) -> list[int]:
        """The token ids of one prompt, cut to max_length; [] for "no text"."""
        if not prompt.strip():
            return []
        ids = self.tokenizer(prompt, verbose=False)["input_ids"]
        if ids == [self.tokenizer.eos_token_id]:                         # nothing but punctuation
            return []
        self._warn_about_words(prompt)
        if len(ids) > self.max_length:
            warnings.warn(f"The prompt {_short(prompt)} has {len(ids)} tokens and the text encoder takes "
                          f"{self.max_length}: what stands behind them is not read.", stacklevel=4)
            ids = ids[:self.max_length - 1] + ids[-1:]                   # the end token stays the end
        return ids

    def _warn_about_words(self, prompt: str) -> None:
        unknown = [] if self.words is None else [word for word in words_of(prompt) if word not in self.words]
        if unknown:
            named = ", ".join(repr(word) for word in dict.fromkeys(unknown))
            warnings.warn(f"The text encoder was never trained on {named} (in the prompt {_short(prompt)}): "
                          "expect an image that ignores it.", stacklevel=5)


def load_text_encoder(name: str | Path, dtype: torch.dtype = torch.float32) -> TextEncoder:
    """Load a frozen text encoder.

    Args:
        name: a shipped name ("scenes-t5"), a folder with a Hugging Face snapshot, or a Hugging Face id
            ("google/t5-v1_1-xxl"), which is looked for in the local cache first and then online.
        dtype: of the weights; T5-XXL in bfloat16 takes 9.5 GB in place of 19 GB. Features are float32 always.

    Raises:
        ValueError: nothing of that name can be read; the sentence names the cause and what to do.
    """
    if not isinstance(name, str | Path) or not str(name).strip():
        raise ValueError(f"A text encoder is named by a shipped name, a folder or a Hugging Face id, got {name!r}.")
    for folder in (data_dir() / name, Path(name).expanduser()):
        if folder.is_dir():
            return _load_folder(folder, dtype)
    try:
        return _load(name, dtype, local_files_only=True)
    except Exception:                                                    # not in the cache: what is missing varies
        pass
    try:
        return _load(name, dtype)
    except Exception as error:
        cause = " ".join(str(error).split())[:300]
        raise ValueError(
            f"The text encoder {str(name)!r} is neither shipped (there is: {', '.join(_shipped()) or 'none'}), nor a "
            f"folder, nor in the local Hugging Face cache, and loading it online failed ({type(error).__name__}: "
            f"{cause}); check the name, or go online once with `hf download {name}`, or give the folder of a copy."
        ) from error


def _load_folder(folder: Path, dtype: torch.dtype) -> TextEncoder:
    missing = [file for file in ("config.json", "tokenizer_config.json") if not (folder / file).is_file()]
    if missing:
        raise ValueError(f"The folder {str(folder)!r} is no text encoder: it lacks {' and '.join(missing)}; give the "
                         "folder of a T5 snapshot as `save_pretrained` writes it.")
    try:
        with _no_bars():
            return _load(folder, dtype, local_files_only=True)
    except Exception as error:                                           # what a broken file raises varies
        cause = " ".join(str(error).split())[:300]
        raise ValueError(f"The text encoder in {str(folder)!r} cannot be read ({type(error).__name__}: {cause}); "
                         "make or download the folder again.") from error


def _load(name: str | Path, dtype: torch.dtype, **options) -> TextEncoder:
    from transformers import AutoTokenizer, T5EncoderModel  # seconds to import: only when one is loaded
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    model = T5EncoderModel.from_pretrained(name, dtype=dtype, use_safetensors=True, **options)  # nothing is unpickled
    words = Path(name) / WORDS_FILE
    return TextEncoder(model, tokenizer, json.loads(words.read_text(encoding="utf-8")) if words.is_file() else None)


def _shipped() -> list[str]:
    configs = sorted(data_dir().glob("*/config.json"))
    return [path.parent.name for path in configs
            if json.loads(path.read_text(encoding="utf-8")).get("model_type") == "t5"]


def _as_list(prompts) -> list[str]:
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, list | tuple) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"prompts must be a text or a list of one or more texts, got {_short(prompts)}.")
    return list(prompts)


def _short(value) -> str:
    shown = repr(value)
    return shown if len(shown) <= REPORTED else shown[:REPORTED] + "..."


def _name_old_class(path: Path) -> None:
    """transformers 5 renamed the class of a plain tokenizer.json; the old name is understood by 4 and 5."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _no_bars():
    """Progress bars for a file of three megabytes are noise."""
    from transformers.utils import logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
