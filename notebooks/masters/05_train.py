# %% [markdown] tags=["front-matter"]
# title: "Train: from scenes to four models"
# goals:
#   - turn pictures and captions into a cache of tokens and say what lies in it and why
#   - know the first loss of a model before it has seen anything, and use that to find mistakes
#   - train all four variants from nothing and read their curves, gradient norms and running means
#   - say which losses may be compared with each other and which may not
#   - stop a run, resume it to the last digit, and read the message of a run that has broken
# needs: "Notebooks 01 to 04; PyTorch training loops"
# hardware: "a laptop CPU with two cores, 2 GB of free memory"
# fast:
#   num_scenes: 192
#   num_validation: 64
#   steps: 8
#   draw_every: 8
#   overfit_steps: 6
#   num_known: [0, 8, 15]
#   num_probes: 16
#   num_denoising_steps: 4

# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 5, do: "Both first losses on paper, from everybody, before anything runs."}
#   - {minutes: 8, do: "The cache; decode it again and ask what is the best that any model can draw here."}
#   - {minutes: 10, do: "Two lines make a variant; the first loss; the step by hand, line by line."}
#   - {minutes: 12, do: "What a step hides, then exercise 5.1."}
#   - {minutes: 25, do: "Learning rate and running mean: exercises 5.2 and 5.3, in pairs, one each, then exchanged."}
#   - {minutes: 10, do: "One batch by heart; start the four trainings and watch the curves grow."}
#   - {minutes: 8, do: "What they drew; which losses may be compared. Take the poll."}
#   - {minutes: 18, do: "Gradients: exercise 5.4."}
#   - {minutes: 10, do: "Raw or mean, stop and resume, when it breaks."}
#   - {minutes: 14, do: "The shipped models, raster against random, recap and quiz."}

# %% [markdown]
# ## What does it take?
# The parts are there: tokenizers, a text encoder, two orders, three heads. All of them meet in one number, the loss.
# This notebook makes that number fall, four times: {raster, random} order x {softmax, diffusion} head, **from random
# weights, on your own machine, in well under a minute each**. Then it looks at the models that come with the course,
# which are the same code with more patience.
#
# Before you start: how large will the very first loss be? You can know it exactly, without running anything. Write
# your two numbers down, one for softmax over 4,096 codes and one for diffusion.

# %% tags=["parameters"]
num_scenes = 4096          # scenes in the training cache
num_validation = 512       # scenes that are never trained on
size = "nano"              # a row of fluidlab.SIZES; "micro" learns more and takes three times as long
steps = 400                # training steps of each variant; 1500 take one to two and a half minutes each
batch_size = 64            # images in a step
lr = 4e-3                  # peak learning rate; small models like large ones
draw_every = 50            # steps between two drawings of the live curves
overfit_steps = 120        # steps on one single batch
num_known = [0, 1, 2, 4, 6, 8, 10, 12, 14, 15]   # known tokens at which the shipped models' losses are measured
num_probes = 128           # scenes for that measurement
num_denoising_steps = 25   # inside the diffusion head when drawing
seed = 0                   # everything random starts here

# %% tags=["needed"]
import contextlib
import io
import json
import math
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

import fluidlab as fl
from fluidlab import checks
from fluidlab.config import data_dir
from fluidlab.evaluate.loss import EncodedScenes, loss_when_known
from fluidlab.model.noise import image_streams, uniform
from fluidlab.train.optim import EMA, learning_rate, make_optimizer
from fluidlab.viz import plots
from fluidlab.viz.plots import contact_sheet, loss_panels, markdown_table, token_maps
from fluidlab.viz.plots_train import clip_figure
from fluidlab.viz.show import image_grid, show, variant_style

VARIANTS = [("raster", "softmax"), ("raster", "diffusion"), ("random", "softmax"), ("random", "diffusion")]
workspace = tempfile.TemporaryDirectory()
folder = Path(workspace.name)                              # gone when the kernel stops

# %% [markdown]
# ## An easy problem first
# EmojiScenes has a dial of difficulty. The shipped models learn all 58 classes and 8 colours in any place. A minute is
# too short for that, so here the dial is turned down: 4 classes, 4 colours, one object per picture, no free offset.
# The code does not change, only the data does.

# %%
dial = dict(num_classes=4, num_colors=4, offset=0, skills=("colors", "single_object"))
scenes = fl.EmojiScenes(split="train", seed=seed, **dial)
held_out = fl.EmojiScenes(split="validation", seed=seed, **dial)
images, captions = scenes.batch(range(8))
show(image_grid(images), alt="Eight scenes with one object each: " + "; ".join(captions),
     caption="All that this notebook's own models will ever see: " + ", ".join(scenes.classes) + ".")

# %% [markdown]
# ## The cache: nothing is encoded twice
# Training reads each picture many times. Tokenizer and text encoder are frozen, so their answers never change: they
# are computed once and kept. The paper's text encoder has 4.7 billion parameters, so at that scale this is no detail:
# by our arithmetic (derived, not measured) caching its answers makes training 3.4 times faster at 369M parameters.
#
# One cache can hold the tokens of both tokenizers, so all four variants see the same pictures in the same order.

# %%
tokenizers = {name: fl.load_tokenizer(name) for name in ("scenes-vae", "scenes-vq")}
text = fl.load_text_encoder("scenes-t5")
started = time.perf_counter()
fl.write_cache(folder / "train", scenes, num_scenes, tokenizers, text, description=dial, progress=False)
fl.write_cache(folder / "validation", held_out, num_validation, tokenizers, text, description=dial, progress=False)
seconds = time.perf_counter() - started
size_mb = sum(f.stat().st_size for f in (folder / "train").rglob("*") if f.is_file()) / 1e6
print(f"{num_scenes + num_validation} scenes in {seconds:.1f} s; the training cache takes {size_mb:.1f} MB")

