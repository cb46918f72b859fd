# %% [markdown] tags=["front-matter"]
# title: "Tokenizers: what is left of an image that has become tokens?"
# goals:
#   - turn an image into discrete and into continuous tokens, and back
#   - measure what each loses, in dB and in bits, on scenes, on photographs and on a picture of your own
#   - explain why no generator, however large, can draw what its tokenizer cannot reconstruct
# needs: "Notebook 00; PyTorch tensors; what a convolution is"
# hardware: "a laptop CPU, 2 GB of free memory"
# fast:
#   num_scenes: 48
#   num_crops: 12
#   descent_steps: 10
#   num_levels: 28

# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 7, do: "One cat, twice. Everybody writes down a guess before the picture appears."}
#   - {minutes: 8, do: "PSNR: derive at the board why 3 dB are a half, then exercise 1.1."}
#   - {minutes: 18, do: "What the tokens are, packing, exercise 1.2 in pairs. Draw a 4x4 latent on the board."}
#   - {minutes: 12, do: "Scenes, photographs, and a picture that somebody has brought along."}
#   - {minutes: 15, do: "Is it just more bits? Take the poll before the curve; then the two vocabulary pictures."}
#   - {minutes: 15, do: "Inside the codebook, exercise 1.3, and what a code looks like."}
#   - {minutes: 5, do: "Flat colours drift: one picture, one sentence."}
#   - {minutes: 22, do: "Why the loss never comes back, with exercise 1.4 before the search."}
#   - {minutes: 8, do: "The reconstruction lab in pairs; recap and quiz."}

# %% [markdown]
# ## The question
# A Transformer writes tokens, not pixels. So before any model learns anything, a *tokenizer* turns every training
# image into tokens, and after the model has written new ones, the same tokenizer turns them into an image.
#
# Fluid compares two kinds:
#
# - **discrete**: each patch of 16x16 pixels becomes *one whole number*, an entry in a codebook, as a word is an entry
#   in a dictionary;
# - **continuous**: each patch becomes *16 real numbers*, and any 16 numbers will do.
#
# Before you run the next cells, guess: how much of a cat's eye survives each of them?

# %% tags=["parameters"]
num_scenes = 512        # held-out scenes that are measured
num_crops = 128         # held-out photograph crops that are measured
descent_steps = 80      # gradient steps on the tokens of one image
num_levels = 148        # flat colours that are sent through both tokenizers
own_file = ""           # the path of a picture of yours; "" takes the photograph "coffee"
seed = 0                # scenes and crops come from this seed

# %% tags=["needed"]
import csv
import math

import torch
from IPython.display import display

import fluidlab as fl
from fluidlab import checks
from fluidlab.config import data_dir
from fluidlab.data.photos import PhotoCrops, image_to_tensor, load_photo
from fluidlab.tokenizer.metrics import code_perplexity, evaluate_tokenizer, psnr, reconstruct
from fluidlab.tokenizer.patches import pack, unpack
from fluidlab.viz import plots_tokenizers as plots
from fluidlab.viz.reconstruction_lab import ReconstructionLab, code_length, reconstruct_one, spoil
from fluidlab.viz.show import image_grid, show

vae = fl.load_tokenizer("scenes-vae")       # continuous
vq = fl.load_tokenizer("scenes-vq")         # discrete
tokenizers = {"continuous": vae, "discrete": vq}


def photo(name, size):
    """A photograph as the tokenizers want it: (3, size, size) in [-1, 1]."""
    return load_photo(name, size) / 127.5 - 1


# %% [markdown]
# ## One cat, twice
# Chelsea is a real photograph that neither tokenizer has seen in training. Both get 256 tokens for its 256x256 pixels.

# %% tags=["needed"]
cat = photo("chelsea", 256)
eye = (46, 64, 118, 136)        # x0, y0, x1, y1 in pixels
both = {f"{name} tokens": reconstruct_one(tokenizer, cat)[0] for name, tokenizer in tokenizers.items()}
show(plots.comparison({"original": cat, **both}, eye),
     alt="A cat's face three times, with one eye enlarged below: the original, the reconstruction from continuous "
         "tokens with rim, pupil and iris, and the reconstruction from discrete tokens, whose eye is a blur.",
     caption="Same photograph, same number of tokens. Look at the rim of the eye, its colour, and the highlight.")

# %% [markdown]
# This is the picture to remember. Nothing was *generated* here: each image went into its tokenizer and straight out
# again. Whatever is missing on the right was lost before any Transformer came into play.
#
# Both tokenizers are small, made for this course, and trained on one CPU core, the continuous one for less than two
# hours, the discrete one for half an hour. Stable Diffusion's VAE and the VQGAN that Fluid uses are far larger and were
# trained far longer, on photographs; of our training images only one in sixteen was a photograph's crop. So do not
# judge VQGANs by the right column. What carries over is the *direction*: at the same number of tokens, continuous ones
# keep more. Scenes, further down, are home ground for both.

# %% [markdown] tags=["instructor"]
# **Say:** nothing has been learned about pictures yet, and nothing has been drawn. A picture went into a box and came
# out again. Keep the picture on the wall; the whole notebook explains it.
#
# **Poll:** both columns have 256 tokens for the same picture. Is the left one better because its network is better?
#
# <details><summary>Answer</summary>
#
# It cannot be told from here: the continuous tokenizer was trained longer, too. But one reason needs no training: a
# token of 16 real numbers can say more than one of 4,096 codes. How much more, the section on bits measures.
#
# </details>

# %%
for name, reconstruction in both.items():
    whole = psnr(cat[None], reconstruction[None]).item()
    alone = psnr(plots.crop(cat, eye)[None], plots.crop(reconstruction, eye)[None]).item()
    print(f"{name:18s} PSNR of the photograph {whole:5.2f} dB, of the eye alone {alone:5.2f} dB")

# %% [markdown]
# **PSNR** is mean squared error on a logarithmic scale, $10 \log_{10}(\text{peak}^2 / \text{MSE})$. Higher is better;
# 3 dB more means half the squared error, 10 dB more a tenth. The *peak* is the width of the range that pixels have.

