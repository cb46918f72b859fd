# %% [markdown] tags=["front-matter"]
# title: "Orders: in which order does an image appear?"
# goals:
#   - draw a causal and a bidirectional attention rule, and prove with a black-box test that a model obeys it
#   - say why raster order needs a shift by one and random order a mask token
#   - derive the mask ratio cos(pi u/2) from the cosine schedule, and compute how many tokens each step fills
#   - watch both orders draw the same prompt, and name what random order gains and what it costs
# needs: "Notebooks 00 to 02; PyTorch basics; what a softmax is"
# hardware: "a laptop CPU, 2 GB of free memory"
# fast:
#   num_draws: 2000
#   num_images: 8
#   num_leak_steps: 4
#   num_denoising_steps: 2
#   num_orders: 3

# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 5, do: "The pen and the cat: let them answer before anything runs."}
#   - {minutes: 10, do: "Permutations and rules. Draw row 5 on the board before the folded figure appears."}
#   - {minutes: 8, do: "Exercise 3.1 in pairs."}
#   - {minutes: 12, do: "The black-box test, then the leak. Stop at the two loss curves and take the poll."}
#   - {minutes: 10, do: "Exercise 3.2, alone; compare two solutions at the board."}
#   - {minutes: 10, do: "Mask ratio and cosine schedule; the formula is MaskGIT's, and not confirmed for Fluid."}
#   - {minutes: 15, do: "Exercise 3.3; the fast ones bend the schedule for 16 tokens in 16 steps."}
#   - {minutes: 15, do: "The order player, and what each order gains and costs."}
#   - {minutes: 5, do: "Recap and quiz."}

# %% [markdown]
# ## An image has no first word
#
# A sentence has a beginning. A language model predicts the next word, and nobody asks which word comes next: the one
# on the right. An image of 16 tokens has no beginning. Somebody must decide which token is drawn first, which second,
# and what each of them may look at while it is drawn. That decision is the **order**, one of the two axes of this
# course.
#
# **Think before you run:** you draw a cat with a pen, patch by patch, from the top left corner to the bottom right
# one. You are not allowed to correct anything. What is hard about it?

# %% tags=["parameters"]
seed = 0                   # of every picture here
num_draws = 100_000        # mask ratios that are drawn
num_images = 256           # validation scenes whose loss is measured
num_leak_steps = 120       # training steps of the two small models that show a leak
num_denoising_steps = 25   # inside the diffusion head
num_orders = 6             # orders of the same prompt at the end

# %% tags=["needed"]
import copy
import math

import torch
from IPython.display import display

import fluidlab as fl
from fluidlab import checks
from fluidlab.viz.order_player import OrderPlayer, film_strip, mark, record
from fluidlab.viz.plots import contact_sheet
from fluidlab.viz.plots_orders import (
    change_map_figure,
    context_figure,
    influence,
    influence_figure,
    known_neighbours,
    mask_ratio_figure,
    may_look,
    neighbours_figure,
    orders_figure,
    rules_figure,
    schedule_figure,
    shift_figure,
    sight_figure,
    weights_figure,
)
from fluidlab.viz.plots_text import record_attention
from fluidlab.viz.show import image_grid, show


def seeded(number):
    return torch.Generator().manual_seed(number)


raster = fl.FluidPipeline.from_pretrained("raster-diffusion-mini")
random = fl.FluidPipeline.from_pretrained("random-diffusion-mini")
N, grid = raster.model.config.seq_len, raster.model.config.grid
print(f"{N} tokens on a grid of {grid[0]} x {grid[1]}, each {raster.tokenizer.patch_size} x "
      f"{raster.tokenizer.patch_size} pixels")

# %% [markdown]
# Both models see the same tokens: 16 patches, numbered row by row from 0 to 15. They differ in their order and in
# nothing else. `order.permutation` says in which order the positions are filled.

# %%
permutations = [("raster", raster.model.order.permutation(1, N)[0])]
permutations += [(f"random, seed {s}", random.model.order.permutation(1, N, [seeded(s)])[0]) for s in range(3)]
show(orders_figure(permutations, grid),
     alt="Four 4x4 grids with the place of each position in its order. Raster counts 1 to 16 row by row; each random "
         "seed has another permutation.",
     caption="The number says when a position is filled: 1 is first.")

# %% [markdown]
# Every order is *allowed*. The chain rule of probability holds for any permutation $\pi$ of the positions:
#
# $$p(x_1, \dots, x_N) = \prod_{k=1}^{N} p\left(x_{\pi(k)} \mid x_{\pi(1)}, \dots, x_{\pi(k-1)}\right)$$
#
# With perfect conditionals all orders draw the same images. Ours are learned, from finite data, by a finite network;
# so it matters which conditionals we ask it to learn.
#
# ## Who may look at whom
#
# A Transformer mixes positions in one place only: attention. So an order needs an attention rule. Raster order is
# **causal**: position $i$ may look at $j \le i$. Random order is **bidirectional**: everybody may look at everybody,
# and what must not be seen is hidden in another way, which comes below.

