"""What notebook 02 draws: pieces as chips, features compared, and which word each image token looks at.

Attention weights never leave `layers.Attention`, because nothing but a picture needs them. The recorder here computes
them a second time, from the layer's own projections, in a forward hook: the model does not know that it is watched,
and a test proves that these weights times the values are the layer's output.
"""

import contextlib
import html
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fluidlab.layers import Context
from fluidlab.sample.generate import generate
from fluidlab.viz.show import to_array

CHIP_COLORS = ("#cfe8f7", "#fde2b8", "#cdeee0", "#f6d3e4", "#fbf3b5", "#e1dcf3")     # pale, so that black text is read
NULL_LABEL = "(null)"                                                                 # the aligner's learned token


def pieces_html(rows: list[tuple[str, list[str]]]) -> str:
    """Prompts and their pieces as coloured chips, one line a prompt; without colours still one <code> per piece.

    Args:
        rows: (prompt, pieces) pairs.
    """
    lines = []
    for prompt, pieces in rows:
        chips = [f'<code style="background:{CHIP_COLORS[i % len(CHIP_COLORS)]};color:#000;border-radius:4px;'
                 f'padding:2px 5px">{html.escape(piece)}</code>' for i, piece in enumerate(pieces)]
        lines.append(f'<p style="line-height:2;margin:0.3em 0"><b>{html.escape(prompt) or "(empty)"}</b> '
                     f'({len(pieces)} pieces)<br>{" ".join(chips) or "none"}</p>')
    return "".join(lines)


def mask_figure(mask: Tensor, pieces: list[list[str]], shares: Tensor | None = None) -> Figure:
    """A batch of texts as a table: real tokens with their piece, padding hatched.

    Args:
        mask: (B, S) bool, True = real token.  pieces: the pieces of each row.
        shares: (B, S) from 0 to 1, written below the pieces in per cent; the larger, the darker.
    """
    B, S = mask.shape
    shades = torch.full((B, S), 0.2) if shares is None else 0.1 + 0.5 * shares
    figure, axis = plt.subplots(figsize=(min(10.0, 0.95 * S + 1), (0.5 if shares is None else 0.7) * B + 0.9))
    for row in range(B):
        for column in range(S):
            real = bool(mask[row, column])
            color = plt.matplotlib.colormaps["Blues"](float(shades[row, column])) if real else "#eeeeee"
            axis.add_patch(plt.Rectangle((column, row), 1, 1, facecolor=color, edgecolor="white" if real else "#999999",
                                         hatch=None if real else "///"))
            if real:
                share = "" if shares is None else f"\n{float(shares[row, column]):.0%}"
                axis.text(column + 0.5, row + 0.5, pieces[row][column] + share, ha="center", va="center", fontsize=10)
    axis.set(xlim=(0, S), ylim=(B, 0), xlabel="token s", ylabel="prompt b", xticks=np.arange(S) + 0.5,
             xticklabels=range(S), yticks=np.arange(B) + 0.5, yticklabels=range(B))
    axis.grid(False)
    return figure


def cosine_similarities(vectors: Tensor) -> Tensor:
    """(M, E) -> (M, M), 1 where two vectors point the same way."""
    unit = torch.nn.functional.normalize(vectors.float(), dim=1)
    return unit @ unit.T


def similarity_figure(matrices: dict[str, Tensor], labels: list[str]) -> Figure:
    """Cosine similarities as squares with their numbers, one panel a matrix, one colour scale.

    Args:
        matrices: title -> (M, M).  labels: of the M rows; columns carry the same numbers as the rows.
    """
    M = len(labels)
    beside = 1.4 + 0.08 * max(map(len, labels))                       # inches of labels and colour bar
    figure, axes = plt.subplots(1, len(matrices), figsize=(beside + 0.62 * M * len(matrices), 0.62 * M + 1.2),
                                sharey=True, squeeze=False)
    low = min(0.0, *(float(matrix.min()) for matrix in matrices.values()))
    for axis, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        picture = axis.imshow(matrix.numpy(), cmap="cividis", vmin=low, vmax=1)
        for i in range(M):
            for j in range(M):
                value = float(matrix[i, j])
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=10,
                          color="black" if value > (low + 1) / 2 else "white")
        axis.set(title=title, xticks=range(M), xticklabels=range(1, M + 1), yticks=range(M),
                 yticklabels=[f"{label}  {i}" for i, label in enumerate(labels, start=1)])
        axis.grid(False)
    figure.colorbar(picture, ax=list(axes[0]), label="cosine similarity", shrink=0.8)
    return figure


