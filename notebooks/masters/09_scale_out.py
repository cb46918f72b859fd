# %% [markdown] tags=["front-matter"]
# title: "Scale out: what is a shard, and what does your device hold?"
# goals:
#   - say what fills the memory of a device in training, byte by byte, and what of it sharding divides
#   - read from real processes who holds which rows, what is gathered when, and what is sent
#   - train on four processes, stop, go on with two, and show that the losses are those of one
#   - plan a run before it starts, and find the smallest change that makes it fit
#   - train continuous tokens in random order on whatever you have, from a laptop to a TPU, and know what was tested
# needs: "Notebook 05; matrices"
# hardware: "a laptop CPU with two cores, 3 GB of free memory; a GPU or a TPU is used if there is one"
# fast:
#   num_scenes: 64
#   steps: 40
#   stop_after: 5
#   log_every: 1
#   own_steps: 4
#   processes: 2
#   fewer: 1
#   sizes: ["150m", "369m", "10.5b"]
#   num_denoising_steps: 4

# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 5, do: "The guess: how many bytes does one parameter cost in training?"}
#   - {minutes: 8, do: "Twenty bytes, one by one; then what the paper's sizes need."}
#   - {minutes: 12, do: "What a shard is, exercise 9.1, and the real rows beside it."}
#   - {minutes: 10, do: "When is it whole, and what is sent: four students play four devices and hand over rows."}
#   - {minutes: 8, do: "The memory of a step. Poll before the printed line."}
#   - {minutes: 14, do: "Exercise 9.2 in pairs."}
#   - {minutes: 8, do: "The same losses: run, stop, go on with fewer. Talk while it runs."}
#   - {minutes: 20, do: "Exercise 9.3, alone; then the quiz question on means of means."}
#   - {minutes: 12, do: "Will it fit: let them bet on each plan before it is printed."}
#   - {minutes: 10, do: "Your device, and what was run and what not."}
#   - {minutes: 5, do: "Recap and quiz."}

# %% [markdown]
# ## One device is not enough
# All models so far fit a laptop many times over. The paper's largest has 10.5 billion parameters, and not one device
# holds its training. This notebook takes the same code there: first on your own processor, where four processes play
# four devices and every byte can be looked at, then on what you have.
#
# Before you run anything, a guess: training keeps the weights, and what else? How many bytes does one parameter cost
# in all, if every number is a float32 of 4 bytes?

# %% tags=["parameters"]
num_scenes = 512            # scenes in the cache
size = "nano"               # the model that the four processes share
processes = 4               # how many share it
fewer = 2                   # how many go on after the stop
batch_size = 32             # images of a step, over all processes
steps = 100                 # of the run that is stopped and resumed
stop_after = 50             # the step after which the stop button is pressed
log_every = 5               # steps between two lines of a run
sizes = ["150m", "369m", "665m", "1.1b", "3.1b", "10.5b"]   # presets to plan
own_steps = 200             # steps on your device, if it is a processor
device_steps = 400          # ... and if it is a GPU or a TPU
device_images = 2000        # pictures of 256 pixels to encode for it
batch_per_device = 64       # images of a step for each GPU or chip
real_tokenizer = "stabilityai/sd-vae-ft-ema"    # for a GPU or a TPU; needs the network once
real_encoder = "google/t5-v1_1-small"           # the paper's is google/t5-v1_1-xxl
num_denoising_steps = 25    # inside the diffusion head when drawing
seed = 0                    # of the drawing

# %% tags=["needed"]
import _thread
import json
import math
import os
import tempfile
import threading
import time
from pathlib import Path

import torch
from IPython.display import Markdown, display

import fluidlab as fl
from fluidlab import checks
from fluidlab.model.cost import part_counts, training_flops
from fluidlab.train.hardware import find_hardware
from fluidlab.train.plan import DEVICES, SECONDS_A_DAY, USABLE, fits, largest_that_fits, plan, smallest_change
from fluidlab.viz.plots import contact_sheet, markdown_table
from fluidlab.viz.plots_sharding import (
    fit_chart,
    furthest,
    gather_chart,
    loss_overlay,
    memory_panels,
    plan_bars,
    shard_facts,
    shard_map,
    share_curve,
)
from fluidlab.viz.show import show

# %%
workspace = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.chdir(workspace.name)                                   # everything is written here, and gone when the kernel stops
fl.launch(["cache", "cache", "--tokenizers", "scenes-vae", "--num-images", num_scenes])

# %% [markdown]
# ## Twenty bytes
# `fluidlab shards` takes one real training step and looks at the memory of the process after every operation. First
# with the whole model in one process. `fl.launch` runs a command of `fluidlab` from a notebook.

# %%
look = ["shards", "--preset", size, "--cache", "cache", "--batch-size", batch_size, "--device", "cpu", "--threads", 1]
fl.launch([*look, "--out", "one.json"])
one = json.loads(Path("one.json").read_text())
parameters = sum(p["bytes"] for p in one["parameters"]) // 4
rows = [{"what": what, "bytes": max(one["bytes"][kind]), "bytes a parameter": max(one["bytes"][kind]) / parameters}
        for what, kind in (("weights", "weights"), ("gradients", "gradients"), ("AdamW's two moments", "optimizer"),
                           ("running mean (EMA)", "ema"))]
