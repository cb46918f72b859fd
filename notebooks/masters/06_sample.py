# %% [markdown] tags=["front-matter"]
# title: "Sample: one loop, two dials, and a pencil with an eraser"
# goals:
#   - write the loop that samples every variant, and see that the package's draws the same tokens
#   - use guidance scale and temperature knowingly, and measure what they do instead of guessing
#   - say what steps over the sequence and denoising steps cost and buy
#   - explain why raster order can keep a cache, random order cannot, and what that saves at 16 and at 256 tokens
#   - redraw a part of a picture, let it grow, vary it, and show why a raster model does it badly
# needs: "Notebooks 03 to 05; the shipped models"
# hardware: "a laptop CPU with two cores, 2 GB of free memory"
# fast:
#   num_prompts: 3
#   num_denoising_steps: 3
#   guidance_scales: [1.0, 4.0]
#   temperatures: [0.0, 1.0]
#   step_counts: [2, 8]
#   denoising_counts: [1, 4]
#   cache_lengths: [16, 36]
#   num_edits: 2
#   repeats: 1

# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 5, do: "Guesses: guidance 0, temperature 0, one step. Write them on the board."}
#   - {minutes: 10, do: "The loop, read aloud line by line, and the two films."}
#   - {minutes: 12, do: "The measure with its ceiling and floor, then the guidance curves."}
#   - {minutes: 15, do: "Temperature, then exercise 6.1."}
#   - {minutes: 10, do: "Everybody in the studio; each group brings one setting and one picture."}
#   - {minutes: 12, do: "Guidance that grows, exercise 6.2."}
#   - {minutes: 11, do: "Steps of both kinds, the cache and its poll, same seed."}
#   - {minutes: 17, do: "The eraser: exercise 6.3 in pairs, then the unkind case for raster order."}
#   - {minutes: 20, do: "Exercise 6.4, alone; the fast ones let their loop fill a hole in a scene of their own."}
#   - {minutes: 8, do: "Growing, varying, unknown words; recap and quiz."}

# %% [markdown]
# ## The model does not draw
# A trained model answers one question: given a text and some known tokens, what could this unknown token be? Nothing
# in that is a picture yet. Drawing is a loop around the question, and the loop has choices that training never fixed:
# in how many steps, how obedient to the text, how daring.
#
# Guess before you read on: what do you expect from a guidance scale of 0? From a temperature of 0? And how much worse
# is a picture that is drawn in one single step?

# %% tags=["parameters"]
num_prompts = 24                       # prompts behind every measured point
num_denoising_steps = 25               # inside the diffusion head (the paper: 100)
guidance_scales = [0.0, 1.0, 2.0, 4.0, 8.0]
temperatures = [0.0, 0.5, 1.0, 1.5]
step_counts = [1, 2, 4, 8, 16]         # steps over the 16 tokens, random order
denoising_counts = [1, 2, 4, 10, 25, 100]
cache_lengths = [16, 64, 256]          # tokens for which the cache is timed
num_edits = 24                         # scenes for the inpainting measurement
repeats = 3                            # timings; the shortest counts
seed = 0                               # everything random starts here

# %% tags=["needed"]
import time

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

import fluidlab as fl
from fluidlab import checks
from fluidlab.data.atlas import COLORS
from fluidlab.data.grammar import with_article
from fluidlab.data.scenes import prompts
from fluidlab.viz.plots import contact_sheet, hide_unknown, in_words, markdown_table, sweep, token_maps
from fluidlab.viz.plots_sample import probability_bars, scales_figure
from fluidlab.viz.show import image_grid, show, variant_style
from fluidlab.viz.studio import Studio, dial_sheet, heard

# %%
torch.set_num_threads(1)    # layers this small: a second thread waits more than it works
VARIANTS = ["raster-softmax", "raster-diffusion", "random-softmax", "random-diffusion"]
pipes = {name: fl.FluidPipeline.from_pretrained(f"{name}-mini", defaults={}) for name in VARIANTS}
STEPS = {"num_denoising_steps": num_denoising_steps}


def streams(*seeds):
    return [torch.Generator().manual_seed(number) for number in seeds]


# %% [markdown]
# ## One loop for all variants
# Here is the whole sampler. An order supplies a permutation and the sizes of its chunks, a head supplies `sample`; the
# loop does not know which of them it has. For guidance the batch goes through twice, with its text and with "no text".

# %%
def twice(tensor):
    return torch.cat([tensor, tensor])


@torch.no_grad()
def draw(model, features, mask, generators, guidance_scale=3.0, temperature=1.0):
    B, N = len(features), model.config.seq_len
    rows = torch.arange(B)[:, None]                                               # (B, 1)
    tokens = model.head.blank(B, N)                                               # (B, N[, C])
    unknown = torch.ones(B, N, dtype=torch.bool)                                  # (B, N)
    permutation = model.order.permutation(B, N, generators)                       # (B, N)
    text = model.aligner(twice(features), torch.cat([mask, torch.zeros_like(mask)]))  # with a text, and without
    filled = 0
    for size in model.order.chunk_sizes(N):
        positions = permutation[:, filled:filled + size]                          # (B, K)
        z = model.hidden(twice(tokens), twice(unknown), *text)                    # (2B, N, D)
        z, z_null = (half[rows, positions] for half in z.chunk(2))                # 2 x (B, K, D)
        tokens[rows, positions] = model.head.sample(z, z_null, guidance_scale, temperature, generators,
                                                    num_denoising_steps)          # (B, K[, C])
        unknown[rows, positions] = False
        filled += size
    return tokens


# %% [markdown]
# The package's `generate` is this loop, plus checks, a cache for raster order, guidance that may grow, and a callback.
# So both must draw the same tokens from the same random streams, but for rounding: the package computes its last block
# only where tokens are asked for. (The cache is off, which rounds differently too.)

# %%
asked = ["a photo of a red umbrella", "a photo of a cat and a bicycle", "a photo of three books",
         "a photo of a dog left of a chair"]
rows = []
for name, pipe in pipes.items():
    features, mask = pipe.text_encoder(asked)
    mine = draw(pipe.model, features, mask, streams(*range(seed, seed + 4)))
    theirs = fl.generate(pipe.model, features, mask, generator=streams(*range(seed, seed + 4)), use_cache=False,
                         **STEPS)
    rows.append({"variant": name, "shape": tuple(mine.shape),
                 "largest difference": f"{(mine - theirs).abs().max().item():.0e}"})
