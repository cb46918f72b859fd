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

# %%
import math
import time

import torch
from IPython.display import display

import fluidlab as fl
from fluidlab.model.heads.diffusion import CosineDiffusion
from fluidlab.model.heads.flow import RectifiedFlow
from fluidlab.train.optim import learning_rate
from fluidlab.viz import plots_heads as plots
from fluidlab.viz.show import image_grid, show
from fluidlab.viz.toy_tokens import SHAPES, chamfer, kmeans, nearest, toy_tokens


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
# The loss in five lines. The package's own is the same, number for number:

# %%
torch.manual_seed(seed)
diffusion = Toy(config)
z = diffusion.z(condition)[None]                                                # (1, B, D)

g = seeded(1)
t = (torch.rand(1, len(tokens), generator=g) * 1000).long()                     # (1, B) a time for each token
noise = torch.randn(1, len(tokens), 2, generator=g)                             # (1, B, 2)
share = alphas[t].float()[..., None]                                            # (1, B, 1)
noisy = share.sqrt() * tokens + (1 - share).sqrt() * noise                      # (1, B, 2)
mine = (diffusion.head.denoiser(noisy, t, z) - noise).square().mean()

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