# %% [markdown]
# What is in it? For every picture its tokens, and for every caption one vector per text token. Texts are kept without
# padding; padding appears only when a batch is gathered, together with the mask that says what is real.

# %%
KIND = {"softmax": "scenes-vq", "diffusion": "scenes-vae"}
train_data = {head: fl.TokenCache(folder / "train", name) for head, name in KIND.items()}
validation_data = {head: fl.TokenCache(folder / "validation", name) for head, name in KIND.items()}
for data in train_data.values():
    tokens, features, mask = data.gather(range(8))
    print(f"{data.kind:10}  tokens {tuple(tokens.shape)} {tokens.dtype}, features {tuple(features.shape)}, "
          f"real text tokens {mask.sum(dim=1).tolist()}")
print("the first picture as codes:", train_data["softmax"].gather([0])[0][0].tolist())

# %% [markdown]
# Is the picture still in there? Decode the cached tokens. This is also the upper bound of everything that follows: a
# model that predicts tokens perfectly draws exactly these pictures and none better.

# %%
decoded = [tokenizers[KIND[head]].decode(data.gather(range(6))[0]) for head, data in train_data.items()]
sheet = contact_sheet([*images[:6], *decoded[1], *decoded[0]], ["scene", "16 tokens of\n16 numbers", "16 codes"],
                      captions[:6], scale=2)
show(sheet, alt="Six scenes, and below them the same scenes decoded from continuous and from discrete tokens.",
     caption="Row 2 is what the diffusion models learn to write, row 3 what the softmax models learn to write.")

# %% [markdown]
# ## Two lines define a variant
# Order and head are two independent choices; everything else is shared.

# %%
config = fl.preset(size, order="random", head="diffusion", **train_data["diffusion"].model_facts())
model = fl.Fluid(config)

# %%
def new_model(order, head):
    torch.manual_seed(seed)
    return fl.Fluid(fl.preset(size, order=order, head=head, **train_data[head].model_facts()))


models = {f"{order}-{head}": new_model(order, head) for order, head in VARIANTS}
show(plots.part_bars({name: m.count_parameters() for name, m in models.items()}),
     alt="Parameters by part. " + "; ".join(f"{n}: " + ", ".join(f"{p} {c:,}" for p, c in m.count_parameters().items())
                                           for n, m in models.items()),
     caption="The backbone is the same in all four. Only the head differs: a table of codes, or a small denoiser.")

# %% [markdown]
# The table of codes is part of the softmax head: one row per code, used twice (once to embed, once to score). At toy
# size that table is most of the model. So "the same size" needs a definition: the same backbone, or the same total?
# The course keeps the backbone the same, and prints both.
#
# ## The first loss is known
# An untrained softmax head scores all $V$ codes alike, so each has probability $1/V$ and the loss is $\log V$. An
# untrained diffusion head outputs exactly zero (its last layer starts at zero), so its squared error is the mean
# square of the noise that it should have predicted, which is 1. Compare with what you wrote down.

# %%
FIRST = {"softmax": math.log(tokenizers["scenes-vq"].codebook_size), "diffusion": 1.0}
rows = []
for order, head in VARIANTS:
    tokens, features, mask = train_data[head].gather(range(min(num_scenes, 256)))
    with torch.no_grad():
        loss = float(models[f"{order}-{head}"](tokens, features, mask, torch.Generator().manual_seed(seed)))
    rows.append({"variant": f"{order}-{head}", "known": FIRST[head], "measured": loss, "off by": loss - FIRST[head]})
    assert abs(loss / FIRST[head] - 1) < 0.05
display(Markdown(markdown_table(rows)))

# %% [markdown]
# No test is cheaper. A first loss that is off means wrong targets, wrong scaling or a leak,
# and you know it before the first step.

# %% [markdown] tags=["instructor"]
# **Say:** whoever knows a number before the run owns the run. Write the first losses large on the board and leave them
# there.
#
# **Poll:** a first softmax loss of 12, with 4,096 codes. Is that better or worse than knowing nothing?
#
# <details><summary>Answer</summary>
#
# Worse: $\log 4096 = 8.3$ is what a model pays that gives all codes the same chance. At 12 it is sure of wrong codes;
# its first weights are too large, or the logits are not scaled.
#
# </details>

# %% [markdown]
# ## One step, by hand
# A training step is seven lines. Here they are, with three details that matter: some captions are hidden, the gradient
# is clipped, and a running mean of the weights is kept. Then the package's `Trainer` does the same, and the two must
# agree up to rounding, because everything random in step $n$ follows from the pair (seed, $n$).

# %%
recipe = fl.TrainConfig(steps=steps, batch_size=batch_size, lr=lr, warmup_steps=max(1, steps // 10), seed=seed,
                        ema_decay=0.99, log_every=0, validate_every=0, save_every=0)


def step_by_hand(model, optimizer, ema, data, n):
    streams = image_streams(recipe.seed, n, range(recipe.batch_size))              # one for every image
    tokens, features, mask = data.batch(n, recipe.batch_size, recipe.seed)
    keep = uniform((len(mask), 1), streams, "cpu") >= recipe.text_dropout          # (B, 1) False = no caption
    loss = model(tokens, features, mask & keep, streams)                           # scalar
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, n)
    optimizer.step()
    optimizer.zero_grad()
    ema.update(model)
    return loss.item()


model = new_model("random", "diffusion")
optimizer, ema = make_optimizer(model, recipe), EMA(model, recipe.ema_decay)
by_hand = [step_by_hand(model, optimizer, ema, train_data["diffusion"], n) for n in range(3)]
trainer = fl.Trainer(new_model("random", "diffusion"), train_data["diffusion"], recipe)
by_trainer = [trainer.step().loss for _ in range(3)]
print("by hand   ", by_hand)
print("by Trainer", by_trainer)
assert torch.allclose(torch.tensor(by_hand), torch.tensor(by_trainer), rtol=1e-5)