def accuracy_figure(rows: list[tuple[str, dict[str, float]]], chances: list[float]) -> Figure:
    """Groups of bars from 0 to 100 %, each group with its own line at chance.

    Args:
        rows: (what was asked, {where it was read: accuracy from 0 to 1}).  chances: of each row, from 0 to 1.
    """
    names = list(rows[0][1])
    figure, axis = plt.subplots(figsize=(8, 3.6))
    colors = ("#999999", "#009E73", "#0072B2")
    for k, name in enumerate(names):
        values = [100 * row[1][name] for row in rows]
        at = np.arange(len(rows)) + (k - (len(names) - 1) / 2) * 0.8 / len(names)
        bars = axis.bar(at, values, width=0.8 / len(names) - 0.02, label=name, color=colors[k % len(colors)])
        axis.bar_label(bars, fmt="%.0f", fontsize=10)
    for k, chance in enumerate(chances):
        axis.plot([k - 0.45, k + 0.45], [100 * chance] * 2, color="black", linestyle=":",
                  label=None if k else "chance")
    axis.set(xticks=range(len(rows)), xticklabels=[row[0] for row in rows], ylim=(0, 118), yticks=range(0, 101, 25),
             ylabel="accuracy [%]")
    axis.legend(ncols=len(names) + 1, loc="upper center", fontsize=10)
    return figure


def attention_weights(attention: torch.nn.Module, x: Tensor, context: Context | None = None,
                      mask: Tensor | None = None, causal: bool = False, cache=None) -> Tensor:
    """What `layers.Attention` weighs its values with, for the arguments of its `forward`.

    Args:
        x: (B, N, D).  context: (B, S, D), None for self-attention.  mask: (B, S) bool, True = may be looked at.

    Returns:
        (B, H, N, S), float32; every row sums to 1.

    Raises:
        ValueError: with a cache, whose keys of earlier steps x does not hold.
    """
    if cache is not None:
        raise ValueError("attention is recorded without a key-value cache: call generate with use_cache=False.")
    q = attention.split(attention.to_q(x)).float()                                    # (B, H, N, D/H)
    known = isinstance(context, tuple)
    k, _ = context if known else attention.keys_values(x if context is None else context)   # (B, H, S, D/H)
    k = k.float()
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5                            # (B, H, N, S)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    return scores.softmax(dim=-1)


@contextlib.contextmanager
def record_attention(model: torch.nn.Module, which: str = "cross_attention") -> Iterator[list[list[Tensor]]]:
    """Watch a `Fluid` model's attention while the block of the `with` statement runs.

    Args:
        which: "cross_attention" (image tokens look at text) or "self_attention" (at each other).

    Yields:
        One list per backbone block; each pass through the backbone appends a (B, H, N, S) tensor to it.
    """
    layers = [getattr(block, which) for block in model.backbone.blocks]
    records = [[] for _ in layers]

    def watch(record):
        def hook(layer, args, kwargs, output):
            record.append(attention_weights(layer, *args, **kwargs).detach())
        return hook
    hooks = [layer.register_forward_hook(watch(record), with_kwargs=True)
             for layer, record in zip(layers, records, strict=True)]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def attention_when_drawn(pipe, prompt: str, seed: int = 0, **options) -> tuple[Tensor, Tensor]:
    """Draw one image and keep, for each token, what it looked at in the very step that drew it.

    Args:
        pipe: a `FluidPipeline`.  prompt: one text with words.  options: of `generate`.

    Returns:
        image (3, H, W) in [-1, 1]; weights (L, N, S+1), mean over the heads of each of the L blocks, of the half of
        the batch that has the text. Column 0 is the null token, the others are the pieces of the prompt.
    """
    model, (features, mask) = pipe.model, pipe.text_encoder([prompt])
    kept = torch.zeros(len(model.backbone.blocks), model.config.seq_len, features.shape[1] + 1)      # (L, N, S+1)
    with record_attention(model) as records:
        def keep(step):
            positions = step.positions[0]
            for block, record in enumerate(records):
                weights = record.pop()[0].mean(dim=0)                                                # (N or K, S+1)
                only_asked = len(weights) < model.config.seq_len        # the last block spares the other positions
                kept[block, positions] = weights if only_asked else weights[positions]
        tokens = generate(model, features, mask, generator=[torch.Generator().manual_seed(seed)], on_step=keep,
                          **{**options, "use_cache": False})
    return pipe.tokenizer.decode(tokens)[0], kept