display(Markdown(markdown_table(rows)))

# %% [markdown]
# In daily use a pipeline does it all: text to features, features to tokens, tokens to pixels. It may bring settings
# that its makers recommend; `defaults={}` above has put those aside, for the dials are today's subject. (It is a
# `DiffusionPipeline`: whoever knows diffusers finds `to`, `callback_on_step_end`, `push_to_hub` and the rest.)

# %%
pixels = [p for pipe in pipes.values() for p in pipe(asked, seed=seed, **STEPS).pixels]
columns = [prompt.removeprefix("a photo of ") for prompt in asked]
show(contact_sheet(pixels, [name.replace("-", "\n") for name in VARIANTS], columns, scale=3),
     alt="Four prompts (columns) drawn by the four shipped models (rows): " + "; ".join(asked),
     caption=f"Guidance 3, temperature 1, seeds {seed} to {seed + 3}; nothing picked by hand.")

# %% [markdown]
# ## Watch it happen
# `on_step` is called after each step with what is known so far. Crossed squares are tokens that nobody has drawn yet.
# Random order may fill several tokens at a time; how many, the cosine schedule says: few at first, when everything
# is open, and many at the end, when little is left to decide.

# %%
prompt = "a photo of a red umbrella"


def film(name, columns, **options):
    """The picture after some of the steps, unknown tokens hidden, and how many tokens were known then."""
    pipe, frames = pipes[name], []

    def keep(step):
        pixels = hide_unknown(pipe.tokenizer.decode(step.tokens), step.unknown)
        frames.append((pixels[0], f"{int((~step.unknown).sum())} known"))
    pipe(prompt, seed=seed, on_step=keep, **options, **STEPS)
    return [frames[round((i + 1) * len(frames) / columns) - 1] for i in range(columns)]


for name, options in (("raster-diffusion", {}), ("random-diffusion", {"num_inference_steps": 8})):
    frames = film(name, 8, **options)
    show(image_grid([f for f, _ in frames], titles=[t for _, t in frames], scale=2),
         alt=f"Eight moments of {name} drawing {prompt!r}: " + ", ".join(t for _, t in frames),
         caption=f"{name}, {'16 steps, every second shown' if not options else '8 steps'}.")

# %% [markdown]
# Raster order writes like a typewriter: by the time it learns what stands below, the upper half is final. Random order
# places single tokens all over the picture and fills in between them.
#
# ## A measure, before any opinion
# Pictures persuade too easily, and a row of four proves nothing. So here is one thing that can be counted: prompts
# such as "a photo of a purple cat" name a colour. Take the saturated pixels of the picture (the backgrounds are pale,
# so these are the object), and count the share whose nearest of the eight paints is the one asked for.
#
# It is a crude measure. It knows nothing of shape: a purple blob scores as well as a purple cat. Eyes, wheels and
# outlines keep their own colours, so not even a true scene reaches 1. How far does it carry? Ask it about real scenes,
# with the right colours and with the colours shuffled.

# %%
PAINTS = torch.tensor(list(COLORS.values())).float() / 127.5 - 1                  # (8, 3)
NAMES = list(COLORS)
wanted = prompts("colors", num_prompts, heldout=False, seed=seed)
wanted_captions = [w["caption"] for w in wanted]
wanted_colors = [w["objects"][0]["color"] for w in wanted]


def color_share(pixels, colors):
    """Mean share of the saturated pixels that are nearest to the asked paint; an empty picture scores 0."""
    scores = []
    for image, color in zip(pixels, colors, strict=True):
        flat = image.flatten(1).T                                                 # (H W, 3)
        colorful = flat.max(dim=1).values - flat.min(dim=1).values > 0.5          # (H W,)
        object_pixels = flat[colorful]                                            # (M, 3)
        nearest = torch.cdist(object_pixels, PAINTS).argmin(dim=1)                # (M,)
        enough = len(object_pixels) >= 40                                         # of 4,096 pixels
        scores.append(float((nearest == NAMES.index(color)).float().mean()) if enough else 0.0)
    return sum(scores) / len(scores)


truth = fl.EmojiScenes(split="validation", seed=seed, skills=("colors",))
real = [truth[i] for i in range(200)]
real_pixels = [scene["image"].float() / 127.5 - 1 for scene in real]
real_colors = [scene["objects"][0]["color"] for scene in real]
ceiling = color_share(real_pixels, real_colors)
chance = color_share(real_pixels, real_colors[1:] + real_colors[:1])
print(f"real scenes, right colours: {ceiling:.2f}      colours of another scene: {chance:.2f}")

# %% [markdown]
# These two numbers are the ceiling and the floor of the measure. They appear as dotted lines below.
#
# ## Guidance
# The model is asked twice, with the text and without. Guidance goes from the answer without ("null") to the answer
# with ("text"), and further:
#
# $$\text{guided} = \text{null} + s \cdot (\text{text} - \text{null})$$
#
# With $s = 0$ the text is ignored, with $s = 1$ the model is taken at its word, with $s > 1$ whatever the text adds
# is exaggerated. What is guided depends on the head: logits for softmax, predicted noise for diffusion. Each point
# below is the mean over the same prompts.

# %%
def measured(name, **options):
    return color_share(pipes[name](wanted_captions, seed=seed, **{**STEPS, **options}).pixels, wanted_colors)


SHARE = {"ylabel": "share of the asked colour", "levels": (chance, ceiling), "ylim": (0, 1)}
guided = {name: [measured(name, guidance_scale=s) for s in guidance_scales]
          for name in ("random-softmax", "random-diffusion")}
show(sweep(guidance_scales, guided, xlabel="guidance scale", **SHARE),
     alt=f"Share of the asked colour against the guidance scale. {in_words(guidance_scales, guided)}",
     caption=f"Mean over {num_prompts} prompts. Dotted: real scenes with right and with shuffled colours.")

# %% [markdown]
# More is not better. Beyond the peak, the exaggeration leaves what the model has seen in training. Notebook 07 looks
# for the best settings of all four variants and finds them at guidance 1 to 3 with temperatures below 1; the pictures
# here are drawn at 3 and 1, so that the dials have something to mend.

# %% [markdown] tags=["instructor"]
# **Say:** the null answer is what the model thinks of pictures in general. Guidance says: be less like pictures in
# general and more like this prompt. At 8 it says nothing else any more.
#
# **Poll:** the scale goes from 1 to 3, then from 3 to 8. How much longer does a picture take each time?
#
# <details><summary>Answer</summary>
#
# From 1 to 3 nearly twice as long, because the null answer is needed now; from 3 to 8 no longer at all.
#
# </details>