# %% [markdown]
# ## What a step hides
# Two things are hidden from the model on purpose.
#
# **Tokens.** Random order hides a share $r = \cos(\pi u / 2)$ of the tokens, with $u$ uniform: mostly many, sometimes
# few, $2/\pi \approx 0.64$ on average (derived), a little more once it is rounded up to whole tokens. That this is
# what the paper does is not confirmed. Raster order hides by causality instead: all 16 tokens are targets in every
# step.
#
# **Text.** One caption in ten is replaced by "no text". Without this the model would have nothing to say when asked
# what a picture looks like *without* a prompt, and guidance (notebook 06) needs exactly that.

# %%
order = models["random-diffusion"].order
hidden = order.targets(4000, 16, torch.Generator().manual_seed(seed)).sum(dim=1)     # (4000,)
keep = torch.rand(4000, generator=torch.Generator().manual_seed(seed)) >= recipe.text_dropout
figure, axis = plt.subplots(figsize=(8, 2.8))
axis.hist(hidden.numpy(), bins=torch.arange(0.5, 17.5).tolist(), color=variant_style("random", "diffusion")["color"])
axis.axvline(float(hidden.float().mean()), color="black", linestyle=":")
axis.set(xlabel="hidden tokens of 16", ylabel="of 4,000 images", xticks=range(1, 17))
show(figure, alt=f"Histogram of hidden tokens per image, rising towards 16, mean {hidden.float().mean():.2f}.",
     caption=f"Dotted: the mean, {hidden.float().mean() / 16:.3f} of all tokens. "
             f"Captions hidden in the same 4,000 images: {int((~keep).sum())}.")

# %% [markdown]
# Only hidden tokens are predicted, so only they count in the loss, and their number differs from image to image. How do
# they become one number? The model computes a loss for every token, and then takes the mean over those that count, all
# of the batch together.

# %% [markdown] tags=["exercise"]
# title: Which tokens count
# minutes: 8
# level: 1
# task: |-
#   Write `mean_over_hidden(losses, hidden)`. `losses`, (B, N), holds a loss for each of N tokens of B images; `hidden`,
#   (B, N) truth values, says which tokens were hidden. Return one number (a tensor of shape ()): the mean loss of the
#   hidden tokens of the whole batch, in which **each hidden token counts the same**. At least one token is hidden.
# right: "for the two images below it gives 1.5, not 2.6, which is the mean of the two images' means."
# hints:
#   - "What do you add up, and how many numbers are that? Both times it is the hidden tokens alone."
#   - "A truth value counts as 0 or 1: `losses * hidden` leaves what counts, `hidden.sum()` says how many that are."
#   - "`(losses * hidden).sum() / hidden.sum()`"
# why: |-
#   An image with a single hidden token would weigh as much as one with sixteen, if each image were averaged first. Then
#   its one token would move the weights sixteen times as far. The sum over tokens, divided once, has no such
#   favourites. It is also what makes splitting a batch safe: sums of parts can be added and divided at the end, means
#   cannot.

# %% tags=["target"]
two_losses = torch.tensor([[1.0, 1.5] * 5 + [9.0] * 6, [9.0] * 12 + [4.0] + [9.0] * 3])    # (2, N)
two_hidden = torch.tensor([[True] * 10 + [False] * 6, [False] * 12 + [True] + [False] * 3])
right_answer = checks.check_mean_over_hidden.own(two_losses, two_hidden)
show(token_maps(two_hidden, (4, 4), ["10 of 16 hidden, mean 1.25", "1 of 16 hidden, mean 4"], two_losses),
     alt="Two images as grids of 16 losses. In the first ten tokens count, with a mean of 1.25; in the second a single "
         "one, with 4.0.",
     caption=f"Coloured tokens count. The loss of the batch: {right_answer:.2f}.")

# %% tags=["stub"]
def mean_over_hidden(losses, hidden):
    """The loss of a batch, shape (): the mean of losses (B, N) over the tokens where hidden (B, N) is True."""
    ...


# %% tags=["solution"]
def mean_over_hidden(losses, hidden):
    """The loss of a batch, shape (): the mean of losses (B, N) over the tokens where hidden (B, N) is True."""
    return (losses * hidden).sum() / hidden.sum()


# %% tags=["check"]
mean_over_hidden = checks.check_mean_over_hidden(mean_over_hidden)
masks = fl.ORDERS["random"](1).targets(4000, 16, torch.Generator().manual_seed(seed))      # (B, N)
harder = 0.5 + masks.float().mean(dim=1, keepdim=True).expand(-1, 16)                      # (B, N) the more are hidden
print(f"a batch whose tokens are the harder, the more are hidden: {mean_over_hidden(harder, masks):.3f}")
print(f"the mean of its images' means would say:                  {harder[:, 0].mean():.3f}")

# %% [markdown]
# ## Learning rate and running mean
# The rate climbs for a tenth of the run, then falls along a cosine. The climb matters because AdamW divides by a
# running size of the gradient that it does not know yet.
#
# The running mean (EMA) of the weights is what gets validated, drawn with and shipped. A decay of 0.9999 averages
# over about 10,000 steps, so at the start the mean would be little more than the random initialisation. Hence the
# warm-up: decay $\min(d, \frac{1+n}{10+n})$ at update $n$. The right panel shows how much of the random start is left
# at 0.9999.