def text_labels(pipe, prompt: str) -> list[str]:
    """The columns of `attention_when_drawn`: the null token, then the pieces without the mark of a word's start."""
    return [NULL_LABEL, *(piece.replace("\u2581", "") or "\u2581" for piece in pipe.text_encoder.tokenize(prompt))]


def attention_heatmaps(image: Tensor, weights: Tensor, labels: list[str]) -> Figure:
    """The image, and beside it for each block (row) and text token (column) who looks at that token how much.

    Args:
        image: (3, H, W).  weights: (L, N, S), N a square number.  labels: of the S text tokens.
    """
    L, N, S = weights.shape
    side, top = int(N ** 0.5), float(weights.max())
    figure, axes = plt.subplots(L, S + 1, figsize=(0.78 * (S + 1) + 0.9, 0.8 * L + 0.4), squeeze=False)
    for block in range(L):
        for column in range(S + 1):
            axis = axes[block, column]
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            if column == 0:
                axis.imshow(to_array(image))
                axis.set_ylabel(f"block {block + 1}", fontsize=11)
            else:
                values = weights[block, :, column - 1].view(side, side).numpy()
                heat = axis.imshow(values, cmap="Greens", vmin=0, vmax=top)
            if block == 0:
                axis.set_title("image" if column == 0 else labels[column - 1], fontsize=10)
    figure.colorbar(heat, ax=axes.ravel().tolist(), label="attention", shrink=0.7, aspect=15)
    return figure


def attention_lift(weights: Tensor) -> Tensor:
    """(N, S) -> (N, S): each token's weight over its mean weight in this image, 1 = as at any other position.

    A word that everybody looks at a lot (the null token, `</s>`) says nothing about a place; this takes it out.
    """
    return weights / weights.mean(dim=0, keepdim=True).clamp(min=1e-9)


def overlay_figure(image: Tensor, weights: Tensor, labels: list[str], words: list[str]) -> Figure:
    """For each chosen word the image, darkened where the word is looked at less than on average.

    Args:
        image: (3, H, W).  weights: (N, S), for example the mean over blocks.  labels: of the S tokens.
        words: labels to draw, each the first of its name.

    Raises:
        ValueError: a word that is not among the labels.
    """
    missing = [word for word in words if word not in labels]
    if missing:
        raise ValueError(f"There is no token {missing[0]!r}; the tokens are {', '.join(labels)}.")
    side, lift, pixels = int(len(weights) ** 0.5), attention_lift(weights), to_array(image)
    figure, axes = plt.subplots(1, len(words) + 1, figsize=(1.75 * (len(words) + 1), 2.1), squeeze=False)
    axes[0, 0].imshow(pixels)
    axes[0, 0].set_title("image", fontsize=11)
    for axis, word in zip(axes[0, 1:], words, strict=True):
        heat = lift[:, labels.index(word)].view(side, side)                                  # (h, w)
        shade = np.asarray(Image.fromarray((heat / heat.max()).numpy()).resize(pixels.shape[1::-1],
                                                                               Image.Resampling.NEAREST))
        axis.imshow((pixels * (0.15 + 0.85 * shade[..., None])).astype(np.uint8))
        axis.set_title(f"{word}: up to {float(heat.max()):.1f}x", fontsize=11)
    for axis in axes[0]:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    return figure
