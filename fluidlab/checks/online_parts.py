"""How each kind of real part is tried: on one or two pictures or prompts, against what somebody else says of it.

Every check calls the package's public functions and compares with another way to the same answer: the library's own
call, the numbers on the part's card, or what a photograph plainly shows. A check returns one line of what it found.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fluidlab.data.photos import PHOTOS_HELDOUT, load_photo, to_tensor
from fluidlab.hub import reach, split_name

PROMPTS = ["a photo of a cat", "a red umbrella to the left of a green dog, seen from above"]
CAT = "chelsea"                                      # the photograph of a cat
SIDE = 256                                           # pixels, the paper's


def at_commit(name: str, kind: str = "model") -> str:
    """Ask the hub for an address, before anything of it is looked for here: words for its present commit."""
    commit = reach(name, kind)
    return "" if commit is None else f"; the hub has commit {commit[:12]}"


def one_file(name: str, file: str) -> Path:
    """A file of a repository as `huggingface_hub` fetches it, or of a folder."""
    import huggingface_hub
    if Path(name).is_dir():
        return Path(name) / file
    repo, inside, revision = split_name(name)
    return Path(huggingface_hub.hf_hub_download(repo, file, subfolder=inside, revision=revision))


def expect(what: str, found, wanted) -> None:
    if found != wanted:
        raise ValueError(f"{what} is {found}, but must be {wanted}.")


def same(what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Raise unless two tensors differ by a small share of their size."""
    expect(f"the shape of {what}", tuple(ours.shape), tuple(theirs.shape))
    error = ((ours - theirs).norm() / theirs.norm()).item()
    if not error <= tolerance:
        raise ValueError(f"{what} differ from the library's own by {error:.2g} of their size, allowed are "
                         f"{tolerance:g}.")


def photographs() -> Tensor:
    """The held-out photographs, (3, 3, SIDE, SIDE) in [-1, 1]."""
    return torch.stack([load_photo(name, SIDE) for name in PHOTOS_HELDOUT]) / 127.5 - 1


def quality(tokenizer, pixels: Tensor, tokens: Tensor, floor: float) -> str:
    """The PSNR of a round trip in words; `ValueError` below a floor in dB."""
    from fluidlab.tokenizer.metrics import psnr
    decibels = psnr(pixels, tokenizer.decode(tokens)).mean().item()
    if not decibels >= floor:
        raise ValueError(f"the round trip has {decibels:.2f} dB, expected were at least {floor:g}.")
    return f"{decibels:.2f} dB"


@torch.no_grad()
def check_vae(step, folder: Path) -> str:
    """256 tokens an image; latents as diffusers scales them, every 2x2 block a token."""
    from fluidlab.tokenizer import load_tokenizer
    at = at_commit(step.id)
    tokenizer, pixels = load_tokenizer(step.id, statistics=False), photographs()
    tokens, config = tokenizer.encode(pixels), tokenizer.model.config
    expect("the shape of the tokens", tuple(tokens.shape), (len(pixels), 256, step.expects["token_dim"]))
    latents = tokenizer.model.encode(pixels).latent_dist.mode()                                  # (B, C, 32, 32)
    latents = (latents - (config.shift_factor or 0.0)) * config.scaling_factor
    blocks = F.pixel_unshuffle(latents, 2).unflatten(1, (latents.shape[1], 4))                   # (B, C, 4, 16, 16)
    same("the tokens", tokens, blocks.permute(0, 3, 4, 2, 1).reshape(tokens.shape), 1e-3)
    seen = quality(tokenizer, pixels, tokens, step.expects["decibels"])
    return f"256 tokens of {tokens.shape[2]} numbers, deviation {tokens.std():.2f}, {seen}{at}"


@torch.no_grad()
def check_vq(step, folder: Path) -> str:
    """256 codes an image, those that the model itself chooses."""
    from fluidlab.tokenizer import load_tokenizer
    at = at_commit(step.id)
    tokenizer, pixels = load_tokenizer(step.id), photographs()
    expect("the number of codes", tokenizer.codebook_size, step.expects["codebook_size"])
    tokens, (low, high) = tokenizer.encode(pixels), tokenizer.pixel_range
    expect("the shape of the tokens", tuple(tokens.shape), (len(pixels), 256))
    model, given = tokenizer.model, low + (pixels + 1) / 2 * (high - low)
    indices = model.quantize(model.encode(given).latents)[2][2].reshape(tokens.shape)
    agree = (indices == tokens).float().mean().item()
    if agree < 0.99:                                 # a tie may fall to either side
        raise ValueError(f"only {agree:.1%} of the codes are those that diffusers' own quantizer chooses.")
    seen = quality(tokenizer, pixels, tokens, step.expects["decibels"])
    return f"256 of {tokenizer.codebook_size} codes, pixels in [{low:g}, {high:g}], {seen}{at}"


@torch.no_grad()
def check_text(step, folder: Path) -> str:
    """Pieces as the sentencepiece library cuts them, features as transformers gives them without a batch around."""
    import sentencepiece

    from fluidlab.text.encoder import load_text_encoder
    at, dtype = at_commit(step.id), step.expects.get("dtype", torch.float32)
    encoder = load_text_encoder(step.id, dtype)
    expect("the width of the features", encoder.dim, step.expects["dim"])
    features, mask = encoder(PROMPTS)                                                            # (2, S, E), (2, S)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(one_file(step.id, "spiece.model")))
    for row, prompt in enumerate(PROMPTS):
        ids = [*theirs.encode(prompt), theirs.eos_id()]
        expect(f"the pieces of {prompt!r}", encoder.tokenizer(prompt)["input_ids"], ids)
        alone = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0].float()        # (s, E)
        same("the features", features[row][mask[row]], alone, 1e-3 if dtype == torch.float32 else 3e-2)
    return f"{encoder.dim} numbers a piece, {int(mask.sum())} pieces, deviation {features[mask].std():.2f}{at}"


