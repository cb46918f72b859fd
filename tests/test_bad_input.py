"""One table of bad input: what is called, and the words of the one sentence that comes back.

Rows that belong to one part stand in its own tests; here is what crosses the border of the package: wrong types,
shapes, dtypes and devices, numbers that are none, nothing, far too much, and names and files that lie.
"""

import re
import shutil

import pytest
import torch
from helpers import seeded, variant

import fluidlab as fl
from fluidlab.cli import main
from fluidlab.config import data_dir
from fluidlab.evaluate.frechet import frechet_distance
from fluidlab.evaluate.powerlaw import fit_power_law, hold_out_largest
from fluidlab.evaluate.results import COLUMNS, append_results
from fluidlab.model.files import save_model
from fluidlab.pipeline import FluidPipeline

NAN, INF, HUGE, LONG = float("nan"), float("inf"), 10 ** 5000, "cat " * 2500
IMAGE, HOLE = torch.zeros(3, 64, 64), torch.arange(64 * 64).view(64, 64) < 2048
UNKNOWN = torch.arange(16)[None] < 8


class Parts:
    """What the rows call: `vae`, `vq`, `text`, a `model` and a `pipe` of vectors, `codes` a model of codes."""

    def __init__(self):
        self.vae, self.vq = fl.load_tokenizer("scenes-vae"), fl.load_tokenizer("scenes-vq")
        self.text = fl.load_text_encoder("scenes-t5")
        self.model = variant("random", "diffusion", text_dim=self.text.dim)
        self.codes = variant("random", "softmax", text_dim=self.text.dim)
        self.pipe = FluidPipeline(self.model, self.vae, self.text)
        self.features, self.mask = self.text(["a cat"])
        self.tokens = torch.zeros(1, 16, 16)

    def generate(self, model=None, features=None, mask=None, **options):
        given = [default if value is None else value for value, default in
                 ((model, self.model), (features, self.features), (mask, self.mask))]
        return fl.generate(*given, num_inference_steps=1, num_denoising_steps=1, **options)

    def edit(self, tokens, unknown=UNKNOWN, model=None):
        return self.generate(model, tokens=tokens, unknown=unknown)


@pytest.fixture(scope="module")
def parts():
    return Parts()


