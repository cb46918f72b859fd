# %% [markdown] tags=["front-matter"]
# title: "Welcome: what will you build, and is your machine ready?"
# goals:
#   - check your machine, and draw your first pictures from four trained models
#   - say what the two axes of the Fluid paper are, and which four variants they make
#   - know your way around the notebooks, the package and the data
# needs: "Python and PyTorch basics: tensors, modules, a training loop"
# hardware: "a laptop CPU, 2 GB of free memory"
# fast:
#   num_denoising_steps: 2
#   prompts: ["a photo of a cat", "a photo of three books"]

# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 8, do: "Everybody runs the doctor. Nobody goes on before every line says ok."}
#   - {minutes: 12, do: "The question and the 2x2. Take the bet on the four variants and keep the count on the board."}
#   - {minutes: 12, do: "Four models: everybody counts the acceptable pictures of each row, then compare."}
#   - {minutes: 10, do: "Your turn: prompts that the class calls out, the empty one, and a word that no caption holds."}
#   - {minutes: 12, do: "EmojiScenes: skills, boxes, held-out pairs."}
#   - {minutes: 6, do: "How the course runs, where things are, the error that is a sentence; recap and quiz."}

# %% [markdown]
# In this course you rebuild **Fluid** (Fan et al. 2024, arXiv 2410.13863), a model that draws images from text. You do
# it with a small package, `fluidlab`, whose code is the same from a toy on your laptop up to billions of parameters.
#
# First things first: is this machine ready? Run the cell with Shift+Enter.

# %%
from fluidlab.checks.doctor import doctor

problems = doctor()

# %% [markdown]
# Every line should say `ok`. If one says `warn` or `FAIL`, the line below it is the command that mends it.

# %% [markdown] tags=["instructor"]
# **Goes wrong:** the notebook runs in another environment than the one that the course was installed into, most often
# in VS Code, which asks for a kernel and takes the first. The doctor then says that packages are missing although
# `pip` says that they are there. Choose the kernel of the course's environment, restart, run again.

# %% [markdown]
# ## The question
# A language model writes a text token by token: it looks at what is there and predicts what comes next. Such models got
# better and better simply by getting *bigger*.
#
# Images can be written the same way, token by token. But image models of this kind did not seem to profit from size in
# the same way. Why not? The paper names two suspects:
#
# 1. **The tokens.** Text consists of words, images do not. To get "words", each patch of an image is replaced by the
#    nearest entry of a codebook. That throws information away.
# 2. **The order.** A text is read from left to right. Is an image?
#
# Each suspect has an alternative: tokens that are *vectors of real numbers*, and a *random* order. Two questions with
# two answers each make four variants.

# %% tags=["parameters"]
prompts = ["a photo of a cat", "a photo of a red umbrella", "a photo of three books", "a cat and a banana",
           "a dog left of a chair"]      # each variant draws each of them
seed = 0                                 # the first picture's seed; the next ones use the numbers behind it
guidance_scale = 2.0                     # how hard the text pulls; notebook 06 turns this dial
temperature = 0.5                        # how much chance there is; these two suit most variants (notebook 07)
num_denoising_steps = 25                 # steps inside a diffusion head; notebook 04 explains them

# %%
import json

import torch
from IPython.display import display

import fluidlab as fl
from fluidlab.config import data_dir
from fluidlab.viz.plots import contact_sheet
from fluidlab.viz.plots_welcome import scene_boxes, two_by_two
from fluidlab.viz.prompt_box import PromptBox
from fluidlab.viz.show import image_grid, show

show(two_by_two(seed), alt="A table of four four-by-four grids. Columns: discrete tokens, one number of a code in each "
     "position, and continuous tokens, sixteen small bars in each. Rows: raster order, positions filled one by one "
     "from 1 to 16; random order, filled in six steps at scattered positions, few at first and many at the end.",
     caption="The small number says in which step a position is filled; what stands in it is the token. (The tokens' "
             "values are made up, the steps are those of the package.)")

