# %% [markdown] tags=["front-matter"]
# title: "Heads: how a network draws a token that no codebook holds"
# goals:
#   - explain why squared error on a token gives blur, and show it on numbers and on pictures
#   - train a softmax, a diffusion and a flow head on a distribution that can be seen, and tell what limits each
#   - read a noise schedule, follow a token from noise back to data, and say why the prediction is clipped
#   - choose the number of denoising steps and the temperature of each head knowingly
# needs: "Notebooks 01 and 03; PyTorch modules and training loops; the normal distribution"
# hardware: "a laptop CPU, 2 GB of free memory"
# fast:
#   num_steps: 30
#   num_points: 150
#   num_scenes: 160
#   step_counts: [1, 4]
#   cost_steps: [5]
#   code_counts: [16, 64]

# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 5, do: "The fork: everybody draws the curve that squared error will give, then run the cell."}
#   - {minutes: 8, do: "Mush, on patches and on tokens; the poll on the squared error of a real patch."}
#   - {minutes: 10, do: "What a head must give; the three first losses, guessed before the cell runs."}
#   - {minutes: 8, do: "Exercise 4.1 while the softmax heads train."}
#   - {minutes: 7, do: "Grids, and why more codes are no way out in 16 dimensions."}
#   - {minutes: 20, do: "Noise, the schedule, then exercise 4.2 in pairs."}
#   - {minutes: 10, do: "Loss by time and the clip. Have the factor at t = 999 guessed."}
#   - {minutes: 17, do: "Flow: exercise 4.3, then the two kinds of walk side by side."}
#   - {minutes: 25, do: "Temperature: first the explorer, then exercise 4.4; the fast ones go on to costs."}
#   - {minutes: 10, do: "Costs, real tokens, recap and quiz."}

# %% [markdown]
# ## One question, many right answers
# The backbone has read a caption and the tokens that are already known. For the next position it hands over one
# vector, $z$. What should be done with it?
#
# If a token is the number of a code, the answer is old: score every code, apply softmax, draw one. Language models do
# this. But Fluid's best variant has **continuous** tokens: 16 real numbers each. There is no list to score. The
# obvious thing is to let a linear layer output 16 numbers and to train it with squared error. This notebook begins
# with why that fails, and then builds what works.

# %% tags=["parameters"]
num_steps = 1600                       # training steps of each continuous head
batch_size = 512                       # tokens in a step
num_points = 1500                      # tokens drawn for a picture or a distance
num_scenes = 1000                      # pictures for what real tokens look like
code_counts = [16, 64, 1024]           # sizes of codebook for the softmax head
step_counts = [1, 2, 4, 8, 16, 32]    # denoising steps to compare
cost_steps = [5, 10, 25, 100]          # denoising steps to time
seed = 0                               # everything random starts here

# %% tags=["needed"]
import math
import time

import torch
from IPython.display import display

import fluidlab as fl
from fluidlab import checks
from fluidlab.model.heads.diffusion import CosineDiffusion
from fluidlab.model.heads.flow import RectifiedFlow
from fluidlab.train.optim import learning_rate
from fluidlab.viz import plots_heads as plots
from fluidlab.viz.show import image_grid, show
from fluidlab.viz.toy_tokens import SHAPES, best_token, chamfer, kmeans, nearest, toy_tokens


def seeded(number):
    return torch.Generator().manual_seed(number)


# %% [markdown]
# ## Squared error answers with the mean
# A fork in the road: for each $x$ the right answer is $y = x$ or $y = -x$, each half of the time. We train a small
# network with squared error to predict $y$ from $x$.
#
# **Before you run the cell:** where will its curve lie?

# %%
g = seeded(seed)
x = torch.rand(2000, 1, generator=g)                                            # (B, 1)
y = x * (2 * torch.randint(2, x.shape, generator=g) - 1) + 0.03 * torch.randn(x.shape, generator=g)

torch.manual_seed(seed)
regressor = torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.SiLU(), torch.nn.Linear(64, 1))
optimizer = torch.optim.Adam(regressor.parameters(), lr=1e-2)
for _ in range(150):
    loss = (regressor(x) - y).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

answers = y[x > 0.8]                                                            # right answers where x is near 0.9
line = torch.linspace(0, 1, 50)[:, None]
figure, best = plots.fork(x, y, torch.cat([line, regressor(line).detach()], dim=1), answers)
gap = (answers - best).abs().min().item()
show(figure, alt="Left: points on a fork and a nearly flat curve between its two arms. Right: two peaks of right "
                 f"answers near -0.9 and 0.9, and a squared error that is smallest at {best:.2f}.",
     caption=f"The guess with the smallest error is {best:.2f}; no right answer is nearer to it than {gap:.2f}.")

# %% [markdown]
# Squared error has one best answer, the mean: $\arg\min_c \mathbb{E}\,(y-c)^2 = \mathbb{E}\,y$. If there are two right
# answers, the mean lies between them, where no data is. Nothing is wrong with the network or its training. The
# *question* was wrong: we asked for a number and should have asked for a **distribution**.
#
# ### The same with real patches
# Here are pictures whose captions all ask for the same thing; we keep those that show it small, for these can stand
# anywhere. Let us cut out the same token, 16x16 pixels at the left edge, from each. A model that has only read the
# caption must predict this token.

# %%
scenes = fl.EmojiScenes(split="train", image_size=64, seed=seed, num_classes=4, skills=("single_object",))
wanted = scenes.classes[0]
things = [scenes[i] for i in range(num_scenes)]
alike = [t["image"] for t in things for box in [t["objects"][0]["box"]]
         if t["objects"][0]["class"] == wanted and box[2] - box[0] < 36]
alike = torch.stack(alike).float() / 127.5 - 1                                  # (M, 3, 64, 64)
patches = alike[:, :, 32:48, 0:16]                                              # (M, 3, 16, 16) one token of each
print(f"{len(alike)} of {num_scenes} pictures show a small {wanted}")

# %%
pictures = [*alike[:7], alike.mean(0)]
titles = [f"picture {i + 1}" for i in range(7)] + ["mean of all"]
show(image_grid(pictures, titles=titles, columns=8),
     alt=f"Seven pictures of a {wanted} at different places, and the mean of {len(alike)}, a smear.",
     caption="Same caption, many right pictures. The last one is what squared error would answer.")
show(image_grid([*patches[:7], patches.mean(0)], titles=titles, columns=8, scale=8),
     alt="The same 16x16 patch of each of the seven pictures, in some a piece of a cat and in others background, and "
         "their mean, a pale ghost of both.",
     caption="The patch that one token covers, cut from each picture.")

# %% [markdown]
# **Question:** the mean patch looks like nothing. Surely its squared error is worse than that of a real patch?