CALLS = {
    # sampling
    "features that are a list": (lambda p: p.generate(features=[[1.0]]), "features must be a tensor (B, S, E), got [["),
    "features that are none": (lambda p: fl.generate(p.model, None, p.mask), "features must be a tensor (B, S, E), go"),
    "a mask that is a text": (lambda p: p.generate(mask="all"), "mask must be a tensor (B, S), got 'all'"),
    "no text at all": (lambda p: p.generate(features=p.features[:0], mask=p.mask[:0]), "must be of shape (B, S, 128)"),
    "whole features": (lambda p: p.generate(features=p.features.long()), "features must be floating point, got torch."),
    "features of NaN": (lambda p: p.generate(features=p.features * NAN), "features must be finite, got NaN or infinit"),
    "infinite features": (lambda p: p.generate(features=p.features + INF), "features must be finite"),
    "another device": (lambda p: p.generate(features=p.features.to("meta"), mask=p.mask.to("meta")), "model's device "),
    "a mask elsewhere": (lambda p: p.generate(mask=p.mask.to("meta")), "device cpu, got cpu and meta"),
    "no model": (lambda p: fl.generate(None, p.features, p.mask), "model must be a Fluid, got None"),
    "a watcher that is no function": (lambda p: p.generate(on_step=3), "on_step must be a function of a Step, got 3"),
    "a code too large": (lambda p: p.edit(torch.full((1, 16), 65), model=p.codes), "from 0 to 63, got 65 to 65"),
    "a code below 0": (lambda p: p.edit(torch.full((1, 16), -1), model=p.codes), "from 0 to 63, got -1 to -1"),
    "tokens of NaN": (lambda p: p.edit(p.tokens * NAN), "tokens must be finite"),
    "tokens of a list": (lambda p: p.edit([0.0]), "tokens must be a tensor, got [0.0]"),
    "places of a list": (lambda p: p.edit(p.tokens, [True] * 16), "unknown must be a tensor (B, N), got [True"),
    "temperature of a tensor": (lambda p: p.generate(temperature=torch.ones(1)), "temperature must be a number from 0"),
    "endless guidance": (lambda p: p.generate(guidance_scale=INF), "guidance_scale must be a number from 0 to 100, go"),
    "huge guidance": (lambda p: p.generate(guidance_scale=HUGE), "0 to 100, got a number of 16610 bits"),
    "no steps": (lambda p: fl.generate(p.model, p.features, p.mask, num_denoising_steps=[]), "for the first and the l"),
    "inpainting nothing": (lambda p: fl.inpaint(p.model, p.tokens, None, p.features, p.mask), "(N,) or (B, N), got No"),
    "a mask of None": (lambda p: fl.token_mask(None), "the mask must be a bool tensor (H, W), got None"),
    "a mask without pixels": (lambda p: fl.token_mask(HOLE[:0]), "sides must be multiples of 16 pixels, got 0x64"),
    "half a ring": (lambda p: fl.token_mask(HOLE, ring=0.5), "ring must be a whole number at least 0, got 0.5"),
    "patches of 0": (lambda p: fl.token_mask(HOLE, 0), "patch_size must be a whole number at least 1, got 0"),
    # models and training
    "a model of a dictionary": (lambda p: fl.Fluid({"width": 64}), "config must be a ModelConfig, such as preset give"),
    "loss without tokens": (lambda p: p.model(None, p.features, p.mask), "tokens must be a tensor, got None"),
    "loss of doubles": (lambda p: p.model(p.tokens.double(), p.features, p.mask), "(torch.float32), got torch.float64"),
    "loss of halves": (lambda p: p.model(p.tokens.half(), p.features, p.mask), "(torch.float32), got torch.float16"),
    "loss of short codes": (lambda p: p.codes(torch.zeros(1, 16).int(), p.features, p.mask), "(torch.int64), got torc"),
    "loss of a mask's code": (lambda p: p.codes(torch.full((1, 16), 64), p.features, p.mask), "from 0 to 63, got 64 t"),
    "too many streams": (lambda p: p.model(p.tokens, p.features, p.mask, [seeded(0)] * 2), "got a list of 2 for 1 ima"),
    "a seed as a stream": (lambda p: p.model(p.tokens, p.features, p.mask, 7), "must be a torch.Generator or a list o"),
    "a trainer's recipe": (lambda p: fl.Trainer(p.model, None, None), "config must be a TrainConfig, got None"),
    "a trainer's data": (lambda p: fl.Trainer(p.model, [1], fl.TrainConfig()), "data must have .batch(step, batch_siz"),
    "training nothing": (lambda p: fl.train(p.model), "trainer must be a Trainer, got a Fluid"),
    "validating nothing": (lambda p: fl.validation_loss(p.model, None), "data must have .gather(indices) and a length"),
    "a width nobody has": (lambda p: fl.ModelConfig(width=2 ** 70), "width must be at most 16777216, got 118059"),
    "a length nobody has": (lambda p: fl.ModelConfig(seq_len=HUGE), "seq_len must be at most 16777216, got a number o"),
    "fields of a list": (lambda p: fl.ModelConfig.from_dict([1]), "ModelConfig must be made of a dictionary, got [1]"),
    "fields without names": (lambda p: fl.SampleConfig.from_dict({3: 1}), "SampleConfig has no 3; it knows"),
    "betas of a number": (lambda p: fl.TrainConfig(betas=3), "betas must be two numbers, got 3"),
    "betas of letters": (lambda p: fl.TrainConfig(betas=["a", "b"]), "from 0 to below 1, got ('a', 'b')"),
    "a rate of True": (lambda p: fl.TrainConfig(lr=True), "lr must be a positive finite number, got True"),
    "endless decay": (lambda p: fl.TrainConfig(weight_decay=INF), "weight_decay must be a number from 0 to 1, got inf"),
    "a seed too large": (lambda p: fl.TrainConfig(seed=2 ** 63), "seed must be a whole number from 0 to 9223372036854"),
    "a size of a list": (lambda p: fl.preset(["nano"]), "size must be one of femto, pico, nano,"),
    "words of a text": (lambda p: fl.launch("train"), "arguments must be a list of words of a command line, got 'trai"),
    # pipelines
    "a prompt of None": (lambda p: p.pipe(None), "prompt must be a text or a list of texts, got None"),
    "a prompt of bytes": (lambda p: p.pipe(b"a cat"), "prompt must be a text or a list of texts, got b'a cat'"),
    "half a character": (lambda p: p.pipe("a \ud800 cat"), "must be text that UTF-8 can write, got 'a \\ud800 cat'"),
    "an option of others": (lambda p: p.pipe("a cat", negative_prompt="dog"), "an option must be one of guidance_scal"),
    "a height": (lambda p: p.pipe("a cat", height=512), "got 'height'"),
    "a callback of 3": (lambda p: p.pipe("a cat", callback_on_step_end=3), "callback_on_step_end must be a function, "),
    "swapped parts": (lambda p: FluidPipeline(p.model, p.text, p.vae), "tokenizer must be what load_tokenizer gives, "),
    "no tokenizer": (lambda p: FluidPipeline(p.model, None, p.text), "load_tokenizer gives, got a NoneType"),
    "no text encoder": (lambda p: FluidPipeline(p.model, p.vae, None), "load_text_encoder gives, got a NoneType"),
    "no pipeline's model": (lambda p: FluidPipeline(None, p.vae, p.text), "model must be a Fluid, got None"),
    "defaults of a list": (lambda p: FluidPipeline(p.model, p.vae, p.text, [1]), "must be made of a dictionary, got ["),
    "a device of nobody": (lambda p: p.pipe.to("abacus"), "device must be one that torch can use on this machine, got"),
    "a picture's name": (lambda p: p.pipe.inpaint("cat.png", HOLE, "a cat"), "must be a PIL picture or a tensor (3, H"),
    "a picture of NaN": (lambda p: p.pipe.inpaint(IMAGE * NAN, HOLE, "a cat"), "must lie in [-1, 1]"),
    "a ring of text": (lambda p: p.pipe.inpaint(IMAGE, HOLE, "a cat", ring="1"), "ring must be a whole number at leas"),
    "strength of NaN": (lambda p: p.pipe.variation(IMAGE, "a cat", strength=NAN), "strength must be a number from 0 t"),
    "a margin of text": (lambda p: p.pipe.outpaint(IMAGE, "a cat", top="16"), "top must be a whole number at least 0,"),
    "a pipeline's long name": (lambda p: FluidPipeline.from_pretrained("a/" * 5000), "a Hugging Face id, got 'a/a/"),
    "weights of whole numbers": (lambda p: p.pipe.save_pretrained("/nowhere", torch.int8), "must be a floating-point "),
    # tokenizers and text encoders
    "no pictures": (lambda p: p.vae.encode(None), "images must be a tensor (B, 3, H, W), got None"),
    "pictures without numbers": (lambda p: p.vae.encode(torch.zeros(1, 3, 64, 64, device="meta")), "on the device met"),
    "a seed to encode": (lambda p: p.vae.encode(IMAGE[None], 3), "generator must be a torch.Generator, got 3"),
    "decoding nothing": (lambda p: p.vae.decode(None), "tokens must be a tensor (B, N, 16), got None"),
    "decoding NaN": (lambda p: p.vae.decode(p.tokens * NAN), "must be finite numbers"),
    "decoding no picture": (lambda p: p.vae.decode(p.tokens[:0]), "of shape (0, 16, 16) must be finite numbers, at le"),
    "decoding no token": (lambda p: p.vae.decode(p.tokens[:, :0]), "at least one token"),
    "decoding no code": (lambda p: p.vq.decode(torch.zeros(0, 16).long()), "must be int64 of shape (B, N)"),
    "decoding None": (lambda p: p.vq.decode(None), "tokens must be a tensor (B, N), got None"),
    "a grid of one number": (lambda p: p.vae.decode(p.tokens, 4), "grid must be two numbers, rows and columns, got 4"),
    "a grid below 0": (lambda p: p.vae.decode(p.tokens, (-4, -4)), "rows of the grid must be a whole number at least "),
    "a tokenizer's long name": (lambda p: fl.load_tokenizer("a" * 10000), "or a Hugging Face id, got 'aaa"),
    "a name too long for a file": (lambda p: fl.load_tokenizer("a" * 300), "neither shipped (scenes-vae, scenes-vq) n"),
    "a tokenizer's device": (lambda p: fl.load_tokenizer("scenes-vae", device="abacus"), "got 'abacus'"),
    "a size of text": (lambda p: fl.load_tokenizer("scenes-vae", image_size="64"), "The image size is '64', but must "),
    "half a size": (lambda p: fl.load_tokenizer("scenes-vae", image_size=64.0), "The image size is 64.0"),
    "a reader's device": (lambda p: fl.load_text_encoder("scenes-t5", device="cuda:99"), "this machine, got 'cuda:99'"),
    # data and measures
    "skills of a number": (lambda p: fl.EmojiScenes(skills=3), "skills is 3; allowed are lists of 'single_object'"),
    "backgrounds of a word": (lambda p: fl.EmojiScenes(backgrounds="no"), "backgrounds is 'no'; allowed are True, Fal"),
    "a scene's name": (lambda p: fl.EmojiScenes()["0"], "the index of a scene is '0'; allowed are whole numbers"),
    "scene one and a half": (lambda p: fl.EmojiScenes()[1.5], "the index of a scene is 1.5"),
    "some scenes": (lambda p: fl.EmojiScenes()[0:3], "the index of a scene is slice(0, 3, None)"),
    "no scenes": (lambda p: fl.EmojiScenes().batch(None), "indices must be a list of whole numbers, got None"),
    "scenes of a text": (lambda p: fl.EmojiScenes().as_hf_dataset("8"), "num_scenes is '8'; allowed are 1 to"),
    "a cache of a number": (lambda p: fl.TokenCache(3), "folder must be a path or an address, got 3"),
    "features of None": (lambda p: frechet_distance(None, None), "features must be a tensor (n, F), got None"),
    "no features": (lambda p: frechet_distance(torch.zeros(5, 0), torch.zeros(5, 0)), "got (5, 0)"),
    "features without end": (lambda p: frechet_distance(torch.eye(5).double() * 1e300, torch.eye(5)), "at most 1e+60"),
    "a law of letters": (lambda p: fit_power_law("abc", [1, 2, 3]), "sizes must be a list of numbers, got 'abc'"),
    "a ragged law": (lambda p: fit_power_law([[1], [2, 3]], [1, 2]), "sizes must be a list of numbers, got [[1], [2, "),
    "a law drawn -1 times": (lambda p: fit_power_law([1, 2, 3], [3, 2, 1], bootstrap=-1), "bootstrap must be a whole "),
    "a law of chance": (lambda p: fit_power_law([1, 2, 3], [3, 2, 1], seed=-1), "seed must be a whole number at least"),
    "the largest of none": (lambda p: hold_out_largest([], []), "each with its loss, got 0 and 0"),
}