# %% [markdown]
# ## Temperature
# Temperature scales chance, and each head has its own kind of chance. A softmax head divides its logits by it: 0 means
# the likeliest code, always. A diffusion head scales the noise that is injected during denoising; the noise that it
# *starts* from is not scaled. So temperature 0 leaves a softmax head no chance at all, and a diffusion head whatever
# survives of its first noise. How much is that?
#
# Below, raster order with four seeds. Raster has no random order to choose, so everything that differs between the
# seeds comes from the head. Which row must hold four equal pictures?

# %%
def spread(pixels):
    """Mean absolute difference between the pictures of different seeds, in levels of 255."""
    i, j = torch.triu_indices(len(pixels), len(pixels), 1)
    return float((pixels[i] - pixels[j]).abs().mean() * 127.5)


four, labels, rows = [], [], []
for name in ("raster-softmax", "raster-diffusion"):
    for temperature in (0.0, 1.0):
        pixels = pipes[name]("a photo of a blue car", seed=seed, num_images_per_prompt=4, temperature=temperature,
                             **STEPS).pixels
        four += list(pixels)
        labels.append(f"{name}\ntemperature {temperature:g}")
        rows.append({"variant": name, "temperature": temperature, "difference between seeds": spread(pixels)})
show(contact_sheet(four, labels, [f"seed {seed + i}" for i in range(4)], scale=2),
     alt="Four seeds of 'a photo of a blue car' at temperature 0 and 1, raster order, softmax and diffusion head.",
     caption="Raster order: whatever differs along a row is the chance of the head. In numbers:")
display(Markdown(markdown_table(rows)))

# %% [markdown]
# Only the first row must. The third is nearly as equal: of the noise that diffusion starts from, hardly anything
# survives when no fresh noise follows.
#
# Guidance and temperature meet in one place, and there it matters which comes first. For a softmax head that place is
# small enough to write down.

# %% [markdown] tags=["exercise"]
# title: Both dials of a softmax head
# minutes: 8
# level: 1
# task: |-
#   Write `guided_probabilities(text, null, scale, temperature)`: the probabilities with which a softmax head draws.
#   `text` and `null`, (B, V), are its scores for V codes, with the prompt and without; `scale` is the guidance scale
#   and `temperature` is larger than 0. Guide the **scores** by the formula of the section on guidance, divide them by
#   the temperature, then take the softmax over the codes. Return (B, V).
# right: |-
#   at scale 1 the bars are those of the text, at 0 those of "no text", and a temperature of 0.5 makes the likeliest
#   code likelier still.
# hints:
#   - "Three steps, in the order of the text: guide, divide, softmax. None of them needs a loop."
#   - "At scale 0 only `null` may be left, at scale 1 only `text`: `null + scale * (text - null)`."
#   - "`(... / temperature).softmax(dim=-1)`"
# why: |-
#   Scores may be any numbers, so they can be moved beyond the text's without harm. Probabilities cannot: guided after
#   the softmax at scale 3, a code with 0.1 in place of 0.3 would get 0.3 + 3 (0.1 - 0.3) = -0.3. On scores, the
#   difference is a ratio of chances, and the scale is its power.

# %% tags=["target"]
text_scores = torch.tensor([[1.2, 1.0, 0.4, 0.0]])                                # (B, V)
null_scores = torch.tensor([[0.8, 1.4, 0.4, 0.6]])
own = checks.check_guidance.own
settings = ((0.0, 1.0), (1.0, 1.0), (3.0, 1.0), (3.0, 0.5))                       # scale, temperature
panels = {f"scale {s:g}, temperature {t:g}": own(text_scores, null_scores, s, t)[0] for s, t in settings}
show(probability_bars(panels),
     alt="Probabilities of four codes. " + "; ".join(
         f"{title}: " + ", ".join(f"{p:.2f}" for p in panel.tolist()) for title, panel in panels.items()) + ".",
     caption="Right answers for one pair of scores. What the text prefers more than no text does, grows.")

# %% tags=["stub"]
def guided_probabilities(text, null, scale, temperature):
    """Probabilities of the V codes from the scores text and null, both (B, V): guidance, temperature, softmax."""
    ...


# %% tags=["solution"]
def guided_probabilities(text, null, scale, temperature):
    """Probabilities of the V codes from the scores text and null, both (B, V): guidance, temperature, softmax."""
    scores = null + scale * (text - null)                                         # (B, V)
    return (scores / temperature).softmax(dim=-1)


# %% tags=["check"]
guided_probabilities = checks.check_guidance(guided_probabilities)
for scale, temperature in settings:
    first, second = guided_probabilities(text_scores, null_scores, scale, temperature)[0, :2]
    print(f"scale {scale:g}, temperature {temperature:g}: code 0 is {first / second:6.2f} times as likely as code 1")

# %% [markdown]
# Both dials at once. One prompt, one seed: whatever changes is the dials' doing. The paper tunes both for each metric
# separately, so no setting is best for everything.
#
# A hint for the upper left corner: pale background is the likeliest content of almost every token, and a low
# temperature prefers the likely.

# %%
show(dial_sheet(pipes["random-diffusion"], "a photo of a yellow umbrella", guidance_scales, temperatures, seed=seed,
                scale=2 if len(temperatures) > 2 else 3, **STEPS),
     alt=f"Contact sheet of 'a photo of a yellow umbrella' by random-diffusion: guidance {guidance_scales} in rows, "
         f"temperature {temperatures} in columns.",
     caption="random-diffusion, one seed. Find the cell that you like best, then try it on another prompt below.")

# %% [markdown]
# ## The studio
# Now you. Type a prompt of the training grammar ("a photo of ...", "three red apples", "a cat left of a dog"), move
# the dials, change the variant. Each answer is four pictures of neighbouring seeds; tick *contact sheet* to see the
# settings around yours at once, and press *cancel* if you have asked for too much. What to try:
# - the same prompt and seed with each of the four variants,
# - guidance 0: four pictures of anything,
# - raster order with 4 steps over the sequence: read the sentence that appears,
# - a word that you doubt the model knows.

# %%
studio = Studio(pipes).explorer("a photo of a purple cat", "random-diffusion", seed=seed, **STEPS)
display(studio.widget)