# %%
error_of_mean = (patches - patches.mean(0)).square().mean().item()
others = patches[torch.randperm(len(patches), generator=seeded(seed))]
error_of_real = (patches - others).square().mean().item()
print(f"squared error of the mean patch    {error_of_mean:.4f}")
print(f"squared error of another real one  {error_of_real:.4f}   ({error_of_real / error_of_mean:.2f} times as much)")

# %% [markdown]
# A real patch, right in every way, costs about **twice** as much as mush: if $a$ and $b$ are drawn independently,
# $\mathbb{E}(a-b)^2 = 2\,\mathrm{Var}$, and the mean costs $\mathrm{Var}$. Whoever trains with squared error on the
# answer rewards mush.
#
# Does it help to predict tokens of the VAE instead of pixels? We encode, average the tokens, decode.

# %% [markdown] tags=["instructor"]
# **Say:** nothing is wrong with the network. It answers the question that the loss asks, and the question has one
# answer. We are about to change the question.
#
# **Poll:** ten of these pictures have a cat in this patch, ninety have background. Which patch has the smallest squared
# error?
#
# <details><summary>Answer</summary>
#
# None of the hundred: a background with a tenth of a cat in it. Whoever says "background" thinks of the median or of
# the likeliest patch.
#
# </details>

# %%
vae, vq = fl.load_tokenizer("scenes-vae"), fl.load_tokenizer("scenes-vq")
latents = vae.encode(alike)                                                     # (M, N, C)
decoded = vae.decode(torch.cat([latents[:3], latents.mean(0, keepdim=True)]))   # (4, 3, 64, 64)
show(image_grid(decoded, titles=["tokens 1", "tokens 2", "tokens 3", "mean tokens"]),
     alt=f"Three {wanted} pictures decoded from their tokens, and the picture decoded from the mean of all tokens.",
     caption="The mean of all tokens decodes to no picture at all: it is no better than the mean of pixels.")

# %% [markdown]
# ## What a head must give
# A head turns $z$ into a distribution $p(\text{token} \mid z)$. Two things are asked of it: a **loss** that measures
# how well the distribution fits a token that was seen, and a way to **draw** a token. The package's heads have
# these two methods, and `embed`, the way back in:
#
# | head | the distribution is | loss | draws by |
# |---|---|---|---|
# | `softmax` | a table of $V$ probabilities | cross-entropy | one uniform number |
# | `diffusion` | what is left when noise is removed | squared error on the **noise** | walking back, with fresh noise |
# | `flow` | where a stream carries noise | squared error on the **velocity** | following the stream |
#
# Fluid uses the first for its discrete variants and the second for its continuous ones. The flow head is not part of
# that paper; it is here because it is close kin, and because swapping it in is one word.
#
# Squared error returns in the table! But now the question is another: *which noise was added here?* Its mean is a
# useful answer, as we shall see.

# %% [markdown]
# ### Tokens that can be looked at
# A real token has 16 numbers. Ours has two, so a distribution is a cloud on paper. The condition says which of three
# shapes the token comes from; think of it as the caption. The backbone is replaced by three learned vectors $z$, one
# for each condition, so that everything we see is the head's doing.

# %%
def true_tokens(shape, count, number=seed):
    return toy_tokens(torch.full((count,), SHAPES.index(shape)), seeded(number))     # (count, 2)


data = {shape: true_tokens(shape, num_points, number=1000) for shape in SHAPES}
again = {shape: true_tokens(shape, num_points, number=2000) for shape in SHAPES}
floor = sum(chamfer(again[s], data[s]) for s in SHAPES) / len(SHAPES)
show(plots.clouds({"data": list(data.values())}, SHAPES),
     alt="Three clouds: two interlocked half moons, a spiral of one arm, a pinwheel of four bent blades.",
     caption=f"Three distributions, mean 0 and variance 1 in each channel. Two samples of one of them are "
             f"{floor:.3f} apart.")

# %% [markdown]
# The distance in the caption is the **Chamfer distance**, in standard deviations: how far a drawn token is from the
# nearest token of the data (is it where data is?), and how far a token of the data is from the nearest drawn one (is
# anything missing?), averaged. Even two samples of the data are not at 0, so that value is the floor for what follows.
#
# One class serves all heads: the package's head, and a table of three vectors.

# %%
class Toy(torch.nn.Module):
    """A head, with one learned vector z per shape in place of the backbone."""

    def __init__(self, config):
        super().__init__()
        self.head = fl.HEADS[config.head](config)
        self.z = torch.nn.Embedding(len(SHAPES), config.width)

    def loss(self, tokens, condition, generator):
        return self.head.loss(self.z(condition)[None], tokens[None], generator).mean()

    @torch.no_grad()
    def draw(self, shape, count=num_points, temperature=1.0, num_denoising_steps=25):
        z = self.z.weight[SHAPES.index(shape)].expand(1, count, -1)              # (1, K, D)
        return self.head.sample(z, None, 1.0, temperature, [seeded(seed)], num_denoising_steps)[0]


config = fl.ModelConfig(head="diffusion", width=64, head_depth=3, token_dim=2, codebook_size=64)

# %% [markdown]
# ## What each loss is before training
# A good habit: know the first number of every loss curve before you see it. The output layers of the continuous heads
# start at zero, and the table of the softmax head starts so small that all codes are equally likely.
#
# **Think first.** (a) Cross-entropy with $V$ equally likely codes? (b) Squared error when the answer is always 0 and
# the target is standard normal noise? (c) The same when the target is $x_0 - \epsilon$, with tokens of variance 1?

# %%
first_loss = {"softmax": math.log(config.codebook_size), "diffusion": 1.0, "flow": 2.0}
condition = torch.randint(len(SHAPES), (4000,), generator=seeded(seed))
tokens = toy_tokens(condition, seeded(seed))                                    # (4000, 2)
for name, expected in first_loss.items():
    torch.manual_seed(seed)
    target = torch.randint(config.codebook_size, (4000,), generator=seeded(seed)) if name == "softmax" else tokens
    found = Toy(config.replace(head=name)).loss(target, condition, seeded(seed)).item()
    print(f"{name:9s}  expected {expected:.3f}   measured {found:.3f}")
    assert abs(found / expected - 1) < 0.1

# %% [markdown]
# $\log V$, $1$ and $1 + 1 = 2$. These are three different units: nats, squared noise, squared velocity. **Losses of
# different heads cannot be compared**, only curves of the same head.
#
# ## The softmax head, and what limits it
# Discrete tokens need a codebook. In notebook 01 it was learned together with a decoder; here k-means finds the best
# codes for our clouds. Then the head trains on code numbers. It is quick: for each shape it must learn a table.