@pytest.mark.parametrize("call, sentence", CALLS.values(), ids=CALLS)
def test_a_call_is_refused_with_one_sentence(call, sentence, parts):
    with pytest.raises(ValueError, match=re.escape(sentence)) as told:
        call(parts)
    said = str(told.value)
    assert len(said) < 900 and "\n" not in said and said.endswith(".")


@pytest.mark.parametrize("prompt", [LONG, "猫 and 🐈‍⬛", "a\x00cat", "\u202egod", "ﬁ\u0301" * 50, "\n\n"])
def test_any_text_is_a_prompt(prompt, parts, recwarn):
    """Nothing of it was seen in training, which a warning says, and no sentence of it is longer than a screen."""
    output = parts.pipe(prompt, seed=0, num_inference_steps=1, num_denoising_steps=1)
    assert output.images[0].size == (64, 64) and torch.isfinite(output.pixels).all()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A cache, a run of two steps, the pipeline that it became, and the shipped parts: name -> folder."""
    base = tmp_path_factory.mktemp("bad")
    found = {"CACHE": base / "cache", "RUN": base / "run", "PIPE": base / "pipe"}
    short = ["--preset", "femto", "--steps", "2", "--batch-size", "4"]
    assert main(["cache", str(found["CACHE"]), "--num-images", "16", "--batch-size", "16"]) == 0
    assert main(["train", "--cache", str(found["CACHE"]), "--out", str(found["RUN"]), *short]) == 0
    assert main(["export", str(found["RUN"]), str(found["PIPE"]), "--tokenizer", "scenes-vae"]) == 0
    return {**found, "VAE": data_dir() / "scenes-vae", "T5": data_dir() / "scenes-t5"}


def refused(line, capsys) -> str:
    """The sentence on stderr of a command that ends with exit code 2."""
    assert main(line) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(f"fluidlab {line[0]}: ") and not [part for part in said if "Traceback" in part]
    return said[-1]


TRAIN = "train --cache CACHE --out OUT --preset femto --steps 2 --batch-size 4 "
FIT = "fit vae --out OUT --steps 1 "
SHARDS = "shards --cache CACHE --out OUT --preset femto "
LINES = {
    "fit vae --out OUT --steps 0": "Got steps=0 and minutes=None, but exactly one must be given, above 0",
    "fit vae --out OUT --minutes nan": "Got steps=None and minutes=nan",
    "fit vae --steps 1": "fit vae needs --out, the folder to write",
    FIT + "--photo-share nan": "photo_share must be a number from 0 to 1, got nan",
    FIT + "--lr nan": "lr=nan, save_every=500; all must be positive",
    FIT + "--batch-size -3": "Got batch_size=-3",
    FIT + "--codebook-size 8": "codebook_size is for fit vq alone, got it for fit vae",
    FIT + "--decoder-of RUN": "cannot be read as a tokenizer",
    "fit vq --out OUT --steps 1 --codebook-size 0": "codebook_size must be a whole number at least 2, got 0",
    "fit detector --out OUT --steps 1 --lr nan": "lr=nan; all must be positive",
    "fit t5 --out OUT --num-captions 0": "size is 0; allowed are whole numbers from 1",
    "stats scenes-vae --num-images 0": "num_images must be a whole number at least 1, got 0",
    "stats scenes-vae --device abacus": "device must be one that torch can use on this machine, got 'abacus'",
    "cache OUT --num-images 4 --data-seed -1": "seed is -1; allowed are whole numbers from 0",
    "cache OUT --num-images 4 --part 3 --parts 2": "part must be a whole number from 0 to 1, got 3",
    "cache OUT --measure": "holds no token cache; `fluidlab cache` makes one",
    "cache CACHE --measure --window 0": "window must be a whole number at least 1, got 0",
    "cache OUT --dataset /no/such": "there is no such folder or file",
    TRAIN + "--timeout nan": "timeout must be a number from 1 to 10000000, got nan",
    TRAIN + "--timeout -1": "timeout must be a number from 1 to 10000000, got -1.0",
    TRAIN + "--micro-batch 3": "batch_size must be a multiple of micro_batch, got 4 and 3",
    TRAIN + "--shards 2": "the number of processes must be a multiple of shards, got 1 and 2",
    TRAIN + "--init-from /no": "/no holds no model.safetensors",
    TRAIN + "--window 0": "window must be a whole number at least 1, got 0",
    TRAIN + "--weight-decay inf": "weight_decay must be a number from 0 to 1, got inf",
    TRAIN + f"--seed {2 ** 70}": "seed must be a whole number from 0 to 9223372036854775807",
    TRAIN + "--threads 1000000000": "threads must be a whole number from 0 to 4096, got 1000000000",
    "train --cache nosuch://x --out OUT": "nosuch://x cannot be reached (Protocol not known: nosuch)",
    "train --cache hf://datasets/a/b --out OUT": "HF_HUB_OFFLINE forbids to go online",
    "export /no OUT --tokenizer scenes-vae": "/no holds no complete checkpoint",
    "export RUN OUT --tokenizer scenes-vae --guidance-scale -3": "must be a number from 0 to 100, got -3",
    "export RUN OUT --tokenizer scenes-vq": "the run was trained with another tokenizer than scenes-vq",
    "sample cat --model PIPE --out OUT.png --num-images-per-prompt 1000000000": "from 1 to 1024, got 1000000000",
    "sample cat --model PIPE --out OUT.png --scale 1000000": "scale must be a whole number from 1 to 32, got 1000000",
    "evaluate judge /no": "/no holds no detector: config.json is missing",
    "evaluate loss PIPE --num-images 0": "num_images must be a whole number from 1 to 10000, got 0",
    "evaluate images /no --out OUT": "'/no' cannot be loaded, because there is no such folder",
    "evaluate images PIPE --out OUT --frechet-images 1": "frechet_images must be a whole number at least 2, got 1",
    "evaluate tokenizers --num-images 0": "num_images must be at least 1, got 0",
    "scale --cache CACHE --validation CACHE --out OUT --sizes huge": "size must be one of femto, pico, nano",
    "scale --cache CACHE --validation CACHE --out OUT --sizes femto --orders spiral": "order must be one of raster",
    "scale --fit --results /no/such.csv": "such.csv is not in no/",
    "plan --device abacus": "device must be one of v5e, v5p, v6e, a100, h100, h200, got 'abacus'",
    "plan --device v5e --peak nan": "peak must be a number at least 1.0, got nan",
    "plan --device-memory lots": "a size of memory must look like 32GB or 80GiB, got 'lots'",
    SHARDS + "--batch-size 0": "batch_size must be a whole number at least 1, got 0",
    "shards --cache /no --out OUT": "/no holds no token cache",
    "bench --tokens 5 --only sampling --variants random-diffusion": "seq_len must be a square number",
    "bench --batch 0": "batch must be a whole number at least 1, got 0",
    "verify-online --only nothing": "there is no step 'nothing'; allowed are vae,",
}


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_refused_with_one_sentence_and_leaves_nothing(line, places, tmp_path, capsys):
    words = {**places, "OUT": tmp_path / "out", "OUT.png": tmp_path / "out.png"}
    assert LINES[line] in refused([str(words.get(word, word)) for word in line.split()], capsys)
    assert list(tmp_path.iterdir()) == []


def sampled(folder):
    return ["sample", "a cat", "--model", folder, "--num-denoising-steps", "1", "--out", folder + ".png"]


def trained(folder):
    return ["train", "--cache", folder, "--out", folder + ".run", *"--preset femto --steps 2 --batch-size 4".split()]


def exported(folder):
    return ["export", folder, folder + ".pipe", "--tokenizer", "scenes-vae"]


READERS = {"PIPE": sampled, "CACHE": trained, "RUN": exported}
LOADERS = {"VAE": fl.load_tokenizer, "T5": fl.load_text_encoder}
SWAPPED = b'{"tokenizer": "scenes-vq", "text_encoder": "scenes-t5"}'
NO_JSON, CUT, NO_TEXT, GONE = b"{", "half of it", b"\xff\xfe", None
FILES = {
    ("PIPE", "config.json", NO_JSON): "cannot be read as a Fluid model",
    ("PIPE", "config.json", NO_TEXT): "cannot be read as a Fluid model",
    ("PIPE", "config.json", b"[]"): "ModelConfig must be made of a dictionary, got []",
    ("PIPE", "config.json", b'{"width": 1e9}'): "width must be a whole number at least 4, got 1000000000.0",
    ("PIPE", "pipeline.json", CUT): "cannot be read as JSON",
    ("PIPE", "pipeline.json", SWAPPED): "was trained with another tokenizer",
    ("PIPE", "model.safetensors", CUT): "cannot be read as a Fluid model",
    ("PIPE", "training.json", b"null"): "holds a NoneType, but must hold a JSON object",
    ("CACHE", "manifest.json", NO_JSON): "manifest.json cannot be read as JSON",
    ("CACHE", "manifest.json", b"[]"): "manifest.json holds a list, but must hold a JSON object",
    ("CACHE", "manifest.json", b"{}"): "manifest.json lacks tokenizers, text, source, max_length",
    ("CACHE", "manifest.json", GONE): "all 1 shards are there and its manifest is missing",
    ("CACHE", "00000.arrow", CUT): "bytes, its manifest says",
    ("CACHE", "00000.arrow", GONE): "00000.arrow is missing",
    ("RUN", "run.json", NO_TEXT): "run.json cannot be read as JSON",
    ("RUN", "run.json", b"{}"): "run.json lacks train, preset",
    ("RUN", "run.json", GONE): "run.json",
    ("RUN", "state.json", CUT): "state.json cannot be read as JSON",
    ("RUN", "state.json", b"{}"): "state.json lacks step, model, ema_updates",
    ("RUN", "state.json", GONE): "holds no complete checkpoint",
    ("VAE", "config.json", b'{"kind": "vae", "colour": 1}'): "cannot be read as a tokenizer",
    ("VAE", "config.json", b'{"kind": "vae", "width": -1}'): "cannot be read as a tokenizer",
    ("VAE", "config.json", b'{"kind": "jpeg"}'): "gives its kind as 'jpeg' and not as one of vae, vq",
    ("VAE", "model.safetensors", CUT): "cannot be read as a tokenizer",
    ("VAE", "model.safetensors", GONE): "lacks weights as safetensors",
    ("T5", "config.json", b"{}"): "is of a None model and not of a 't5'",
    ("T5", "words.json", NO_JSON): "The text encoder in",
    ("T5", "words.json", NO_TEXT): "The text encoder in",
}


@pytest.mark.parametrize("what", FILES, ids=lambda what: " ".join(map(str, what)))
def test_a_damaged_file_is_named(what, places, tmp_path, capsys):
    whose, file, bytes_ = what
    folder = shutil.copytree(places[whose], tmp_path / "damaged")
    [damaged] = folder.rglob(file)
    if bytes_ is GONE:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:damaged.stat().st_size // 2] if bytes_ == CUT else bytes_)
    if whose in READERS:
        assert FILES[what] in refused(READERS[whose](str(folder)), capsys)
    else:
        with pytest.raises(ValueError, match=re.escape(FILES[what])):
            LOADERS[whose](folder)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"] and not list(folder.rglob("*.part"))


def test_a_line_of_a_log_that_is_no_record_is_named(places, tmp_path, capsys):
    """As a full disk leaves one."""
    folder = shutil.copytree(places["RUN"], tmp_path / "run")
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 3, "lo')
    line = ["train", "--cache", str(places["CACHE"]), "--out", str(folder), "--resume", *"--preset femto".split()]
    assert "line 3 of" in refused([*line, *"--steps 2 --batch-size 4".split()], capsys)


@pytest.mark.parametrize("write", ["model", "tokenizer", "results"])
def test_a_disk_that_is_full_leaves_the_old_file_and_no_other(write, parts, tmp_path, monkeypatch):
    """Whatever is being written fails with the system's own error once some of it is there."""
    def full(*_, **__):
        raise OSError(28, "No space left on device")
    saves = {"model": lambda: save_model(parts.model, tmp_path),
             "tokenizer": lambda: parts.vae.save_pretrained(tmp_path),
             "results": lambda: append_results([{**dict.fromkeys(COLUMNS, "1")}], tmp_path / "results.csv")}
    saves[write]()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left on device"):
        saves[write]()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