# %% [markdown]
# Read the table twice: down a column only the *order* changes, along a row only the *kind of token*. Everything else
# stays equal: the same text encoder, the same Transformer blocks, the same images. That is what makes it an experiment.
#
# - **raster** order works as GPT does with words: each token sees only those before it;
# - **random** order works as BERT does: hidden tokens are guessed from all that are known, wherever they are;
# - **softmax** chooses one code of a list;
# - **diffusion** draws 16 real numbers, by turning noise into a token in small steps.
#
# Continuous and random together are Fluid. **Which of the four would you bet on?**

# %% [markdown] tags=["instructor"]
# **Say:** everything in this course is one of these four, and two of them that are neighbours in the table differ in
# one thing. Write the table on the board; it stays there for ten notebooks.
#
# **Poll:** somebody has a raster model with discrete tokens and one with random order and continuous tokens, and the
# second is better. Does random order help?
#
# <details><summary>Answer</summary>
#
# Nobody can know: two things have changed. It takes a third model, in the same row or column as one of the two.
#
# </details>

# %% [markdown]
# ## Four models, one minute
# All four variants come with the course, trained alike: same scenes, same number of steps, same backbone. Load them and
# let each draw the same prompts.

# %%
names = ["raster-softmax", "raster-diffusion", "random-softmax", "random-diffusion"]
pipelines = {name: fl.FluidPipeline.from_pretrained(f"{name}-mini") for name in names}
for name, pipeline in pipelines.items():
    trained = json.loads((data_dir() / f"{name}-mini" / "training.json").read_text(encoding="utf-8"))
    print(f"{name:17s} {pipeline.model.count_parameters()['total'] / 1e6:.1f} million parameters, trained on "
          f"{trained['images']:,} images of {pipeline.model.config.seq_len} {pipeline.tokenizer.kind} tokens")

# %%
options = {"guidance_scale": guidance_scale, "temperature": temperature, "num_denoising_steps": num_denoising_steps}
drawn = {name: pipeline(prompts, seed=seed, **options).pixels for name, pipeline in pipelines.items()}
show(contact_sheet(torch.cat(list(drawn.values())), [name.replace("-", "\n") for name in names], prompts, scale=3),
     alt="Rows: the four variants. Columns: the prompts " + ", ".join(map(repr, prompts)) + ". Each cell is the "
         "picture that the variant drew.",
     caption="First tries with one seed each, nothing selected.")

# %% [markdown]
# ### What works, and what does not
# Be strict: of these pictures, how many would you accept?
#
# - Is the right **object** there, or a blob of about its size and colour?
# - Is the **colour** right? The **number**? The **position**?
# - Are outlines and colours clean, or smeared?
#
# You will not accept all of them. These are tiny models, trained on a CPU within an afternoon; the smallest in the
# paper has 150 million parameters. In our runs, colours and rough layout came early and shapes late: small things are
# clean by now, large single ones are still rough. What the four show is how the choices *differ*, at a size that you
# can train yourself. One picture says little about a model, so here are more of one prompt.

# %%
prompt = prompts[0]
more = {name: pipeline(prompt, seed=seed + 100, num_images_per_prompt=6, **options).pixels
        for name, pipeline in pipelines.items()}
show(contact_sheet(torch.cat(list(more.values())), [name.replace("-", "\n") for name in names],
                   [f"seed {seed + 100 + i}" for i in range(6)], scale=2),
     alt=f"Rows: the four variants. Columns: six seeds. Each cell is a picture of {prompt!r}.",
     caption=f"{prompt!r}, six times by each variant.")

# %% [markdown]
# Do you see differences between rows? Between order and order, between token and token? Write your impression down. By
# notebook 07 you will know how to tell an impression from a finding.

# %% [markdown] tags=["instructor"]
# **Say:** these pictures are not impressive, and they need not be. You see a model that was trained on one CPU, whose
# every line you can read; the same lines are written for billions of parameters (notebook 09).
#
# **Poll:** of six pictures, one variant gets four right and another two. Is the first the better model?
#
# <details><summary>Answer</summary>
#
# Perhaps. Two variants that are equally good and right half of the time differ by two or more in about two of five
# such trials of six pictures. Six pictures are an impression.
#
# </details>