# %% [markdown] tags=["exercise"]
# title: Decibels
# minutes: 8
# level: 1
# task: |-
#   Write `psnr(images, reconstructions)` for two batches of shape (B, 3, H, W) whose pixels lie in [-1, 1]: a tensor of
#   shape (B,) with the PSNR of each image by itself, by the formula above. MSE is the mean of the squared differences
#   over colours, rows and columns. No picture here equals its reconstruction, so nothing needs to be guarded. Later
#   cells use your function.
# right: |-
#   a picture that is too bright by 0.1 everywhere has 26.02 dB, and by 0.2 exactly 20 dB.
# hints:
#   - "How wide is the range [-1, 1]? That is the peak. And over which dimensions must the mean run, so that B is left?"
#   - "`difference.square().mean(dim=(1, 2, 3))` is the MSE of each image; the peak is 2, so $\\text{peak}^2$ is 4."
# why: |-
#   The mean leaves out dimension 0, so every image keeps its own error; the mean of such PSNRs is what papers report,
#   and it is not the PSNR of the mean error. The peak only shifts the scale: bytes with a peak of 255 give the same
#   number. A cat that moves by a single pixel is no nearer to the original than the one from continuous tokens, and
#   nobody would see it: PSNR compares pixel with pixel and knows nothing of what is in the picture.

# %% tags=["target"]
brighter = {amount: cat + amount for amount in (0.1, 0.2, 0.4)}
decibels = {amount: psnr(cat[None], image[None]).item() for amount, image in brighter.items()}
show(plots.comparison({"original": cat, **{f"+ {a}: {decibels[a]:.2f} dB": image for a, image in brighter.items()}}),
     alt="The cat four times, each brighter than the one before: " + ", ".join(
         f"by {a} {value:.2f} dB" for a, value in decibels.items()) + ".",
     caption="What PSNR says when it is right. Each doubling of the error costs 6.02 dB.")

# %% tags=["stub"]
def psnr(images, reconstructions):
    """Decibels (B,) between two batches (B, 3, H, W) of pixels in [-1, 1], for each image by itself."""
    ...


# %% tags=["solution"]
def psnr(images, reconstructions):
    """Decibels (B,) between two batches (B, 3, H, W) of pixels in [-1, 1], for each image by itself."""
    mse = (images - reconstructions).square().mean(dim=(1, 2, 3))     # (B,)
    return 10 * torch.log10(4 / mse)                                  # the peak is 2


# %% tags=["check"]
psnr = checks.check_psnr(psnr)
moved = cat.roll(1, dims=2)                                           # one pixel to the right
print(f"the cat from continuous tokens {psnr(cat[None], both['continuous tokens'][None]).item():.2f} dB, "
      f"from discrete ones {psnr(cat[None], both['discrete tokens'][None]).item():.2f} dB, "
      f"moved by one pixel {psnr(cat[None], moved[None]).item():.2f} dB")

# %% [markdown]
# ## What the tokens are
# The tensors say it best. `encode` goes from pixels to tokens, `decode` back; images are floats in [-1, 1].

# %%
for size in (64, 256):
    image = photo("chelsea", size)[None]
    for name, tokenizer in tokenizers.items():
        tokens = tokenizer.encode(image)
        first = tokens[0, 0].item() if tokens.ndim == 2 else ", ".join(f"{v:.1f}" for v in tokens[0, 0, :4]) + ", ..."
        print(f"{size:3d} px, {name:10s} tokens {str(tuple(tokens.shape)):14s} {tokens.dtype}, the first: {first}")

# %% [markdown]
# One token always covers 16x16 pixels, in both kinds. 64 pixels a side are 4x4 = 16 tokens, 256 pixels are
# 16x16 = 256 tokens, the number in the paper. Equal counts matter: the Transformer's cost depends on how many tokens
# there are, not on what a token holds. So the two kinds compete at the same price.

# %% [markdown]
# ### Sixteen numbers, by packing
# The continuous tokenizer is a *variational autoencoder* (VAE). Like Stable Diffusion's it shrinks by 8 and keeps 4
# channels. A token is then a 2x2 block of that latent: 2 x 2 x 4 = 16 numbers. No arithmetic, numbers only change
# places, and three lines write it:

# %%
def pack_in_three_lines(latents):                           # (B, C, h, w)
    rows = latents.unfold(2, 2, 2).unfold(3, 2, 2)          # (B, C, h/2, w/2, 2, 2): every 2x2 block
    rows = rows.permute(0, 2, 3, 4, 5, 1)                   # (B, h/2, w/2, 2, 2, C): a block's numbers side by side
    return rows.flatten(3).flatten(1, 2)                    # (B, N, 4C), raster order


latents = torch.randn(2, 4, 8, 8)
assert torch.equal(pack_in_three_lines(latents), pack(latents))             # the package's function is the same
print(tuple(latents.shape), "->", tuple(pack(latents).shape))

# %% [markdown]
# The last line's order is a convention, and everybody who reads tokens must know it: the 4C numbers of a token run over
# (row in the block, column in the block, channel), the channel fastest. The grid of tokens runs row by row.

# %% [markdown] tags=["instructor"]
# **Say:** draw a latent of 4x4 with one channel, numbers 0 to 15 row by row. The first token is 0, 1, 4, 5. Ask for the
# second: 2, 3, 6, 7. Who says 4, 5, ... has reshaped.
#
# **Goes wrong:** `tokens.reshape(B, C, 2 * rows, 2 * columns)` has the right shape and raises no error. A decoder then
# gets confetti. Whoever trains with a wrong *pair* of pack and unpack notices nothing: the model learns the confetti.

