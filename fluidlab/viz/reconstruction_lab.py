"""The reconstruction lab: put a picture through a tokenizer, spoil its tokens, and look closely at what comes back.

`spoil`, `few_codes`, `code_length` and `draw` are plain functions of values; `ReconstructionLab` only connects them to
controls. What to notice: a continuous token can be made worse by any amount, so quality has a dial; a discrete one is a
code or another code, and all that can be taken from it is codes to choose from.
"""

import functools
import io
import math

import ipywidgets
import matplotlib
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fluidlab.data.photos import image_to_tensor
from fluidlab.tokenizer.metrics import psnr, ssim
from fluidlab.viz.plots_tokenizers import ERROR_MAP, WORST_ERROR, crop, error_map
from fluidlab.viz.show import figure_html, image_grid, to_array
from fluidlab.viz.widgets import Explorer, NumberSlider, checkbox, choice

LARGEST_FILE, LARGEST_PICTURE = 20_000_000, 40_000_000       # bytes and pixels of an upload
OWN_FILE = "your own file"
SIZES = (64, 128, 256)      # pixels a side: 16, 64 and 256 tokens
PANEL = 336                 # pixels that a panel is enlarged to, about


def spoil(tokens: Tensor, step: float = 0.0, channels: int | None = None, latent_channels: int = 4) -> Tensor:
    """Continuous tokens, rounded and with latent channels left out.

    Args:
        tokens: (B, N, C) of unit variance, their channels running over (row, column, latent channel).
        step: round to multiples of it, in standard deviations; 0 leaves them as they are.
        channels: keep that many latent channels, the first, and set the others to their mean 0; None keeps all.
        latent_channels: how many there are.

    Returns:
        (B, N, C).

    Raises:
        ValueError: if step is negative or channels is not in 1..latent_channels.
    """
    channels = latent_channels if channels is None else channels
    if step < 0 or not 1 <= channels <= latent_channels:
        raise ValueError(f"step is {step} and channels is {channels}; step must be at least 0 and channels in "
                         f"1..{latent_channels}.")
    kept = torch.arange(tokens.shape[-1]) % latent_channels < channels              # (C,)
    tokens = tokens * kept                                                          # (B, N, C)
    return tokens if step == 0 else torch.round(tokens / step) * step               # (B, N, C)


@functools.lru_cache(maxsize=16)
def spread_codes(tokenizer, number: int, rounds: int = 15) -> Tensor:
    """Which codes (number,) stand for all of them best: each the nearest to a centre that k-means found on the sphere.

    Args:
        tokenizer: discrete, with a `codebook` of unit vectors.  number: 1 to its size.  rounds: of k-means.
    """
    codes = tokenizer.codebook.codes                                                # (V, E)
    centres = codes[:number]                                                        # in no order, so a random choice
    for _ in range(rounds):
        nearest = (codes @ centres.T).argmax(dim=1)                                 # (V,)
        centres = F.normalize(torch.zeros_like(centres).index_add(0, nearest, codes), dim=1)
    return (centres @ codes.T).argmax(dim=1)                                        # (number,)


@torch.no_grad()
def few_codes(tokenizer, image: Tensor, number: int) -> Tensor:
    """Tokens (1, N) of one picture (3, H, W), if only so many codes may be chosen.

    Raises:
        ValueError: a tokenizer that does not show its codes, or more codes than it has.
    """
    size = tokenizer.codebook_size
    if number == size:
        return tokenizer.encode(image[None])
    if not 1 <= number < size or not hasattr(tokenizer, "codebook"):
        raise ValueError(f"{number} of {size} codes were asked of a {type(tokenizer).__name__}; a VQTokenizer can do "
                         f"with 1 to all of its codes, any other tokenizer only with all.")
    kept = spread_codes(tokenizer, number)                                          # (number,)
    asked = tokenizer.features(image[None]).flatten(2).transpose(1, 2)              # (1, N, E)
    return kept[(asked @ tokenizer.codebook.codes[kept].T).argmax(dim=-1)]          # (1, N)


