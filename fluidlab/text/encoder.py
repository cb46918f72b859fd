"""The frozen text encoder: prompts in, one feature vector per token out.

Any T5 encoder with its own tokenizer will do, the shipped toy as well as the paper's T5-XXL (Raffel et al., "Exploring
the limits of transfer learning with a unified text-to-text Transformer", JMLR 2020). It is never trained here, so its
features may be cached. It knows nothing of the null text: an empty prompt is a row without a single real token, and
the aligner puts its learned vector there.
"""

import contextlib
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from fluidlab.config import check_choice, check_range, data_dir
from fluidlab.device import usable_device
from fluidlab.hub import Wanted, find_model, has_tokenizer, read_json, reading, tokenizer_beside
from fluidlab.text.fingerprint import fingerprint_of
from fluidlab.text.pieces import tokenizer_from_pieces, words_of
from fluidlab.whole import write_json, write_text

# What to load where, smallest first; E is the width of the features. Sizes are those of the encoder in bfloat16.
SUGGESTED = {
    "scenes-t5": "shipped, E 128: knows the words of EmojiScenes and no others",
    "google/t5-v1_1-small": "one small GPU or a CPU, E 512, 0.1 GB",
    "google/flan-t5-base": "one GPU, E 768, 0.2 GB: the default for pictures of the world",
    "google/t5-v1_1-xxl": "the paper's, E 4096, 9.5 GB",
}
FOR_THE_WORLD = "google/flan-t5-base"              # what to take when captions are not of EmojiScenes
MAX_LENGTH = 128                                   # tokens of the longest prompt, as in the paper
DTYPES = (torch.float32, torch.bfloat16)
WORDS_FILE = "words.json"                          # the words that a small encoder was trained on
REPORTED = 60                                      # characters of a prompt that a message shows