def check_stream(step, folder: Path) -> str:
    """Two pictures of a stream, and the caption that `datasets` gives with the first."""
    import datasets

    from fluidlab.data.captions_open import open_captions
    at = at_commit(step.id, "dataset")
    source = open_captions(step.id, streaming=True, num_images=2, image_size=SIDE)
    images, captions = source.batch([0, 1])
    expect("the shape of the pictures", tuple(images.shape), (2, 3, SIDE, SIDE))
    rows = datasets.load_dataset(step.id, split="train", streaming=True)
    first = {name: value for name, value in next(iter(rows)).items() if isinstance(value, str | list | dict)}
    if captions[0] not in " ".join(" ".join(map(str, first.values())).split()):
        raise ValueError(f"the first caption is {captions[0]!r}, but the first row holds {first}.")
    return f"pictures in {source.reader.columns.image}, captions such as {captions[0][:60]!r}{at}"


def check_coco(step, folder: Path) -> str:
    """As many pairs as the paper takes, the same two by the same seed."""
    from fluidlab.data.captions_open import coco_pairs
    at = at_commit(step.id, "dataset")
    first, again = (coco_pairs(step.id, num_pairs=2, image_size=SIDE) for _ in range(2))
    expect("the number of pairs", len(first.rows), step.expects["rows"])
    (images, captions), (others, _) = first.batch([0, 1]), again.batch([0, 1])
    expect("the shape of the pictures", tuple(images.shape), (2, 3, SIDE, SIDE))
    if not images.equal(others) or images[0].equal(images[1]):
        raise ValueError("the same seed gave other pictures, or both pictures are the same.")
    return f"{len(first.rows):,} pairs, the first {captions[0][:60]!r}{at}"


def check_inception(step, folder: Path) -> str:
    """Weights by the hash in their name; features of two photographs, which no unit of Inception makes negative."""
    from fluidlab.evaluate.fid import InceptionFeatures
    extractor = InceptionFeatures()
    features = extractor(torch.stack([load_photo(name, SIDE) for name in PHOTOS_HELDOUT]))       # (3, 2048)
    expect("the shape of the features", tuple(features.shape), (3, 2048))
    if not (features.isfinite().all() and features.min() >= 0 and features.std(0).max() > 0):
        raise ValueError(f"features of Inception are finite, at least 0 and differ between photographs, got some "
                         f"between {features.min():.3g} and {features.max():.3g}.")
    return f"2048 features, mean {features.mean():.3f}, fingerprint {extractor.fingerprint[:12]}"


def check_judge(step, folder: Path) -> str:
    """What a photograph shows is found in it, and has one of GenEval's colours."""
    from PIL import Image

    from fluidlab.evaluate.geneval_judge import Judge
    detector, clip = step.id.split(" ")
    at = at_commit(detector) + at_commit(clip)
    judge = Judge.from_pretrained(detector, clip)
    pixels = load_photo(CAT, crop=None)                                                          # (3, H, W)
    image, wanted = Image.fromarray(pixels.permute(1, 2, 0).numpy()), step.expects["finds"]
    expect("the photograph", to_tensor(image).shape, pixels.shape)
    found = judge.find(image)
    if wanted not in {thing.name for thing in found}:
        raise ValueError(f"no {wanted} was found in the photograph {CAT}, but {[thing.name for thing in found]}.")
    sure = next(thing for thing in found if thing.name == wanted)
    [color] = judge.colors(image, wanted, [sure])
    return f"a {wanted} ({sure.score:.2f}), {color}, in the photograph {CAT}{at}"


def check_push(step, folder: Path) -> str:
    """What comes back draws the same picture."""
    from fluidlab.pipeline import FluidPipeline
    pipe = FluidPipeline.from_pretrained("random-diffusion-mini")
    commit = pipe.push_to_hub(step.id, private=True, commit_message="Try the way to the hub")
    again = FluidPipeline.from_pretrained(step.id, cache_dir=folder / "hub", force_download=True)
    before, after = (p(PROMPTS[0], seed=0, num_inference_steps=4, num_denoising_steps=4).pixels for p in (pipe, again))
    if not before.equal(after):
        raise ValueError(f"the pipeline that came back from {step.id} draws another picture.")
    return f"pushed and loaded again, the same picture ({commit}); the repository stays until you delete it"


def check_token_cache(step, folder: Path) -> str:
    """What is streamed from the hub is what lies in the folder, shard by shard."""
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.data.token_cache import TokenCache, write_cache
    from fluidlab.publish.remote import upload
    from fluidlab.text.encoder import load_text_encoder
    from fluidlab.tokenizer import load_tokenizer
    place = write_cache(folder / "tokens", EmojiScenes("train", 64, size=12), 12, {"vq": load_tokenizer("scenes-vq")},
                        load_text_encoder("scenes-t5"), shard_size=4, progress=False)
    upload(place, step.id.removeprefix("hf://datasets/"), commit_message="Try a token cache", private=True,
           repo_type="dataset")
    local, stream = TokenCache(place), TokenCache(step.id, stream=True)
    try:
        rows = torch.arange(12)
        if not all(a.equal(b) for a, b in zip(local.gather(rows), stream.gather(rows), strict=True)):
            raise ValueError(f"what is streamed from {step.id} is not what was uploaded.")
    finally:
        stream.close()
    return f"12 images in 3 shards streamed from {step.id}; the data set stays until you delete it"