def code_length(tokens: Tensor, step: float) -> Tensor:
    """Bits (B,) that an arithmetic coder needs for tokens rounded to `step`, if it takes each number for a Gaussian.

    The tokens have zero mean and unit variance, so the coder gives a multiple of `step` the probability that a standard
    normal number rounds to it, and -log2 of that is its length. A coder that knew how numbers depend on each other
    would need fewer bits: this is an upper bound that could be written to a file, not an estimate.

    Args:
        tokens: (B, N, C), multiples of step.
        step: above 0.

    Raises:
        ValueError: if step is not above 0.
    """
    if step <= 0:
        raise ValueError(f"step is {step}; it must be above 0, since numbers that are not rounded have no length.")
    near = tokens.abs().double()                                        # (B, N, C): the two sides are alike
    tail = lambda x: 0.5 * torch.special.erfc(x / math.sqrt(2))         # noqa: E731  P(number > x)
    share = tail(near - step / 2) - tail(near + step / 2)               # (B, N, C)
    return -torch.log2(share.clamp(min=1e-300)).sum(dim=(1, 2))         # (B,)


def view_box(size: int, zoom: float, x: float, y: float) -> tuple[int, int, int, int]:
    """The square (x0, y0, x1, y1) of an image of size x size pixels that zoom shows, around (x, y) in per cent.

    At the border the square is moved inwards, so that it always has the same size.
    """
    side = max(4, min(size, round(size / zoom)))
    x0, y0 = (min(max(0, round(size * c / 100 - side / 2)), size - side) for c in (x, y))
    return x0, y0, x0 + side, y0 + side


def heat(errors: Tensor) -> torch.Tensor:
    """An error map (H, W) in levels of 255 as a picture (3, H, W) uint8, black 0 to pale yellow WORST_ERROR or more."""
    colors = matplotlib.colormaps[ERROR_MAP]((errors / WORST_ERROR).clamp(0, 1).numpy(), bytes=True)  # (H, W, 4)
    return torch.from_numpy(colors[..., :3].copy()).permute(2, 0, 1)                                  # (3, H, W)


def reconstruct_one(tokenizer, image: Tensor, step: float = 0.0, channels: int | None = None,
                    codes: int | None = None) -> tuple[Tensor, float]:
    """One picture (3, H, W) in [-1, 1] through a tokenizer, its tokens spoiled on the way.

    Args:
        step, channels: of `spoil`, for continuous tokens.  codes: how many may be chosen from; None for all.

    Returns:
        The reconstruction (3, H, W) and its bits: N log2(codes) for codes; the code length of rounded numbers; 16 bits
        a number, as float16 stores them, where nothing was rounded.
    """
    grid = tuple(side // tokenizer.patch_size for side in image.shape[-2:])
    if tokenizer.kind == "discrete":
        codes = codes or tokenizer.codebook_size
        tokens = few_codes(tokenizer, image, codes)
        bits = tokens.numel() * math.log2(codes)
    else:
        tokens = tokenizer.encode(image[None])
        latent_channels = tokenizer.token_dim // 4
        tokens = spoil(tokens, step, channels, latent_channels)
        kept = torch.arange(tokens.shape[-1]) % latent_channels < (channels or latent_channels)
        bits = code_length(tokens[..., kept], step).item() if step else 16.0 * tokens.shape[1] * kept.sum().item()
    return tokenizer.decode(tokens, grid)[0], bits


def read_upload(value) -> Image.Image | None:
    """The newest picture in the value of an `ipywidgets.FileUpload`, or None while there is none.

    Raises:
        ValueError: if the file is no picture that Pillow can read, or one of more bytes or pixels than allowed.
    """
    if not value:
        return None
    newest = value[-1]
    name, content = newest["name"], newest["content"]
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{name!r} has {len(content):,} bytes; a picture may have at most {LARGEST_FILE:,}.")
    try:
        image = Image.open(io.BytesIO(bytes(content)))
        pixels = image.width * image.height                 # read from the head of the file: nothing is unpacked yet
        if pixels <= LARGEST_PICTURE:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name!r} cannot be read as a picture ({error}); give a PNG or JPEG.") from None
    if pixels > LARGEST_PICTURE:
        raise ValueError(f"{name!r} has {pixels:,} pixels; a picture may have at most {LARGEST_PICTURE:,}.")
    return image