# %%
rules = {"raster (causal)": may_look(raster.model.order.causal, N),
         "random (bidirectional)": may_look(random.model.order.causal, N)}
show(rules_figure(rules),
     alt="Two 16x16 matrices. The causal one is filled on and below the diagonal; the bidirectional one everywhere.",
     caption="Row i looks, column j is looked at. Grey: forbidden.")

# %% [markdown]
# A triangle is a fine picture for a sentence. For an image it hides what it means, so here are some of its rows again,
# folded back onto the image.

# %%
show(sight_figure(rules, [0, 5, 10, 15], grid),
     alt="For positions 0, 5, 10 and 15 a 4x4 grid each. In raster order a position sees the rows above and what is "
         "left of it in its own row; in random order it sees the whole grid.",
     caption="Outlined: the position that looks. Hatched: what it cannot look at.")

# %% [markdown]
# Position 5 touches position 9, directly below it, and cannot look at it. It can look at position 3, at the far end of
# the row above. Reading order is natural for text and arbitrary for a picture.

# %% [markdown] tags=["instructor"]
# **Say:** a row of the matrix is one position's view. Point at row 5 here and at its folded picture above, back and
# forth, until somebody says "that is the same thing".
#
# **Poll:** may position 0 look at anything in raster order?
#
# <details><summary>Answer</summary>
#
# At itself. With the shift by one that is the start token, so it decides from the text alone.
#
# </details>
#
# **Goes wrong:** half of a class reads the matrix the other way round (columns look at rows). The check of the exercise
# names this mistake.

# %% [markdown] tags=["exercise"]
# title: The rule as a matrix
# minutes: 8
# level: 1
# task: |-
#   Write `causal_mask(n)`: a matrix of truth values, of shape (n, n), in which entry [i, j] says whether position i may
#   look at position j in raster order. A position may look at itself.
# right: |-
#   the matrix for six positions is the staircase below, and the check agrees for 1, 4 and 7.
# hints:
#   - "Write the matrix for n = 3 by hand, row by row. Row 0 allows one position, row 1 allows two."
#   - |-
#     Entry [i, j] is `j <= i`. Two `torch.arange(n)`, one as a column (`[:, None]`) and one as a row, compare to a
#     matrix; or look at what `torch.tril` keeps.
# why: |-
#   Comparing a column of row numbers with a row of column numbers gives all n x n answers at once. The diagonal is
#   allowed: what enters at position i is token i - 1, as the shift by one below arranges, so looking at oneself reveals
#   nothing.

# %% tags=["target"]
show(rules_figure({"causal_mask(6)": may_look(True, 6)}),
     alt="A 6x6 matrix, filled on and below the diagonal: row 0 has one entry, row 5 has six.",
     caption="What causal_mask(6) looks like when it is right.")

# %% tags=["stub"]
def causal_mask(n):
    """Who may look at whom in raster order: bool (n, n), True where row i may look at column j."""
    ...


# %% tags=["solution"]
def causal_mask(n):
    """Who may look at whom in raster order: bool (n, n), True where row i may look at column j."""
    places = torch.arange(n)
    return places <= places[:, None]                                  # (n, n) column j against row i


# %% tags=["check"]
causal_mask = checks.check_causal_mask(causal_mask)
allowed = causal_mask(N).sum(dim=1)
print(f"positions that positions 0 to {N - 1} may look at:", *allowed.tolist())

# %% [markdown]
# ## Causal attention in five lines
#
# The rule is enforced by one line: forbidden scores become $-\infty$ before the softmax, so their weight is exactly 0.

# %%
from fluidlab.layers import attend


def causal_attention(q, k, v):                                        # each (B, H, N, D)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])         # (B, H, N, N)
    scores = scores.masked_fill(~causal_mask(q.shape[2]), -math.inf)
    return scores.softmax(dim=-1) @ v                                 # (B, H, N, D)


q, k, v = torch.randn(3, 2, 4, N, 8, generator=seeded(0))
difference = (causal_attention(q, k, v) - attend(q, k, v, causal=True)).abs().max().item()
assert difference < 1e-5
print(f"largest difference to fluidlab.layers.attend: {difference:.1e}")

# %% [markdown]
# And what do trained models do with what they may look at? We record the self-attention of both on a scene of the
# validation split (the mean over blocks and heads). For the random model every second token is hidden.

# %%
scenes = fl.EmojiScenes(split="validation", image_size=64)
pixels, captions = scenes.batch([5])
with torch.no_grad():
    tokens = raster.tokenizer.encode(pixels / 127.5 - 1)                       # (1, N, C)
    features, mask = raster.text_encoder(captions)