# %% [markdown]
# ## Guidance that grows
# The idea: early tokens decide the layout while almost nothing is known, and pushing them hard costs variety. MAR, as
# we remember it, therefore lets the scale grow linearly, from 1 with nothing known up to $s$ at the end; neither that
# nor whether Fluid does the same is confirmed. Does it hold here? Compare variety (the difference between seeds) with
# obedience (the colour share).

# %%
rows, strips = [], []
for schedule in ("constant", "linear"):
    pixels = pipes["random-diffusion"]("a photo of a green bicycle", seed=seed, num_images_per_prompt=6,
                                       guidance_scale=6.0, guidance_schedule=schedule, **STEPS).pixels
    strips += list(pixels)
    rows.append({"schedule": schedule, "difference between seeds": spread(pixels),
                 "share of the asked colour": measured("random-diffusion", guidance_scale=6.0,
                                                       guidance_schedule=schedule)})
show(contact_sheet(strips, ["constant", "linear"], [f"seed {seed + i}" for i in range(6)], scale=2),
     alt="Six seeds of 'a photo of a green bicycle' with constant and with linearly growing guidance, scale 6.",
     caption="Guidance scale 6, constant and growing from 1.")
display(Markdown(markdown_table(rows)))

# %% [markdown]
# Obedience gains. Variety, on these six pictures, hardly does: at so large a scale, the constant schedule fails in many
# different ways, and this measure counts failures as variety.
#
# "Linear" in what? Not in the steps: the cosine schedule fills few tokens in the first ones and many in the last. The
# scale grows with the tokens that are known.

# %% [markdown] tags=["exercise"]
# title: A scale for each step
# minutes: 8
# level: 2
# task: |-
#   Write `growing_scales(sizes, scale)`: a list with the guidance scale of each step. `sizes` is a list: how many
#   tokens each step fills. The scale of a step depends on the share of all tokens that will be known **after** it: it
#   grows linearly with this share and would be 1 at a share of 0; at a share of 1, after the last step, it is `scale`.
# right: |-
#   the last number is always `scale`; with two steps that fill 4 and 12 tokens and scale 5 the list is [2, 5].
# hints:
#   - "For sizes 4 and 12: which share is known after the first step, which after the second?"
#   - "From 1 to `scale` it has `scale - 1` to go. At a share of 1/4 it has gone a quarter of that."
#   - |-
#     Keep a number `known`, add each size to it, and append `1 + (scale - 1) * known / sum(sizes)`.
# why: |-
#   The share after the step is taken, not before, so that a picture in a single step gets the whole scale and not 1.
#   The tokens of one step are drawn together, and so they share a scale; with few steps, many tokens get a large one.

# %% tags=["target"]
sizes_of = {K: fl.ORDERS["random"](1).chunk_sizes(16, K) for K in (4, 8, 16)}
right_scales = {f"{K} steps": (sizes, checks.check_growing_scales.own(sizes, 6.0)) for K, sizes in sizes_of.items()}
show(scales_figure(right_scales),
     alt="Guidance scales that grow from step to step up to 6: " + "; ".join(
         f"{title} " + ", ".join(f"{s:.1f}" for s in scales) for title, (_, scales) in right_scales.items()) + ".",
     caption="Right scales for 16 tokens and a scale of 6. A step is as wide as the tokens that it fills.")

# %% tags=["stub"]
def growing_scales(sizes, scale):
    """The guidance scale of each step, a list as long as sizes (tokens that a step fills), growing up to scale."""
    ...


# %% tags=["solution"]
def growing_scales(sizes, scale):
    """The guidance scale of each step, a list as long as sizes (tokens that a step fills), growing up to scale."""
    known, scales = 0, []
    for size in sizes:
        known += size
        scales.append(1 + (scale - 1) * known / sum(sizes))
    return scales


# %% tags=["check"]
growing_scales = checks.check_growing_scales(growing_scales)
for K, sizes in sizes_of.items():
    scales = growing_scales(sizes, 6.0)
    mean = sum(size * scale for size, scale in zip(sizes, scales, strict=True)) / 16
    print(f"16 tokens in {K:2d} steps: the first scale is {scales[0]:.2f}, the mean over tokens {mean:.2f}")

# %% [markdown]
# ## How many steps over the sequence?
# Random order may draw all 16 tokens in one step. What is lost? Tokens of one step do not see each other: the left
# half of a cat does not know where the right half is going to be. With one token per step everyone sees all before.
#
# Colour should suffer less from this than shape: every token can read the colour in the text, but where the cat's
# other half lies, only other tokens can tell. First the measured colour, then pictures for the shape.

# %%
stepped = {name: [measured(name, num_inference_steps=n) for n in step_counts]
           for name in ("random-softmax", "random-diffusion")}
show(sweep(step_counts, stepped, xlabel="steps over the sequence", log_x=True, **SHARE),
     alt=f"Share of the asked colour against steps over the sequence. {in_words(step_counts, stepped)}",
     caption="Colour only. For shape, look at the pictures below.")

# %%
few = ["a photo of a cat", "a photo of a bicycle", "a photo of two dogs"]
same_seed = {"seed": [seed] * len(few)}
drawn = [pipes["random-diffusion"](few, num_inference_steps=n, **same_seed, **STEPS).pixels for n in step_counts]
names = [prompt.removeprefix("a photo of ") for prompt in few]
show(contact_sheet([pixels[i] for i in range(len(few)) for pixels in drawn], names,
                   [f"{n} step{'s' * (n > 1)}" for n in step_counts], scale=2),
     alt=f"Three prompts (rows) drawn by random-diffusion in {step_counts} steps (columns).",
     caption="Same seed along a row. Each step more lets later tokens see earlier ones.")

# %% [markdown]
# ## How many denoising steps?
# Inside each token a diffusion head walks from noise to a token. The paper takes 100 steps of the 1,000 it was trained
# on. The head is a small network, but it runs once per denoising step, so this number rules the time of a picture.

# %%
denoised, rows = {"random-diffusion": []}, []
for n in denoising_counts:
    started = time.perf_counter()
    denoised["random-diffusion"].append(measured("random-diffusion", num_denoising_steps=n))
    rows.append({"denoising steps": n, "ms per image": round(1000 * (time.perf_counter() - started) / num_prompts)})
show(sweep(denoising_counts, denoised, xlabel="denoising steps", log_x=True, **SHARE),
     alt=f"Share of the asked colour against denoising steps. {in_words(denoising_counts, denoised)}",
     caption=f"Mean over {num_prompts} prompts.")