class ReconstructionLab:
    """Controls and a picture: original, reconstruction, error map, with PSNR, SSIM and bits measured at once.

    Args:
        tokenizers: name -> tokenizer.
        pictures: name -> a function of the image size that returns uint8 (3, size, size), such as
            `lambda size: load_photo("chelsea", size)`.
        fallback: the picture shown for "your own file" until one is uploaded; a key of `pictures`, by default the last.

    Attributes:
        explorer: the `Explorer`; `explorer.widget` is what to display.
    """

    def __init__(self, tokenizers: dict, pictures: dict, fallback: str | None = None):
        if not tokenizers or not pictures:
            raise ValueError(f"The lab was given {len(tokenizers)} tokenizers and {len(pictures)} pictures; it needs "
                             "at least one of each.")
        self.tokenizers, self.pictures = tokenizers, pictures
        self.fallback = fallback or list(pictures)[-1]
        books = [t.codebook_size for t in tokenizers.values() if t.kind == "discrete"]
        most = round(math.log2(max(books, default=2)))
        self.upload = ipywidgets.FileUpload(accept="image/*", description="choose a picture file",
                                            layout={"width": "max-content"})
        self.explorer = Explorer({
            "picture": choice("picture", [*pictures, OWN_FILE]),
            "upload": self.upload,
            "size": choice("pixels a side", list(SIZES), SIZES[-1]),
            "tokenizer": choice("tokenizer", list(tokenizers)),
            "zoom": NumberSlider("zoom", 1.0, 1.0, 8.0, 0.5),
            "x": NumberSlider("across, per cent", 50, 0, 100),
            "y": NumberSlider("down, per cent", 50, 0, 100),
            "errors": checkbox("error map", True),
            "step": NumberSlider("rounding step (continuous), 0 = none", 0.0, 0.0, 4.0, 0.1),
            "channels": NumberSlider("latent channels kept (continuous)", 4, 1, 4),
            "code_bits": NumberSlider("codes kept (discrete), 2 to the power of", most, 1, most),
        }, self.draw, work=lambda size, tokenizer, **other: (tokenizer, size * size))
        self.upload.observe(lambda _: self._show_own(), "value")

    @property
    def widget(self):
        """What to display."""
        return self.explorer.widget

    def _show_own(self) -> None:
        self.explorer.controls["picture"].value = OWN_FILE

    def image(self, picture: str, size: int, upload=()) -> tuple[str, Tensor]:
        """The name and pixels (3, size, size) in [-1, 1] of what is to be shown."""
        own = read_upload(upload) if picture == OWN_FILE else None
        if own is not None:
            return OWN_FILE, image_to_tensor(own, size) / 127.5 - 1
        if picture == OWN_FILE:
            return f"no file yet, so {self.fallback}", self.pictures[self.fallback](size) / 127.5 - 1
        return picture, self.pictures[picture](size) / 127.5 - 1

    def draw(self, picture, upload, size, tokenizer, zoom, x, y, errors, step, channels, code_bits) -> str:
        """The HTML of one state of the controls."""
        name, image = self.image(picture, size, upload)
        chosen = self.tokenizers[tokenizer]
        codes = min(2**code_bits, chosen.codebook_size) if chosen.kind == "discrete" else None
        result, bits = reconstruct_one(chosen, image, step, channels, codes)
        box = view_box(size, zoom, x, y)
        quality, likeness = psnr(image[None], result[None]).item(), ssim(image[None], result[None]).item()
        panels = {"original": crop(image, box), tokenizer: crop(result, box)}
        if errors:
            panels["error map"] = heat(crop(error_map(image, result), box))
        grid = image_grid([to_array(p) for p in panels.values()], titles=list(panels), columns=len(panels),
                          scale=max(1, round(PANEL / (box[2] - box[0]))))
        tokens = (size // chosen.patch_size) ** 2
        said = f"PSNR {quality:.2f} dB, SSIM {likeness:.3f}, {bits:,.0f} bits in {tokens} tokens"
        said += f" of {codes:,} codes" if codes else ""
        legend = f" Error map: black is equal, pale yellow is {WORST_ERROR:.0f} of 255 levels or more."
        return figure_html(grid, alt=f"{name}: original beside its {tokenizer} reconstruction. {said}.",
                           caption=f"{name}, whole picture: {said}.{legend if errors else ''}")