# %% [markdown] tags=["exercise"]
# title: The way back
# minutes: 12
# level: 2
# task: |-
#   Write `unpack(tokens, grid)`, which undoes the packing. `tokens` has the shape (B, N, 4C), `grid` is the pair (rows,
#   columns) of tokens with N = rows * columns, in raster order. The numbers of a token run over (row in its 2x2 block,
#   column in its block, channel), the channel fastest. Return the latents, of shape (B, C, 2 * rows, 2 * columns). All
#   later cells that look at latents use your function.
# right: |-
#   each channel of the cat's latent is one picture without seams, and packing what was unpacked gives the same numbers.
# hints:
#   - |-
#     First give every number its six coordinates: `tokens.reshape(B, rows, columns, 2, 2, C)`. What does each of the
#     six dimensions mean?
#   - |-
#     A row of the latent is made of a row of the grid and a row in the block, in this order: these two dimensions must
#     stand side by side before the last `reshape` can join them. The same holds for columns.
#   - |-
#     Name the dimensions B, h, w, y, x, C. They must become B, C, h, y, w, x: `permute(0, 5, 1, 3, 2, 4)`.
# why: |-
#   `reshape` joins neighbouring dimensions and splits one into neighbours; it never moves a number. `permute` decides
#   who the neighbours are. So every rearrangement is split, permute, join, and the letters on paper tell the numbers
#   that `permute` wants.

# %% tags=["target"]
right = unpack(vae.encode(cat[None]), (16, 16))[0]                    # (4, 32, 32)
show(plots.latent_channels(cat, right),
     alt="The cat's photograph and four channels of 32 by 32 values; each shows the face, without seams.",
     caption="What unpack makes of the cat's 256 tokens when it is right.")

# %% tags=["stub"]
def unpack(tokens, grid):
    """Tokens (B, N, 4C) on a grid of (rows, columns) to latents (B, C, 2 * rows, 2 * columns)."""
    ...