display(Markdown(markdown_table(rows)))

# %%
drawn = [pipes["random-diffusion"](few, num_denoising_steps=n, **same_seed).pixels for n in denoising_counts]
show(contact_sheet([pixels[i] for i in range(len(few)) for pixels in drawn], names,
                   [f"{n} step{'s' * (n > 1)}" for n in denoising_counts], scale=2),
     alt=f"Three prompts (rows) drawn by random-diffusion with {denoising_counts} denoising steps (columns).",
     caption="Columns: denoising steps per token.")

# %% [markdown]
# With 1 or 2 steps the token is settled near $t = 999$, where there is almost no signal and the guess is multiplied by
# 20,000 and clipped (notebook 04): noise, in full colour. From about 10 steps on, more of them only cost time here.
#
# ## The cache that only raster order can have
# With causal attention, what the model computed for token 3 does not change when token 7 arrives. So keys and values
# are kept, and each step reads *one* new token instead of the whole sequence. In random order attention is
# bidirectional: each new token changes what all others see, and nothing can be kept.

# %% [markdown] tags=["instructor"]
# **Poll:** 256 tokens. Raster order with a cache, or random order in 64 steps: which pushes more tokens through the
# backbone, and which must wait for more passes?
#
# <details><summary>Answer</summary>
#
# Random order pushes more, 64 x 256 = 16,384 against 256. Raster order waits for more passes, 256 against 64. Which of
# them is faster depends on whether the machine is short of arithmetic or of patience between passes.
#
# </details>

# %% [markdown]
# Same tokens, less work. With $N$ tokens a sampler that reads the whole sequence in every step pushes $N \cdot N$
# tokens through the backbone, one with a cache $N$ (derived): 16 times fewer at 16 tokens, 256 times fewer at 256.
# (A sampler that reads only as far as it has come would need half as many as the first.) The clock is less impressed,
# because a step that reads one token still pays for every layer's call.

# %%
def best_seconds(call):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


rows = []
for name in ("raster-softmax", "raster-diffusion"):
    pipe = pipes[name]
    features, mask = pipe.text_encoder(["a photo of a cat"])

    def run(cache, model=pipe.model, features=features, mask=mask):
        return fl.generate(model, features, mask, generator=streams(seed), use_cache=cache, **STEPS)

    same = float((run(False).float() - run(True).float()).abs().max())
    without, with_cache = (best_seconds(lambda cache=cache, run=run: run(cache)) for cache in (False, True))
    rows.append({"variant": name, "tokens": 16, "s without cache": without, "s with cache": with_cache,
                 "times faster": without / with_cache, "largest difference": same})
display(Markdown(markdown_table(rows)))

# %% [markdown]
# At 16 tokens the gain is small, and with a diffusion head smaller still, since most of the time goes into denoising,
# which no cache shortens. The paper's pictures have 256 tokens. Time does not care whether weights are trained, so an
# untrained model of that length will do:

# %%
timings = {False: [], True: []}
for length in cache_lengths:
    long_model = fl.Fluid(fl.preset("micro", order="raster", head="softmax", seq_len=length)).eval()
    features, mask = pipes["raster-softmax"].text_encoder(["a photo of a cat"])
    for cache in (False, True):
        started = time.perf_counter()
        fl.generate(long_model, features, mask, guidance_scale=1.0, generator=streams(seed), use_cache=cache)
        timings[cache].append(time.perf_counter() - started)
figure, axis = plt.subplots(figsize=(8, 3.2))
for cache, line in ((False, "--"), (True, "-")):
    axis.plot(cache_lengths, timings[cache], line, marker="o", color=variant_style("raster", "softmax")["color"],
              label="with cache" if cache else "without")
axis.set(xlabel="tokens", ylabel="seconds per image", xticks=cache_lengths, ylim=(0, None))
axis.legend()
ratio = [a / b for a, b in zip(timings[False], timings[True], strict=True)]
show(figure, alt="Seconds per image against tokens, without and with cache; times faster: "
     + ", ".join(f"{n} tokens {r:.1f}" for n, r in zip(cache_lengths, ratio, strict=True)),
     caption=f"An untrained micro model. With the cache {ratio[-1]:.1f} times faster at {cache_lengths[-1]} tokens; "
             f"the derived number counts tokens, not time.")

# %% [markdown]
# ## The same seed, the same picture
# Each image has its own stream of randomness. So an image does not depend on who else is in the batch, nor on its
# place. That sounds like a detail until you want to reproduce the one good picture out of a batch of forty.

# %%
pipe = pipes["random-diffusion"]
together = pipe(["a photo of a cat", "a photo of a red apple", "a photo of two dogs"], seed=[11, 12, 13], **STEPS)
alone = pipe("a photo of a red apple", seed=12, **STEPS)
other = pipe("a photo of a red apple", seed=13, **STEPS)
gap = float((together.tokens[1] - alone.tokens[0]).abs().max())
show(image_grid([together.pixels[1], alone.pixels[0], other.pixels[0]],
                titles=["seed 12, in a batch", "seed 12, alone", "seed 13"], scale=3),
     alt="A red apple drawn with seed 12 within a batch and alone, which look the same, and with seed 13.",
     caption=f"Largest difference between the tokens of the first two: {gap:.0e}. Nothing but rounding.")

# %% [markdown]
# ## What a picture costs here
# Per image, alone and in a batch of 16. Your numbers will differ with your processor and with what else it is doing;
# the order of the rows mostly will not. Remember that at toy size the calls cost more than the arithmetic.

# %%
rows = []
for name, pipe in pipes.items():
    one = best_seconds(lambda pipe=pipe: pipe("a photo of a cat", seed=seed, **STEPS))
    started = time.perf_counter()
    pipe(["a photo of a cat"] * 16, seed=seed, **STEPS)
    rows.append({"variant": name, "s per image, alone": one, "in a batch of 16": (time.perf_counter() - started) / 16})
display(Markdown(markdown_table(rows)))

# %% [markdown]
# ## Redraw a part: the eraser
# Random order was trained to fill holes of any size in any place. So editing needs no new model: keep some tokens,
# forget the others, sample. Two details: the mask grows by a ring of tokens, because the decoder mixes neighbours and
# the old object would shine through; and pixels outside your mask are pasted back, so that they do not change at all.