rows.append({"what": "all four", "bytes": sum(row["bytes"] for row in rows),
             "bytes a parameter": sum(row["bytes a parameter"] for row in rows)})
display(Markdown(markdown_table(rows)))

# %% [markdown]
# Five numbers for each parameter, 20 bytes. Activations come on top, and they grow with the images that are computed
# at once. So what does each size of the paper need, before a single image is computed?

# %%
counts = {name: part_counts(fl.preset(name))["total"] for name in sizes}
display(Markdown(markdown_table([
    {"size": name, "parameters": n, "20 bytes each": f"{20 * n / 1e9:.1f} GB",
     "devices of 16 GB, for these alone": -(-20 * n // int(DEVICES["v5e"].memory))} for name, n in counts.items()])))

# %% [markdown]
# The H200 has 141 GB, so the largest size fits none of the devices in this notebook. There are two ways out:
#
# - **Cut the model between its layers**, so that each device holds some of them. Then devices wait for each other.
# - **Cut every tensor**, so that each device holds some rows of everything, and put a layer together only while it
#   computes. PyTorch calls this FSDP (fully sharded data parallel), and this package uses it.
#
# Each device also takes its own share of the images. So two things are divided among the devices: the state by
# sharding, and the activations by splitting the batch.
#
# ## What a shard is
# Four processes on your machine, started by torchrun, sharing one model as four devices would. Each reports what it
# holds. How many bytes of weights do you expect in process 0?

# %%
fl.launch([*look, "--out", "four.json"], processes=processes)
four = json.loads(Path("four.json").read_text())

# %% [markdown]
# Before you look at what they hold: which rows would *you* give to whom, if a matrix has 10 rows and there are 4
# devices? PyTorch has a rule for it, and every device must follow the same.

# %% [markdown] tags=["exercise"]
# title: Whose rows are whose?
# minutes: 8
# level: 1
# task: |-
#   Write `rows_of(num_rows, devices)`: a list with one pair (first, end) of whole numbers for each device, which holds
#   the rows first, first + 1, ... end - 1. PyTorch's rule: rows per device are num_rows / devices *rounded up*, and the
#   devices take so many one after another until none is left. So the last to get any may get fewer, and those after it
#   get none; for them first and end are both num_rows.
# right: |-
#   10 rows on 4 devices give (0, 3), (3, 6), (6, 9), (9, 10), and the map below has the same rows.
# hints:
#   - "With `size` rows per device, where would device k begin and end if rows never ran out?"
#   - "`size = math.ceil(num_rows / devices)`. No place may lie beyond the end: `min(k * size, num_rows)`."
# why: |-
#   The largest share is what counts, since every device must have room for it, and rounding up makes it as small as
#   whole rows allow. That the last ones get less, or nothing, is the price of a rule that needs only one division.
#   `min` on both ends makes the empty spans come out by themselves.

# %% tags=["target"]
examples = {"ten rows": (10, 64), "twelve rows": (12, 64), "nine rows": (9, 64), "three rows": (3, 64)}
show(shard_map(shard_facts(examples, 4, checks.check_rows_of.own)),
     alt="Four small matrices cut by rows among 4 devices. " + "; ".join(
         f"{name}: " + ", ".join(f"{a} to {b - 1}" if b > a else "none"
                                 for a, b in checks.check_rows_of.own(shape[0], 4))
         for name, shape in examples.items()) + ".",
     caption="What rows_of gives when it is right. Of nine and of three rows the last device gets none.")

# %% tags=["stub"]
def rows_of(num_rows, devices):
    """Which rows each device holds: a list of (first, end), one for each, where end is one more than the last row."""
    ...


# %% tags=["solution"]
def rows_of(num_rows, devices):
    """Which rows each device holds: a list of (first, end), one for each, where end is one more than the last row."""
    size = math.ceil(num_rows / devices)
    return [(min(k * size, num_rows), min((k + 1) * size, num_rows)) for k in range(devices)]


# %% tags=["check"]
rows_of = checks.check_rows_of(rows_of)
for devices in (4, 8, 32, 48):
    counts_of = [end - first for first, end in rows_of(64, devices)]
    print(f"64 rows on {devices:2} devices: {max(counts_of):2} rows at most, {counts_of.count(0):2} devices hold none")

# %% [markdown]
# And now what the processes hold. Is it what your function says?

# %%
assert all(list(map(list, rows_of(p["shape"][0], processes))) == p["rows"] for p in four["parameters"])
chosen = [p["name"] for p in four["parameters"]
          if p["unit"] in ("aligner", "backbone", "backbone.blocks.0") and len(p["shape"]) > 1]
show(shard_map(four, chosen), alt=f"Parameters cut by rows among {processes} processes: " + "; ".join(
         f"{p['name']} of {p['shape'][0]} rows: " + ", ".join(f"{a} to {b - 1}" for a, b in p["rows"])
         for p in four["parameters"] if p["name"] in chosen[:3]) + "; and so on.",
     caption="Some matrices of the model. Every one is cut along its rows; the numbers are rows, or the process.")
whole = sum(p["bytes"] for p in four["parameters"])
uneven = [p["name"] for p in four["parameters"] if len(set(p["held"])) > 1]
for rank in range(processes):
    print(f"process {rank}: {sum(p['held'][rank] for p in four['parameters']):,} of {whole:,} bytes of weights, "
          f"{four['held']['optimizer'][rank]:,} of moments, {four['held']['ema'][rank]:,} of the running mean")
print("parameters whose rows cannot be divided evenly:", ", ".join(uneven) or "none")
assert sum(four["held"]["weights"]) == whole

# %% [markdown]
# Nothing is held twice, and nothing is missing. A shard of a matrix is useless alone: `x @ W.T` needs all rows of
# `W`.

# %% [markdown] tags=["instructor"]
# **Say:** sharding divides what is *kept*, not what is *computed*. Each device still computes whole layers, for its own
# images. Say it again at every picture of this notebook.
#
# **Poll:** four devices share a model, and each computes its own images. How often does a device need the rows of the
# others in one step?
#
# <details><summary>Answer</summary>
#
# Twice for each unit: once on the way forward, once on the way back. Between the two the whole is thrown away, or
# sharding would have saved nothing.
#
# </details>

# %% [markdown]
# ## When is it whole?
# Before a block computes, its rows are gathered from all processes; afterwards the whole is thrown away. In the
# backward pass the same happens once more, and then the gradient is added up over all processes and cut, so that each
# keeps its rows only. FSDP gathers by **units**: here each Transformer block, and what is left of each part of the
# model.
#
# The command has watched when which unit was whole in process 0. Cover the picture and think: in which order are the
# two backbone blocks gathered in the backward pass? And how often is the head whole, which both embeds tokens and
# predicts them?

# %%
show(gather_chart(four), alt="When each unit was whole, in operations of the step: " + "; ".join(
         f"{unit['name']} " + ", ".join(f"{a} to {b}" for a, b in unit["gathered"]) + f", reduced at {unit['reduced']}"
         for unit in four["units"]),
     caption="Bars: the unit is whole in process 0. Diamonds: its gradients have been added up over all processes.")
turn = four["phases"]["backward"][0]
display(Markdown(markdown_table([
    {"unit": unit["name"], "bytes": unit["bytes"], "gathered, forward": sum(a < turn for a, _ in unit["gathered"]),
     "gathered, backward": sum(a >= turn for a, _ in unit["gathered"])} for unit in four["units"]])))

# %% [markdown]
# ### What is sent
# The price of sharding is messages. Each gather brings a unit to everyone, each reduction carries its gradients.

# %%
sent = {kind: [m["bytes"] for m in four["messages"] if m["kind"] == kind] for kind in ("gather", "reduce", "sum")}
display(Markdown(markdown_table([
    {"message": kind, "how many": len(found), "bytes": sum(found), "as a multiple of the weights": sum(found) / whole}
    for kind, found in sent.items()])))
assert sum(sent["gather"]) == sum(u["bytes"] * len(u["gathered"]) for u in four["units"])
assert sum(sent["reduce"]) == whole

# %% [markdown]
# Gathered twice, reduced once: about three times the weights in each step, however many devices there are (more here,
# since the head is asked twice each way). So the links between devices decide how many of them are worth having.
# `sum` is three numbers: the loss, how many tokens were predicted, and whether somebody has pressed stop. Random masks
# hide another number of tokens in each process, and a mean must be taken over all of them.
#
# ### What is kept
# Now the whole picture: all memory of process 0, operation by operation, beside that of the one process that did
# everything alone. Where are the peaks, and what are they made of?

# %%
def state_of(facts):
    return sum(by_rank[0] for by_rank in facts["held"].values())


titles = {"1 process": one, f"process 0 of {processes}": four}
totals = {title: [sum(now) for now in zip(*facts["bytes"].values(), strict=True)] for title, facts in titles.items()}
show(memory_panels(titles), alt="Memory over a training step: " + "; ".join(
         f"{title}: {values[0] / 1e6:.1f} MB at the start, {max(values) / 1e6:.1f} MB at most"
         for title, values in totals.items()),
     caption="Measured after every operation. The lowest three layers are the state; the rest comes and goes.")
display(Markdown(markdown_table([
    {"": title, "state": state_of(titles[title]), "most in the step": max(values),
     "gathered at most": max(titles[title]["bytes"]["gathered"]),
     "activations at most": max(titles[title]["bytes"]["activations"])} for title, values in totals.items()])))
shared_peak = max(totals[f"process 0 of {processes}"])
print(f"alone, a process needs {max(totals['1 process']) / shared_peak:.2f} times the memory of one of {processes}")

# %% [markdown]
# The state is divided by the number of processes, to the byte. The peak is divided by less: what is gathered has the
# size of a unit whatever the number of devices, and so have the messages. A model of many blocks pays this for one
# block out of many; a model of two blocks, such as this one, pays a lot. And the activations are divided only because
# each process has a share of the images; with one image each, nothing divides them further but recomputing.

# %% [markdown] tags=["instructor"]
# **Poll:** from 4 to 8 devices, with 8 images on each as before. Which parts of the memory of one device are halved?
#
# <details><summary>Answer</summary>
#
# The three layers of the state, and the gradients that are kept. What is gathered is as large as before, and so are the
# activations of 8 images.
#
# </details>
#
# **Goes wrong:** "four devices, a quarter of the memory" is carried over from the state to the peak. Let students read
# both from the picture, and divide. Then ask what would happen with ten thousand devices.

# %% [markdown]
# "To the byte" deserves a closer look: tensors are cut between rows, and not all have a number of rows that divides.

# %% tags=["needed"]
with torch.device("meta"):                                 # shapes without numbers: no memory, no time
    shapes = [tuple(p.shape) for p in fl.Fluid(fl.preset(size)).parameters()]
print(f"{size}: {len(shapes)} tensors, such as {', '.join(map(str, shapes[:4]))}")

# %% [markdown] tags=["exercise"]
# title: The state of one device
# minutes: 12
# level: 2
# task: |-
#   Write `state_bytes(shapes, devices)`: how many bytes of state the *first* device keeps, which never holds less than
#   the others. `shapes` is a list of tuples, one for each parameter of the model, such as (64, 32) or (64,). Each is
#   cut along its first dimension, and the first device gets the rows rounded up, as in exercise 9.1. For each number
#   that it holds it keeps five float32: weight, gradient, AdamW's two moments, and the running mean.
# right: |-
#   for the model of this notebook the check prints the planner's numbers, and the curve leaves the dashed line where
#   devices become more than rows.
# hints:
#   - |-
#     One tensor first: a matrix of 10 rows with 6 numbers each, on 4 devices. How many rows, numbers and bytes has the
#     first device?
#   - |-
#     `math.ceil(shape[0] / devices) * math.prod(shape[1:])` are the numbers of one tensor; `math.prod(())` is 1, so
#     vectors need no case of their own. Five float32 are 20 bytes.
# why: |-
#   Rounding happens once for each tensor, and its cost is never more than one row of each. In a large model that is
#   nothing. With as many devices as a tensor has rows, one row is everything: more devices cannot divide it further,
#   and the curve becomes flat.

# %% tags=["target"]
numbers_of_devices = [2**k for k in range(13)]
right_bytes = {n: checks.check_state_bytes.own(shapes, n) for n in numbers_of_devices}
show(share_curve(right_bytes),
     alt=f"State of one device for {size} against the number of devices: " + ", ".join(
         f"{n}: {held:,} bytes" for n, held in right_bytes.items() if n in (1, 4, 64, 4096)) + "; with many devices it "
         "lies above the dashed line of the even share.",
     caption=f"The model {size}: what state_bytes gives when it is right.")

# %% tags=["stub"]
def state_bytes(shapes, devices):
    """Bytes of weights, gradients, moments and running mean (float32) that the first device keeps."""
    ...


# %% tags=["solution"]
def state_bytes(shapes, devices):
    """Bytes of weights, gradients, moments and running mean (float32) that the first device keeps."""
    return sum(5 * 4 * math.ceil(shape[0] / devices) * math.prod(shape[1:]) for shape in shapes)


# %% tags=["check"]
state_bytes = checks.check_state_bytes(state_bytes)
for n in (1, 4, 64):
    planned = plan(fl.preset(size), devices=n, batch_size=n)
    kept = planned.weights + planned.gradients + planned.optimizer + planned.ema
    print(f"devices: {n:2}   bytes of the first: {state_bytes(shapes, n):>9,}   by the package's planner: {kept:>9,}")

# %% [markdown]
# ## The same losses
# Sharding must not change what is learned. Is that so? One run, whole, in one process; another with the same recipe
# on several. Everything random in step n follows from the seed, n and an image's place in the batch, so it does not
# matter which process computes it.

# %%
def train(out, *more):
    return ["train", "--preset", size, "--cache", "cache", "--steps", steps, "--batch-size", batch_size, "--lr", 2e-3,
            "--warmup-steps", steps // 4, "--log-every", log_every, "--save-every", 0, "--device", "cpu",
            "--threads", 1, "--out", out, *more]


def losses(run):
    log = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]
    return [r["step"] for r in log], [r["loss"] for r in log]


fl.launch(train("alone"))

# %% [markdown]
# And on several. In the middle somebody presses the stop button of the notebook (here a thread does it, once the step
# is in the log): all processes end after the same step and save it.

# %%
def press_stop(log, lines):
    while not log.exists() or log.read_text().count("\n") < lines:
        time.sleep(0.02)
    _thread.interrupt_main()


threading.Thread(target=press_stop, args=(Path("shared") / "log.jsonl", stop_after // log_every), daemon=True).start()
try:
    fl.launch(train("shared"), processes=processes)
except KeyboardInterrupt:
    print("the stop button was pressed")
(stopped,) = Path("shared").glob("step-*")
stopped_at = json.loads((stopped / "state.json").read_text())["step"]
print(f"{stopped.name} holds step {stopped_at}: {', '.join(sorted(f.name for f in stopped.iterdir()))}")
assert stop_after <= stopped_at < steps

# %% [markdown]
# One file of weights was written by each process, and nothing in them says how many the next run must have. **Go on
# with fewer:** each finds the rows that it now holds, wherever they are.

# %%
fl.launch(train("shared", "--resume"), processes=fewer)
shared = list(zip(*losses("shared"), strict=True))
curves = {"1 process": losses("alone"),
          f"{processes} processes": tuple(zip(*[p for p in shared if p[0] <= stopped_at], strict=True)),
          f"then {fewer}": tuple(zip(*[p for p in shared if p[0] > stopped_at], strict=True))}
away = furthest(curves)
show(loss_overlay(curves), alt=f"Losses of one process, and of {processes} and then {fewer}, over each other: from "
         f"{curves['1 process'][1][0]:.3f} to {curves['1 process'][1][-1]:.3f}. Largest relative differences: "
         + ", ".join(f"{title} {value:.1e}" for title, value in away.items()),
     caption="Above: the grey line is the run in one process. Below: how far the others are from it.")
for title, value in away.items():
    print(f"{title}: losses differ from those of one process by at most {value:.1e} of their value")
assert max(away.values()) < 1e-3

# %% [markdown]
# They agree to the last digits of a float32: sums in another order round otherwise, and that is all there is. (Training
# magnifies what rounding left. Double the learning rate in the cell above, and the curves part further. The package's
# tests compare the first steps of all variants to one part in a million.)
#
# One thing must be right for this. Random order hides another number of tokens in every image, so every process, and
# every micro-batch in it, has another number of tokens to predict. How do their gradients become one? A small problem
# shows it: a linear model of 8 weights, whose 4 processes of 2 micro-batches each see some of 16 tokens.

# %% tags=["needed"]
def toy_losses(combine, num_steps=30):
    """Losses of a linear model; `combine` makes one gradient of many, and None takes all tokens at once."""
    chance = torch.Generator().manual_seed(seed)
    x = torch.randn(num_steps, 4, 2, 16, 8, generator=chance)                     # (steps, P, M, tokens, D)
    y = x @ torch.randn(8, generator=chance) + 0.3 * torch.randn(num_steps, 4, 2, 16, generator=chance)
    ratio = torch.cos(math.pi / 2 * torch.rand(num_steps, 4, 2, 1, generator=chance))
    hidden = torch.rand(num_steps, 4, 2, 16, generator=chance) < ratio            # (steps, P, M, tokens)
    weights, losses = torch.zeros(8), []
    for inputs, wanted, asked in zip(x, y, hidden, strict=True):
        error, counts = (inputs @ weights - wanted) * asked, asked.sum(dim=-1)    # (P, M, tokens), (P, M)
        sums = 2 * (error[..., None] * inputs).sum(dim=2)                         # (P, M, D)
        losses.append(float((error**2).sum() / counts.sum()))
        means = sums / counts[..., None]                                          # 0 / 0 is nan
        weights = weights - 0.1 * (sums.sum(dim=(0, 1)) / counts.sum() if combine is None else combine(means, counts))
    return list(range(1, num_steps + 1)), losses


at_once = toy_losses(None)

# %% [markdown] tags=["exercise"]
# title: One gradient of many
# minutes: 20
# level: 3
# task: |-
#   Write `step_gradient(means, counts)`. P processes have computed M micro-batches each. `means[p, m]`, of shape (D,),
#   is the gradient of the *mean* loss over the tokens that micro-batch m of process p had to predict; `counts[p, m]` is
#   how many these were. So `means` is (P, M, D), floating, and `counts` (P, M), whole numbers. Return the gradient (D,)
#   of the mean loss over *all* tokens of the step. A micro-batch without a token has the count 0 and a gradient of nan,
#   since its mean was 0 / 0; it must not spoil the rest. At least one token was predicted somewhere.
# right: |-
#   the losses lie on those of all tokens at once and differ from them in the last digits of a float32 only.
# hints:
#   - "Two micro-batches, with 1 and with 3 tokens. Write down the mean over all 4 tokens: what does each mean weigh?"
#   - |-
#     The sum over the tokens of a micro-batch is `means * counts[..., None]`. Add these up over both dimensions, and
#     divide by `counts.sum()`.
#   - "0 times nan is still nan: `torch.nan_to_num(means)`, or `torch.where`, puts 0 where there was no token."
# why: |-
#   A mean over all tokens is the sum over all tokens, divided once. A mean of means weighs a token more if few were
#   predicted beside it. In random order those are the easy ones, since all the others are known. And it has another
#   value for each number of processes. So the package never takes means on the way: each process adds up gradients of
#   *sums*, and all divide by the number of tokens of all processes at the end, when it is known.

# %% tags=["target"]
right_losses = {"all tokens at once": at_once, "4 processes of 2": toy_losses(checks.check_step_gradient.own)}
show(loss_overlay(right_losses),
     alt="Losses of the small problem with all tokens at once and with 4 processes of 2 micro-batches, over each "
         f"other: from {at_once[1][0]:.2f} to {at_once[1][-1]:.2f}; largest relative difference "
         f"{furthest(right_losses)['4 processes of 2']:.0e}.",
     caption="What step_gradient gives when it is right: the same losses, up to rounding.")

# %% tags=["stub"]
def step_gradient(means, counts):
    """The gradient (D,) of the mean over all tokens, from means (P, M, D) and their numbers of tokens (P, M)."""
    ...


# %% tags=["solution"]
def step_gradient(means, counts):
    """The gradient (D,) of the mean over all tokens, from means (P, M, D) and their numbers of tokens (P, M)."""
    sums = means.nan_to_num() * counts[..., None]                                 # (P, M, D)
    return sums.sum(dim=(0, 1)) / counts.sum()


# %% tags=["check"]
step_gradient = checks.check_step_gradient(step_gradient)
ways = {"all tokens at once": at_once, "step_gradient": toy_losses(step_gradient),
        "a mean of means": toy_losses(lambda means, counts: means.nanmean(dim=(0, 1)))}
for way, value in furthest(ways).items():
    print(f"{way}: losses differ from those of all tokens at once by at most {value:.1e} of their value")

# %% [markdown]
# The mean of means learns something, too, and its curve looks healthy. Only the comparison shows that it is another
# training, with another result for every number of processes.

# %% [markdown] tags=["instructor"]
# **Say:** this mistake has been in well-known training code, because nothing crashes and the loss falls. The test that
# finds it is the one above: the same data, cut up in two ways, must give the same numbers.
#
# **Goes wrong:** students divide by the tokens of each process and add up the results: P times too large. In a real run
# AdamW hides it, since it does not care how large a gradient is, and so does a clipped norm. The check names it.

# %% [markdown]
# **If your run stops by itself** (a device is lost, a session ends), the same line with `--resume` goes on from the
# last complete checkpoint; `--save-every` says how much you may lose.

# %% [markdown]
# ## Will it fit?
# A run that dies of memory after an hour in a queue is an expensive way to learn arithmetic. `fluidlab plan` counts
# before anything is started: the shard of the state, what is gathered, the activations of the images computed at
# once. Is it right? First against what was just measured:

# %%
text_tokens = fl.TokenCache("cache").max_length
rows = []
for title, facts in titles.items():
    n = facts["processes"]
    counted = plan(fl.preset(size, **fl.TokenCache("cache").model_facts()), devices=n, batch_size=batch_size,
                   precision="float32", text_tokens=text_tokens)
    state = counted.weights + counted.optimizer + counted.ema
    rows.append({"": title, "state, planned": state, "state, measured": state_of(facts),
                 "peak, planned": counted.total, "peak, measured": max(totals[title])})
display(Markdown(markdown_table(rows)))
assert all(row["state, planned"] == row["state, measured"] for row in rows)
assert all(row["peak, measured"] <= row["peak, planned"] for row in rows)

# %% [markdown]
# The state agrees to the byte. The peak is planned on the safe side: it adds up the gradients, the gathered unit and
# all activations, which are largest at different moments.
#
# ### Colab's TPU
# One chip of type v5e with 16 GB. The paper's model of 369M parameters, with 64 images a step?

# %%
ask = ["plan", "--preset", "369m", "--device", "v5e", "--devices", 1, "--batch-size", 64]
try:
    fl.launch(ask)
except ValueError as refusal:
    print("refused:", refusal)

# %% [markdown]
# It refuses, and names the smallest change that helps: fewer images at once, in several rounds whose gradients are
# added up. Nothing is learned differently, the step has 64 images as before.

# %%
advised = smallest_change(plan(fl.preset("369m"), devices=1, batch_size=64), DEVICES["v5e"].memory)[1].micro_batch
fl.launch([*ask, "--micro-batch", advised])
large = plan(fl.preset("369m"), devices=1, batch_size=2048, micro_batch=advised)
days = 1e6 * large.seconds_per_step(DEVICES["v5e"].peak, 0.4) / SECONDS_A_DAY
print(f"... and with 2,048 images a step, in {large.accumulation} rounds: {days:,.0f} days")

# %% [markdown]
# Whether it fits is one question, whether you can wait for it another: the paper's batch is thought to be 2,048
# images for this size (not confirmed). And 40 % of the peak is an assumption about how busy the device is, not a
# measurement; `--utilisation` changes it.
#
# ### What more devices divide

# %%
big = "1.1b" if "1.1b" in sizes else sizes[-1]
plans = {f"{n} x v6e": plan(fl.preset(big), devices=n, batch_size=64, micro_batch=4, checkpointing=True)
         for n in (1, 2, 4, 8)}
show(plan_bars(plans, DEVICES["v6e"].memory), alt=f"Memory of one device for {big}: " + "; ".join(
         f"{title}: {p.total / 1e9:.1f} GB, of it weights {p.weights / 1e9:.2f}, gathered {p.gathered / 1e9:.2f}, "
         f"activations {p.activations / 1e9:.2f}" for title, p in plans.items()),
     caption=f"{big}, 4 images at once on each device, bf16, blocks recomputed. Left of the dashed line it fits.")

# %% [markdown]
# The four coloured parts on the left are halved with every doubling. What is gathered appears with the second device
# and stays; the activations stay, since every device computes 4 images. So there is a point from which more devices
# buy speed and hardly any memory.
#
# ### Which size fits where?

# %%
needs = {}
for n in (1, 8, 64):
    found = [(name, plan(fl.preset(name), devices=n, batch_size=n, checkpointing=True)) for name in sizes]
    needs[n] = [(name, p.parameters, p.total) for name, p in found]
kinds = {name: DEVICES[name] for name in ("v5e", "v6e", "h100", "h200")}
largest = {(n, kind): max((name for name, _, need in needs[n] if need <= USABLE * device.memory), key=counts.get,
                          default="none") for n in needs for kind, device in kinds.items()}
show(fit_chart(needs, kinds), alt="Memory of one device against parameters. The largest size that fits: " + "; ".join(
         f"{n} x {kind}: {name}" for (n, kind), name in largest.items()),
     caption="One image at a time on each device. A point below a coloured line fits that kind of device.")
display(Markdown(markdown_table([{"": f"{n} device{'s' if n > 1 else ''}", **{kind: largest[n, kind] for kind in kinds}}
                                 for n in needs])))

# %% [markdown]
# ### The paper's run
# 10.5B parameters, a batch of 4,096 images, a million steps. On what, and how long? If a plan does not fit as it is,
# the planner's advice is taken:

# %%
giant, rows = fl.preset("10.5b"), []
for kind in ("v5e", "v6e", "h200"):
    for n in (32, 256):
        found = plan(giant, devices=n, batch_size=4096)
        change = ("", found) if fits(found, DEVICES[kind].memory) else smallest_change(found, DEVICES[kind].memory)
        possible = change is not None and change[1].devices == n
        days = 1_000_000 * change[1].seconds_per_step(DEVICES[kind].peak, 0.4) / SECONDS_A_DAY if possible else None
        rows.append({"devices": f"{n} x {kind}", "as it is": f"{found.total / 1e9:.0f} GB a device",
                     "it fits with": change[0] if change else "nothing that was tried",
                     "then": f"{change[1].total / 1e9:.1f} of {DEVICES[kind].memory / 1e9:.0f} GB" if possible else "",
                     "a million steps": f"{days:,.0f} days" if possible else ""})
display(Markdown(markdown_table(rows)))

# %% [markdown]
# With the whole share of the batch at once almost nothing fits; with fewer images at once everything here does, and
# from then on only the number of devices and their peak decide, at the assumed 40 %. Thirty-two v5e chips hold the
# model with one image at a time, and would take most of a year. How long the paper's run took is not known here.
#
# ## Your device
# Now the same commands on what you have. What is it?

# %%
found = find_hardware()
memory = "" if found.memory is None else f", {found.memory / 1e9:.0f} GB each"
print(f"{found.devices} x {found.name}{memory}; {found.processes} process{'es' if found.processes > 1 else ''}")
print("several devices: the state is split among them" if found.devices > 1 else
      "one device: nothing is split here; the command is the same, and splits as soon as there are more")

# %% [markdown]
# | you are on | what is found | what is split |
# |---|---|---|
# | a laptop | its processor | nothing; the four processes above were the demonstration |
# | Colab, TPU runtime | **one** chip (v5e: 16 GB, v6e: 32 GB), through the torch_xla that is there | nothing |
# | Kaggle, TPU v5e-8 | eight chips, driven by one process | state and batch, by XLA's compiler |
# | one or several GPUs | each with a process of its own | state and batch, by FSDP |
#
# On Colab or Kaggle nothing is installed over the torch that is there, and nothing is restarted: the engine is chosen
# by what is found.
#
# The planner takes the largest of the paper's sizes that fits. A processor is another matter: there memory is not
# what stops you, so it gets the toy problem of this course, and a calculation below.

# %%
if found.kind == "cpu":
    choice, best, at_once = size, None, 0
else:
    candidates = {name: fl.preset(name, text_dim=512) for name in sizes}           # 512: google/t5-v1_1-small
    choice, best = largest_that_fits(candidates, found.memory, devices=found.devices, precision=found.precision,
                                     batch_size=batch_per_device * found.devices)
    at_once = found.at_once(best.micro_batch)
    print(f"{best.total / 1e9:.1f} GB a device; {best.micro_batch} images of each at once, {best.accumulation} times a "
          f"step; recomputing {'on' if best.checkpointing else 'off'}")
print(f"the choice: {choice}")

# %% [markdown]
# Then tokens and features, once. On a processor these are the scenes that are cached already; elsewhere pictures of
# 256 pixels go through Stable Diffusion's autoencoder (256 tokens of 16 numbers, as in the paper) and the captions
# through a T5 that has read the web. The pictures are still scenes, drawn larger, so that no data set has to be
# downloaded; `fluidlab cache --dataset` takes pictures of your own.

# %%
toy = found.kind == "cpu"
tokenizer, encoder = ("scenes-vae", "scenes-t5") if toy else (real_tokenizer, real_encoder)
folder = "cache" if toy else "cache-256"
fl.launch(["cache", folder, "--tokenizers", tokenizer, "--text-encoder", encoder, "--image-size", 64 if toy else 256,
           "--num-images", num_scenes if toy else device_images, "--device", "cuda" if found.kind == "cuda" else "cpu"])
data = fl.TokenCache(folder)
tokens, features, mask = data.gather([0])
print(f"one picture: {tokens.shape[1]} tokens of {tokens.shape[2]} numbers; its caption: {int(mask.sum())} features of "
      f"{features.shape[2]} numbers")

# %%
own_batch = 64 if toy else batch_per_device * found.devices
number = own_steps if toy else device_steps
recipe = ["--order", "random", "--head", "diffusion", "--preset", choice, "--steps", number, "--batch-size", own_batch,
          "--micro-batch", at_once, "--precision", found.precision, "--lr", 4e-3 if toy else 1e-4, "--ema-decay", 0.98,
          "--warmup-steps", number // 4, "--log-every", max(1, number // 10), "--save-every", 0]
recipe += [] if found.kind == "tpu" else ["--device", found.kind]
recipe += ["--checkpointing"] if best is not None and best.checkpointing else []
fl.launch(["train", "--cache", folder, "--out", "mine", *recipe], processes=found.processes)
fl.launch(["export", "mine", "mine/pipeline", "--tokenizer", tokenizer, "--text-encoder", encoder])

# %% [markdown]
# ### How fast was that?

# %%
log = [json.loads(line) for line in Path("mine/log.jsonl").read_text().splitlines()]
rate = sorted(r["images_per_second"] for r in log)[len(log) // 2]
config = fl.preset(choice, **data.model_facts())
speed = rate * training_flops(config, data.max_length)
print(f"{rate:.0f} images a second, {torch.get_num_threads()} CPU thread(s); {speed:.2e} operations a second of the "
      f"model's own work", end="")
if found.model is not None:
    print(f", {speed / found.devices / DEVICES[found.model].peak:.0%} of the peak of {found.model}", end="")
print()
for name in (sizes[0], sizes[-1]):
    seconds = plan(fl.preset(name), devices=1, batch_size=2048).flops / speed
    years = 1e6 * seconds / SECONDS_A_DAY / 365
    print(f"{name}: {seconds:,.0f} s for a step of 2,048 images, {years:,.0f} years for a million of them")

# %% [markdown]
# At this speed, that is. A processor with more threads is some times faster, which changes nothing: memory is not what
# stops it.
#
# ### What did it learn?
# Hundreds of steps are next to nothing. Expect colours and soft blobs from your own model. Beside it the shipped one:
# the same code, more parameters and 8,000 steps.

# %%
prompts = ["a photo of a red umbrella", "a photo of a cat", "a photo of two apples", "a photo of a dog left of a chair"]
options = dict(guidance_scale=3.0, num_inference_steps=16, num_denoising_steps=num_denoising_steps)
mine = fl.FluidPipeline.from_pretrained("mine/pipeline")
if found.kind == "cuda":
    mine = mine.to("cuda")
shipped = fl.FluidPipeline.from_pretrained("random-diffusion-mini")
for title, pipe in ((f"your {choice}", mine), ("shipped mini", shipped)):
    drawn = pipe(prompts, seed=seed, **options).images
    show(contact_sheet(drawn, [title], [p.removeprefix("a photo of ") for p in prompts]),
         alt=f"Drawn by {title}: " + "; ".join(prompts),
         caption=f"{title}: {number} steps of {own_batch} images." if pipe is mine else "8,000 steps of 128 images.")

# %% [markdown]
# ### Outside a notebook
# The same lines in a shell, on a machine with eight GPUs; `--shards 4` would make two copies of the model, each split
# over four, so that the many messages stay within four neighbours:
#
# ```
# torchrun --nproc-per-node=8 -m fluidlab train --preset 1.1b --cache cache-256 --out run --precision bf16 \
#     --batch-size 512 --micro-batch 8 --checkpointing
# torchrun --nproc-per-node=8 -m fluidlab train ... --out run --resume       # after a stop, on any number of devices
# ```
#
# ## What was run, and what was not
# | path | run by us? |
# |---|---|
# | FSDP on 1, 2 and 4 processes of a processor | yes: this notebook and the package's tests |
# | torch_xla on one and four of XLA's own CPU devices | yes: `make test-xla`, losses equal to plain PyTorch's |
# | torch_xla on a TPU (Colab, Kaggle) | **no**; the same code, and nobody of us has had the chip |
# | FSDP on GPUs | **no** |
# | the real tokenizer and encoder in this notebook | **no**; without an accelerator these cells take the shipped ones |
#
# If you run one of the last three, the numbers that it prints are the first of their kind. Compare its first losses
# with your processor's: `--device cpu` and the same seed must give the same ones, up to the rounding of the
# precision.

# %% [markdown] tags=["closing"]
# recap:
#   - A parameter in training costs 20 bytes; sharding divides these, and nothing else.
#   - A unit is whole only while it computes. Each step gathers everything twice and reduces it once.
#   - The peak is the share of the state, one or two whole units, and the activations of the images computed at once.
#   - |-
#     With randomness tied to (seed, step, place in the batch), the number of devices changes speed and memory, and not
#     what is learned; a run goes on with any other number.
#   - |-
#     Plan first: the smallest change is often a smaller micro-batch, and it costs nothing in what is learned.
# quiz:
#   - q: |-
#       A model of 3 billion parameters on 8 devices: how much state does each hold?
#     a: 20 x 3 / 8 = 7.5 GB, and a block or two and the activations besides.
#   - q: You double the devices and keep 4 images on each. Which parts of the memory shrink?
#     a: The state. Not the gathered unit and not the activations.
#   - q: Why is the loss divided by the number of hidden tokens of *all* processes, and not averaged over the processes?
#     a: |-
#       Random masks hide another number of tokens in each process; a mean of means would weigh tokens by where they
#       were computed, and the loss would depend on the number of processes.
#   - q: You have one chip of Colab. What does sharding do for you?
#     a: Nothing. What helps there is a smaller micro-batch, recomputing, bf16, or a smaller model.
#   - q: A plan does not fit. Why is a smaller micro-batch tried before recomputing?
#     a: It costs no extra operations as long as the device stays busy; recomputing costs about a third more.
# references:
#   - |-
#     Fan et al., *Fluid*, arXiv 2410.13863: the 10.5B model, batch 4,096, 1M steps.
#   - |-
#     Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*, arXiv 1910.02054.
#   - |-
#     Zhao et al., *PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel*, arXiv 2304.11277.
#   - |-
#     Xu et al., *GSPMD: General and Scalable Parallelization for ML Computation Graphs*, arXiv 2105.04663.