# %% [markdown]
# ## Your turn
# Type a prompt, choose a variant, press **Draw**. The models know the words of their captions and no others: emoji such
# as *cat, dog, bicycle, banana, book, chair, umbrella*, colours, numbers from two to four, *left of, right of, above,
# below*. A word that they have never read is named below the picture.

# %%
box = PromptBox(pipelines, "a purple cat and a green umbrella", **options)
box.explorer.refresh()
display(box.widget)

# %% [markdown]
# Three things to try: the same prompt with another variant; an empty prompt; a word that no caption holds, such as
# *castle*.

# %% [markdown]
# ## EmojiScenes: the images of this course
# Fluid was trained on images from the web. A laptop, offline, needs something smaller that still asks the same
# questions. EmojiScenes are endless small images with captions; they ask for the six skills that the benchmark GenEval
# tests.

# %%
scenes = fl.EmojiScenes(split="train", image_size=64, seed=seed)
examples = {}
for i in range(200):
    examples.setdefault((scene := scenes[i])["skill"], scene)
    if len(examples) == 6:
        break
for skill, scene in examples.items():
    print(f"{skill:14s} {scene['caption']}")
show(image_grid([scene["image"] for scene in examples.values()], titles=list(examples), scale=2),
     alt="Six scenes, one of each skill: " + "; ".join(s["caption"] for s in examples.values()),
     caption="One scene of each skill. The captions stand above.")

# %% [markdown]
# Nobody labelled these images. The program that draws them knows everything about them, exactly:

# %%
one = examples["position"]
print(one["caption"])
for thing in one["objects"]:
    print(thing)
show(scene_boxes([examples[skill] for skill in ("position", "color_attr", "counting")]),
     alt="Three scenes with a frame around each object, named by class and colour.",
     caption="Class, colour and box of every object are known. Later this trains a judge of generated pictures.")

# %% [markdown]
# Three properties matter for what follows:
#
# - **Endless.** Scene number *i* is computed from its number, the same on every machine. Training never runs out.
# - **Soft.** Backgrounds are gradients, never twice the same: nuances that a discrete code loses (notebook 01).
# - **Held out.** Some pairs, and some colours of some things, occur *only* in the test split. So one can ask whether a
#   model composes or remembers.

# %%
test = fl.EmojiScenes(split="test", image_size=64, seed=seed)
new = [scene for scene in map(test.__getitem__, range(60)) if scene["heldout"]][:6]
for scene in new:
    print(scene["caption"])
show(image_grid([scene["image"] for scene in new], scale=2),
     alt="Scenes of the test split with compositions that training never shows: "
         + "; ".join(scene["caption"] for scene in new),
     caption="Compositions that no training image shows.")

# %% [markdown]
# ## How the course runs
# | notebook | question |
# |---|---|
# | 00 Welcome | What will you build, and is your machine ready? |
# | [01 Tokenizers](01_tokenizers.ipynb) | What is left of an image that has become tokens? |
# | [02 Text](02_text.ipynb) | How does a prompt reach the image tokens? |
# | [03 Orders](03_orders.ipynb) | In which order does an image appear? |
# | [04 Heads](04_heads.ipynb) | How does a network draw a token that no codebook holds? |
# | [05 Train](05_train.ipynb) | What happens in a minute of training, and in an hour? |
# | [06 Sample](06_sample.ipynb) | What do guidance, temperature and steps do? |
# | [07 Evaluate](07_evaluate.ipynb) | Is it good, and who says so? |
# | [08 Scaling](08_scaling.ipynb) | What does size buy? |
# | [09 Scale out](09_scale_out.ipynb) | What is a shard, and what does your device hold? |
#
# They build on each other, so take them in order. Everything runs offline, on a CPU, within minutes.
#
# - Each notebook has **one cell of parameters** near the top. Change a number there, then *Run > Run All Cells*.
# - When a text says **predict** or **think first**, do it before you run the next cell. No way to learn is cheaper.
# - From notebook 01 on there are **exercises**: a task, the picture of a right answer, hints that unfold one by one,
#   and a check that says which mistake is likely. What you do not solve, the package does: the notebook goes on either
#   way. Worked solutions lie in `notebooks/solutions/`.
# - Each notebook ends with a **recap** and a **quiz** whose answers unfold.
# - Pictures with sliders are live in JupyterLab. On a web page they are stills.