# %%
edit_scenes = fl.EmojiScenes(split="validation", seed=seed, skills=("position",))
plans = ((i, edit_scenes.plan(i)) for i in range(500))
index = next(i for i, plan in plans if plan.relation == "left of" and plan.cells[0][1] == 32)   # side by side, below
scene = edit_scenes[index]
image = scene["image"].float() / 127.5 - 1                                        # (3, 64, 64)
left_thing = scene["objects"][0]["class"]
pixel_mask = torch.zeros(64, 64, dtype=torch.bool)
pixel_mask[32:, 32:] = True                                                       # lower right: the other one
request = f"a photo of {with_article(left_thing)} left of an apple"
unknown = fl.token_mask(pixel_mask, ring=1)[None]

rows = [image, hide_unknown(image[None], fl.token_mask(pixel_mask, ring=0)[None])[0],
        hide_unknown(image[None], unknown)[0]]
three = {"seed": seed, "num_images_per_prompt": 3, **STEPS}
edits = {name: pipes[name].inpaint(image, pixel_mask, request, **three).pixels
         for name in ("random-diffusion", "raster-diffusion")}
sheet = [p for name in edits for p in (*rows, *edits[name])]
show(contact_sheet(sheet, list(edits), ["picture", "mask", "and ring", *(f"seed {seed + i}" for i in range(3))],
                   scale=2),
     alt=f"A scene ({scene['caption']}), its mask in the lower right with and without ring, and three fillings by each "
         f"order for the prompt {request!r}.",
     caption=f"Asked for: {request!r}.")
kept = max(float((p - image)[:, ~pixel_mask].abs().max()) for name in edits for p in edits[name])
print(f"largest change of a pixel outside the mask: {kept}")

# %% [markdown] tags=["exercise"]
# title: The ring
# minutes: 10
# level: 2
# task: |-
#   Write `ring(mask)`. `mask` holds truth values on the grid of tokens, (h, w): True where a token is to be drawn anew.
#   Return a mask of the same shape that is True there **and** at every token that touches one of these, with a side or
#   with a corner: up to eight around each. Nothing goes round the borders of the grid. Do not change `mask`.
# right: "one token in the middle becomes a square of nine, one in a corner becomes a square of four, as below."
# hints:
#   - |-
#     A token is in the result if the largest value in its 3 x 3 neighbourhood is True. There is a layer for "the
#     largest value in a neighbourhood".
#   - |-
#     Or move the mask by one place in each of the eight directions and join the nine masks with `|`. Slices do that
#     without going round: `wider[:, 1:] |= mask[:, :-1]`, with a `wider` that is a copy.
#   - |-
#     `torch.nn.functional.max_pool2d` with kernel 3, stride 1 and padding 1, on `mask[None, None].float()`; then
#     `[0, 0].bool()`.
# why: |-
#   Max pooling with stride 1 keeps the grid and looks at all nine places at once; outside of the grid it assumes that
#   nothing is there. A larger ring is a larger window: 2 ring + 1.

# %% tags=["target"]
spots = torch.zeros(2, 4, 6, dtype=torch.bool)                                    # (B, h, w)
spots[0, 1, 3] = spots[1, 0, 0] = spots[1, 3, 4] = True
grown_spots = torch.stack([checks.check_ring.own(spot) for spot in spots])
show(token_maps(torch.cat([spots, grown_spots]).flatten(1), (4, 6), ["one", "another", "ring(one)", "ring(another)"]),
     alt="Two masks on a grid of 4 x 6 tokens and what they become: one token in the middle becomes nine; one in a "
         "corner becomes four, one at the lower border six.",
     caption="Coloured: True. The ring stops at the borders of the grid.")

# %% tags=["stub"]
def ring(mask):
    """The mask (h, w) of truth values, and every token around what is True."""
    ...


# %% tags=["solution"]
def ring(mask):
    """The mask (h, w) of truth values, and every token around what is True."""
    wide = torch.nn.functional.max_pool2d(mask[None, None].float(), kernel_size=3, stride=1, padding=1)  # (1, 1, h, w)
    return wide[0, 0].bool()


# %% tags=["check"]
ring = checks.check_ring(ring)
for place, (row, column) in {"in a corner": (0, 0), "at a border": (0, 1), "inside": (1, 1)}.items():
    spot = torch.zeros(4, 4, dtype=torch.bool)
    spot[row, column] = True
    print(f"one token of 16 {place:11}: {int(torch.as_tensor(ring(spot)).sum())} tokens are drawn anew")

# %% [markdown] tags=["instructor"]
# **Goes wrong:** `torch.roll` and the flat index i + 1. Both let the right border touch the left one, and nobody
# notices as long as the hole is in the middle. Ask for a hole in a corner.
#
# **Say:** the ring is the price of a decoder that mixes. It costs tokens that were right, and the smaller the picture,
# the more of them: of 16 tokens a single one in the middle costs nine.

# %% [markdown]
# A raster model can be asked too: it walks through the hole in reading order. But it cannot look at what comes *after*
# the hole. In the example above the hole is near the end, which is the kindest case for it.
#
# The unkind case: keep the lower half, draw the upper half. The background's colour is nowhere in the caption; it can
# only be seen in the lower half, which for raster order lies in the future. So measure the drawn background, as the
# mean of the pale pixels of the upper half: how far is it from the true one? As a yardstick, the best blind guess:
# always the same colour, the mean over all scenes. (Guidance is off here, since the text has nothing to say about
# backgrounds.)

# %%
upper = torch.zeros(64, 64, dtype=torch.bool)
upper[:32] = True
pictures, captions = fl.EmojiScenes(split="validation", seed=seed + 1).batch(range(num_edits))
pictures = pictures.float() / 127.5 - 1                                           # (B, 3, 64, 64)


def background(pixels):
    """Mean of the pale pixels of the upper half: (B, 3), in levels of 255."""
    flat = pixels[..., :32, :].flatten(2)                                         # (B, 3, 32 W)
    pale = (flat.min(dim=1, keepdim=True).values > 0.5).float()                   # (B, 1, 32 W)
    return (flat * pale).sum(dim=2) / pale.sum(dim=2).clamp(min=1) * 127.5


off, filled = {}, {}
for name in ("random-diffusion", "raster-diffusion"):
    pipe = pipes[name]
    features, mask = pipe.text_encoder(captions)
    tokens = fl.inpaint(pipe.model, pipe.tokenizer.encode(pictures), fl.token_mask(upper, ring=0), features, mask,
                        guidance_scale=1.0, generator=streams(*range(num_edits)), **STEPS)
    filled[name] = pipe.tokenizer.decode(tokens)
    off[name] = float((background(filled[name]) - background(pictures)).abs().mean())