every_second = torch.tensor([[(n // 4 + n) % 2 == 1 for n in range(N)]])  # (1, N) bool, a chequerboard

weights = {}
for name, pipe in (("raster", raster), ("random", random)):
    with record_attention(pipe.model, "self_attention") as records, torch.no_grad():
        pipe.model.hidden(tokens, every_second, *pipe.model.aligner(features, mask))
    weights[name] = torch.stack([record[0] for record in records]).mean(dim=(0, 1, 2))  # (N, N)
show(weights_figure(weights),
     alt="Self-attention weights of the two trained models as 16x16 matrices. The raster model's upper triangle is "
         "exactly zero; the random model uses all of the matrix.",
     caption=f'Measured on "{captions[0]}". Each row sums to 1.')

# %% [markdown]
# In the raster model the rows at the top are dark because they have few positions to share their attention among: row
# 0 can only look at itself.
#
# ## Do not trust the mask: test it
#
# An attention rule is code, and code has bugs. The worst of them here is a **leak**: the model sees the token that it
# is asked to predict. Its training loss is then wonderful and its pictures are noise. A leak can be found without
# reading a line of the model: change one token, and see which outputs change.
#
# `influence` does that for every token. Both models get the same picture; for the random model the chequerboard is
# hidden. **Guess first:** token 5 is changed. Which outputs $z_i$ move in each model?

# %%
other_pixels, _ = scenes.batch([1])
with torch.no_grad():
    other = raster.tokenizer.encode(other_pixels / 127.5 - 1)
moved = {name: influence(pipe.model, tokens, features, mask, every_second, other)
         for name, pipe in (("raster", raster), ("random", random))}
hidden = {"random": every_second[0]}
changed = int(torch.nonzero(~every_second[0])[2])
show(change_map_figure({name: m[:, changed] for name, m in moved.items()}, changed, grid, hidden),
     alt=f"Token {changed} is changed. In the raster model only outputs at later positions move; in the random model "
         "all outputs move.",
     caption=f"Outlined: the changed token {changed}. White: the output did not move by a single bit. Hatched: hidden.")
for name, m in moved.items():
    print(f"{name}: token {changed} moves the outputs at {torch.nonzero(m[:, changed]).flatten().tolist()}")

# %% [markdown]
# Now all 16 tokens, as a matrix: column $j$ is the token that was changed.

# %%
show(influence_figure(moved, hidden),
     alt="Two matrices. Raster: filled strictly below the diagonal only. Random: the columns of the eight known tokens "
         "are filled from top to bottom, the columns of the eight hidden tokens are exactly zero.",
     caption="White is exactly 0. An x marks a column whose token was hidden.")
assert torch.equal(moved["raster"] > 0, may_look(True, N).tril(-1))
assert torch.equal(moved["random"] > 0, ~every_second.expand(N, N))
print("raster: z at position i knows the tokens before i, and nothing else")
print("random: z at every position knows all known tokens, and no hidden one")

# %% [markdown]
# Two ways to keep a secret. Raster order hides the *future* with a mask on attention. Random order hides *content*:
# the tokens to be predicted are replaced by one learned mask token before the first layer, so there is nothing left to
# leak, and attention may run freely.
#
# Look at the diagonal on the left: it is white. The causal rule alone would not do that, for it allows $j = i$.
#
# ## Shift by one
#
# The missing piece is the shift. The inputs of a raster model are the tokens moved right by one, behind a learned
# **start token**. So the vector that enters at position $i$ is token $i - 1$, and $z_i$ may look at itself without
# seeing its own answer. With numbers in place of tokens:

# %%
from fluidlab.model.orders.raster import RasterOrder

order = RasterOrder(width=1)
x = torch.arange(1.0, N + 1).view(1, N, 1)  # "token" n is the number n + 1
entered = order.inputs(x, None).flatten().tolist()
print("position   ", *(f"{n:>4}" for n in range(N)))
print("goes in    ", " <s>", *(f"{value:4.0f}" for value in entered[1:]))
print("to predict ", *(f"{value:4.0f}" for value in x.flatten().tolist()))

# %% [markdown]
# The last token, 16, never goes in: nothing comes after it. What happens if the shift is forgotten? We build exactly
# that mistake, and ask the black-box test.

# %%
class WithoutShift(RasterOrder):
    def inputs(self, x, is_target):
        return x  # position i is fed token i


leaky = copy.deepcopy(raster.model)
leaky.order = WithoutShift(leaky.config.width)
leak = influence(leaky, tokens, features, mask, every_second, other)
show(influence_figure({"raster": moved["raster"], "raster without shift": leak}),
     alt="Left: the correct raster model, white on the diagonal. Right: without the shift the diagonal is filled.",
     caption="One diagonal makes the difference: on the right every output has already seen its own answer.")
assert (leak.diagonal() > 0).all() and (moved["raster"].diagonal() == 0).all()

# %% [markdown]
# Would you notice it in training? Two nano models, the same in all but the shift, learn discrete tokens of 512 scenes
# for a few seconds.

# %%
vq, text = fl.load_tokenizer("scenes-vq"), raster.text_encoder
train_pixels, train_captions = fl.EmojiScenes(split="train", image_size=64).batch(range(512))
with torch.no_grad():
    train_codes = vq.encode(train_pixels / 127.5 - 1)                              # (512, N)
    train_features, train_mask = text(train_captions)


def short_training(forget_shift):
    torch.manual_seed(seed)
    model = fl.Fluid(fl.preset("nano", order="raster", head="softmax", codebook_size=vq.codebook_size))
    if forget_shift:
        model.order = WithoutShift(model.config.width)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for step in range(num_leak_steps):
        rows = torch.randint(512, (32,), generator=seeded(step))
        loss = model(train_codes[rows], train_features[rows], train_mask[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


curves = {"with shift": short_training(False), "shift forgotten": short_training(True)}
for name, losses in curves.items():
    print(f"{name:<16} loss {losses[0]:.2f} -> {losses[-1]:.2f} nats a token")
print(f"to guess blindly costs log V = {math.log(vq.codebook_size):.2f}")

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(8, 3.4))
for (name, losses), style in zip(curves.items(), ("-", "--"), strict=True):
    axis.plot(losses, style, label=name, color="#0072B2" if style == "-" else "#D55E00")
axis.set(xlabel="step", ylabel="training loss [nats]", ylim=(0, None))
axis.legend()
show(figure, alt="Training loss of two small models: the one without the shift falls far below the other.",
     caption="The better curve belongs to the broken model: it copies its answer.")

# %% [markdown]
# A loss that is too good to be true is one of the most useful symptoms there are. When a curve of yours falls faster
# than any before it, run the black-box test before you celebrate.

# %% [markdown] tags=["instructor"]
# **Poll:** the lower curve belongs to a model that has lost its shift. How would you notice without the other curve?
#
# <details><summary>Answer</summary>
#
# It falls below what the data allow: nobody can predict a code of 4,096 that well after a few steps. And pictures drawn
# with it are noise, because when sampling starts there is nothing to copy.
#
# </details>
#
# **Goes wrong:** students add the start token and forget to drop the last one. Then the sequence has 17 positions, and
# the error appears far away, in the position embedding.

# %% [markdown] tags=["exercise"]
# title: Shift by one
# minutes: 10
# level: 2
# task: |-
#   Write `shift_by_one(x, start)`, which makes the inputs of a raster model from its embedded tokens `x` of shape
#   (B, N, D) and the learned start vector `start` of shape (D,): position 0 is fed `start`, position i is fed token
#   i - 1. The result has the shape of `x`. Do not change `x`.
# right: |-
#   with the numbers 1 to 16 as tokens and -1 as the start, every bar has moved one place to the right and the last is
#   gone.
# hints:
#   - "What goes in at the last position? And which token is therefore never an input?"
#   - "`torch.cat` joins the start, repeated for every image (`start.expand(B, 1, D)`), and all tokens but the last."
# why: |-
#   `expand` repeats the start vector without copying it, and `x[:, :-1]` leaves out the token that nobody may see.
#   Rolling would bring the last token to the front: a leak of a single position, which no loss curve shows clearly.

# %% tags=["target"]
numbers = torch.arange(1.0, N + 1)                                    # (N,) tokens that are their own number
show(shift_figure(numbers, torch.cat([torch.tensor([-1.0]), numbers[:-1]])),
     alt="Two rows of bars. The tokens rise from 1 to 16; what goes in starts with -1 and rises from 1 to 15.",
     caption="Left: the tokens. Right: what goes in when the shift is right. The last token is gone.")

# %% tags=["stub"]
def shift_by_one(x, start):
    """Inputs of a raster model (B, N, D): the start (D,), then all tokens of x (B, N, D) but the last."""
    ...


# %% tags=["solution"]
def shift_by_one(x, start):
    """Inputs of a raster model (B, N, D): the start (D,), then all tokens of x (B, N, D) but the last."""
    first = start.expand(len(x), 1, -1)                               # (B, 1, D)
    return torch.cat([first, x[:, :-1]], dim=1)                       # (B, N, D)


# %% tags=["check"]
shift_by_one = checks.check_shift_by_one(shift_by_one)
print("goes in:", *shift_by_one(numbers.view(1, N, 1), torch.tensor([-1.0])).flatten().int().tolist())

# %% [markdown]
# ## What random order hides in training
#
# In training a random-order model sees a picture with some tokens replaced by the mask token, and predicts those. How
# many? That is drawn anew for every image. Here are the training masks of one scene.

# %%
targets = random.model.order.targets(6, N, seeded(seed))  # (6, N) bool, True = hidden
everything_known = torch.zeros(1, N, dtype=torch.bool)
show(image_grid([mark(pixels[0], row, scale=2) for row in torch.cat([everything_known, targets])],
                titles=["the scene"] + [f"{int(row.sum())} of {N} hidden" for row in targets]),
     alt="A scene, and six copies of it with different patches hatched: " + ", ".join(
         f"{int(row.sum())} hidden" for row in targets) + ".",
     caption="Six training examples made from one picture. Hatched tokens are replaced by the mask token.")

# %% [markdown]
# The share of hidden tokens is $r = \cos(\pi u / 2)$ with $u$ uniform between 0 and 1. (That Fluid draws it like this
# is **not confirmed**: it is MaskGIT's formula. MAR, from which Fluid's head comes, draws from a truncated normal, also
# not confirmed.)

# %%
ratios = torch.cos(math.pi / 2 * torch.rand(num_draws, generator=seeded(seed)))     # (num_draws,)
show(mask_ratio_figure(ratios),
     alt="Left: a quarter of a cosine falls from 1 to 0. Right: the histogram of the drawn ratios rises towards 1 and "
         "follows the density 2 / (pi sqrt(1 - r^2)).",
     caption="Nearly everything hidden is the commonest case.")
print(f"mean of {num_draws} draws: {ratios.mean():.4f}      2/pi = {2 / math.pi:.4f}")
hidden_counts = random.model.order.targets(min(num_draws, 20_000), N, seeded(seed)).sum(dim=1)
print(f"all {N} tokens hidden in {(hidden_counts == N).float().mean():.1%} of the training images "
      f"(computed: {2 / math.pi * math.acos((N - 1) / N):.1%})")

# %% [markdown]
# Why this odd distribution? Because of sampling. A model should be trained on the states that it will be in when it
# draws. Sampling begins with everything hidden and ends with nothing hidden, and the **cosine schedule** says how much
# is still hidden after a share $u$ of the steps: $\cos(\pi u / 2)$. To draw $u$ at random is to stop the sampling at a
# random step. The training mask *is* a snapshot of sampling.
#
# ## The cosine schedule
#
# Few tokens first, many at the end. At the start nothing is known, and two tokens that are drawn in the same step
# cannot agree with each other. Later the picture is nearly fixed, and many tokens can be filled at once.

# %%
sizes = random.model.order.chunk_sizes
show(schedule_figure([(f"{N} tokens, {K} steps", sizes(N, K)) for K in (4, 8, 16)]),
     alt="Bars of the tokens filled in each step for 16 tokens: " + "; ".join(
         f"{K} steps {sizes(N, K)}" for K in (4, 8, 16)) + ".",
     caption="Bars: tokens that a step fills. Dotted: tokens still unknown.")

# %% [markdown]
# With 16 steps for 16 tokens there is no choice left: every step must fill at least one token, so the schedule becomes
# one at a time. With few steps the cosine shows. The paper's setting is 64 steps for 256 tokens:

# %%
show(schedule_figure([(f"256 tokens, {K} steps", sizes(256, K)) for K in (16, 64)]),
     alt=f"Bars for 256 tokens: with 64 steps the first steps fill {sizes(256, 64)[0]} token each and the last "
         f"{sizes(256, 64)[-1]}; with 16 steps the first fills {sizes(256, 16)[0]}, the last {sizes(256, 16)[-1]}.",
     caption="The paper samples 256 tokens in 64 steps.")
print("64 steps:", sizes(256, 64))
assert sum(sizes(256, 64)) == 256 and min(sizes(256, 64)) >= 1
try:
    sizes(N, 17)
except ValueError as error:
    print("more steps than tokens:", error)

# %% [markdown]
# The last lines ask for more steps than tokens, and the answer is a sentence instead of a wrong schedule.

# %% [markdown] tags=["instructor"]
# **Say:** two tokens drawn in the same step are strangers: neither has seen the other. Early in a picture strangers
# disagree, late they have the same neighbours and cannot.
#
# **Poll:** 256 tokens in 64 steps. Does the last step fill 4 tokens, fewer or more?
#
# <details><summary>Answer</summary>
#
# More: 6. The cosine is steepest at its end. Four would be the mean.
#
# </details>
#
# **Goes wrong:** the first step. With `cos(pi/2 * k/K)` and k from 0, the first step fills nothing.

# %% [markdown] tags=["exercise"]
# title: The cosine schedule
# minutes: 15
# level: 3
# task: |-
#   Write `cosine_schedule(N, K)`: a list of K whole numbers, how many of N tokens each step fills; K is at most N.
#   After step k, counted from 0, there are $N \cos\left(\frac{\pi}{2} \frac{k + 1}{K}\right)$ tokens unknown, rounded
#   **down**. But every step must fill at least one token and leave at least one for each step to come. Add `1e-9`
#   before you round: $16 \cos(\pi/3)$ is 8, and floating point may say 7.9999.
# right: |-
#   the bars for 16 tokens grow from step to step and add up to 16; with 16 steps they are all 1.
# hints:
#   - |-
#     Keep one number, `unknown`, and walk through the steps: compute what is left after a step, append the difference.
#   - |-
#     Two bounds bend what is left: it is at most `unknown - 1` (this step fills one) and at least `K - k - 1` (one for
#     each later step). `max(min(left, unknown - 1), K - k - 1)`. If K is at most N, will the second ever be needed?
# why: |-
#   The cosine decides, the first bound repairs: near the start the cosine is so flat that rounding may fill nothing.
#   The second is a promise that the cosine keeps by itself: with m steps to come it leaves
#   $N \sin\left(\frac{\pi}{2} \frac{m}{K}\right)$ tokens, at least $N m / K$ and so at least m. With as many steps as
#   tokens the first bound rules alone, and the schedule is one token at a time.

# %% tags=["target"]
right = {(n, k): random.model.order.chunk_sizes(n, k) for n, k in ((16, 4), (16, 8), (64, 8))}
show(schedule_figure([(f"{n} tokens, {k} steps", filled) for (n, k), filled in right.items()]),
     alt="Three bar charts that rise to the right: " + "; ".join(
         f"{n} tokens in {k} steps {filled}" for (n, k), filled in right.items()) + ".",
     caption="What the schedule looks like when it is right.")

# %% tags=["stub"]
def cosine_schedule(N, K):
    """How many of N tokens each of K steps fills: a list of K whole numbers, few first, which add up to N."""
    ...


# %% tags=["solution"]
def cosine_schedule(N, K):
    """How many of N tokens each of K steps fills: a list of K whole numbers, few first, which add up to N."""
    filled, unknown = [], N
    for k in range(K):
        left = math.floor(N * math.cos(math.pi / 2 * (k + 1) / K) + 1e-9)
        left = max(min(left, unknown - 1), K - k - 1)                 # at least one now, and one for each step to come
        filled.append(unknown - left)
        unknown = left
    return filled


# %% tags=["check"]
cosine_schedule = checks.check_cosine_schedule(cosine_schedule)
print("64 tokens in 8 steps:", cosine_schedule(64, 8))

# %% [markdown]
# ## The order player
#
# Now watch. Both models draw the same prompt: raster order in 16 steps, random order in 8. A decoder needs a token at
# every position, also where none is known yet; there it gets the token of blank paper, and the patch is hatched. Move
# the step, type it, or press play. Click a patch, or choose a position, to see where it looks. Change the prompt and
# press *draw*.

# %%
prompt = "a photo of a red umbrella and a blue car"
options = dict(guidance_scale=3.0, num_denoising_steps=num_denoising_steps)


def draw_both(prompt, seed):
    return [record(raster, prompt, "raster", seed, **options),
            record(random, prompt, "random", seed, num_inference_steps=8, **options)]


player = OrderPlayer(draw_both, prompt, seed)
display(player.widget)

# %% [markdown]
# The same two recordings as film strips, for readers without a running kernel.

# %%
for recording in player.recordings:
    steps = range(0, 17, 2) if recording.num_steps == 16 else range(9)
    frames, titles = film_strip(recording, list(steps))
    show(image_grid(frames, titles=titles, columns=5, gap=8),
         alt=f'Film strip of "{prompt}" in {recording.title} order, from all tokens unknown to none.',
         caption=f"{recording.title} order. Outlined: what the last step has drawn.")

# %% [markdown]
# **Look at the seams.** A patch that is known can still change a little when its neighbour becomes known. The token
# did not change; the decoder mixes neighbouring tokens.
#
# ## What random order gains
#
# Count, for both orders, on which sides the neighbours of a token are already known when it is drawn.

# %%
def step_numbers(model, num_steps, images):
    """In which step each position is filled: (images, N)."""
    sizes = torch.tensor(model.order.chunk_sizes(N, num_steps))
    permutation = model.order.permutation(images, N, seeded(seed))
    steps = torch.repeat_interleave(torch.arange(len(sizes)), sizes).expand(images, N)
    return torch.zeros(images, N, dtype=torch.long).scatter(1, permutation, steps)


sides = {"raster": known_neighbours(step_numbers(raster.model, None, 1), grid),
         "random, 16 steps": known_neighbours(step_numbers(random.model, 16, 4000), grid),
         "random, 8 steps": known_neighbours(step_numbers(random.model, 8, 4000), grid)}
show(neighbours_figure(sides),
     alt="; ".join(f"{name}: " + ", ".join(f"{side} {share:.0%}" for side, share in shares.items())
                   for name, shares in sides.items()) + ".",
     caption="Raster order never knows what is to the right or below.")

# %% [markdown]
# Random order does not see *more* on average: with one token a step both know half of the neighbours. It sees from
# *all sides*, and it sees the whole picture in its first steps: eight tokens scattered over the image tell more about
# the layout than the upper half does. A raster model must decide where the dog stands before it has drawn the first
# patch of the lower half, and cannot come back.
#
# There is a second gain. In a causal model the vectors of early tokens were computed when later tokens did not exist,
# and stay like that. A bidirectional model computes all vectors anew in every step, so old tokens are read in the
# light of new ones.
#
# What is context worth to the two models here? We measure the loss of hidden tokens on validation scenes when exactly
# $n$ tokens are known. For raster those are always the first $n$.

# %%
def loss_with_known(model, known):
    """Loss of every token (B, N) when the tokens in `known` (B, N) are given; causal models ignore `known`."""
    with torch.no_grad():
        z = model.hidden(val_tokens, ~known, *model.aligner(val_features, val_mask))
        return model.head.loss(z, val_tokens, seeded(seed))                         # (B, N)


val_pixels, val_captions = scenes.batch(range(num_images))
with torch.no_grad():
    val_tokens = raster.tokenizer.encode(val_pixels / 127.5 - 1)
    val_features, val_mask = text(val_captions)

# Another seed than the noise's: with the same one the last place would always meet the strongest noise.
place = random.model.order.permutation(num_images, N, seeded(seed + 1)).argsort(dim=1)  # (B, N)
in_raster_order = torch.arange(N).expand(num_images, N)  # (B, N)
asked_alike = "random, asked raster's questions"
context = {"raster": [], "random": [], asked_alike: []}
all_raster = loss_with_known(raster.model, place >= 0)                              # (B, N)
for n in range(N):
    context["raster"].append(all_raster[:, n].mean().item())  # z_n knows tokens 0 .. n-1
    losses = loss_with_known(random.model, place < n)
    context["random"].append(losses[place >= n].mean().item())
    losses = loss_with_known(random.model, in_raster_order < n)
    context[asked_alike].append(losses[:, n].mean().item())  # the first n known, what is at n?
show(context_figure(context),
     alt="Loss against the number of known tokens. " + "; ".join(
         f"{name}: " + ", ".join(f"{v:.2f}" for v in values) for name, values in context.items()) + ".",
     caption="Diffusion loss (squared error on the noise; 1 = knows nothing).")
print(f"{'known tokens':<33}     0 -> 15")
for name, values in context.items():
    print(f"{name:<33} {values[0]:.3f} -> {values[-1]:.3f}   mean {sum(values) / N:.3f}")

# %% [markdown]
# Read the curves with care. The $n$-th point of the raster curve is always the same place in the image, so its bumps
# say that some places are harder than others (and with so few scenes a part of them is chance). The random curve
# averages over places.
# The dotted curve makes a fair pair with raster's: the random model gets raster's own questions, "the first $n$ are
# known, what is at $n$?" Point by point, the distance between these two is what it costs to be a generalist. Dotted
# and solid ask about different places at each $n$, so set only their means side by side: their difference is what it is
# worth here to have known tokens on all sides.

# %% [markdown]
# ## What random order costs
#
# **No key-value cache.** A causal model keeps the keys and values of old tokens, because nothing that comes later can
# change them: each step reads one new token. In a bidirectional model every new token changes what all others see, so
# every step must read the whole sequence again. We count how many token vectors pass through the first block.

# %%
def vectors_read(pipe, **how):
    counted = []
    hook = pipe.model.backbone.blocks[0].register_forward_hook(lambda block, x, out: counted.append(out.shape[1]))
    fl.generate(pipe.model, features, mask, guidance_scale=1.0, num_denoising_steps=1, generator=[seeded(0)], **how)
    hook.remove()
    return sum(counted)


print(f"raster with cache      {vectors_read(raster):5d} token vectors for {N} tokens")
print(f"raster without cache   {vectors_read(raster, use_cache=False):5d}")
for steps in (16, 8, 4):
    print(f"random, {steps:2d} steps       {vectors_read(random, num_inference_steps=steps):5d}")
print(f"\nby the same arithmetic at the paper's size (derived): raster with cache {256}, random in 64 steps {64 * 256}")

# %% [markdown]
# So random order pays with arithmetic and gets steps in return: 64 passes in place of 256, each with many tokens at
# once, which is what an accelerator likes. Which of the two is faster depends on the machine and on the batch size;
# notebook 06 takes the time.
#
# **Tokens of one step do not see each other.** With fewer steps, more tokens are drawn blindly side by side. At one
# step, all 16 are.

# %%
few = {K: random(prompt, seed=seed, num_inference_steps=K, **options).pixels[0] for K in (1, 2, 4, 8, 16)}
show(image_grid(list(few.values()), titles=[f"{K} step{'s' if K > 1 else ''}" for K in few]),
     alt=f'"{prompt}" drawn by the random-order model in 1, 2, 4, 8 and 16 steps from one seed.',
     caption="One seed, one prompt. With one step no token knows any other.")

# %% [markdown]
# **Fewer lessons per image.** A raster model learns from all 16 tokens of every training image, a random-order model
# only from the hidden ones, about two thirds of them.
#
# ## The same prompt, several orders
#
# How much does the order itself decide? Seeds change two things at once: the order and the noise. To separate them we
# take the discrete model at temperature 0, which always picks the likeliest code. Now nothing is random but the order.

# %%
softmax = fl.FluidPipeline.from_pretrained("random-softmax-mini")
softmax_raster = fl.FluidPipeline.from_pretrained("raster-softmax-mini")
cold = dict(guidance_scale=3.0, temperature=0)
by_order = softmax([prompt] * num_orders, seed=seed, **cold)
always_same = softmax_raster([prompt] * num_orders, seed=seed, **cold)
show(contact_sheet([*always_same.pixels, *by_order.pixels], ["raster", "random"],
                   [f"seed {s}" for s in range(seed, seed + num_orders)]),
     alt=f'"{prompt}" at temperature 0: the raster row shows the same picture for every seed; the random row shows one '
         "picture for each order.",
     caption="Temperature 0. Above: no randomness left. Below: the order alone makes the difference.")
assert (always_same.tokens == always_same.tokens[0]).all()
codes = by_order.tokens
pairs = torch.stack([(codes[a] == codes[b]).float().mean() for a in range(num_orders) for b in range(a)])
print(f"two random orders agree in {pairs.mean():.0%} of the tokens")

# %% [markdown]
# The likeliest code at every place need not make the likeliest picture. Check the colours of both rows against the
# prompt before you trust a temperature of 0.

# %% [markdown]
# A random-order model accepts any order, also one that you invent: a new order is one method. Here it draws in raster
# order, backwards, and from the middle outwards. (It was trained on random ones only.)

# %%
from fluidlab.model.orders.random_order import RandomOrder


class FixedOrder(RandomOrder):
    """A random-order model that fills the positions as it is told."""

    def permutation(self, B, N, generator=None, device="cpu"):
        return self.positions.expand(B, N)


rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
from_middle = ((rows - 1.5) ** 2 + (columns - 1.5) ** 2).flatten().argsort(stable=True)
inventions = {"raster": torch.arange(N), "backwards": torch.arange(N).flip(0), "middle first": from_middle,
              "corners first": from_middle.flip(0)}
pictures = []
original = softmax.model.order
for positions in inventions.values():
    softmax.model.order = FixedOrder(softmax.model.config.width)
    softmax.model.order.load_state_dict(original.state_dict())  # the same learned mask token
    softmax.model.order.positions = positions
    pictures.append(softmax(prompt, seed=seed, **cold).pixels[0])
softmax.model.order = original
show(orders_figure(list(inventions.items()), grid),
     alt="Four invented orders as numbered grids: raster, backwards, middle first, corners first.",
     caption="Four orders for one and the same random-order model.")
show(image_grid(pictures, titles=list(inventions), scale=3),
     alt=f'"{prompt}" drawn by the random-order discrete model in four invented orders at temperature 0.',
     caption="The same weights, no noise, four orders.")

# %% [markdown]
# ## What the paper found, and what we can see here
#
# The paper trained all four combinations of order and token kind and found that **random order is clearly better on
# GenEval**, a test of whether the objects, counts, colours and positions of the prompt are in the picture, and that
# continuous tokens are clearly better in visual quality.
#
# What can a toy with 16 tokens show of that? It shows the *mechanism*: what each order can look at, what leaks, how a
# picture grows. It does **not** show the finding. With 16 tokens a raster model is blind for 15 short steps, not for
# 255; objects here are two tokens wide; and a handful of pictures, chosen by one seed, decide nothing. A mean loss
# above that favours raster order is no contradiction either: in a short training it counts that raster order learns
# from every token of every image. Whoever wants to compare orders needs hundreds of prompts, a judge that is not the
# author, and models trained alike and long enough: notebooks 07 and 08.

# %% [markdown] tags=["closing"]
# recap:
#   - Any order factorises the image correctly; orders differ in the conditionals that the network has to learn.
#   - |-
#     Raster: causal attention, shift by one, start token. Random: mask token, bidirectional attention.
#   - |-
#     A black-box test (change token $j$, see which $z_i$ move) proves that nothing leaks. A loss that is too good is
#     the symptom of a leak.
#   - |-
#     The training mask with ratio $\cos(\pi u/2)$ is a snapshot of sampling with the cosine schedule; its mean is
#     $2/\pi$.
#   - Random order sees all sides and the whole picture early; it pays with the key-value cache.
# quiz:
#   - q: Why is the last token never an input of a raster model?
#     a: |-
#       Inputs are shifted right by one: position 15 is fed token 14. Token 15 would be the input of position 16, which
#       does not exist.
#   - q: A random-order model is trained with attention to all positions. Why can it not cheat?
#     a: |-
#       The tokens that it must predict are not in its input: the mask token stands in their place. What is not there
#       cannot be looked at.
#   - q: Sixteen tokens, eight steps. Why does the first step of the cosine schedule not fill two tokens?
#     a: |-
#       After one of eight steps $16 \cos(\pi / 16) = 15.7$ tokens should be unknown, rounded down 15: one is filled.
#   - q: Could a raster model use a key-value cache in *training*?
#     a: |-
#       It has no use for one: in training all tokens are known, and one pass computes all positions at once.
# references:
#   - |-
#     Fan et al., *Fluid: Scaling Autoregressive Text-to-image Generative Models with Continuous Tokens*, arXiv
#     2410.13863
#   - Li et al., *Autoregressive Image Generation without Vector Quantization* (MAR), arXiv 2406.11838
#   - |-
#     Chang et al., *MaskGIT: Masked Generative Image Transformer*, arXiv 2202.04200
#   - Devlin et al., *BERT*, arXiv 1810.04805 · Vaswani et al., *Attention Is All You Need*, arXiv 1706.03762