# %% tags=["solution"]
def unpack(tokens, grid):
    """Tokens (B, N, 4C) on a grid of (rows, columns) to latents (B, C, 2 * rows, 2 * columns)."""
    (B, _, D), (rows, columns) = tokens.shape, grid
    x = tokens.reshape(B, rows, columns, 2, 2, D // 4)                # (B, h, w, y, x, C)
    x = x.permute(0, 5, 1, 3, 2, 4)                                   # (B, C, h, y, w, x)
    return x.reshape(B, D // 4, 2 * rows, 2 * columns)


# %% tags=["check"]
unpack = checks.check_unpack(unpack)
wide = torch.randn(2, 4, 6, 10)                                       # latents of an image of 48 x 80 pixels
print("there and back, the same numbers:", torch.equal(unpack(pack(wide), (3, 5)), wide))

# %% [markdown]
# ## Scenes: the images of this course
# EmojiScenes are what all later notebooks draw. These come from the test split; their truth is known exactly and their
# backgrounds are soft gradients, never twice the same.

# %%
scenes = fl.EmojiScenes(split="test", image_size=64, seed=seed)
images, captions = scenes.batch(range(num_scenes))
images = images / 127.5 - 1                                 # (B, 3, 64, 64) in [-1, 1]
codes, from_codes = reconstruct(vq, images)                 # (B, 16) long, (B, 3, 64, 64)
numbers, from_numbers = reconstruct(vae, images)            # (B, 16, 16) float, (B, 3, 64, 64)

few = [2, 3, 5, 6]
show(plots.reconstruction_rows(images[few], {"continuous": from_numbers[few], "discrete": from_codes[few]}),
     alt="Four scenes in rows: original, continuous and discrete reconstruction, and an error map of each. The "
         "discrete maps are brighter, above all inside objects and along outlines. Captions: "
         + "; ".join(captions[i] for i in few),
     caption="Error maps on one scale: black means no difference. Where does each tokenizer fail?")

# %% [markdown]
# Be fair to the discrete one: 16 whole numbers describe a whole scene, and you still recognise the objects. What they
# lose first is inner detail, thin lines and exact colour. *Shape* survives, and that can be measured: call a pixel
# "object" if it is clearly darker or more colourful than the pale backgrounds, and compare the outlines' areas.

# %%
def objects_of(images):
    """Which pixels (B, H, W) belong to an object: backgrounds never fall below 214 of 255 in any colour."""
    return images.amin(dim=1) < 170 / 127.5 - 1


truth = objects_of(images)
for name, result in {"continuous": from_numbers, "discrete": from_codes}.items():
    found = objects_of(result)
    overlap = (truth & found).sum().item() / (truth | found).sum().item()
    print(f"{name:10s} object pixels shared by original and reconstruction, of all object pixels: {overlap:.0%}")

# %% [markdown]
# ## Photographs: far from the training data
# The tokenizers trained on scenes and on crops of other photographs. First the same cat at 64 pixels: 16 tokens, 16
# times fewer than before.

# %%
small = photo("chelsea", 64)
rows = {f"{name}": reconstruct_one(tokenizer, small)[0] for name, tokenizer in tokenizers.items()}
show(plots.comparison({"original, 64 px": small, **rows}),
     alt="The cat at 64 by 64 pixels: original, continuous reconstruction, discrete reconstruction; both are blurred.",
     caption="Sixteen tokens for a whole face. Both fail now; one of them fails more.")

# %% [markdown]
# At this size each token has to describe an eye and its surroundings at once, which is more than either kind learnt.
# Number of tokens and kind of token are two different dials. Now three held-out photographs at 256 pixels:

# %%
names = ("chelsea", "coffee", "rocket")
photos = torch.stack([photo(name, 256) for name in names])
results = {name: reconstruct(tokenizer, photos)[1] for name, tokenizer in tokenizers.items()}
show(plots.reconstruction_rows(photos, results),
     alt="A cat, a cup of coffee and a rocket on its launch pad, each as original, continuous and discrete "
         "reconstruction with error maps; the discrete error maps are brighter everywhere.",
     caption="The continuous maps are darker, but not black.")

# %% [markdown]
# ### Where the continuous one is not good either
# Zoom in on whiskers and fur. Sixteen numbers for 768 colour values (16 x 16 x 3) is a compression by 48, and fine
# texture is the first to go.

# %%
whiskers = (0, 168, 72, 240)
show(plots.comparison({"original": cat, **both}, whiskers),
     alt="The cat again with the whiskers on the left enlarged: white lines in the original, hardly visible in the "
         "continuous reconstruction, gone in the discrete one.",
     caption="Fine white whiskers: neither tokenizer keeps them as they are.")

# %% [markdown]
# ### A picture of your own
# Put a path into `own_file` in the parameters cell and run from there, or use the upload button of the lab at the end
# of this notebook. Any size and format that Pillow reads will do; it is cropped to the middle square.

# %%
own = image_to_tensor(own_file, 256) / 127.5 - 1 if own_file else photo("coffee", 256)
rows = {f"{name}": reconstruct_one(tokenizer, own)[0] for name, tokenizer in tokenizers.items()}
show(plots.comparison({"original": own, **rows}, (96, 96, 160, 160)),
     alt="Your picture, or a cup of coffee: original, continuous and discrete reconstruction, the middle enlarged.",
     caption="Text, faces and thin lines are the hardest. Which of them does your picture have?")

# %% [markdown]
# ## The numbers
# PSNR counts squared error. **SSIM** compares local structure and is 1 for equal images. **Bits** say how much is
# stored: a code of a vocabulary of $V$ takes $\log_2 V$ bits; 16 numbers, kept as float16, take 256.

# %%
crops = PhotoCrops("test", image_size=64, seed=seed).batch(range(num_crops)) / 127.5 - 1
sets = {f"{num_scenes} held-out scenes, 64 px": images, f"{num_crops} photograph crops, 64 px": crops,
        "3 photographs, 256 px": photos}
scores = {(title, name): evaluate_tokenizer(tokenizer, batch)
          for title, batch in sets.items() for name, tokenizer in tokenizers.items()}
print(f"{'pictures':32s}{'tokens':12s}{'PSNR, dB':>9s}{'SSIM':>8s}{'bits an image':>15s}")
for (title, name), score in scores.items():
    print(f"{title:32s}{name:12s}{score['psnr']:9.2f}{score['ssim']:8.3f}{score['bits_per_image']:15,.0f}")
raw = 64 * 64 * 3 * 8
print(f"\na raw image of 64 px has {raw:,} bits; discrete keeps 1 in {raw / (16 * math.log2(vq.codebook_size)):.0f}, "
      f"continuous (as stored) 1 in {raw / (16 * 16 * 16):.0f}")

# %% [markdown]
# ## Is it just more bits?
# Yes, mostly, and that deserves a closer look. Storing 16 bits for each number is wasteful: most of them describe
# noise. So *round* the continuous tokens to multiples of a step, and count what an arithmetic coder would write. The
# coarser the step, the fewer bits.
#
# **Think first:** if both kinds were given the *same number of bits*, which would win?

# %% [markdown] tags=["instructor"]
# **Poll:** both kinds get the same number of bits for an image. Which has more dB: continuous, discrete, or equal?
#
# <details><summary>Answer</summary>
#
# Discrete. A codebook is trained for exactly its rate; rounding each number by itself is crude. Most of a class votes
# for continuous after the first picture, which is why the poll comes before the curve.
#
# </details>

# %%
steps = [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0]
part = slice(0, 64)
bits, quality = [], []
for step in steps:
    rounded = spoil(numbers[part], step)
    bits.append(code_length(rounded, step).mean().item())
    quality.append(psnr(images[part], vae.decode(rounded)).mean().item())
discrete = 16 * math.log2(vq.codebook_size), psnr(images[part], from_codes[part]).mean().item()
ceiling = psnr(images[part], from_numbers[part]).mean().item()
show(plots.rate_curve(bits, quality, {"discrete tokens": discrete}, ceiling),
     alt="PSNR against bits per image: a rising curve for rounded continuous tokens that flattens, and one point for "
         "the discrete tokens, far to the left.",
     caption="Each green dot is one rounding step. Compare the blue square with the curve at the same number of bits.")
same = min(range(len(steps)), key=lambda i: abs(bits[i] - discrete[0]))
print(f"at {discrete[0]:.0f} bits: discrete {discrete[1]:.2f} dB; "
      f"continuous rounded to {bits[same]:.0f} bits: {quality[same]:.2f} dB; continuous, not rounded: {ceiling:.2f} dB")
enough = max(i for i, q in enumerate(quality) if q > ceiling - 0.1)
print(f"within 0.1 dB of the ceiling from {bits[enough]:,.0f} bits on, "
      f"{bits[enough] / discrete[0]:.1f} times the discrete tokens' bits")

# %% [markdown]
# Read the two printed lines with care. A codebook is a *good code*: it was trained for exactly its rate, while our
# rounding is crude. Continuous tokens do not win by magic. They win because **one position of the sequence can carry
# many more bits**, and the sequence does not get longer for it.
#
# To carry as much, a discrete tokenizer needs a longer sequence or a larger vocabulary. Twice the bits in one token
# means the *square* of the vocabulary.

# %% [markdown]
# ### How large a vocabulary?
# Before the discrete tokenizer was trained in earnest, four of them were trained alike, in short, and only the number
# of codes differed. `data/vocabulary.csv` holds what they reached on 2,048 held-out scenes, with command and commit.
# The scenes were harder then and the recipe an earlier one, so compare these four with each other only.

# %%
with (data_dir() / "vocabulary.csv").open(newline="", encoding="utf-8") as file:
    trained = [{name: float(row[name]) for name in ("codes", "bits", "psnr", "usage", "perplexity")}
               for row in csv.DictReader(file)]
show(plots.vocabulary_curves(*([row[name] for row in trained] for name in ("codes", "psnr", "usage"))),
     alt="PSNR against the number of codes, each vocabulary trained for itself: "
         + ", ".join(f"{row['codes']:.0f} codes {row['psnr']:.2f} dB" for row in trained) + ".",
     caption="Short trainings, one seed each; only the size of the vocabulary differs. Dotted: nine tenths.")
for row in trained:
    print(f"{row['codes']:5.0f} codes, {row['bits']:2.0f} bits a token: {row['psnr']:.2f} dB, {row['usage']:4.0%} in "
          f"use, worth {row['perplexity']:,.0f} equally likely ones")

# %% [markdown]
# Each doubling buys about a tenth of a decibel, and costs: the more codes there are, the more of them are never used,
# and the softmax head needs a row of its table for each. The course takes 4,096, the largest of the four of which more
# than nine tenths are in use.

# %% [markdown]
# ### The vocabulary as a dial
# The same question to the codebook that you have, without training anew: allow only the $K$ codes that are used most
# on training scenes. (Do not compare these dB with those above: the codes belong to a tokenizer that was trained far
# longer. And a codebook that loses half of its codes loses more than one that was trained with half, so the slope is
# too steep.)

# %%
train_images = fl.EmojiScenes(split="train", image_size=64, seed=seed).batch(range(num_scenes))[0] / 127.5 - 1
popular = torch.bincount(vq.encode(train_images).flatten(), minlength=vq.codebook_size).argsort(descending=True)
with torch.no_grad():
    asked = torch.nn.functional.normalize(vq.features(images[part]), dim=1).flatten(2).transpose(1, 2)  # (B, N, E)
sizes = [2**k for k in range(6, int(math.log2(vq.codebook_size)) + 1)]
kept_quality = []
for size in sizes:
    kept = popular[:size]
    nearest = kept[(asked @ vq.codebook.codes[kept].T).argmax(dim=-1)]                                  # (B, N)
    kept_quality.append(psnr(images[part], vq.decode(nearest)).mean().item())
    print(f"{size:5d} codes, {math.log2(size):4.0f} bits a token: {kept_quality[-1]:5.2f} dB")

# %%
slope = kept_quality[-1] - kept_quality[-2]
gap = ceiling - kept_quality[-1]
print(f"The last doubling of the vocabulary bought {slope:+.2f} dB. The continuous tokens are {gap:.2f} dB above.")
if slope > 0:
    needed = vq.codebook_size * 2 ** (gap / slope)
    width = fl.preset("mini").width
    print(f"At that pace {gap / slope:.0f} more doublings would be needed, a vocabulary of {needed:.0e} codes. Its "
          f"table alone, {width} numbers a code, would have {needed * width:.0e} parameters.")

# %% [markdown]
# That is a crude extrapolation, and a generous one: by the table before, where each vocabulary was trained for itself,
# a doubling buys a tenth of a decibel, and dozens of doublings would be needed. Our whole models have about 4 million
# parameters. The paper's vocabulary has 8,192 codes.

# %% [markdown]
# ## Inside the codebook
# Is our discrete tokenizer a straw man? The classic failure of a codebook is that most codes are never used. Count.

# %%
counts = torch.bincount(torch.cat([codes.flatten(), vq.encode(crops).flatten()]), minlength=vq.codebook_size)
show(plots.code_usage(counts),
     alt="Left: how often each code was used against its rank, a falling curve on logarithmic axes. Right: a histogram "
         "of how many codes were used how often.",
     caption="A few codes for pale backgrounds are used very often, then a long tail of codes for details.")
drawn = int(counts.sum())
used = (counts > 0).float().mean().item()
even = 1 - (1 - 1 / vq.codebook_size) ** drawn
print(f"{drawn:,} tokens used {used:.0%} of the {vq.codebook_size} codes; tokens drawn evenly at random would have "
      f"used {even:.0%}")
print(f"perplexity on scenes: as good as {code_perplexity(codes, vq.codebook_size):.0f} codes used equally often")

# %% [markdown]
# The share depends on how many tokens you look at, which is why it stands beside the share that even chance would
# reach. Backgrounds are frequent, so no tokenizer for these images would use all codes evenly.
#
# Counting used codes is too kind: a code that was used once counts as much as one that was used a thousand times. The
# **perplexity** weighs them. If a share $p_k$ of all tokens has code $k$, the entropy $-\sum_k p_k \ln p_k$ says how
# hard a token is to guess, and its exponential is how many codes, all used equally often, would be as hard to guess.

# %% [markdown] tags=["exercise"]
# title: What a codebook is worth
# minutes: 10
# level: 2
# task: |-
#   Write `perplexity(codes, codebook_size)`. `codes` is a tensor of whole numbers from 0 to codebook_size - 1, of any
#   shape; all of them are counted together. Return the exponential of the entropy of their shares, as a number. A code
#   that never occurs has the share 0 and adds nothing.
# right: |-
#   eight codes that are used equally often are worth 8, whatever the size of the vocabulary; a single code is worth 1.
# hints:
#   - |-
#     `torch.bincount(codes.flatten(), minlength=codebook_size)` counts. What must the counts be divided by, so that
#     they add up to 1?
#   - |-
#     $0 \cdot \ln 0$ is not a number in floating point. Keep the shares above 0: `share[share > 0]`. Then
#     `(-(share * share.log()).sum()).exp()`.
# why: |-
#   Entropy and exponential must have the same base; which one does not matter: 2 to the power of the bits is e to the
#   power of the nats. The perplexity is at most the number of codes in use, and equal to it only if all are used
#   equally often. The perplexity of a language model is the same thing: the exponential of its loss.

# %% tags=["target"]
dice = {"8 of 16 codes,\nequally often": torch.arange(8).repeat(8), "one code is half": torch.arange(14).clamp(max=7),
        "one code alone": torch.zeros(8, dtype=torch.long)}
show(plots.code_shares({name: torch.bincount(codes, minlength=16) / len(codes) for name, codes in dice.items()},
                       {name: code_perplexity(codes, 16) for name, codes in dice.items()}),
     alt="Shares of 16 codes as bars: " + "; ".join(
         f"{' '.join(name.split())}: worth {code_perplexity(codes, 16):.2f}" for name, codes in dice.items()) + ".",
     caption="Three ways to use a vocabulary of 16, and the perplexity of each when it is right.")

# %% tags=["stub"]
def perplexity(codes, codebook_size):
    """How many equally likely codes the codes (any shape, 0 to codebook_size - 1) are worth: a number from 1 on."""
    ...


# %% tags=["solution"]
def perplexity(codes, codebook_size):
    """How many equally likely codes the codes (any shape, 0 to codebook_size - 1) are worth: a number from 1 on."""
    share = torch.bincount(codes.flatten(), minlength=codebook_size) / codes.numel()  # (V,)
    share = share[share > 0]
    return (-(share * share.log()).sum()).exp().item()


# %% tags=["check"]
perplexity = checks.check_perplexity(perplexity)
cat_codes = vq.encode(cat[None])                                      # (1, 256)
print(f"the cat's {cat_codes.numel()} tokens use {len(cat_codes.unique())} codes, "
      f"worth {perplexity(cat_codes, vq.codebook_size):.0f}")

# %% [markdown]
# ### What does a code look like?
# Decode a single code: that is an image of 16x16 pixels. All of them together are a few thousand small images, and that
# is this tokenizer's whole dictionary. Here are some, and below each the same code in a 3x3 block of its own kind.

# %% tags=["needed"]
lots = torch.arange(vq.codebook_size).split(512)
everything = torch.cat([vq.decode(lot[:, None]) for lot in lots])       # (V, 3, 16, 16): the whole dictionary

# %%
shown = popular[torch.linspace(0, int((counts > 0).sum()) // 2, 24).long()]
together = vq.decode(shown[:, None].expand(-1, 9))                      # (24, 3, 48, 48)
show(image_grid(everything[shown], columns=12, scale=6), alt="Twenty-four codes as small images, from pale backgrounds "
     "to coloured blobs and dark corners.", caption="Single codes, from the most used (first) to rarer ones.")
show(image_grid(together, columns=12, scale=2), alt="The same codes, each repeated in a 3 by 3 block.",
     caption="The same codes, each surrounded by itself. The decoder blends neighbours, so a code is not a fixed tile.")

# %% [markdown]
# ### Change one token
# Take one scene, replace one of its 16 tokens, and see which pixels move. First the discrete kind: the reddest, the
# bluest and the darkest word of the dictionary.

# %%
one, place = 2, 5                                                       # which scene; second row, second column
mean_color = everything.mean(dim=(2, 3))                                # (V, 3)
changed = {}
for title, weights in (("reddest", (2, -1, -1)), ("bluest", (-1, -1, 2)), ("darkest", (-1, -1, -1))):
    edited = codes[one:one + 1].clone()
    edited[0, place] = (mean_color @ torch.tensor(weights).float()).argmax()
    changed[f"the {title} code"] = vq.decode(edited)[0]
show(plots.changed_pixels(from_codes[one], changed, place, columns=4),
     alt="A scene reconstructed from codes, and three versions with the token inside the marked square replaced; the "
         "pixels of the square change, and a margin around it.",
     caption="The marked square is the token. Pixels outside it move too: the decoder looks at neighbours.")

# %% [markdown]
# A code is this one or that one. Continuous tokens have an *in between*: walk from one token to a token of another
# scene, in a straight line through the 16 numbers.

# %%
donut = numbers[3, 1]                                                   # (16,): a token of the second scene above
changed = {}
for way in (0.1, 0.5, 1.0):
    edited = numbers[one:one + 1].clone()
    edited[0, place] += way * (donut - edited[0, place])
    changed[f"{way:.0%} of the way"] = vae.decode(edited)[0]
show(plots.changed_pixels(from_numbers[one], changed, place, columns=4),
     alt="The same scene from continuous tokens, with one token moved 10, 50 and 100 per cent of the way to a token of "
         "another scene; the change grows with the way.",
     caption="A small step of the numbers is a small step of the picture. That is what continuous means.")

# %% [markdown]
# ### The latent channels
# Unpacked again, the 16 tokens are an image of 8x8 positions with 4 channels. Each channel is a tiny, strange picture.

# %%
show(plots.latent_channels(images[one], unpack(numbers[one:one + 1], (4, 4))[0]),
     alt=f"{captions[one]}: the image and its four latent channels of 8 by 8 values, red above and blue below zero.",
     caption="Standardised by the mean and the deviation that are stored with the weights.")
wide = unpack(vae.encode(cat[None]), (16, 16))[0]
show(plots.latent_channels(cat, wide),
     alt="The cat's photograph and its four latent channels of 32 by 32 values, in which the face can be recognised.",
     caption="With 32x32 positions you recognise the cat in its latent.")

# %% [markdown]
# ## Flat colours drift
# The gentlest test of all: images of a *single* pale colour, whose red goes up in small steps, as backgrounds of scenes
# do. How far is what comes out from what went in? A perfect tokenizer gives a line at zero. **Predict** the other two
# lines before you look.

# %%
levels = torch.linspace(214, 252, num_levels)                           # the range of backgrounds
colors = torch.tensor([230.0, 240.0, 225.0]).repeat(num_levels, 1)      # (n, 3) red, green, blue
colors[:, 0] = levels
flat = (colors / 127.5 - 1)[:, :, None, None].expand(-1, 3, 64, 64)     # (n, 3, 64, 64)
back = {name: reconstruct(tokenizer, flat)[1][..., 20:28, 20:28].mean(dim=(2, 3))
        for name, tokenizer in tokenizers.items()}                      # name -> (n, 3): the middle of one token
show(plots.drift(levels, {name: (c[:, 0] + 1) * 127.5 for name, c in back.items()}),
     alt="How much too bright the red comes out, against the level that went in: the continuous line is smooth, the "
         "discrete one is a saw.",
     caption="The teeth of a saw: a code stays the same while the colour moves on, then the next code jumps in.")

# %%
for name, out in back.items():
    tokens = tokenizers[name].encode(flat).flatten(1)                   # (n, numbers of an image)
    off = (out - colors / 127.5 + 1).abs().mean().item() * 127.5
    print(f"{name:10s} {len(tokens.unique(dim=0)):3d} different token sequences for {num_levels} colours; "
          f"mean drift {off:.2f} of 255 levels")

# %% [markdown]
# A level or two sounds harmless, and on a single picture it is. But a soft sky is made of such colours, and the eye is
# good at seeing steps in what should be smooth. And the objects? Take the mean colour of a scene's object pixels,
# before and after. (Dark outlines are among them; where they blur into the background, that counts too.)

# %%
inside = truth[:, None]                                                 # (B, 1, H, W), from the test of shape above
for name, result in {"continuous": from_numbers, "discrete": from_codes}.items():
    shift = ((result - images) * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3)).clamp(min=1)   # (B, 3)
    print(f"{name:10s} mean drift of the objects' mean colour: {shift.abs().mean().item() * 127.5:.1f} of 255 levels")

# %% [markdown]
# ## Why the loss never comes back
# A generator writes tokens; the decoder makes pixels of them. So every image it can ever make is `decode(some tokens)`.
# To draw a given target, the best it could possibly do is the best tokens there are.
#
# For one discrete token we can check *all* of them. An image of 16x16 pixels is a single code, so this tokenizer can
# draw exactly as many such images as it has codes. They are all in `everything`. Cut the cat's eye into patches of that
# size, and look up the nearest image of the dictionary for each:

# %% tags=["needed"]
def patches_of(image):
    """An image (3, H, W) as patches (N, 3, 16, 16)."""
    return image.unfold(1, 16, 16).unfold(2, 16, 16).permute(1, 2, 0, 3, 4).flatten(0, 1)


targets = patches_of(cat[:, 64:128, 48:112])                            # (16, 3, 16, 16): around the eye

# %% [markdown]
# "Nearest" is the one operation that makes tokens discrete, and it stands twice in this notebook: the encoder's vector
# finds its code with it, and here a patch finds its image. For a vector $x$ it is the code
#
# $$k = \arg\min_v \lVert x - c_v \rVert^2$$
#
# The line with `argmax` in the section on the vocabulary looks simpler. It may be, because vectors and codes of this
# tokenizer all have length 1. Images do not.

# %% [markdown] tags=["exercise"]
# title: The nearest code
# minutes: 14
# level: 3
# task: |-
#   Write `vq_lookup(x, codes)` for M vectors `x` of shape (M, E) and V codes of shape (V, E), of any length: a tensor
#   of shape (M,) with the number (0 to V - 1) of the code that lies nearest to each vector, by squared distance. Use no
#   Python loop. An array of M x V x E numbers would do, and here it takes 200 MB; find a way that needs M x V.
#   The check sees answers, not memory: a loop or a large array passes it too.
# right: |-
#   each vector of the plane is joined to the nearest code, also where a long code lies in the same direction; the cat's
#   vectors find the codes that the encoder gives.
# hints:
#   - |-
#     Multiply it out: $\lVert x - c \rVert^2 = \lVert x \rVert^2 - 2\, x \cdot c + \lVert c \rVert^2$. Which of the
#     three terms is the same for all codes?
#   - |-
#     All products at once are a matrix, `x @ codes.T` of shape (M, V); the squared lengths of the codes,
#     `codes.square().sum(dim=1)`, are one row of V numbers.
#   - |-
#     Take the row, subtract twice the matrix, and take `argmin(dim=1)`.
# why: |-
#   $\lVert x \rVert^2$ shifts all V distances of a vector alike, so it cannot change which is the smallest. What is
#   left is a matrix product, the fastest thing that a computer does. If all codes have the same length,
#   $\lVert c \rVert^2$ can go as well, and the nearest code is the one with the largest product: that is the line with
#   `argmax` above, and with codes of unequal length it is wrong, because long codes win.

# %% tags=["target"]
plane = torch.tensor([[1.6, 0.3], [0.5, 0.9], [-0.9, 0.8], [-0.6, -0.7], [0.7, -0.6], [2.9, 2.0]])     # (6, 2) codes
turn = torch.linspace(0, 2 * math.pi, 25)[:-1]
ring = torch.stack([1.2 * turn.cos() + 0.2, 0.9 * turn.sin() + 0.1], dim=1)                           # (24, 2) vectors
show(plots.nearest_codes(ring, plane, checks.check_vq_lookup.own(ring, plane)),
     alt="A ring of 24 small dots and six numbered codes; a line joins each dot to the code that lies nearest. Code 5, "
         "far out at the upper right, is joined to none.",
     caption="What vq_lookup finds when it is right. Code 5 is the longest and nobody's nearest.")

# %% tags=["stub"]
def vq_lookup(x, codes):
    """The number of the nearest code: vectors (M, E), codes (V, E) of any length -> (M,) long, 0 to V - 1."""
    ...


# %% tags=["solution"]
def vq_lookup(x, codes):
    """The number of the nearest code: vectors (M, E), codes (V, E) of any length -> (M,) long, 0 to V - 1."""
    squares = codes.square().sum(dim=1)                               # (V,)
    return (squares - 2 * x @ codes.T).argmin(dim=1)                  # (M, V) -> (M,)


# %% tags=["check"]
vq_lookup = checks.check_vq_lookup(vq_lookup)
with torch.no_grad():
    vectors = torch.nn.functional.normalize(vq.features(cat[None]), dim=1)[0].flatten(1).T       # (256, E)
same = (vq_lookup(vectors, vq.codebook.codes) == vq.encode(cat[None])[0]).sum()
print(f"{same} of {len(vectors)} vectors of the cat find the code that the encoder gives")

# %% [markdown]
# Now the search, with your function if it is right: 768 numbers a patch, and as many candidates as there are codes.

# %%
best = everything[vq_lookup(targets.flatten(1), everything.flatten(1))]
three = {"the encoder's code": vq.decode(vq.encode(targets)), f"best of all {vq.codebook_size} codes": best,
         "continuous": vae.decode(vae.encode(targets))}
for name, result in three.items():
    print(f"{name:26s} {psnr(targets, result).mean().item():5.2f} dB, mean over {len(targets)} patches")

# %%
def quilt(patches):
    """Patches (16, 3, 16, 16) back as one image (3, 64, 64)."""
    return patches.unflatten(0, (4, 4)).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)


show(plots.comparison({"original": quilt(targets), **{name: quilt(result) for name, result in three.items()}}),
     alt="The cat's eye, cut into 16 patches that were encoded one by one: original, from the encoder's codes, from "
         "the best of all codes, from continuous tokens.",
     caption="Each patch by itself. The third picture is the best that any model on this codebook could ever draw.")

# %% [markdown] tags=["instructor"]
# **Say:** point at the third picture. A model with a trillion parameters, trained on every photograph there is, draws
# this eye at best. The limit was fixed before the first Transformer was trained.
#
# **Poll:** the best of all codes is better than the encoder's own code. Why does the encoder not choose it?
#
# <details><summary>Answer</summary>
#
# It was trained to choose codes that serve a whole image, with neighbours that the decoder blends, and it chooses by
# the distance of its vector, not by looking at decoded pixels. Here each patch stands alone.
#
# </details>

# %% [markdown]
# That search was exhaustive. No larger Transformer, no longer training, no better sampling gets past the third picture:
# the image it would need is *not in the set*. With 16 tokens the set is larger, but still a list:

# %%
total = 16 * math.log2(vq.codebook_size)
print(f"images of 64 px that the discrete tokenizer can draw: {vq.codebook_size}^16 = 2^{total:.0f}")
print(f"images of 64 px that there are:                       2^{raw:,}")

# %% [markdown]
# Continuous tokens form no list; between any two tokens there is another. So when the encoder's tokens are not the
# best, one can walk to better ones, step by small step. Gradient descent on the *tokens*, with the decoder fixed:

# %%
target = images[one:one + 1]
tokens = vae.encode(target).requires_grad_()
optimizer = torch.optim.Adam([tokens], lr=0.05)
for _ in range(descent_steps):
    latents = unpack(tokens, (4, 4)) * vae.latent_std[:, None, None] + vae.latent_mean[:, None, None]
    loss = (vae.decoder(latents) - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
better = vae.decode(tokens.detach())
before, after = psnr(target, from_numbers[one:one + 1]).item(), psnr(target, better).item()
show(image_grid([target[0], from_codes[one], from_numbers[one], better[0]], scale=4,
                titles=["original", "discrete", f"continuous {before:.1f} dB", f"after descent {after:.1f} dB"]),
     alt=f"One scene: original, discrete, continuous, and continuous after {descent_steps} steps of gradient descent.",
     caption="The tokens moved a little, and the squared error fell.")
moved = (tokens - vae.encode(target)).abs().mean().item()
print(f"{before:.2f} dB -> {after:.2f} dB; the numbers moved by {moved:.2f} standard deviations on average")

# %% [markdown]
# The continuous tokenizer has a ceiling as well: its decoder. But the ceiling is higher, and it can be approached
# smoothly.
#
# This is the paper's finding in small. With discrete tokens, the eyes of its corgi come out asymmetric, and even a
# model of 3 billion parameters cannot draw an exact Mona Lisa, because the tokenizer's own reconstruction cannot.
# Scaling the Transformer does not mend the tokenizer.
#
# There is a price. A softmax over a few thousand codes is easy to train and to sample. How does a Transformer predict
# *16 real numbers* that could be anything? That is the subject of notebook 04.

# %% [markdown]
# ## The reconstruction lab
# Choose a picture or upload your own, choose a tokenizer, zoom in. For the continuous one, round its numbers and leave
# out latent channels; for the discrete one, keep fewer of its codes; and watch dB and bits.
#
# Some things to try:
#
# 1. Chelsea, zoom 4, 34 per cent across, 39 down: the eye. Switch between the tokenizers.
# 2. A scene at 64 pixels, continuous, rounding step 2.5: about as few bits as the discrete tokenizer. Which looks
#    better?
# 3. Keep one latent channel of four. What does it know: colour, or shape?
# 4. Discrete, 32 codes kept of all: at how many does the eye come back?

# %%
pictures = {name: (lambda size, name=name: load_photo(name, size)) for name in names}
pictures |= {f"scene {i}": (lambda size, i=i: fl.EmojiScenes("test", size, seed)[i]["image"]) for i in (2, 3, 5)}
lab = ReconstructionLab(tokenizers, pictures, fallback="chelsea")
for name, value in {"tokenizer": "discrete", "zoom": 3.0, "x": 34, "y": 39}.items():
    lab.explorer.controls[name].value = value
lab.explorer.refresh()
display(lab.widget)

# %% [markdown] tags=["closing"]
# recap:
#   - |-
#     A token covers 16x16 pixels: one code of a codebook, or 16 real numbers. The sequence is equally long.
#   - |-
#     Continuous tokens keep more of scenes and photographs, because one position carries more bits. Bit for bit a
#     trained codebook is the better code.
#   - Discrete tokens keep shape best; they lose fine detail and exact colour. Continuous tokens lose fine texture too.
#   - A generator can only draw what its decoder can. The tokenizer's loss is a floor under every model built on it.
# quiz:
#   - q: |-
#       An image of 128x128 pixels: how many tokens, in either kind?
#     a: 8 x 8 = 64. A token always covers 16x16 pixels.
#   - q: The vocabulary grows from 4,096 to 8,192. How many bits does an image of 16 tokens gain?
#     a: |-
#       One bit a token, 16 in all: doubling the vocabulary adds a single bit.
#   - q: |-
#       Somebody trains a Transformer ten times as large on the discrete tokens, to get sharper eyes. What do you tell
#       them?
#     a: |-
#       Look at the tokenizer's reconstruction of such eyes first. It is the best that the
#       larger model can do; if the eyes are blurred there, they stay blurred.
#   - q: Is it fair to compare 192 bits with thousands?
#     a: |-
#       Not as a contest of compression, and there the codebook does well. It is fair as a
#       contest of tokens: both give the Transformer a sequence of the same length, and so the same cost.
#   - q: Why does changing one token change pixels outside its square?
#     a: |-
#       The decoder is convolutional: each pixel depends on a neighbourhood of tokens. That
#       is also what softens the seams between tokens.
# references:
#   - |-
#     Fan et al. 2024, *Fluid: Scaling Autoregressive Text-to-image Generative Models with Continuous Tokens*,
#     arXiv 2410.13863
#   - van den Oord et al. 2017, *Neural Discrete Representation Learning* (VQ-VAE), arXiv 1711.00937
#   - Esser et al. 2021, *Taming Transformers for High-Resolution Image Synthesis* (VQGAN), arXiv 2012.09841
#   - Kingma and Welling 2014, *Auto-Encoding Variational Bayes* (VAE), arXiv 1312.6114
#   - Rombach et al. 2022, *High-Resolution Image Synthesis with Latent Diffusion Models*, arXiv 2112.10752
#   - |-
#     Wang et al. 2004, *Image Quality Assessment: From Error Visibility to Structural Similarity* (SSIM)