blind = float((background(pictures) - background(pictures).mean(dim=0)).abs().mean())
shown = min(6, num_edits)
sheet = [*pictures[:shown], *(p for name in filled for p in filled[name][:shown])]
show(contact_sheet(sheet, ["true", *(f"{name}\noff by {off[name]:.1f}" for name in filled)],
                   [str(i) for i in range(shown)], scale=2),
     alt="Scenes, and the same scenes with the upper half drawn anew by random and by raster order. Mean error of the "
         "background: " + ", ".join(f"{n} {v:.1f}" for n, v in off.items()) + f", blind guess {blind:.1f}.",
     caption="The lower half is given, the upper half drawn. Look at the background where the halves meet.")
print("background error in levels of 255:", {name: round(value, 1) for name, value in off.items()},
      "blind guess:", round(blind, 1), "  closest to the truth:", min(off, key=off.get))

# %% [markdown]
# ### The loop again, for a hole
# The sampler at the top of this notebook begins with nothing. A hole needs little more: the known tokens stay out of
# the order, and from the first step on the model sees them. To have only the loop in view, the model becomes a function
# here: it is told the tokens and which of them are unknown, and answers with a token for every place.

# %% [markdown] tags=["exercise"]
# title: Fill a hole
# minutes: 15
# level: 3
# task: |-
#   Write `fill(predict, tokens, unknown, order, sizes)` for a single picture of N tokens.
#   - `tokens`, (N,), are numbers; `unknown`, (N,), is True at the tokens of the hole.
#   - `order`, (N,), is a permutation of all positions 0 .. N-1. The hole is filled in this order; positions that are
#     known are skipped.
#   - `sizes` says how many tokens of the hole each step fills; its sum is the size of the hole.
#   - `predict(tokens, unknown)` returns a token for every position, (N,), given what is known. Ask it once a step. Use
#     its answers at the positions of this step alone; in the next step these count as known.
#
#   Return the tokens, (N,). Do not change the tensors that were given.
# right: |-
#   with a model that answers with the number of tokens it knows, the numbers below come out: equal within a step,
#   higher from step to step.
# hints:
#   - "Copy both tensors first. Then make the list of positions to fill: the order without what is known."
#   - "`order[unknown[order]]` is that list. Walk along it, `size` positions a step."
#   - |-
#     In a step: `now = places[filled:filled + size]`, then `tokens[now] = predict(tokens, unknown)[now]`, then
#     `unknown[now] = False`, then `filled += size`.
# why: |-
#   `unknown[order]` reads the mask in the order of filling, and indexing with it keeps the unknown positions in that
#   order. All of a step is asked for at once, before anything of it is written, so the tokens of a step do not see each
#   other. Forgetting to clear `unknown` is the costliest mistake: the picture looks drawn, and every token is drawn
#   blind.

# %% tags=["target"]
def counting(tokens, unknown):
    """A model whose token for each place is the number of tokens that it knows."""
    return (~unknown).sum().to(tokens.dtype).expand(len(tokens))


hole_4x4 = torch.zeros(4, 4, dtype=torch.bool)
hole_4x4[1:, 1:] = True                                                           # 9 of 16 tokens
hole_4x4 = hole_4x4.flatten()                                                     # (N,)
order_4x4 = fl.ORDERS["random"](1).permutation(1, 16, torch.Generator().manual_seed(seed))[0]
empty = torch.zeros(16)
right_ones = [checks.check_fill.own(counting, empty, hole_4x4, order_4x4, sizes) for sizes in ([9], [2, 3, 4], [1] * 9)]
show(token_maps(hole_4x4.expand(3, -1), (4, 4), ["1 step", "steps of 2, 3, 4", "9 steps"], torch.stack(right_ones)),
     alt="A hole of nine tokens, filled by a model that says how many tokens it knows. In one step all say 7; in steps "
         "of 2, 3 and 4 two say 7, three 9, four 12; in nine steps they say 7 to 15, in random order.",
     caption="Coloured: the hole. The number says how many tokens were known when this one was drawn.")

# %% tags=["stub"]
def fill(predict, tokens, unknown, order, sizes):
    """The tokens (N,) with the unknown ones drawn in the given order, as many a step as sizes says."""
    ...


# %% tags=["solution"]
def fill(predict, tokens, unknown, order, sizes):
    """The tokens (N,) with the unknown ones drawn in the given order, as many a step as sizes says."""
    tokens, unknown, filled = tokens.clone(), unknown.clone(), 0
    places = order[unknown[order]]                                                # (hole,) in the order of filling
    for size in sizes:
        now = places[filled:filled + size]
        tokens[now] = predict(tokens, unknown)[now]
        unknown[now] = False
        filled += size
    return tokens


# %% tags=["check"]
fill = checks.check_fill(fill)
for sizes in ([9], [2, 3, 4], [1] * 9):
    drawn = torch.as_tensor(fill(counting, empty, hole_4x4, order_4x4, sizes))
    print(f"steps of {sizes}: a token of the hole knows {float(drawn[hole_4x4].mean()):.1f} others on average")

# %% [markdown]
# Now with a real model: random order, discrete tokens, always the likeliest code, the hole of the scene above in four
# steps. Your loop and the package's must give the same codes.

# %%
pipe = pipes["random-softmax"]
features, mask = pipe.text_encoder([request])
hole = fl.token_mask(pixel_mask, ring=1)                                          # (N,)
with torch.no_grad():
    text, codes = pipe.model.aligner(features, mask), pipe.tokenizer.encode(image[None])[0]  # (N,)

    def likeliest(codes, unknown):
        return pipe.model.head.logits(pipe.model.hidden(codes[None], unknown[None], *text))[0].argmax(dim=-1)

    order = pipe.model.order.permutation(1, 16, streams(seed))[0]                 # (N,)
    sizes = pipe.model.order.chunk_sizes(int(hole.sum()), 4)
    mine = fill(likeliest, codes, hole, order, sizes)
theirs = fl.inpaint(pipe.model, codes[None], hole, features, mask, guidance_scale=1.0, temperature=0.0,
                    num_inference_steps=4, generator=streams(seed))[0]