# %%
def left_of_start(decay, warm, updates):
    """Share of the initial weights in the running mean after 1, 2, ... updates."""
    share, shares = 1.0, []
    for n in range(updates):
        share *= min(decay, (1 + n) / (10 + n)) if warm else decay
        shares.append(share)
    return shares


figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
left.plot([learning_rate(recipe, n) for n in range(steps)], color="black")
left.plot([learning_rate(recipe.replace(schedule="constant"), n) for n in range(steps)], color="grey", linestyle=":")
left.set(xlabel="step", title="learning rate", ylim=(0, None))
for warm, line in ((True, "-"), (False, ":")):
    right.plot(range(1, 1001), left_of_start(0.9999, warm, 1000), linestyle=line, color="black",
               label="with warm-up" if warm else "without")
right.set(xlabel="update", xscale="log", title="random start left in the mean")
right.legend()
cold = left_of_start(0.9999, False, 1000)[-1]
show(figure, alt="Left: rate with warm-up and cosine, and constant after warm-up. Right: share of the initial weights "
     f"in the running mean; without warm-up {cold:.2f} is left after 1,000 updates.",
     caption=f"Without warm-up {cold:.0%} of the random start is still in the mean after 1,000 updates.")

# %% [markdown]
# The course's large presets keep the rate constant instead (dotted). Whether the paper used 1e-4 after 65,000 warm-up
# steps for continuous tokens and a cosine for discrete ones is not confirmed.

# %% [markdown] tags=["exercise"]
# title: A learning rate that climbs and falls
# minutes: 12
# level: 2
# task: |-
#   Write `rate(step, steps, warmup, peak, floor)`, the learning rate of a step. Steps are counted from 0 to
#   `steps - 1`; `warmup` steps, fewer than `steps` and possibly none, belong to the climb.
#   - In the warm-up the rate climbs in equal parts, and its last step has the peak: step 0 has peak / warmup, step 1
#     twice as much, step warmup - 1 has `peak`.
#   - After it, the share of the fall that is done is `(step - warmup) / (steps - warmup)`. Over this share, from 0 to
#     1, the rate follows half a period of a cosine: from `peak` down to `floor` x `peak`, flat at both ends.
# right: "the curve for 100 steps, 20 of them warm-up, looks like the one below."
# hints:
#   - "Two cases: `if step < warmup`. In the first, which step has the whole peak?"
#   - |-
#     A cosine runs from 1 to -1 while its angle runs from 0 to pi. `(1 + cos(pi p)) / 2` therefore runs from 1 to 0.
#   - "What falls from 1 to `floor`: `floor + (1 - floor) * (1 + math.cos(math.pi * p)) / 2`. Times the peak."
# why: |-
#   The fall is flat at both ends: it stays near the peak as long as much is to be learned, and comes to rest at the
#   end, where small steps let the noise of the batches average out. Counting the warm-up from 1 spares a first step at
#   rate 0, which would compute a gradient and throw it away.

# %% tags=["target"]
tried = fl.TrainConfig(steps=100, warmup_steps=20, lr=4e-3, final_lr=0.1)
figure, axis = plt.subplots(figsize=(7, 2.8))
axis.plot([learning_rate(tried, n) for n in range(100)], ".-", color="black")
axis.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
show(figure, alt="The rate climbs along a line from 0.0002 at step 0 to 0.004 at step 19, then falls along half a "
                 "period of a cosine to a little more than 0.0004 at step 99.",
     caption="rate(step, 100, 20, 4e-3, 0.1) for all steps, when it is right.")

# %% tags=["stub"]
def rate(step, steps, warmup, peak, floor):
    """The learning rate of a step from 0 to steps - 1: up to peak, then along a cosine to floor x peak."""
    ...