# %% [markdown]
# ## Where things are
# The notebooks import the package, they do not repeat it. When you want to know how something really works, open the
# file; most are shorter than two pages.
#
# | folder | what it holds | notebook |
# |---|---|---|
# | `fluidlab/data/` | EmojiScenes, photographs, cached tokens | 00, 05 |
# | `fluidlab/tokenizer/` | image to tokens and back, both kinds | 01 |
# | `fluidlab/text/` | the frozen text encoder and the trainable aligner | 02 |
# | `fluidlab/model/orders/` | raster and random order | 03 |
# | `fluidlab/model/heads/` | softmax, diffusion, flow | 04 |
# | `fluidlab/train/` | the training loop | 05 |
# | `fluidlab/sample/` | the sampling loop, inpainting | 06 |
# | `fluidlab/evaluate/` | losses, the judge, the Frechet distance, scaling laws | 07, 08 |
# | `fluidlab/pipeline.py` | from a prompt to an image | 00, 06 |
# | `fluidlab/viz/` | every picture and widget of the course | all |
# | `data/` | trained weights, results, and how each file was made | all |
#
# In a notebook, `?` shows a description and `??` the source:

# %%
import inspect

print(inspect.getdoc(fl.generate).split("\n\n")[0])
print("in the file", fl.generate.__module__.replace(".", "/") + ".py")

# %% [markdown]
# ## When something goes wrong
# - **Read the last line** of the error. Mistakes in the use of the package are one sentence that says what was given
#   and what is allowed, such as this one:

# %%
try:
    pipelines["random-diffusion"]("a photo of a cat", temperature=-1.0)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# - **Restart** with *Kernel > Restart Kernel and Run All Cells*. Many riddles are cells that ran in another order.
# - **Out of memory, or too slow:** close other notebooks, and lower the numbers in the parameters cell.
# - **Installation:** run `fluidlab doctor` in a terminal. The README has a table of symptoms and what helps.

# %% [markdown] tags=["closing"]
# recap:
#   - |-
#     Fluid asks why image models did not profit from size as language models do, and tries two answers: continuous
#     tokens and random order.
#   - Two orders and two kinds of token make four variants that differ in nothing else. All four are here, trained.
#   - EmojiScenes are endless small images whose truth is known exactly; some compositions are held out.
# quiz:
#   - q: Which two things differ between `raster-softmax` and `random-diffusion`?
#     a: |-
#       The order in which tokens are written (one by one as a text is read, or any token
#       next) and the kind of token (a code chosen by a softmax, or 16 numbers drawn by diffusion).
#   - q: You compare `raster-softmax` with `random-diffusion` and the second is better. Which suspect was guilty?
#     a: |-
#       You cannot know: two things changed at once. Compare along a row and down a column.
#       That is why there are four.
#   - q: Why are some pairs of objects kept out of training?
#     a: |-
#       To see whether a model can compose. If it draws a pair that it never saw, it did not
#       just remember.
# references:
#   - |-
#     Fan et al. 2024, *Fluid: Scaling Autoregressive Text-to-image Generative Models with Continuous Tokens*,
#     arXiv 2410.13863
#   - Li et al. 2024, *Autoregressive Image Generation without Vector Quantization* (MAR), arXiv 2406.11838
#   - |-
#     Chang et al. 2022, *MaskGIT: Masked Generative Image Transformer*, arXiv 2202.04200
#   - |-
#     Ghosh et al. 2023, *GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment*, arXiv 2310.11513
#   - |-
#     All emojis designed by [OpenMoji](https://openmoji.org), the open-source emoji and icon project. License: [CC
#     BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/).