class TextEncoder(nn.Module):
    """A frozen T5 encoder with its tokenizer.

    Args:
        model: a `transformers.T5EncoderModel`.
        tokenizer: the tokenizer that belongs to it, which ends every prompt with its `eos_token`.
        words: every word that the encoder was trained on; another word in a prompt is named in a warning. None for an
            encoder that has read the web.
        features_dtype: torch.float32, or torch.bfloat16 for half the memory.
        max_batch: prompts at once in the network, so that its memory does not grow with a longer list.
        folder: that the weights came from, for `fingerprint`; None if there is none.
    """

    def __init__(self, model, tokenizer, words: list[str] | None = None, *,
                 features_dtype: torch.dtype = torch.float32, max_batch: int = 64, folder: Path | None = None):
        super().__init__()
        check_choice("features_dtype", features_dtype, DTYPES)
        check_range("max_batch", max_batch, 1, kind=int)
        self.features_dtype, self.max_batch, self.folder = features_dtype, max_batch, folder
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
            features (B, S, E) in features_dtype, of about unit scale, zero at padding; mask (B, S) bool, True = real
            token; both on the encoder's device. The row of a prompt that means "no text" is False everywhere. A
            prompt's features do not depend on the batch around it.

        Raises:
            ValueError: prompts are not text, pad_to is outside [longest prompt, max_length], the weights are float16,
                or features overflow.

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
        weight = self.model.get_input_embeddings().weight
        check_choice("the dtype of a T5's weights", weight.dtype, DTYPES)          # float16 overflows unseen
        features = weight.new_zeros(len(rows), S, self.dim, dtype=self.features_dtype)                 # (B, S, E)
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))           # little padding in each chunk
        for start in range(0, len(rows), self.max_batch):
            chunk = by_length[start:start + self.max_batch]
            found = self._encode([rows[i] for i in chunk])                                             # (b, s, E)
            features[chunk, :found.shape[1]] = found
        mask = torch.arange(S) < torch.tensor([[len(row)] for row in rows])                            # (B, S)
        return features, mask.to(weight.device)

    def _encode(self, rows: list[list[int]]) -> Tensor:
        """Token ids of some prompts to features (b, s, E), zero at padding."""
        longest = max(1, *map(len, rows))
        device = self.model.get_input_embeddings().weight.device
        ids = torch.tensor([row + [self.tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
        mask = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])                      # (b, s)
        ids, mask = ids.to(device), mask.to(device)
        attended = mask.clone()
        attended[:, 0] = True                                            # a softmax over nothing would be NaN
        features = self.model(input_ids=ids, attention_mask=attended.long()).last_hidden_state         # (b, s, E)
        features = features.to(self.features_dtype).masked_fill(~mask[..., None], 0.0)
        if not torch.isfinite(features).all():
            row = (~torch.isfinite(features)).flatten(1).any(dim=1).nonzero()[0].item()
            prompt = self.tokenizer.decode(rows[row], skip_special_tokens=True)
            raise ValueError(f"The features of {_short(prompt)} are not finite, because the encoder overflows in "
                             f"{features.dtype} or its weights are damaged: load it with dtype=torch.float32, or fetch "
                             "it again.")
        return features

    def tokenize(self, prompt: str) -> list[str]:
        """The pieces of a prompt, one for each of its features, `</s>` at the end; [] for "no text"."""
        return self.tokenizer.convert_ids_to_tokens(self._ids(*_as_list(prompt)))

    def fingerprint(self, dtype: torch.dtype | None = None) -> str:
        """SHA-256 of weights and tokenizer: features cached under another fingerprint are of another encoder.

        Args:
            dtype: the precision in which the features were made; None for that of the weights.
        """
        spec = json.loads(self.tokenizer.backend_tokenizer.to_str())
        spec.pop("padding"), spec.pop("truncation")                      # how it was last called, not what it is
        return fingerprint_of(self.model, json.dumps([spec, self.max_length], sort_keys=True), dtype, self.folder)

    def made(self, fingerprint: str) -> bool:
        """Whether features under a fingerprint are of this encoder, in whichever of DTYPES they were made.

        The weights are read once where it has the precision of then, and again only where it has not.
        """
        other = next(dtype for dtype in DTYPES if dtype != self.dtype)
        return fingerprint == self.fingerprint() or fingerprint == self.fingerprint(other)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write an ordinary Hugging Face snapshot, and the words, into `folder` (made if missing)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _no_bars():
            self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        _name_old_class(folder / "tokenizer_config.json")
        if self.words is not None:
            write_text(folder / WORDS_FILE, json.dumps(sorted(self.words), indent=0) + "\n")

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


def load_text_encoder(name: str | Path, dtype: torch.dtype = torch.float32, *, subfolder: str | None = None,
                      revision: str | None = None, device: str | torch.device = "cpu",
                      features_dtype: torch.dtype = torch.float32, max_batch: int = 64,
                      cache_dir: str | Path | None = None) -> TextEncoder:
    """Load a frozen text encoder.

    Args:
        name: a shipped name ("scenes-t5"), a folder with a Hugging Face snapshot, or a Hugging Face address
            ("google/t5-v1_1-xxl", "owner/name/text_encoder_3", with "@revision" behind it to pin it), which is looked
            for in the local cache first and then online. SUGGESTED says which for what machine.
        dtype: of the weights, float32 or bfloat16; T5-XXL in bfloat16 takes 9.5 GB in place of 19 GB. Never float16:
            T5's activations exceed its 65504, and what transformers then clips is finite and can be wrong.
        subfolder, revision: instead of in the name. In a pipeline's repository its T5 is found by itself.
        device: of the weights and of the features.
        features_dtype, max_batch: as of `TextEncoder`.
        cache_dir: another cache than Hugging Face's own.

    Raises:
        ValueError: nothing of that name can be read; the sentence names the cause and what to do.
    """
    check_choice("the dtype of a T5's weights", dtype, DTYPES)
    device = usable_device(device)
    wanted = Wanted(what="text encoder", shipped=tuple(_shipped()), classes=("T5EncoderModel",),
                    is_whole=has_tokenizer)
    folder = find_model(name, wanted, subfolder=subfolder, revision=revision, cache_dir=cache_dir)
    values = read_json(folder / "config.json")
    if values.get("model_type") != "t5":
        found = values.get("model_type") or values.get("_class_name") or values.get("kind")
        raise ValueError(f"The text encoder {str(name)!r} cannot be loaded, because {folder / 'config.json'} is of a "
                         f"{found!r} model and not of a 't5'; give the name of a T5.")
    with reading("text encoder", folder), _no_bars():
        model, tokenizer = _load_model(folder, dtype), _load_tokenizer(folder)
        words = folder / WORDS_FILE
        words = json.loads(words.read_text(encoding="utf-8")) if words.is_file() else None
    return TextEncoder(model, tokenizer, words, features_dtype=features_dtype, max_batch=max_batch,
                       folder=folder).to(device)


def _load_model(folder: Path, dtype: torch.dtype):
    from transformers import T5EncoderModel  # seconds to import: only when one is loaded
    return T5EncoderModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)


def _load_tokenizer(folder: Path):
    """The tokenizer beside the weights, or where a diffusers pipeline keeps it."""
    from transformers import AutoTokenizer
    for place in dict.fromkeys((folder, tokenizer_beside(folder))):
        if (place / "tokenizer.json").is_file():
            return AutoTokenizer.from_pretrained(place, local_files_only=True)
        if (place / "spiece.model").is_file():
            config = place / "tokenizer_config.json"
            values = read_json(config) if config.is_file() else {}
            return tokenizer_from_pieces((place / "spiece.model").read_bytes(), values.get("extra_ids", 100),
                                         int(min(values.get("model_max_length", 512), 2**31)))
    raise ValueError("there is neither a tokenizer.json nor a spiece.model")


def _shipped() -> list[str]:
    configs = sorted(data_dir().glob("*/config.json"))
    return [path.parent.name for path in configs
            if json.loads(path.read_text(encoding="utf-8")).get("model_type") == "t5"]


def _as_list(prompts) -> list[str]:
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, list | tuple) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"prompts must be a text or a list of one or more texts, got {_short(prompts)}.")
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:                              # half of a surrogate pair
            raise ValueError(f"a prompt must be text that UTF-8 can write, got {_short(prompt)}.") from error
    return list(prompts)


def _short(value) -> str:
    shown = repr(value)
    return shown if len(shown) <= REPORTED else shown[:REPORTED] + "..."


def _name_old_class(path: Path) -> None:
    """transformers 5 renamed the class of a plain tokenizer.json; the old name is understood by 4 and 5."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_json(path, config)


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