# %% tags=["solution"]
def rate(step, steps, warmup, peak, floor):
    """The learning rate of a step from 0 to steps - 1: up to peak, then along a cosine to floor x peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)


# %% tags=["check"]
rate = checks.check_rate(rate)
rates = [rate(n, steps, max(1, steps // 10), lr, 0.05) for n in range(steps)]
print(f"this notebook's runs: first rate {rates[0]:.2e}, highest {max(rates):.2e}, last {rates[-1]:.2e}, "
      f"mean {sum(rates) / steps:.2e}")

# %% [markdown]
# And the running mean. It is one line for each tensor of weights, and yet it goes wrong often: the two shares are
# easily exchanged, and a forgotten warm-up shows only when somebody looks at pictures.

# %% [markdown] tags=["exercise"]
# title: The running mean of the weights
# minutes: 10
# level: 2
# task: |-
#   Write `ema_update(mean, weights, decay, n)`. `mean` and `weights` are lists of tensors, in pairs of the same shape:
#   the running mean so far and the weights of now. Of the old mean a share is kept, the rest comes from the weights.
#   The share is `decay`, but at update `n`, **counted from 0**, it is at most `(1 + n) / (10 + n)`. Return the new
#   means as a list, and leave the tensors that were given as they are.
# right: "after the first update a tenth of the start is left, and the mean follows a jump as in the figure."
# hints:
#   - "Compute the share first, with `min`. What is it at n = 0? So how much of the first mean is left?"
#   - "`share * old + (1 - share) * new`, for each pair of `zip(mean, weights)`."
# why: |-
#   Early on, the weights change fast and the mean should forget the random start: it keeps a tenth, then two elevenths.
#   Later the share comes close to 1 and the mean runs over many steps. The given decay is the limit of its memory. The
#   package writes into the old tensors instead, since at 10.5 billion weights a second copy would cost 42 GB.

# %% tags=["target"]
def followed(update, decay, updates=60):
    """A weight that jumps to 1 with the first step, and how its mean follows from 0: a list of numbers."""
    mean, seen = [torch.tensor([0.0])], []
    for n in range(updates):
        mean = update(mean, [torch.tensor([1.0])], decay, n)
        seen.append(float(mean[0]))
    return seen


own = checks.check_ema_update.own
warm, cold = followed(own, 0.99), followed(lambda mean, weights, decay, n: own(mean, weights, decay, 10**9), 0.99)
figure, axis = plt.subplots(figsize=(7, 2.8))
axis.plot(range(1, 61), warm, color="black", label="decay 0.99, with warm-up")
axis.plot(range(1, 61), cold, ":", color="black", label="decay 0.99, without")
axis.set(xlabel="update", ylabel="mean", ylim=(0, 1.05))
axis.legend()
show(figure, alt=f"A weight jumps from 0 to 1. With warm-up its mean is at {warm[0]:.2f} after the first update and "
                 f"near 1 soon after; without warm-up it has come to {cold[-1]:.2f} after 60 updates.",
     caption="The weight is 1 from the first step on, its mean begins at 0.")

# %% tags=["stub"]
def ema_update(mean, weights, decay, n):
    """The running means after update n = 0, 1, ...: a list like mean and weights, which are lists of tensors."""
    ...


# %% tags=["solution"]
def ema_update(mean, weights, decay, n):
    """The running means after update n = 0, 1, ...: a list like mean and weights, which are lists of tensors."""
    share = min(decay, (1 + n) / (10 + n))
    return [share * old + (1 - share) * new for old, new in zip(mean, weights, strict=True)]


# %% tags=["check"]
ema_update = checks.check_ema_update(ema_update)
for first in (0, 100, 10_000):
    mean, n = [torch.tensor([0.0])], first
    while mean[0] < 0.5:
        mean, n = ema_update(mean, [torch.tensor([1.0])], 0.9999, n), n + 1
    print(f"decay 0.9999, a weight jumps at update {first:6,}: the mean has followed half of it after {n - first:3}")

# %% [markdown] tags=["instructor"]
# **Goes wrong:** `share * new + (1 - share) * old`. With a decay of 0.9999 that mean is the last weights to four
# digits: training looks fine, validation looks fine, and nobody notices that there is no mean at all.

# %% [markdown]
# ## Can it learn at all? One batch by heart
# Before a long run, a short question: can the model learn eight pictures by heart? Masks, times and noise are frozen
# too, so that nothing keeps the loss up. If this fails, no amount of data will help.

# %%
def overfit(order, head):
    model, (tokens, features, mask) = new_model(order, head), train_data[head].gather(range(8))
    optimizer, losses = make_optimizer(model, recipe.replace(weight_decay=0.0)), []
    for _ in range(overfit_steps):
        loss = model(tokens, features, mask, torch.Generator().manual_seed(seed))    # same noise
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return list(range(1, overfit_steps + 1)), losses


memorised = {f"{order}-{head}": overfit(order, head) for order, head in VARIANTS}
left = ", ".join(f"{name} {losses[-1] / losses[0]:.1%}" for name, (_, losses) in memorised.items())
show(loss_panels(memorised, first=FIRST), alt=f"Losses on one frozen batch of eight pictures. What is left: {left}.",
     caption=f"Left of the first loss: {left}.")

# %% [markdown]
# ## Now train all four
# The real thing: fresh batches, fresh masks and noise in each step. The curves below grow while you watch. Each
# variant gets the same pictures in the same order, the same number of steps and the same recipe.
#
# Two extra things are noted on the way, because we want to look at them afterwards: the size of the gradient before
# clipping, and a second running mean *without* warm-up.

# %%
live = plots.LiveCurves(draw_every, window=20, first=FIRST)
display(live.widget)
trainers, norms, cold_means, minutes = {}, {}, {}, []
for order, head in VARIANTS:
    name = f"{order}-{head}"
    trainer = trainers[name] = fl.Trainer(new_model(order, head), train_data[head], recipe)
    cold_means[name], norms[name] = EMA(trainer.model, 0.9999), []
    cold_means[name].updates = 10**9                       # pretend that its warm-up is long over
    note = live.watch(name)

    def on_record(record, trainer=trainer, note=note, name=name):
        note(record)
        norms[name].append(record.grad_norm)
        cold_means[name].update(trainer.model)

    started = time.perf_counter()
    fl.train(trainer, progress=False, on_record=on_record)
    seconds = time.perf_counter() - started
    minutes.append({"variant": name, "seconds": round(seconds, 1), "images/s": round(steps * batch_size / seconds)})
live.draw()

# %%
display(Markdown(markdown_table(minutes)))
print(f"each variant has seen {steps * batch_size:,} images: every scene of the cache "
      f"{steps * batch_size / num_scenes:.1f} times")

# %% [markdown]
# Look at the units before you compare. The left axis counts nats: how surprised is the model by the right code? The
# right axis counts squared error: how far is the predicted noise from the true noise? **A softmax loss and a diffusion
# loss can never be compared with each other.** We come back to raster against random below.

# %% [markdown] tags=["instructor"]
# **Poll:** in random order the diffusion loss fell from 1 to about 0.2, the softmax loss from 8.3 to about 4.7. Which
# has learned more?
#
# <details><summary>Answer</summary>
#
# The numbers do not say: neither unit can be turned into the other, and both have floors that nobody knows. Look at
# what they draw.
#
# </details>
#
# **Say:** the next pictures are the first honest comparison of this notebook, and six prompts with one seed are too few
# for a verdict.

# %% [markdown]
# ## What did each learn to draw?
# Expect coloured blobs with a beginning of shape and a finished animal here and there: these are small models after a
# short run. A square of coloured noise is a token whose walk went astray. What to look for: is the colour right? Is
# there one object? Could you name it?

# %%
prompts = ["a photo of a cat", "a photo of a red apple", "a photo of a yellow dog", "a photo of a red banana",
           "a photo of an orange cat", "a photo of a banana"]


def pipeline(model, head):
    return fl.FluidPipeline(model, tokenizers[KIND[head]], text)


drawn = {}
for order, head in VARIANTS:
    pipe = pipeline(trainers[f"{order}-{head}"].averaged(), head)
    drawn[f"{order}-{head}"] = pipe(prompts, seed=seed, num_denoising_steps=num_denoising_steps).pixels
short = [prompt.removeprefix("a photo of ") for prompt in prompts]
show(contact_sheet([p for pixels in drawn.values() for p in pixels], [n.replace("-", "\n") for n in drawn], short,
                   scale=2),
     alt="Six prompts (columns) drawn by the four variants (rows) after a short training: " + "; ".join(prompts),
     caption=f"After {steps * batch_size:,} images each. One seed, nothing picked by hand.")

# %% [markdown]
# ## Gradients: what clipping does
# When the loss is steep, one batch can throw the weights far away. Clipping shortens the whole gradient to length 1
# when it is longer and leaves its direction alone.

# %%
figure, axis = plt.subplots(figsize=(8, 3.2))
for name, values in norms.items():
    axis.plot(plots.smooth(values, 10), **{**variant_style(*name.split("-")), "marker": None})
axis.axhline(recipe.clip, color="black", linestyle=":", label="clip")
axis.set(xlabel="step", ylabel="gradient norm", ylim=(0, None))
axis.legend(ncols=3, fontsize=10)
clipped = ", ".join(f"{n} {sum(v > recipe.clip for v in values) / len(values):.0%}" for n, values in norms.items())
show(figure, alt=f"Gradient norms of the four variants over the steps. Shortened: {clipped} of the steps.",
     caption=f"Steps in which the gradient was shortened: {clipped}.")

# %% [markdown]
# "The whole gradient" is the point. A model has hundreds of tensors of weights, each with a gradient; together they are
# one long vector, and its length is what is looked at. Two wrong ways are popular: to clip every tensor, or even every
# number, by itself. Both change the direction, so that the step no longer leads where the loss falls fastest.

# %% [markdown] tags=["exercise"]
# title: Clip the whole gradient
# minutes: 15
# level: 3
# task: |-
#   Write `clip_gradients(gradients, limit)`. `gradients` is a list of tensors of various shapes; an entry may be
#   `None`, for weights that took no part in this loss. The length of the whole gradient is the root of the sum of the
#   squares of **all** its numbers. If it is larger than `limit`, multiply every tensor by the one factor that makes the
#   length equal to `limit`; if not, leave the numbers as they are. Return two things: the list of the clipped
#   gradients, with `None` where there was `None`, and the length **before** clipping. Do not change the tensors that
#   were given.
# right: "long arrows end on the circle and keep their direction, short ones stay as they are."
# hints:
#   - "First the length: for each tensor `g.square().sum()`, add these up over the tensors, then one root."
#   - "The factor is `limit / length`, but never more than 1."
#   - |-
#     `factor = min(1.0, limit / float(length))`, then a list: `None` for `None`, else `factor * g`. A length of 0 would
#     be a division by zero; `max(length, 1e-12)` takes care of it.
# why: |-
#   One factor for all keeps the direction, and the direction is what the gradient knows. The length is returned because
#   it is the best early warning: it climbs before the loss does. PyTorch's `clip_grad_norm_` does the same in place,
#   and with sharded weights it must add up the squares of all devices before it takes the root.

# %% tags=["target"]
arrows = torch.tensor([[2.4, 0.9], [-0.5, 2.0], [-1.9, -1.2], [0.4, -0.6], [0.8, -2.2]])  # (M, 2) gradients
whole_ones = torch.stack([torch.cat(checks.check_clip_gradients.own(list(arrow[:, None]), 1.0)[0]) for arrow in arrows])
show(clip_figure(arrows, {"right: the whole gradient": whole_ones, "wrong: each number": arrows.clamp(-1, 1)}, 1.0),
     alt="Five arrows. Left, clipped right: four end on the circle of radius 1 and point as before, the short one is "
         "unchanged. Right, each number cut off at 1: the arrows point elsewhere and end outside of the circle.",
     caption="Grey: before. Green: after. Each arrow is the gradient of a model with two weights.")

# %% tags=["stub"]
def clip_gradients(gradients, limit):
    """The gradients (a list of tensors or None) with a whole length of at most limit, and their length before."""
    ...


# %% tags=["solution"]
def clip_gradients(gradients, limit):
    """The gradients (a list of tensors or None) with a whole length of at most limit, and their length before."""
    length = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
    factor = min(1.0, limit / max(length, 1e-12))
    return [None if g is None else factor * g for g in gradients], length


# %% tags=["check"]
clip_gradients = checks.check_clip_gradients(clip_gradients)
clipped_ones, length = clip_gradients([torch.full((1000,), 0.1), None, torch.full((30, 30), -0.1)], 1.0)
print(f"1,900 numbers of size 0.1 have the length {float(length):.3f}; clipped to 1 they have size "
      f"{float(clipped_ones[0][0]):.4f}")

# %% [markdown]
# On a real model: the gradient of one batch, clipped by your function and by PyTorch's.

# %%
model = new_model("random", "softmax")
model(*train_data["softmax"].gather(range(8)), torch.Generator().manual_seed(seed)).backward()
mine, length = clip_gradients([p.grad for p in model.parameters()], 0.1)
theirs = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)                 # in place, into p.grad
for mine_one, p in zip(mine, model.parameters(), strict=True):
    torch.testing.assert_close(mine_one, p.grad)
print(f"{sum(g is not None for g in mine)} tensors, length {float(length):.4f}, by PyTorch {float(theirs):.4f}")

# %% [markdown]
# ## Raw weights or their running mean?
# Validation uses fixed masks, times and noise, so the same weights always give the same number, and a difference is a
# difference between weights. Three sets of weights from the same run:

# %%
rows = []
for order, head in VARIANTS:
    name = f"{order}-{head}"
    trainer, data = trainers[name], validation_data[head]
    cold = cold_means[name].copy_to(new_model(order, head))
    rows.append({"variant": name, "unit": "nats" if head == "softmax" else "squared error",
                 "raw": fl.validation_loss(trainer.model.eval(), data, num_validation),
                 "running mean": fl.validation_loss(trainer.averaged(), data, num_validation),
                 "mean without warm-up": fl.validation_loss(cold, data, num_validation)})
display(Markdown(markdown_table(rows)))

# %% [markdown]
# The mean without warm-up is hardly trained: most of it is still the random start. The warmed mean and the raw
# weights are close here, because the learning rate has already fallen to nearly nothing and the last weights are
# quiet. In a run with a constant rate, or when it is stopped in the middle, the mean is usually the better one.
#
# ## Stop and resume
# Long runs get interrupted. A checkpoint holds weights, running mean and AdamW's two moments; batch order and noise
# need no state, since those of step $n$ depend on the seed and $n$ only. So a run that was stopped must give the
# *same losses to the last digit* as one that was not. Below, Ctrl-C is pressed after step 6 of 12.

# %%
short_recipe = recipe.replace(steps=12, warmup_steps=4)


def fresh_trainer():
    return fl.Trainer(new_model("random", "diffusion"), train_data["diffusion"], short_recipe)


def press_ctrl_c(record):
    if record.step == 6:
        raise KeyboardInterrupt


whole = [record.loss for record in fl.train(fresh_trainer(), progress=False)]
said = io.StringIO()
try:
    with contextlib.redirect_stdout(said):
        fl.train(fresh_trainer(), folder / "run", progress=False, on_record=press_ctrl_c)
except KeyboardInterrupt:
    print(said.getvalue().strip().replace(str(folder), "."))
resumed = [record.loss for record in fl.train(fresh_trainer(), folder / "run", resume=True, progress=False)]
for n, (one, other) in enumerate(zip(whole[6:], resumed, strict=True), start=7):
    print(f"step {n:2}   uninterrupted {one!r:20}   resumed {other!r:20}")
assert whole[6:] == resumed

# %% [markdown]
# Another seed gives another run: other initial weights, batches, masks and noise. How far apart two seeds end is the
# yardstick for every claim of the kind "A beats B".

# %%
def losses_of(number):
    torch.manual_seed(number)
    model = fl.Fluid(config)
    trainer = fl.Trainer(model, train_data["diffusion"], short_recipe.replace(seed=number))
    return [round(record.loss, 4) for record in fl.train(trainer, progress=False)][-4:]


print("seed 1      ", losses_of(1))
print("seed 1 again", losses_of(1))
print("seed 2      ", losses_of(2))

# %% [markdown]
# ## When it breaks
# A learning rate that is far too large throws the weights into numbers that overflow. The loss becomes "not a number",
# and from then on everything is. The trainer refuses to go on, and says what to do.

# %%
broken = fl.Trainer(new_model("random", "diffusion"), train_data["diffusion"], short_recipe.replace(lr=1e25))
try:
    fl.train(broken, progress=False)
except FloatingPointError as error:
    print(error)
print("largest weight by then:", f"{max(float(p.detach().abs().max()) for p in broken.model.parameters()):.1e}")

# %% [markdown]
# ## Half the bits
# Large runs multiply matrices in bf16: 8 bits of exponent as in float32, so nothing overflows, but only 8 bits of
# precision. What is delicate stays in float32: the diffusion arithmetic, norms and softmax. fp16 has the opposite
# bargain (more precision, little range) and turns an untrained model into NaN; the course never uses it.
# Whether bf16 is faster depends on the processor: those without instructions for it are slower.

# %%
tokens, features, mask = train_data["diffusion"].gather(range(min(num_scenes, 256)))
model = trainers["random-diffusion"].model
with torch.no_grad():
    full = model(tokens, features, mask, torch.Generator().manual_seed(seed))
    with torch.autocast("cpu", torch.bfloat16):
        half = model(tokens, features, mask, torch.Generator().manual_seed(seed))
took = {}
for precision in ("float32", "bf16"):
    trainer = fl.Trainer(new_model("random", "diffusion"), train_data["diffusion"], recipe.replace(precision=precision))
    trainer.step()
    started = time.perf_counter()
    for _ in range(4):
        trainer.step()
    took[precision] = (time.perf_counter() - started) / 4
print(f"loss in float32 {float(full):.5f}, in bf16 {float(half):.5f}")
print(f"a step on this machine: float32 {took['float32']:.3f} s, bf16 {took['bf16']:.3f} s")

# %% [markdown]
# ## The models that come with the course
# The same code, the `mini` preset, all classes and colours, and many more images. Their curves lie in
# `data/results.csv`, where each number stands beside the command that made it; the recipe lies beside the weights.

# %%
curves = plots.result_curves("train_loss", preset="mini")
curves = {f"{order}-{head}": curves[f"{order}-{head}"] for order, head in VARIANTS}
show(loss_panels(curves, first=FIRST), alt="Training losses of the four shipped models over their steps; last values: "
     + ", ".join(f"{name} {losses[-1]:.3f}" for name, (_, losses) in curves.items()),
     caption="The shipped models. Dotted: a model that knows nothing.")

# %%
validation = plots.result_curves("val_loss", preset="mini")
made = {n: json.loads((data_dir() / f"{n}-mini" / "training.json").read_text(encoding="utf-8")) for n in curves}
display(Markdown(markdown_table([
    {"variant": name, "steps": facts["train"]["steps"], "images seen": facts["images"],
     "training loss": curves[name][1][-1], "validation loss": validation[name][1][-1],
     "unit": "nats" if "softmax" in name else "squared error"} for name, facts in made.items()])))
for facts in made.values():
    print(facts["command"])

# %% [markdown]
# How many minutes that took on which machine stands in `data/README.md`, with the commands that made the caches. Now
# four of the prompts above, and two that need a number and a layout. Nothing is picked by hand.

# %%
more = [*prompts[:4], "a photo of two dogs", "a photo of a cat left of an umbrella"]
pipes = {f"{order}-{head}": fl.FluidPipeline.from_pretrained(f"{order}-{head}-mini") for order, head in VARIANTS}
pixels = [p for pipe in pipes.values()
          for p in pipe(more, guidance_scale=2.0, temperature=0.5, seed=seed,     # what suits most (notebook 07)
                        num_denoising_steps=num_denoising_steps).pixels]
show(contact_sheet(pixels, [name.replace("-", "\n") for name in pipes],
                   [prompt.removeprefix("a photo of ") for prompt in more], scale=2),
     alt="Six prompts (columns) drawn by the four shipped models (rows): " + "; ".join(more),
     caption="The shipped models: same code as yours above, more classes, more parameters, more images.")

# %% [markdown]
# ## May raster and random be compared by their loss?
# Both count the same unit now, say squared error. Still no: **they answer different questions.** Raster order
# predicts every token from all tokens before it. Random order predicts the hidden tokens from those that happen to be
# known. The average loss mixes easy and hard questions in different shares.
#
# The figure takes the average apart: the loss of a token when $k$ others are known. Before you look: should the curves
# rise or fall? At which $k$ should the two orders agree?

# %%
probe_scenes = fl.EmojiScenes(split="validation", seed=seed)
by_known = {}
for name, pipe in pipes.items():
    probe = EncodedScenes(probe_scenes, pipe.tokenizer, pipe.text_encoder, num_probes)
    by_known[name] = (num_known, [loss_when_known(pipe.model, probe, k, num_probes) for k in num_known])
show(loss_panels(by_known, xlabel="tokens that are known"),
     alt="Loss of the shipped models against the number of known tokens: "
         + "; ".join(f"{n} from {v[0]:.2f} at {k[0]} to {v[-1]:.2f} at {k[-1]}" for n, (k, v) in by_known.items()),
     caption="Random order is trained on all of these questions. Its mean depends on how often each is asked.")

# %% [markdown]
# They should agree at $k = 0$, where both know nothing but the text; and even there raster is asked about the upper
# left corner only, random order about any place.
#
# Random order asks about all places at any $k$, so its curve shows what knowing more is worth. For raster order each
# $k$ is one place of the picture ($k = 4$ is the start of the second row), so its curve mixes what is known with where
# it looks. Neither curve is a verdict on the other, not even point by point. A fair comparison needs a judge that looks
# at finished pictures (notebook 07). The paper, too, reports FID and GenEval beside validation loss, and follows the
# loss of each variant as the model grows.
#
# ## Try it
# - Set `size = "micro"` and `steps = 1500`, and go for a coffee. Which variant gains most in its pictures?
# - Set `num_classes=8` in the dial. Which breaks first, colour or shape?
# - Set `num_scenes = 256`. After how many steps do training and validation loss part, and for which head first?

# %%
workspace.cleanup()

# %% [markdown] tags=["closing"]
# recap:
#   - Tokens and text features are computed once and cached; training never sees a picture.
#   - |-
#     The first loss is known: $\log V$ for softmax, 1 for diffusion. Check it before anything else.
#   - |-
#     A step: batch, hide tokens and some texts, loss, gradient, clip, AdamW, running mean.
#   - Losses of different heads have different units; losses of different orders answer different questions.
#   - Everything random follows from (seed, step), so a resumed run equals one that never stopped.
# quiz:
#   - q: A softmax model with 8,192 codes starts at a loss of 9.01. A friend's starts at 4.2. Who should worry?
#     a: |-
#       The friend: $\log 8192 \approx 9.01$ is what a model that knows nothing must have. 4.2 before training means
#       that it sees its own targets, or that fewer codes are scored than it thinks.
#   - q: The validation loss of random + diffusion is 0.30 and that of random + softmax 5.1. Which is better?
#     a: |-
#       Nobody can say: nats and squared error are different units.
#   - q: Why must the running mean be warmed up, and what would a picture drawn with a cold one look like?
#     a: |-
#       With decay 0.9999 the random start keeps a weight of $0.9999^n$, which is 90 % after 1,000 updates. Pictures
#       drawn with it look like those of an untrained model.
#   - q: Why is a share of the captions hidden in training?
#     a: So that the model also learns what pictures look like without a text. Guidance subtracts that.
#   - q: A run stops with "the loss is nan" after 40,000 good steps. What do you do?
#     a: |-
#       Resume from the last checkpoint with a smaller learning rate, more warm-up or a smaller clip, as the message
#       says.
# references:
#   - |-
#     Fan et al., *Fluid: Scaling Autoregressive Text-to-image Generative Models with Continuous Tokens*,
#     arXiv 2410.13863.
#   - |-
#     Li et al., *Autoregressive Image Generation without Vector Quantization* (MAR), arXiv 2406.11838: diffusion loss.
#   - Loshchilov and Hutter, *Decoupled Weight Decay Regularization* (AdamW), arXiv 1711.05101.
#   - |-
#     Chang et al., *MaskGIT*, arXiv 2202.04200: masked prediction with a cosine schedule.
#   - |-
#     Ho and Salimans, *Classifier-Free Diffusion Guidance*, arXiv 2207.12598: why captions are dropped.