assert torch.equal(mine, theirs)
pictures_of_codes = pipe.tokenizer.decode(torch.stack([codes, mine]))             # (2, 3, 64, 64)
show(image_grid(pictures_of_codes, titles=["codes of the scene", "hole filled"], scale=3),
     alt=f"The scene ({scene['caption']}) decoded from its codes, and the same with its lower right part drawn anew "
         f"for {request!r}.",
     caption=f"{int(hole.sum())} codes in steps of {sizes}, without guidance, always the likeliest.")

# %% [markdown]
# ## Let a picture grow
# Outpainting is inpainting with the hole outside. There is one obstacle: positions are learned for one grid of 4x4
# tokens, the canvas, and there is no position to the right of it. So the canvas moves: half of it onto the picture,
# half beside it, and the new half is drawn. It may move on as often as you like; what is further away than one canvas
# is forgotten. And the prompt has to describe *that* canvas: what it still sees, and what it shall add.
#
# **Guess first:** a raster model starts in the upper row, and what stands in the lower rows lies in its future. Half
# of what the prompt asks for already stands there. What will it draw?

# %%
right_thing = scene["objects"][1]["class"]
asks = {"right": f"a photo of {with_article(right_thing)} left of an apple",
        "left": f"a photo of an apple left of {with_article(left_thing)}"}
grown = {name: [p for side, ask in asks.items() for p in pipes[name].outpaint(image, ask, **{side: 32}, **three).pixels]
         for name in edits}
show(contact_sheet([p for name in grown for p in grown[name]], list(grown),
                   [f"to the {side}, seed {seed + i}" for side in asks for i in range(3)], scale=2),
     alt=f"The scene ({scene['caption']}) made 32 pixels wider by each order, three times to the right and three times "
         "to the left; in each an apple was asked for beside what is there.",
     caption=f"Asked for: {asks['right']!r} and {asks['left']!r}. The picture in the middle is the given one.")
print("largest change of a given pixel:", max(float((p[:, :, :64] - image).abs().max()) for name in grown
                                              for p in grown[name][:3]))

# %% [markdown]
# Random order sees what is there and adds what is missing. Raster order, on its way through the upper half, has not yet
# seen the lower one, and draws what stands there already; to the right of that the canvas ends, and the apple never
# comes. To the left it does better, for there the new thing comes first in reading order too.
#
# ## Variations
# The third kind of edit: forget a random share of the tokens, whichever they are, and draw them anew with the same
# text. The share, `strength`, is a dial between "the same picture" and "another picture of the same text".

# %%
varied = {strength: pipes["random-diffusion"].variation(image, scene["caption"], strength=strength, seed=seed,
                                                        num_images_per_prompt=6, **STEPS).pixels
          for strength in (0.25, 0.5, 0.75, 1.0)}
moved = {strength: float((pixels - image).abs().mean() * 127.5) for strength, pixels in varied.items()}
show(contact_sheet([p for pixels in varied.values() for p in pixels],
                   [f"strength {strength:g}\nchange {moved[strength]:.1f}" for strength in varied],
                   [f"seed {seed + i}" for i in range(6)], scale=2),
     alt=f"Six variations of the scene ({scene['caption']}) at each of four strengths. Mean change of a pixel, in "
         f"levels of 255: {', '.join(f'{value:.1f} at strength {strength:g}' for strength, value in moved.items())}.",
     caption="Change: of a pixel on average, in levels of 255. At strength 1 nothing is kept but the words.")

# %% [markdown]
# As long as a few tokens are kept, they hold the scene together: where things stand, and on which background. Only when
# the last of them is gone does the model choose a place of its own. (A token that was forgotten comes back a little
# different even where the text leaves no choice: hue, outline, the exact place.)
#
# ## Words that it has never seen
# A prompt may hold any word. The small text encoder has read captions only, so it does not know every word; then the
# pipeline draws something all the same and warns, naming the words. T5-XXL, which the paper uses, has read the web.

# %%
output, notes = heard(lambda: pipes["random-diffusion"]("a photo of a shimmering dragon", seed=seed, **STEPS))
print(*notes, sep="\n")
show(image_grid(output.pixels, scale=3), alt="What random-diffusion draws for 'a photo of a shimmering dragon'.",
     caption="An image all the same: unknown words are ignored, or taken for something else.")

# %% [markdown] tags=["closing"]
# recap:
#   - |-
#     One loop samples every variant: permutation, chunks, `hidden`, `head.sample`.
#   - Guidance moves along the line from "no text" to "text" and beyond it; temperature scales the chance of the head.
#   - More steps over the sequence let tokens see each other; denoising steps help up to ten or so, then only cost time.
#   - |-
#     Raster order can cache, random order can edit: fill a hole, grow a picture, vary it. Both follow from the
#     attention rule.
#   - |-
#     One stream of randomness per image: the same seed is the same picture, in any batch.
# quiz:
#   - q: With guidance scale 0, does the prompt matter? With scale 1, is the null answer needed?
#     a: |-
#       At 0 only the null answer is left, so the prompt does not matter. At 1 the null answer cancels, and the package
#       does not compute it.
#   - q: Why do four seeds of raster + softmax at temperature 0 give one picture, and four of random + softmax need not?
#     a: |-
#       At temperature 0 the likeliest code is taken, and in raster order nothing else is random. Random order still
#       draws its permutation from the seed, and another order of filling leads to another picture.
#   - q: Your random-order model takes 4 steps for 256 tokens. Which mistakes do you expect?
#     a: |-
#       Many tokens are drawn at once without seeing each other: doubled or torn objects, wrong counts, seams.
#   - q: |-
#       Could random order use a cache if its attention were causal along the permutation? What would training have to
#       change?
#     a: |-
#       Yes. It would have to be trained with causal attention along random permutations, being told which position
#       comes next; a token would then see only those drawn before it.
#   - q: Why does inpainting grow the mask by a ring, and why does outpainting do without?
#     a: |-
#       The decoder mixes neighbouring tokens, and tokens at the border have seen the old object. Around a whole picture
#       there was no old object; a ring would only cut off what stands at its border.
# references:
#   - Fan et al., *Fluid*, arXiv 2410.13863.
#   - Li et al., *Autoregressive Image Generation without Vector Quantization* (MAR), arXiv 2406.11838.
#   - Ho and Salimans, *Classifier-Free Diffusion Guidance*, arXiv 2207.12598.
#   - |-
#     Chang et al., *MaskGIT*, arXiv 2202.04200: parallel decoding with a cosine schedule.
#   - |-
#     Nichol and Dhariwal, *Improved Denoising Diffusion Probabilistic Models*, arXiv 2102.09672: re-spaced steps.