# %%
def fit(toy, name, first, steps, lr, to_target=lambda tokens: tokens, title=None):
    live = plots.LiveCurve(name, first, steps, every=max(1, steps // 5), title=title)
    display(live.widget)
    optimizer = torch.optim.AdamW(toy.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    plan = fl.TrainConfig(steps=steps, lr=lr, warmup_steps=min(30, steps // 2), final_lr=0.01)
    g = seeded(seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate(plan, step)
        condition = torch.randint(len(SHAPES), (batch_size,), generator=g)      # (B,)
        loss = toy.loss(to_target(toy_tokens(condition, g)), condition, g)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(toy.parameters(), 1.0)
        optimizer.step()
        live.add(loss.item())
    return toy.eval()


# %%
everything = toy_tokens(torch.randint(len(SHAPES), (12000,), generator=seeded(5)), seeded(6))
codebooks = {V: kmeans(everything, V, seeded(seed), iterations=12) for V in code_counts}
softmax = {}
for V, codes in codebooks.items():
    torch.manual_seed(seed)
    toy = Toy(config.replace(head="softmax", codebook_size=V))
    softmax[V] = fit(toy, "softmax", math.log(V), max(20, num_steps // 4), 2e-2, lambda x, c=codes: nearest(x, c),
                     title=f"softmax head with {V} codes")

# %% [markdown]
# Each curve starts at its $\log V$. A larger codebook ends at a *higher* loss. Is it worse, then? Look at the tokens.

# %% [markdown]
# ### One uniform number is enough
# How does a head of this kind draw? Its scores become probabilities, and these are laid side by side on a line of
# length 1, in the order of the codes. A number $u$, uniform between 0 and 1, falls into one of the pieces: that is the
# code. A piece twice as long is hit twice as often.

# %% [markdown] tags=["exercise"]
# title: One number, one code
# minutes: 8
# level: 1
# task: |-
#   Write `draw_code(logits, u)`. The scores `logits` have shape (B, V): one row of V scores for each of B tokens. The
#   numbers `u` have shape (B,), one for each token, from 0 up to 1. The softmax over the V scores gives probabilities.
#   Return B whole numbers from 0 to V - 1: for each token the **first** code at which the sum of the probabilities, of
#   this code and all before it, exceeds `u`.
# right: |-
#   each number falls into its piece of the line below, and of many numbers each code gets its share.
# hints:
#   - |-
#     Where does the piece of a code end? At the sum of all probabilities up to and with its own: `cumsum`, along the
#     last dimension.
#   - "How many of these ends lie at or below u? Count them: that number is the code."
#   - |-
#     `ends = logits.softmax(dim=-1).cumsum(dim=-1)` is (B, V). Compare it with `u[:, None]`, which is (B, 1), and sum
#     the truth values over the last dimension.
# why: |-
#   The sums rise from 0 to 1, and between two of them lies exactly one code's probability. Counting the ends that u has
#   passed is the same as looking for the first one that it has not. The package's head finds it with
#   `torch.searchsorted`, which halves the line again and again instead of comparing with all V ends.

# %% tags=["target"]
scores = torch.tensor([0.2, 1.5, -0.5, 1.0])                                    # (V,) of one token
show(plots.line_of_codes(scores.softmax(dim=0), [0.1, 0.45, 0.9]),
     alt="A line of length 1 in four pieces, one for each code, as long as its probability: "
         + ", ".join(f"code {code} {p:.2f}" for code, p in enumerate(scores.softmax(dim=0).tolist()))
         + ". The number 0.1 falls into the piece of code 0, 0.45 into that of code 1, 0.9 into that of code 3.",
     caption="Right answers for three numbers: 0.1 gives code 0, 0.45 gives code 1, 0.9 gives code 3.")

# %% tags=["stub"]
def draw_code(logits, u):
    """One code for each token: logits (B, V) and uniform numbers u (B,) -> codes (B,), whole numbers below V."""
    ...


# %% tags=["solution"]
def draw_code(logits, u):
    """One code for each token: logits (B, V) and uniform numbers u (B,) -> codes (B,), whole numbers below V."""
    ends = logits.softmax(dim=-1).cumsum(dim=-1)                                # (B, V)
    return (ends <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[-1] - 1)     # the last end may be rounded to below 1


# %% tags=["check"]
draw_code = checks.check_draw_code(draw_code)
many = torch.as_tensor(draw_code(scores.expand(20_000, -1), torch.rand(20_000, generator=seeded(seed))))
for code, p in enumerate(scores.softmax(dim=0).tolist()):
    print(f"code {code}: probability {p:.3f}, share of 20,000 draws {(many == code).float().mean():.3f}")

# %% [markdown]
# Now the trained heads. They draw in just this way.

# %%
def draw_softmax(V, shape, temperature=1.0):
    return codebooks[V][softmax[V].draw(shape, temperature=temperature)]        # (K, 2)


def mean_distance(draw):
    return sum(chamfer(draw(shape), data[shape]) for shape in SHAPES) / len(SHAPES)


rows = {"data": list(data.values())}
rows |= {f"softmax {V}": [draw_softmax(V, shape) for shape in SHAPES] for V in code_counts}
show(plots.clouds(rows, SHAPES, size=4.0),
     alt="Rows of clouds: the data, then tokens drawn by softmax heads with more and more codes. With few codes there "
         "are few places to be; with many the shapes become dense.",
     caption="Every drawn token sits on a code. With few codes the shapes are a handful of dots.")

# %%
print(f"two samples of the data: {floor:.3f}")
for V in code_counts:
    codes = codebooks[V]
    rounded = mean_distance(lambda s, c=codes: c[nearest(again[s], c)])
    drawn = mean_distance(lambda s, V=V: draw_softmax(V, s))
    print(f"{V:5d} codes: data rounded to its nearest code {rounded:.3f}   drawn by the head {drawn:.3f}")

# %% [markdown]
# The first column contains no head at all: it is the data, each token replaced by its nearest code. **With few codes
# the error is the grid's, and no training of the head can remove it.** That is the ceiling of a discrete
# tokenizer: it is decided before the first step. And the loss did not tell: a coarse grid makes an easy guessing game.
#
# So why not always take more codes? Because of the dimension. To halve the error in $d$ dimensions you need about
# $2^d$ times as many codes (derived: cells of half the side). Two dimensions: 4 times. Sixteen: 65,536 times. Let us
# measure both: k-means on our toy, and on real VAE tokens of 16 channels, always judged on tokens that k-means has
# not seen.

# %%
images, _ = fl.EmojiScenes(split="train", image_size=64, seed=seed + 1).batch(range(num_scenes))
real = vae.encode(images.float() / 127.5 - 1)                                   # (M, N, 16)
codes_used = vq.encode(images.float() / 127.5 - 1)                              # (M, N)


def lost_share(points, V):
    """Share of the variance that rounding to the best V codes loses, on the half that k-means has not seen."""
    half = len(points) // 2
    codes = kmeans(points[:half], V, seeded(seed), iterations=12)
    unseen = points[half:]
    return ((unseen - codes[nearest(unseen, codes)]).square().mean() / unseen.var(dim=0).mean()).item()


sizes = [4, 16, 64, 256, 1024]
lost = {"toy tokens, 2 channels": (sizes, [lost_share(everything, V) for V in sizes]),
        "VAE tokens, 16 channels": (sizes, [lost_share(real.flatten(0, 1), V) for V in sizes])}
figure, said = plots.curves(lost, "number of codes", "share of the variance lost")
show(figure, alt=f"Share of the variance lost by rounding, against the number of codes. {said}.", caption=said + ".")

# %% [markdown]
# This is not the VQ tokenizer of notebook 01, which may arrange its own space so that few codes go far. But the reason
# is the same: in many dimensions every further halving of the error is exponentially dear. A continuous head
# has no list, hence no such price. It pays in another coin: a walk.

# %% [markdown]
# ## Diffusion: learn to remove noise
# Take a clean token $x_0$ and add noise, more of it with growing time $t$:
# $$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon, \qquad \epsilon \sim \mathcal{N}(0, I)$$
# $\bar\alpha_t$ is the share of the variance that is still signal. Fluid uses the cosine schedule with 1000 times in
# training. The head's small network sees $x_t$, $t$ and $z$, and guesses $\epsilon$.

# %%
process = CosineDiffusion(1000)
alphas = process.alphas                                                         # (T,) alpha-bar
even = int((alphas - 0.5).abs().argmin())
show(plots.schedule(alphas),
     alt=f"Left: the share of the signal falls smoothly from 1 to 0 and crosses that of the noise at time {even}. "
         "Right: the ratio of signal to noise falls over many orders of magnitude.",
     caption=f"Signal and noise are even at t = {even}. At t = 999 the signal is {alphas[-1]:.1e} of the variance.")

times = [0, 50, 100, 200, 400, 999]
columns = [[alphas[t].sqrt().float() * data[s] + (1 - alphas[t]).sqrt().float() * torch.randn(
    data[s].shape, generator=seeded(t)) for t in times] for s in SHAPES]
show(plots.clouds(dict(zip(SHAPES, columns, strict=True)), [f"t = {t}" for t in times]),
     alt="Each of the three clouds at six times: sharp at 0, thicker and thicker after that, and the same round cloud "
         "of noise at 999.",
     caption="The way into noise. At the end nothing tells which shape a token came from; z must say it.")

# %% [markdown]
# Why is squared error harmless *here*? The guess is the mean of all noises that could have led to $x_t$. Early in the
# walk that mean is vague, and so it should be: it points to the middle of all answers. But we then take only a *small
# step* there and ask again from the new place, where fewer answers are left. Step by step the token decides.
#
# ### The best guess there is
# To practise we want a head that guesses as well as anybody can. For a small set of known tokens it needs no training:
# the best guess of the clean token is the mean of all tokens of the set, each weighted with how likely it is to have
# become $x_t$. `best_token` computes that for 400 tokens of the moons, and from the guessed token follow the guessed
# noise and, further below, the guessed velocity.

# %% tags=["needed"]
moons = toy_tokens(torch.zeros(400, dtype=torch.long), seeded(seed + 7))        # (M, 2)


def best_noise(noisy, share):
    """The best guess of the noise in noisy tokens (..., 2), of whose variance `share` is signal."""
    signal, noise = share ** 0.5, (1 - share) ** 0.5
    return (noisy - signal * best_token(noisy.flatten(0, -2), moons, signal, noise).view_as(noisy)) / noise


# %% [markdown] tags=["exercise"]
# title: The diffusion loss
# minutes: 12
# level: 2
# task: |-
#   Write `diffusion_loss(predict, x0, share, noise)`, the loss of a diffusion head.
#   - `x0` holds clean tokens, (B, N, C): C numbers for each of N tokens of B images.
#   - `share` holds $\bar\alpha_t$, (B, N): each token has a time of its own.
#   - `noise` has the shape of `x0`; it is drawn already.
#   - `predict` is the network as a function: given noisy tokens (B, N, C) it returns its guess of the noise, (B, N, C).
#
#   Make the noisy tokens by the first formula of the section on diffusion, ask for the guess, and return the squared
#   error on the noise for **each token**, (B, N): the mean over its channels.
# right: |-
#   the best guess there is has a loss near the ones below: large when little noise is hidden in much signal, small when
#   nearly all is noise.
# hints:
#   - "Three lines: the noisy tokens by the formula for $x_t$, the guess, the error."
#   - |-
#     `share` is (B, N) and the tokens are (B, N, C). Give it a last dimension of length 1: `share[..., None]`.
#   - "`(predict(noisy) - noise).square().mean(dim=-1)`"
# why: |-
#   The share is one of the *variance*, so signal and noise are multiplied by its roots; then the noisy tokens keep
#   variance 1 at every time. The loss stays one number for each token, because in training only the hidden tokens count
#   (notebook 05), and which these are the head does not know.

# %% tags=["target"]
shares, noise = (0.95, 0.5, 0.05), torch.randn(1, len(moons), 2, generator=seeded(1))
panels, titles = [], []
for share in shares:
    panels.append((share ** 0.5 * moons + (1 - share) ** 0.5 * noise)[0])
    best = (best_noise(panels[-1], share) - noise[0]).square().mean()
    titles.append(f"signal {share:.0%}, loss {best:.2f}")
show(plots.clouds({"noisy": panels}, titles, size=6.0),
     alt="The moons with little, with half and with much noise. Loss of the best guess: " + "; ".join(titles) + ".",
     caption="What diffusion_loss gives on average for the best guess of the noise, at three shares of the signal.")

# %% tags=["stub"]
def diffusion_loss(predict, x0, share, noise):
    """Squared error on the noise for each token: x0, noise (B, N, C), share (B, N) of the variance -> (B, N)."""
    ...


# %% tags=["solution"]
def diffusion_loss(predict, x0, share, noise):
    """Squared error on the noise for each token: x0, noise (B, N, C), share (B, N) of the variance -> (B, N)."""
    keep = share[..., None]                                                     # (B, N, 1)
    noisy = keep.sqrt() * x0 + (1 - keep).sqrt() * noise                        # (B, N, C)
    return (predict(noisy) - noise).square().mean(dim=-1)                       # (B, N)


# %% tags=["check"]
diffusion_loss = checks.check_diffusion_loss(diffusion_loss)
for share in shares:
    each = torch.full((1, len(moons)), share)                                   # (1, M)
    best = diffusion_loss(lambda noisy, s=share: best_noise(noisy, s), moons[None], each, noise).mean()
    naught = diffusion_loss(torch.zeros_like, moons[None], each, noise).mean()
    print(f"signal {share:4.0%}: loss of the best guess {best:.3f}, of the guess 0 {naught:.3f}")

# %% [markdown] tags=["instructor"]
# **Poll:** the guess 0 has a loss of 1, and at 95 % signal the best guess there is still has 0.66. Is a head of any use
# at such times?
#
# <details><summary>Answer</summary>
#
# Little is to be guessed there, and little depends on it: at 95 % signal the token is nearly done, and an error of the
# noise moves it hardly at all (the factor is in the table on clipping, below).
#
# </details>
#
# **Goes wrong:** `share` without its last dimension. Where N and C differ, that is an error at once; where they are
# equal, the numbers are wrong and nothing is said. The check uses equal ones on purpose and names the mistake.

# %% [markdown]
# With the head's own network as `predict`, this is the loss that trains it. The package's gives the same number:

# %%
torch.manual_seed(seed)
diffusion = Toy(config)
z = diffusion.z(condition)[None]                                                # (1, B, D)

g = seeded(1)
t = (torch.rand(1, len(tokens), generator=g) * 1000).long()                     # (1, B) a time for each token
noise = torch.randn(1, len(tokens), 2, generator=g)                             # (1, B, 2)
mine = diffusion_loss(lambda noisy: diffusion.head.denoiser(noisy, t, z), tokens[None], alphas[t].float(), noise).mean()

theirs = diffusion.head.loss(z, tokens[None], seeded(1)).mean()
print(f"mine {mine.item():.6f}   package {theirs.item():.6f}")
assert torch.allclose(mine, theirs)

# %%
start = time.perf_counter()
diffusion = fit(diffusion, "diffusion", 1.0, num_steps, 5e-3)
print(f"{num_steps} steps took {time.perf_counter() - start:.0f} s on this machine")
show(plots.clouds({"data": list(data.values()), "diffusion": [diffusion.draw(s) for s in SHAPES]}, SHAPES),
     alt="The three clouds of data and, below, the clouds that the trained diffusion head draws.",
     caption=f"Distance to the data: {mean_distance(diffusion.draw):.3f}; two samples of the data: {floor:.3f}.")

# %% [markdown]
# ### Why this loss never goes to zero
# The curve flattened far above 0. Is the head bad? Let us split its loss by time.

# %%
with torch.no_grad():
    xt, t, noise = diffusion.head.process.corrupt(tokens[None], seeded(2))
    errors = (diffusion.head.denoiser(xt, t, diffusion.z(condition)[None]) - noise).square().mean(-1)[0]
bins = (t[0] / 100).long()                                                      # (B,) ten bins of time
by_time = [errors[bins == b].mean().item() for b in range(10)]
show(plots.loss_by_time(by_time),
     alt=f"Bars: the loss is {by_time[0]:.2f} for the smallest times and falls to {by_time[-1]:.2f} for the largest.",
     caption="Little noise is hard to guess: it drowns in the token. Much noise is easy: it is nearly all there is.")

# %% [markdown]
# At small $t$ the noise is a faint tremble on a token that is not known exactly, and no network could tell it from the
# token's own spread. So most of the loss is **irreducible**; only the part above the best possible value is the head's
# fault. A difference of 0.01 between two heads may be all that there was to gain.
#
# ### Clip, or 0.001 becomes 20
# To step back, the sampler turns the guessed noise into a guessed token:
# $$\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\hat\epsilon}{\sqrt{\bar\alpha_t}}$$
# An error in $\hat\epsilon$ is multiplied by $\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$. **Guess:** how large is that at
# $t = 999$?

# %%
factor = ((1 - alphas) / alphas).sqrt()                                         # (T,)
for t in (0, 250, 500, 750, 950, 999):
    print(f"t = {t:3d}   factor {factor[t]:12.3f}   an error of 0.001 becomes {0.001 * factor[t]:9.4f}")

# %% [markdown]
# Therefore the package clips $\hat x_0$ to 5 standard deviations before it steps. Here are the same weights and the
# same noise with and without that line:

# %%
drawn = {}
for name, clip in (("diffusion\nclipped", 5.0), ("diffusion\nnot", math.inf)):
    diffusion.head.process.clip = clip
    drawn[name] = [diffusion.draw(s) for s in SHAPES]
diffusion.head.process.clip = 5.0
outside = (torch.cat(drawn["diffusion\nnot"]).abs().amax(dim=1) > plots.LIMIT).float().mean().item()
far = [max(cloud.abs().max().item() for cloud in row) for row in drawn.values()]
show(plots.clouds(drawn, SHAPES),
     alt=f"Tokens with and without clipping. The largest coordinates are {far[0]:.1f} and {far[1]:.1f}.",
     caption=f"The largest coordinate is {far[0]:.1f} with the clip and {far[1]:.1f} without; {outside:.0%} of the "
             "tokens of the lower row lie outside their panels.")

# %% [markdown]
# ## Flow: the straight road
# A rectified flow mixes differently: $x_t = (1-t)\,x_0 + t\,\epsilon$ with $t$ from 0 to 1, a straight line from
# token to noise. The network learns the velocity along it, $x_0 - \epsilon$. Everything else stays: the same network,
# the same $z$, the same two methods. In the configuration the change is one word.

# %%
torch.manual_seed(seed)
flow = Toy(config.replace(head="flow"))
print("parameters:", *(f"{n} {sum(p.numel() for p in toy.head.parameters()):,}" for n, toy in
                       (("diffusion", diffusion), ("flow", flow))))
flow = fit(flow, "flow", 2.0, num_steps, 5e-3)
show(plots.clouds({"data": list(data.values()), "flow": [flow.draw(s) for s in SHAPES]}, SHAPES),
     alt="The three clouds of data and, below, the clouds that the trained flow head draws.",
     caption=f"Distance to the data: {mean_distance(flow.draw):.3f}; diffusion {mean_distance(diffusion.draw):.3f}, "
             f"two samples of the data {floor:.3f}.")

# %% [markdown]
# ### The walk of a flow
# How does it draw? From a normal number, along the velocity, in equal steps. The simplest solver is Euler's: ask for
# the velocity where you stand, walk straight on for the time of one step, ask again.
#
# The velocity is a guess too: the mean of all velocities that lead through this place, so the best one follows from
# the best guess of the token. On the line $x_t = (1-t)\,x_0 + t\,\epsilon$ the way left to go is $x_0 - x_t$, and the
# time left is $t$.

# %% tags=["needed"]
def best_velocity(x, t):
    """The best velocity at places x (K, 2) and time t, from 1 (noise) to 0 (token), for the 400 tokens of the moons."""
    return (best_token(x, moons, 1 - t, t) - x) / t


# %% [markdown] tags=["exercise"]
# title: Walk with a flow
# minutes: 10
# level: 2
# task: |-
#   Write `euler_walk(velocity, x, num_steps)`, which walks from noise to tokens. `x`, (K, 2), is the noise that the
#   walk begins with. `velocity(x, t)` gives the velocity, (K, 2), at the places x and at the time t, a number; it
#   points **towards the token**. Time is the share of noise: the walk begins at t = 1 and ends at t = 0, in `num_steps`
#   steps of equal length. Each step asks for the velocity at the time and place where the step **begins**, and moves x
#   along it for the length of the step. Return where the walk ends, (K, 2); do not change the x that was given.
# right: "25 steps lead from round noise onto the moons, as below."
# hints:
#   - "With 4 steps: at which four times is the velocity asked for? Write them down. Is 0 among them?"
#   - "The times are 1, 3/4, 2/4, 1/4, and each step adds a quarter of the velocity."
#   - "In step i, counted from 0: `x = x + velocity(x, 1 - i / num_steps) / num_steps`."
# why: |-
#   The velocity says how far x would go in the whole time from 1 to 0, so a step of 1 / num_steps covers that part of
#   it. At t = 0 there is nothing left to walk and nobody asks. (The best velocity divides by t, so asking there would
#   be division by zero.) `x = x + ...` makes a new tensor, `x += ...` would change the caller's.

# %% tags=["target"]
begin = torch.randn(400, 2, generator=seeded(seed + 3))                         # (K, 2)
steps_of_walk = (1, 3, 25)
ends = [checks.check_euler_walk.own(best_velocity, begin, n) for n in steps_of_walk]
show(plots.clouds({"flow": [begin, *ends]}, ["noise", *(f"after {n} step{'s' * (n > 1)}" for n in steps_of_walk)],
                  size=4.0),
     alt="A round cloud of noise; after one step all tokens in one point; after three steps a rough heap; after 25 "
         "steps the two moons.",
     caption="Where right walks with the best velocity end. One step leads to the mean of all tokens: mush.")

# %% tags=["stub"]
def euler_walk(velocity, x, num_steps):
    """From noise x (K, 2) at t = 1 to tokens (K, 2) at t = 0, by Euler's method; velocity(x, t) -> (K, 2)."""
    ...


# %% tags=["solution"]
def euler_walk(velocity, x, num_steps):
    """From noise x (K, 2) at t = 1 to tokens (K, 2) at t = 0, by Euler's method; velocity(x, t) -> (K, 2)."""
    for i in range(num_steps):
        x = x + velocity(x, 1 - i / num_steps) / num_steps                      # (K, 2)
    return x


# %% tags=["check"]
euler_walk = checks.check_euler_walk(euler_walk)
for n in steps_of_walk:
    gap = chamfer(euler_walk(best_velocity, begin, n), moons)
    print(f"steps {n:2d}: distance to the moons {gap:.3f}")

# %% [markdown]
# The trained head's velocity is another function, the walk is the same. So your walk and the package's must end at the
# same tokens:

# %%
where = flow.z.weight[0].expand(1, 400, -1)                                     # (1, K, D)


def learned_velocity(x, t):
    return flow.head.denoiser(x[None], torch.full((1, len(x)), 1000 * t), where)[0]


with torch.no_grad():
    mine = euler_walk(learned_velocity, begin, 25)
    theirs = RectifiedFlow("euler").sample(lambda x, t: flow.head.denoiser(x, torch.full(x.shape[:-1], t), where),
                                           (1, 400, 2), 25, 1.0, seeded(seed + 3))[0]
print(f"largest difference between the two walks: {(mine - theirs).abs().max():.1e}")
assert torch.allclose(mine, theirs, atol=1e-3)

# %% [markdown]
# ### Two ways back from noise
# Both walks start from the same noise (circles). Diffusion steps towards its guess *and adds fresh noise* each time; a
# flow follows its velocity and adds nothing. A process is told how to predict by a function, so we can watch.

# %%
def walk(toy, process, shape, steps=25, count=8):
    """The walks of `count` tokens from noise: (T, K, 2)."""
    seen, z = [], toy.z.weight[SHAPES.index(shape)].expand(1, count, -1)

    def predict(x, t):
        seen.append(x[0])
        return toy.head.denoiser(x, torch.full(x.shape[:-1], t), z)

    with torch.no_grad():
        end = process.sample(predict, (1, count, 2), steps, 1.0, [seeded(seed + 3)])
    return torch.stack([*seen, end[0]])


paths = {"diffusion": walk(diffusion, CosineDiffusion(1000), "spiral"),
         "flow": walk(flow, RectifiedFlow("euler"), "spiral")}
ratio = {name: plots.straightness(path) for name, path in paths.items()}
show(plots.walks(paths, {name: data["spiral"] for name in paths}),
     alt="Eight walks from noise to the spiral. Those of diffusion tremble; those of the flow are smooth curves.",
     caption="Beeline over length of the way: " + ", ".join(f"{n} {r:.2f}" for n, r in ratio.items()) + ".")

# %% [markdown]
# The lines that the flow was *trained* on are straight. The ways it *takes* bend, because at a crossing of many lines
# the network predicts their mean velocity (squared error again). They are still far straighter than a random walk,
# and a straight way needs few steps.
#
# ## How many steps?
# A step is one run of the head's network. The paper re-spaces its 1000 times to 100 in sampling. Heun's solver, the
# default of our flow head, looks at both ends of a step, so it runs the network twice.
#
# **Guess:** which curve falls first?

# %%
def distance_by_steps(toy):
    return [mean_distance(lambda s, n=n: toy.draw(s, num_denoising_steps=n)) for n in step_counts]


curves = {"diffusion": (step_counts, distance_by_steps(diffusion))}
flow.head.process = RectifiedFlow("euler")
curves["flow, Euler"] = (step_counts, distance_by_steps(flow))
flow.head.process = RectifiedFlow("heun")
curves["flow, Heun"] = ([2 * n - 1 for n in step_counts], distance_by_steps(flow))

figure, said = plots.curves(curves, "runs of the head's network", "distance to the data", floor)
show(figure, alt=f"Distance to the data against the runs of the network. {said}.", caption=said + ".")

# %% [markdown]
# Everything here is measured on two-dimensional tokens and small heads. How many steps a *trained image model* needs
# is measured in notebook 06; published flow heads for this kind of model use 20 to 25 (not confirmed).

# %% [markdown]
# ## Temperature: three meanings of one word
# Below 1, all three heads become more cautious; but each has its own knob.
#
# - **softmax** divides the logits by the temperature: likely codes gain, and at 0 only the likeliest is left.
# - **diffusion** multiplies the noise that is *injected* during the walk. The noise at the *start* stays as it is, so
#   at temperature 0 the walk is deterministic but tokens still differ.
# - **flow** injects nothing, so the *initial* noise is scaled. At 0 every walk starts at the origin: one token.
#
# **Before you move the dial:** what will each head do to the two moons at 0? And at 2?

# %%
drawn_codes = max(code_counts)
explore_points = min(num_points, 800)


def draw_tokens(head, shape, temperature):
    if head == "softmax":
        return draw_softmax(drawn_codes, shape, temperature)[:explore_points]
    toy = {"diffusion": diffusion, "flow": flow}[head]
    return toy.draw(shape, explore_points, temperature)


explorer = plots.temperature_explorer(draw_tokens, {s: c[:explore_points] for s, c in data.items()})
display(explorer.widget)

# %% [markdown]
# The same as a table of pictures, for readers of the printed page:

# %%
temperatures = [0.0, 0.5, 0.8, 1.0, 1.3]
table = {head: [draw_tokens(head, "moons", t) for t in temperatures] for head in ("softmax", "diffusion", "flow")}
heap = table["diffusion"][0]
off, gap = heap.norm(dim=1).mean(), torch.cdist(heap, data["moons"]).min(dim=1).values.mean()
at_zero = ", ".join(f"{head} {clouds[0].std(dim=0).mean():.2f}" for head, clouds in table.items())
show(plots.clouds(table, [f"temperature {t:g}" for t in temperatures], size=4.0),
     alt="The two moons drawn by three heads at five temperatures. At 0 softmax and flow draw one token, diffusion a "
         "few close ones; at 1 all show two moons; above 1 they spread.",
     caption=f"Standard deviation at temperature 0: {at_zero}; of the data: 1. Diffusion's tokens then lie {off:.2f} "
             f"from the mean (the data {data['moons'].norm(dim=1).mean():.2f}), {gap:.2f} from its nearest token.")

# %% [markdown]
# Look at temperature 0. Without fresh noise nothing pushes diffusion's walk to either side: its tokens gather in one
# small heap, always the same answer, whether it lies on a moon or beside one (the caption says how near). The flow's
# single token is the middle of all data, where no data is: the mush of the first section is back. Low temperature is
# not "higher quality" where many answers are right; a temperature slightly below 1 trades variety against strays.

# %% [markdown]
# ### One step of the diffusion head, with its temperature
# What exactly does the temperature multiply? A step goes from a share $\bar\alpha$ of signal to a larger one,
# $\bar\alpha'$. Write $r = \bar\alpha / \bar\alpha'$ for the part of the signal's variance that forward noising would
# have kept between the two. The token of the next time is drawn from a normal distribution with
#
# $$\text{mean} = \frac{\sqrt{\bar\alpha'}\,(1-r)\,\hat x_0 + \sqrt{r}\,(1-\bar\alpha')\,x_t}{1-\bar\alpha},
# \qquad \text{variance} = \frac{1-\bar\alpha'}{1-\bar\alpha}\,(1-r),$$
#
# where $\hat x_0$ is the guessed token of the section on clipping. Fresh noise, times the standard deviation, is added
# to the mean, and *that* is what the temperature scales.

# %% [markdown] tags=["exercise"]
# title: A step back, with temperature
# minutes: 15
# level: 3
# task: |-
#   Write `denoise_step(x, predicted_noise, share, share_next, noise, temperature)`: the tokens after one step.
#   - `x`, (K, C), are noisy tokens, `predicted_noise`, (K, C), is the guess of what is in them.
#   - `share` is $\bar\alpha$ now and `share_next` is $\bar\alpha'$ after the step: numbers with
#     $0 < \bar\alpha < \bar\alpha' \le 1$.
#   - `noise`, (K, C), is fresh standard normal noise, drawn already.
#   - `temperature` is a number from 0 up.
#
#   Compute the guessed token, bound it to -5 .. 5, take mean and variance by the formulas above, and return the mean
#   plus temperature times standard deviation times fresh noise.
# right: |-
#   25 steps at temperature 1 end on the moons, at temperature 0 all in one point; a step to share 1 returns the bounded
#   guess itself.
# hints:
#   - |-
#     Go in this order: guessed token, bound, r, mean, variance, sum. Numbers take `** 0.5`, tensors take `.clamp`. The
#     guessed token is `(x - (1 - share) ** 0.5 * predicted_noise) / share ** 0.5`.
#   - |-
#     Test it by hand: with `share_next = 1` the variance is 0 and the mean is the guessed token, whatever x is.
#   - |-
#     The last line is `mean + temperature * variance ** 0.5 * noise`. The temperature touches nothing else.
# why: |-
#   The mean goes from x towards the guessed token, the further, the more the two shares differ. The noise makes up for
#   what is still open, and it keeps the tokens apart: without it all walks agree on the middle of the answers. Had the
#   temperature been put on the mean as well, everything would shrink towards 0, which is no likelier a token than
#   others.

# %% tags=["target"]
# shares of 25 steps, from nearly no signal to 1, and noise for each step
process = CosineDiffusion(1000)
ladder = [float(process.alphas[t]) for t in process.timesteps(25)] + [1.0]
fresh = torch.randn(26, 400, 2, generator=seeded(seed + 4))                     # (T, K, 2)


def best_walk(step, temperature):
    """From noise to tokens (K, 2) in 25 steps with the best guess of the noise."""
    x = fresh[0]
    for share, share_next, noise in zip(ladder, ladder[1:], fresh[1:], strict=False):
        x = step(x, best_noise(x, share), share, share_next, noise, temperature)
    return x


some_temperatures = (0.0, 0.6, 1.0)
ends = [best_walk(checks.check_temperature.own, temperature) for temperature in some_temperatures]
show(plots.clouds({"diffusion": ends}, [f"temperature {t:g}" for t in some_temperatures], size=4.0),
     alt="Ends of 400 walks with the best guess of the noise at three temperatures: a single point at 0, the two moons "
         "at 0.6 and at 1.",
     caption="Where 25 right steps end, with the best guess of the noise. At 0 all 400 walks end in one point.")

# %% tags=["stub"]
def denoise_step(x, predicted_noise, share, share_next, noise, temperature):
    """Tokens (K, C) after a step from one share of signal to the next; x, predicted_noise, noise are (K, C)."""
    ...


# %% tags=["solution"]
def denoise_step(x, predicted_noise, share, share_next, noise, temperature):
    """Tokens (K, C) after a step from one share of signal to the next; x, predicted_noise, noise are (K, C)."""
    token = ((x - (1 - share) ** 0.5 * predicted_noise) / share ** 0.5).clamp(-5, 5)              # (K, C)
    kept = share / share_next
    mean = (share_next ** 0.5 * (1 - kept) * token + kept ** 0.5 * (1 - share_next) * x) / (1 - share)
    variance = (1 - share_next) / (1 - share) * (1 - kept)
    return mean + temperature * variance ** 0.5 * noise                                           # (K, C)


# %% tags=["check"]
denoise_step = checks.check_temperature(denoise_step)
for temperature in some_temperatures:
    end = best_walk(denoise_step, temperature)                                  # (K, 2)
    print(f"temperature {temperature:g}: standard deviation {end.std(dim=0).mean():.2f}, "
          f"distance to the moons {chamfer(end, moons):.3f}")

# %% [markdown] tags=["instructor"]
# **Say:** three heads, three places for one word: on the logits, on the noise of each step, on the noise of the start.
# Ask for each which picture appears at 0 before you move the dial.
#
# **Goes wrong:** many multiply the finished token by the temperature. At 0 they get a single point and are content, for
# that is what the picture shows; but theirs lies in the origin, and at 0.6 their moons are too small.

# %% [markdown]
# ## What a head costs
# A softmax head is one matrix that it shares with its embedding. A continuous head is a network of its own: in the
# paper an MLP of 6 layers as wide as the backbone. How much of the model is that?

# %%
for size in ("mini", "150m", "10.5b"):
    for head in ("softmax", "diffusion"):
        with torch.device("meta"):                                              # shapes without memory
            counts = fl.Fluid(fl.preset(size, head=head)).count_parameters()
        print(f"{size:6s} {head:9s}  head {counts['head']:>13,} of {counts['total']:>14,}"
              f"  = {counts['head'] / counts['total']:.0%}")

# %% [markdown]
# The paper's own widths are not known here; these presets are derived from its parameter counts.
#
# Parameters are one thing, time another: the head runs again for *every* denoising step, the backbone once for each
# step over the sequence. The softmax model has the same backbone and hardly any head, so what another model takes
# beyond its time is the head's. (Random weights cost the same as trained ones.)

# %%
def seconds(head, num_denoising_steps, batch=4):
    torch.manual_seed(seed)
    model = fl.Fluid(fl.preset("mini", head=head)).eval()
    features, mask = torch.randn(batch, 8, model.config.text_dim), torch.ones(batch, 8, dtype=torch.bool)
    start = time.perf_counter()
    fl.generate(model, features, mask, num_denoising_steps=num_denoising_steps, generator=seeded(seed))
    return time.perf_counter() - start


seconds("softmax", 1)                                                           # warm up
plain = seconds("softmax", 1)
print(f"softmax                          {plain:.2f} s for 4 images")
for n in cost_steps:
    total = seconds("diffusion", n)
    print(f"diffusion, {n:3d} denoising steps  {total:.2f} s, of which the head {max(0.0, 1 - plain / total):.0%}")

# %% [markdown]
# These seconds vary with the machine and with what else it does; the trend does not. In a small model that draws a
# few images at a time the many small steps of the head can be most of the waiting. Fewer steps, or a head with a
# straighter way, is the first thing to reach for.

# %% [markdown]
# ## Real tokens
# Does any of this look like the toy? Here are the channels of real VAE tokens of scenes, and how often the VQ
# tokenizer uses each of its codes.

# %%
flat = real.flatten(0, 1)                                                       # (M * N, 16)
figure, said = plots.token_statistics(flat, codes_used.flatten(), vq.codebook_size)
show(figure, alt=f"Left: histograms of four channels beside a normal curve. Right: share of each code by rank. {said}.",
     caption=said + ".")

# %% [markdown]
# Two things follow. The histograms do not have the bell's shape, so a head that assumed a normal distribution, one
# mean and one variance, would be wrong from the start. And the entropy is the loss that a softmax head reaches by
# learning nothing but how common each code is (estimated from few tokens, so a little too low). Only a loss below
# it shows that a head makes use of the caption and of the tokens around.
#
# ## Back to images: one word
# The three heads fit into the same model. This is the whole swap:

# %%
base = fl.preset("nano", order="random", head="diffusion")
features, mask = torch.randn(1, 5, base.text_dim), torch.ones(1, 5, dtype=torch.bool)
for head in fl.HEADS:
    torch.manual_seed(seed)
    model = fl.Fluid(base.replace(head=head)).eval()
    drawn = fl.generate(model, features, mask, num_denoising_steps=5, generator=seeded(seed))
    print(f"head={head!r:12s} {model.head.token_kind:10s} tokens {tuple(drawn.shape)} {drawn.dtype}")

# %% [markdown] tags=["closing"]
# recap:
#   - |-
#     Squared error on a token answers with the mean of all right answers. That is mush, and it costs half of what a
#     real answer costs.
#   - |-
#     A head gives a **distribution** given $z$: a loss to train and a way to draw.
#   - The softmax head's limit is its grid. It is fixed before training and grows exponentially dear with the dimension.
#   - Diffusion guesses noise and walks back in small steps; at large $t$ the guess is multiplied by up to 2e4, so clip.
#   - |-
#     Flow learns a velocity on straight lines. Same network, one word in the configuration, and ahead on our toy when
#     steps are few.
#   - Temperature divides logits, or scales injected noise, or scales initial noise.
#   - |-
#     First losses are known: $\log V$, 1, 2. Losses of different heads are not comparable.
# quiz:
#   - q: A head is trained with *absolute* error instead of squared error. Does the fork come out right?
#     a: |-
#       No. Absolute error answers with the median. At the fork every value between the two
#       arms is a median, so the answer is again somewhere between them. Any loss that asks for a single value has this
#       problem.
#   - q: Your diffusion head starts at a loss of 7.3. What do you suspect?
#     a: |-
#       It should start at 1, if the output layer starts at zero and the target is standard normal noise. Either the
#       output layer is not zero, or the target is something else. (If tokens are not normalised, the noise's loss
#       would still start at 1, but a flow's would start at the tokens' variance plus 1.)
#   - q: Softmax with 16 codes has a loss of 1.8, with 1024 codes 5.0. Which is better?
#     a: |-
#       It cannot be told from the losses: the two play different guessing games. Decode
#       the tokens and compare these.
#   - q: At temperature 0 the flow head draws the same token for every seed, the diffusion head does not. Why?
#     a: |-
#       The flow's temperature scales its only randomness, the initial noise. The diffusion
#       head's scales the injected noise and leaves the initial one.
#   - q: Why does the guess of the noise need no clipping at $t = 100$, but at $t = 999$?
#     a: |-
#       The guessed token is the error of the guess times
#       $\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$: below 1 while there is more signal than noise, 2e4 at the end.
# references:
#   - |-
#     Fan et al. 2024, *Fluid: Scaling Autoregressive Text-to-image Generative Models with Continuous Tokens*,
#     arXiv 2410.13863
#   - |-
#     Li et al. 2024, *Autoregressive Image Generation without Vector Quantization* (MAR, the diffusion head),
#     arXiv 2406.11838
#   - Ho, Jain, Abbeel 2020, *Denoising Diffusion Probabilistic Models*, arXiv 2006.11239
#   - |-
#     Nichol, Dhariwal 2021, *Improved Denoising Diffusion Probabilistic Models* (cosine schedule, re-spacing),
#     arXiv 2102.09672
#   - Lipman et al. 2022, *Flow Matching for Generative Modeling*, arXiv 2210.02747
#   - Liu et al. 2022, *Flow Straight and Fast* (rectified flow), arXiv 2209.03003
#   - van den Oord et al. 2017, *Neural Discrete Representation Learning* (VQ-VAE), arXiv 1711.00937
