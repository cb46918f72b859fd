# %% [markdown] tags=["front-matter"]
# title: "Text: how a prompt reaches the image tokens"
# goals:
#   - cut a prompt into SentencePiece pieces, and say what happens to a word that nobody has seen
#   - measure what a contextual feature knows that an embedding does not, with similarities and a linear probe
#   - follow a prompt through padding, masks and the trainable aligner, with the shape at every step
#   - draw cross-attention, and say why a softmax over nothing needs a null token
# needs: "Notebooks 00 and 01; PyTorch basics; what attention is, roughly"
# hardware: "a laptop CPU, 2 GB of free memory"
# fast:
#   num_captions: 400
#   num_images: 2
#   num_denoising_steps: 2

# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 5, do: "The two sentences with the same words. Where could the binding get lost? Collect the answers."}
#   - {minutes: 12, do: "Pieces and unknown words; let the class bring words and predict their pieces."}
#   - {minutes: 15, do: "A word in its sentence: exercise 2.1, then the two matrices. Cover the right one first."}
#   - {minutes: 12, do: "The probe. Take the poll before the bars appear; then the confession."}
#   - {minutes: 15, do: "Padding and masks, exercise 2.2. Two students read out their division by the count."}
#   - {minutes: 6, do: "The aligner, line by line, shapes said aloud."}
#   - {minutes: 18, do: "Cross-attention: queries from image tokens; exercise 2.3, alone."}
#   - {minutes: 20, do: "The heat maps, exercise 2.4 for the fast ones; the others change the prompt and look."}
#   - {minutes: 10, do: "Nothing to look at, text dropout, and what guidance makes of it."}
#   - {minutes: 7, do: "The test from the beginning: count together. Recap and quiz."}

# %% [markdown]
# ## A sentence is not a picture
#
# "a red cat and a blue dog" and "a blue cat and a red dog" hold the same words. A painter draws two different
# pictures. So whatever reaches the image model must hold more than the words: it must hold **which** thing is red.
#
# A prompt takes this way:
#
# prompt → **pieces** (SentencePiece) → **features** (T5 encoder, frozen) → **text vectors** (aligner, trained) →
# **cross-attention** of the image tokens
#
# In Fluid the text encoder is T5-XXL with 4.7 billion parameters, prompts have at most 128 tokens, and the aligner has
# 6 Transformer blocks. Ours is the same chain with a T5 that fits into a few megabytes and has read nothing but the
# captions of our scenes.
#
# **Think before you run:** where on this way could "which thing is red" get lost?

# %% tags=["parameters"]
seed = 0                   # of every picture and every draw
num_captions = 2000        # captions that the probes are fitted on; a quarter as many test them
num_images = 5             # pictures in a row
num_denoising_steps = 25   # inside the diffusion head

# %% tags=["needed"]
import math
import textwrap
import warnings

import torch
from IPython.display import HTML, display

import fluidlab as fl
from fluidlab import checks
from fluidlab.text.probe import features_at, linear_probe, token_of
from fluidlab.viz.plots import contact_sheet
from fluidlab.viz.plots_text import (
    accuracy_figure,
    attention_heatmaps,
    attention_weights,
    attention_when_drawn,
    cosine_similarities,
    mask_figure,
    overlay_figure,
    pieces_html,
    record_attention,
    similarity_figure,
    text_labels,
)
from fluidlab.viz.show import show

pipe = fl.FluidPipeline.from_pretrained("random-diffusion-mini")
encoder, model = pipe.text_encoder, pipe.model
options = dict(guidance_scale=3.0, num_denoising_steps=num_denoising_steps)                # of every picture here
parameters = sum(p.numel() for p in encoder.parameters())
print(f"text encoder: {parameters / 1e6:.2f} million parameters, {encoder.dim} numbers a token, at most "
      f"{encoder.max_length} tokens")

# %% [markdown]
# ## Pieces
#
# A network reads numbers from a fixed list. Whole words make a bad list, because there is always one more; letters make
# a bad list, because they mean nothing alone. **SentencePiece** learns a list in between: common words are one piece,
# rare ones are built from several. The mark `▁` stands for the space before a word.

# %%
prompts = ["a photo of a red cat", "A RED, RED Cat!", "three teddy bears", "a toothbrush left of a potted plant",
           "a quokka", "a naïve cat", ""]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # some of these words are unknown; that is the next section
    display(HTML(pieces_html([(prompt, encoder.tokenize(prompt)) for prompt in prompts])))

# %% [markdown]
# Four things to see. Capitals and punctuation are gone: captions have none, so the tokenizer folds them away. Every
# prompt ends with `</s>`, the end token. "quokka" falls into letters, and a letter that no caption contains, such as
# "q" or "ï", into its UTF-8 bytes, `<0x71>` or `<0xC3>` `<0xAF>`: there is no word that cannot be written. And the
# empty prompt has no piece.
#
# How does the tokenizer choose between the many ways to cut a word? Each piece has a probability, and the cut with the
# largest product wins. These are the best cuts of two words (three, where there are as many), with the logarithm of
# that product:

# %%
import sentencepiece

from fluidlab.config import data_dir

spiece = sentencepiece.SentencePieceProcessor(model_file=str(data_dir() / "scenes-t5" / "spiece.model"))
for word in ("umbrellas", "quokka"):
    for cut in spiece.nbest_encode_as_pieces(word, 3):
        score = sum(spiece.get_score(spiece.piece_to_id(piece)) for piece in cut)
        print(f"{score:9.1f}   {' '.join(cut)}")
    print()

# %% [markdown]
# ## Words that nobody has seen
#
# Pieces make every word *writable*. They do not make it *known*. A T5-XXL has read the web; ours has read captions of
# emoji, and a quokka was never among them. The encoder knows which words it was trained on, and says so:

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    encoder("a photo of a quokka on a bicycle")
for warning in caught:
    print(f"{warning.category.__name__}: {warning.message}")

# %% [markdown]
# It is a warning and not an error, because the rest of the prompt can still be drawn. What does the model draw?
# **Guess first:** nothing, noise, or something it knows?

# %%
asked = ["a photo of a cat", "a photo of a quokka", "a photo of a quokka on a bicycle"]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    drawn = pipe([prompt for prompt in asked for _ in range(num_images)],
                 seed=[seed + i for i in range(num_images)] * len(asked), **options)
seeds = [f"seed {seed + i}" for i in range(num_images)]
show(contact_sheet(drawn.pixels, [textwrap.fill(prompt, 18) for prompt in asked], seeds),
     alt="Three rows of pictures for: " + "; ".join(asked) + ".",
     caption="The same seeds in each row. An unknown word is not an error to a network: it is some vector.")

# %% [markdown]
# A network has no way to say "I do not know this word". Some features come out of the encoder, and some picture is the
# answer. That is why the warning is worth having.
#
# ## Features: a word in its sentence
#
# The encoder turns S pieces into S vectors. `mask` says which of them are real.

# %%
features, mask = encoder(["a photo of a red cat"])
print("features", tuple(features.shape), features.dtype, f"  standard deviation {features.std():.2f}")
print("mask    ", tuple(mask.shape), mask.dtype, mask[0].tolist())

# %% [markdown]
# What did we gain over a table with one vector per piece? In a table, "cat" is the same vector in every sentence. A
# Transformer's feature at "cat" has looked at its neighbours. To see how much it differs from sentence to sentence we
# need a measure that looks at the direction of vectors alone: the **cosine similarity**
#
# $$\cos(a, b) = \frac{a \cdot b}{\lVert a \rVert \, \lVert b \rVert}$$
#
# It is 1 for the same direction, 0 for a right angle and -1 for opposite directions.

# %% [markdown] tags=["exercise"]
# title: The same direction?
# minutes: 7
# level: 1
# task: |-
#   Write `cosine_similarities(vectors)` for M vectors in the rows of a float tensor of shape (M, E): a tensor of shape
#   (M, M) whose entry [i, j] is the cosine similarity of vector i and vector j. No vector is zero. The next cells use
#   your function.
# right: |-
#   the diagonal is 1, the matrix is symmetric, and (1, 0) and (2, 0) have the similarity 1 in spite of their lengths.
# hints:
#   - "What is the similarity of two vectors that both have length 1? Then bring all vectors to length 1 first."
#   - |-
#     `vectors.norm(dim=1, keepdim=True)` are the M lengths as a column. After the division a single matrix product with
#     the transposed, `unit @ unit.T`, gives all M x M products.
# why: |-
#   `keepdim=True` leaves a column of shape (M, 1), which divides every row by its own length. With dim=0 every *number*
#   would get the same size over all vectors, which is another thing (and the first step of the probe below).

# %% tags=["target"]
arrows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 3.0], [-1.0, 0.0]])
show(similarity_figure({"cosine_similarities": cosine_similarities(arrows)},
                       [f"({x:.0f}, {y:.0f})" for x, y in arrows.tolist()]),
     alt="A 5x5 matrix for (1, 0), (2, 0), (1, 1), (0, 3) and (-1, 0): 1 on the diagonal and between the first two, "
         "0.71 at half a right angle, 0 at a right angle, -1 for opposite directions.",
     caption="What the matrix of five vectors looks like when it is right.")

# %% tags=["stub"]
def cosine_similarities(vectors):
    """Cosine of the angle between every two of M vectors: (M, E) -> (M, M), from -1 to 1."""
    ...


# %% tags=["solution"]
def cosine_similarities(vectors):
    """Cosine of the angle between every two of M vectors: (M, E) -> (M, M), from -1 to 1."""
    unit = vectors / vectors.norm(dim=1, keepdim=True)                # (M, E), each of length 1
    return unit @ unit.T                                              # (M, M)


# %% tags=["check"]
cosine_similarities = checks.check_cosine_similarities(cosine_similarities)
words = ["red", "blue", "cat", "dog"]
alike = cosine_similarities(features_at(encoder, words, [0] * len(words))[1])             # of their embeddings
for word, row in zip(words, alike, strict=True):
    print(f"{word:5s}", *(f"{other} {value:5.2f}  " for other, value in zip(words, row.tolist(), strict=True)))

# %% [markdown]
# To the embeddings of our small encoder every word is as far from every other: nearly a right angle. Now the feature at
# the word *cat* from six captions. **Guess first:** which two of the captions have the most similar cats?

# %%
captions = ["a photo of a cat", "a photo of a red cat", "a photo of a blue cat", "a red cat and a blue dog",
            "a blue cat and a red dog", "a dog left of a cat"]
positions = [token_of(encoder, caption, "cat") for caption in captions]
contextual, plain = features_at(encoder, captions, positions)              # 2 x (6, E)
matrices = {"embedding of cat": cosine_similarities(plain), "feature at cat": cosine_similarities(contextual)}
show(similarity_figure(matrices, captions),
     alt="Cosine similarities of the word cat in six captions. Embeddings: 1.00 everywhere. Features: between "
         f"{matrices['feature at cat'].min():.2f} and 1.",
     caption="The same word in six sentences, before and after the encoder.")

# %% [markdown]
# On the left all six are one and the same vector. On the right each cat knows its sentence.
#
# Captions 4 and 5 hold the same words in another order. At *cat* they are the most alike of all pairs, and yet no
# longer the same. Add up all plain embeddings of a caption, and nobody can tell the two apart; add up all features, and
# they differ:

# %%
pair = ["a red cat and a blue dog", "a blue cat and a red dog"]
table = encoder.model.get_input_embeddings().weight
bags = [table[encoder.tokenizer(caption)["input_ids"]].sum(dim=0) for caption in pair]
sums = encoder(pair)[0].sum(dim=1)                                         # (2, E); both have as many pieces
print(f"embeddings: relative difference of the sums {((bags[0] - bags[1]).norm() / bags[0].norm()).item():.4f}")
print(f"features:   relative difference of the sums {((sums[0] - sums[1]).norm() / sums[0].norm()).item():.4f}")

# %% [markdown]
# ## A probe asks: who is red?
#
# "Different" is not yet "useful". A **linear probe** is the standard question: can a linear map read the answer from
# the vector? We collect captions with two coloured things, take the feature at one noun, and ask for
#
# - its **own colour** ("red" for the cat in "a red cat and a blue dog"),
# - its own colour in pairs of classes that were **held out** from training,
# - the **other thing's colour**,
# - its **side** (left, right, above or below) in captions of the position skill.
#
# What would a mere bag of words score? It knows that "red" and "blue" are in the caption, but not which is whose, so
# for the own colour it can be right half of the time at best. Above one half there is **binding**: the colour is tied
# to its thing.

# %% [markdown] tags=["instructor"]
# **Poll:** a probe reads the own colour from the plain embedding of "cat". There are eight colours. What will it score?
#
# <details><summary>Answer</summary>
#
# About one in eight. The embedding is the same vector in every caption, so it can say nothing about this one. And a bag
# of words, which knows both colours but not whose they are? One half.
#
# </details>
#
# **Say:** a probe proves that something *can* be read, not that the image model *does* read it.

# %%
COLOR_NAMES = fl.EmojiScenes().colors
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def questions(skill, split, count, heldout=None):
    """For each caption one noun: the caption, where the noun stands, and the answers."""
    scenes, rows = fl.EmojiScenes(split, skills=(skill,), seed=seed), []
    for index in range(len(scenes)):
        if len(rows) == count:
            break
        plan, caption = scenes.plan(index), scenes.caption(index)
        if heldout not in (None, plan.heldout):
            continue
        which = index % 2  # now the first thing, now the second
        own, other = plan.objects[which], plan.objects[1 - which]
        at = token_of(encoder, caption, own["class"])
        if at is not None:
            side = plan.relation if which == 0 or plan.relation is None else OPPOSITE[plan.relation]
            rows.append((caption, at, own["color"], other["color"], side))
    return rows


train = questions("color_attr", "train", num_captions)
tests = {"own colour": questions("color_attr", "validation", num_captions // 4),
         "own colour,\nheld-out pairs": questions("color_attr", "test", num_captions // 4, heldout=True)}
for row in train[:3]:
    print(f"{row[0]!r}: at token {row[1]}, own colour {row[2]}, other's colour {row[3]}")


# %%
def vectors(rows):
    return features_at(encoder, [row[0] for row in rows], [row[1] for row in rows])  # features, embeddings


def answers(rows, column, names):
    return torch.tensor([names.index(row[column]) for row in rows])


def probe(train_rows, test_rows, column, names):
    """Accuracy on the test rows, read from the embedding and from the feature."""
    results = {}
    for name, x, y in zip(("feature", "embedding"), vectors(train_rows), vectors(test_rows), strict=True):
        results[name] = linear_probe(x, answers(train_rows, column, names), y, answers(test_rows, column, names))
    return {"embedding": results["embedding"], "feature": results["feature"]}


accuracies = [(name, probe(train, rows, 2, COLOR_NAMES)) for name, rows in tests.items()]
accuracies.append(("the other's\ncolour", probe(train, tests["own colour"], 3, COLOR_NAMES)))
accuracies.append(("own side", probe(questions("position", "train", num_captions),
                                     questions("position", "validation", num_captions // 4), 4, RELATIONS)))
chances = [1 / len(COLOR_NAMES)] * 3 + [1 / len(RELATIONS)]
show(accuracy_figure(accuracies, chances),
     alt="Accuracy of linear probes: " + "; ".join(
         f"{' '.join(name.split())}: embedding {a['embedding']:.0%}, feature {a['feature']:.0%}"
         for name, a in accuracies) + ".",
     caption="What a linear map can read at a noun, from its embedding and from its feature.")

# %%
own, held_out, others, side = (row[1]["feature"] for row in accuracies)
print(f"own colour {own:.0%}, in pairs never seen {held_out:.0%}, the other's colour {others:.0%}, own side {side:.0%}")
print("binding: better than any bag of words" if own > 0.5 else "no binding: a bag of words would do as well")

# %% [markdown]
# The embedding is at chance: "cat" alone cannot know whether it is red. What the feature gets right must have come
# from its neighbours, through attention.
#
# A confession. Our small T5 did not learn this by itself. T5's own exercise, to fill in cut-out spans, can mostly be
# solved from the *bag* of words, and on our budget the features stayed a bag. So every feature is asked one thing more
# in pre-training: which pieces stand around you? T5-XXL needs no such help, since it learned from a web of text and
# not from captions of nine words.
#
# ## Batches: padding and masks
#
# Prompts have different lengths, tensors do not. Shorter prompts are filled up with padding, and the mask remembers.

# %% tags=["needed"]
batch = ["a cat", "a photo of a red umbrella left of a blue car", ""]
features, mask = encoder(batch)
show(mask_figure(mask, [[piece.replace("▁", "") for piece in encoder.tokenize(prompt)] for prompt in batch]),
     alt="A table of three prompts. The first has three real tokens and then padding, the second is full, the third, "
         "the empty prompt, is padding only.",
     caption="Hatched: padding. The empty prompt is a row without a single real token.")

# %% [markdown]
# Padding is a frequent source of silent bugs. If some layer forgets the mask, no shape is wrong and no error appears;
# only the picture of "a cat" begins to depend on who else is in the batch. So test it: put rubbish into the padding,
# and nothing may change.

# %%
rubbish = torch.where(mask[..., None], features, 100 * torch.randn_like(features))
with torch.no_grad():
    clean, _ = model.aligner(features, mask)
    same, _ = model.aligner(rubbish, mask)
    forgotten, _ = model.aligner(rubbish, torch.ones_like(mask))  # a layer that ignores the mask
real = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)  # the null token stands in front
print(f"with mask:    the real tokens move by {(same - clean)[real].abs().max():.1e}")
print(f"mask ignored: the real tokens move by {(forgotten - clean)[real].abs().max():.1e}")

# %% [markdown]
# Wherever one vector for a whole prompt is wanted, for a search or to compare two captions, people take the mean of the
# features. There the same bug waits.

# %% [markdown] tags=["instructor"]
# **Goes wrong:** `features.mean(dim=1)`. It works in every test with a single prompt, because then there is no padding,
# and with padding it depends on the longest prompt of the batch. Let somebody who wrote it add a long prompt to the
# batch and watch "a cat" change.

# %% [markdown] tags=["exercise"]
# title: A mean without padding
# minutes: 8
# level: 1
# task: |-
#   Write `masked_mean(features, mask)` for features of shape (B, S, E) and a mask of shape (B, S), True for a real
#   token: a tensor of shape (B, E) with the mean over each prompt's real tokens. An empty prompt, whose mask is False
#   everywhere, gets zeros. Do not rely on what stands in the padding.
# right: |-
#   the caption "a cat" has the same mean alone and in a batch with longer ones, and the empty prompt has zeros.
# hints:
#   - "A mean is a sum divided by a count. Of which shape must the mask be to be multiplied with the features?"
#   - |-
#     `mask[..., None]` is (B, S, 1). The counts are `mask.sum(dim=1, keepdim=True)`, of shape (B, 1); an empty prompt
#     has the count 0, and `clamp(min=1)` turns 0 / 0 into 0 / 1.
# why: |-
#   Multiplying by the mask removes the padding from the sum, and counting the mask removes it from the divisor: both
#   are needed. The clamp changes no other prompt, unlike a small number added to the count.

# %% tags=["target"]
lengths = ["a cat", "a red cat", "a photo of a red cat", "a blue car", "a blue car and a red cat"]
means = checks.check_masked_mean.own(*encoder(lengths))               # (5, E)
show(similarity_figure({"means of the features": cosine_similarities(means)}, lengths),
     alt="Cosine similarities of the mean features of five captions; 1 on the diagonal, the highest others between "
         "captions of the same thing.",
     caption="Captions of five lengths, compared by masked_mean when it is right.")

# %% tags=["stub"]
def masked_mean(features, mask):
    """Mean over the real tokens: features (B, S, E), mask (B, S) bool, True = real -> (B, E); zeros without a token."""
    ...


# %% tags=["solution"]
def masked_mean(features, mask):
    """Mean over the real tokens: features (B, S, E), mask (B, S) bool, True = real -> (B, E); zeros without a token."""
    total = (features * mask[..., None]).sum(dim=1)                   # (B, E)
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)                # (B, 1)
    return total / count


# %% tags=["check"]
masked_mean = checks.check_masked_mean(masked_mean)
alone, together = masked_mean(*encoder(batch[:1]))[0], masked_mean(features, mask)[0]      # (E,) of "a cat"
plain = features.mean(dim=1)[0]
print(f'"a cat" alone and beside a longer prompt: the mean moves by {(alone - together).norm() / alone.norm():.1e}; '
      f"with padding in the mean it would move by {(alone - plain).norm() / alone.norm():.0%}")

# %% [markdown]
# ## The aligner
#
# T5 was trained on text, frozen, and has never heard of images. Between it and the image model stands a small network
# that *is* trained with the images: the **text aligner**. Here is its `forward`, line by line; the package's gives the
# same.

# %%
aligner = model.aligner
with torch.no_grad():
    null = aligner.null_token.expand(len(features), 1, -1)
    print("learned null token, once per prompt", tuple(null.shape))
    projected = aligner.project(features)
    print("features to the model's width      ", tuple(features.shape), "->", tuple(projected.shape))
    x = torch.cat([null, projected], dim=1)
    text_mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
    print("null token in front, mask as well  ", tuple(x.shape), tuple(text_mask.shape))
    for number, block in enumerate(aligner.blocks, start=1):
        x = block(x, mask=text_mask)
        print(f"Transformer block {number}, masked        ", tuple(x.shape))
    text = aligner.norm(x)
    assert torch.equal(text, aligner(features, mask)[0])
print(f"\naligner: {sum(p.numel() for p in aligner.parameters()) / 1e6:.2f} of "
      f"{model.count_parameters()['total'] / 1e6:.2f} million trained parameters")

# %% [markdown]
# ## Cross-attention: image tokens read the text
#
# In every block of the backbone the image tokens first look at each other (self-attention, notebook 03), then at the
# text: **queries** come from the image tokens, **keys** and **values** from the text. Each image token mixes the text
# vectors with weights that sum to 1:
#
# $$a_{ns} = \frac{\exp(q_n \cdot k_s / \sqrt{d})}{\sum_{s'} \exp(q_n \cdot k_{s'} / \sqrt{d})}, \qquad
# o_n = \sum_s a_{ns} v_s$$
#
# Here $q_n$ is the query of image token $n$, $k_s$ and $v_s$ are key and value of text token $s$, and $d$ is how many
# numbers a query has. Padding must not be looked at, so its scores are set to $-\infty$ before the softmax:
# $e^{-\infty} = 0$. A layer has several **heads**, each with queries and keys of its own; they work side by side.

# %% tags=["needed"]
layer = model.backbone.blocks[0].cross_attention
with torch.no_grad():
    text, text_mask = model.aligner(features, mask)  # (B, S+1, D), (B, S+1)
    queries_from = torch.randn(3, 16, model.config.width, generator=torch.Generator().manual_seed(seed))
    q = layer.split(layer.to_q(queries_from))  # (B, H, N, d)
    k = layer.keys_values(text)[0]  # (B, H, S+1, d)
print(f"queries {tuple(q.shape)}, keys {tuple(k.shape)}: prompts, heads, tokens, numbers")
print(f"mask {tuple(text_mask.shape)}: prompts, text tokens with the null token in front")

# %% [markdown] tags=["instructor"]
# **Say:** a row of weights is one image token's budget of attention, 100 per cent. Whatever padding gets is missing
# elsewhere. That is why hiding it *after* the softmax is too late.

# %% [markdown] tags=["exercise"]
# title: Attention over text
# minutes: 12
# level: 2
# task: |-
#   Write `text_attention(q, k, mask)`, the weights of cross-attention. Queries `q` are (B, H, N, d), keys `k` are
#   (B, H, S, d), and `mask` is (B, S), True where a text token may be looked at; each prompt has at least one. Return
#   (B, H, N, S) with rows that sum to 1 and weights of exactly 0 on padding. It is the formula above, for all prompts,
#   heads and image tokens at once.
# right: |-
#   no weight falls on padding, each row sums to 1, and the empty prompt puts all of its weight on the null
#   token.
# hints:
#   - "`q @ k.transpose(-1, -2)` gives all scores, (B, H, N, S). Which number are they divided by?"
#   - |-
#     The mask knows nothing of heads and image tokens: `mask[:, None, None, :]` is (B, 1, 1, S) and fits all of them.
#   - |-
#     `scores.masked_fill(~mask[:, None, None, :], -math.inf).softmax(dim=-1)`.
# why: |-
#   The product of two random vectors of d numbers has a deviation of about the root of d. Without the division the
#   softmax of long queries would pick a single token and have no gradient for the others. And a score of 0 is no way to
#   hide: $e^0 = 1$, as much as a token with an average score.

# %% tags=["target"]
pieces = [["(null)", *(piece.replace("▁", "") for piece in encoder.tokenize(prompt))] for prompt in batch]
with torch.no_grad():
    right = attention_weights(layer, queries_from, text, text_mask).mean(dim=(1, 2))      # (B, S+1)
show(mask_figure(text_mask, pieces, right),
     alt="A table of three prompts. " + " ".join(
         f"{prompt or 'the empty prompt'!r}: " + ", ".join(f"{piece} {share:.0%}" for piece, share in zip(
             row, shares.tolist(), strict=False)) + "." for prompt, row, shares in zip(
                 batch, pieces, right, strict=True)),
     caption="What each text token gets when it is right, in per cent (mean over heads and image tokens of block 1).")

# %% tags=["stub"]
def text_attention(q, k, mask):
    """Weights of cross-attention: q (B, H, N, d), k (B, H, S, d), mask (B, S) bool, True = look -> (B, H, N, S)."""
    ...


# %% tags=["solution"]
def text_attention(q, k, mask):
    """Weights of cross-attention: q (B, H, N, d), k (B, H, S, d), mask (B, S) bool, True = look -> (B, H, N, S)."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])         # (B, H, N, S)
    scores = scores.masked_fill(~mask[:, None, None, :], -math.inf)
    return scores.softmax(dim=-1)


# %% tags=["check"]
text_attention = checks.check_text_attention(text_attention)
null_share = text_attention(q, k, text_mask)[..., 0].mean(dim=(1, 2))                      # (B,)
for prompt, share in zip(batch, null_share, strict=True):
    print(f"{share:4.0%} of the attention is on the null token for {prompt!r}")

# %% [markdown]
# The layer does not hand its weights out. With your function (or the package's) we compute them from the layer's own
# queries and keys, and check that they are the ones it used: weights times values must be the layer's output.

# %%
with torch.no_grad():
    weights = text_attention(q, k, text_mask)  # (B, H, N, S+1)
    values = layer.keys_values(text)[1]  # (B, H, S+1, D/H)
    ours = layer.to_out((weights @ values).transpose(1, 2).flatten(2))  # (B, N, D)
    difference = (ours - layer(queries_from, context=text, mask=text_mask)).abs().max().item()
assert difference < 1e-4
print(f"weights {tuple(weights.shape)}: prompts, attention heads, image tokens, text tokens")
print(f"each row sums to {weights.sum(-1).mean():.4f}; largest difference to the layer {difference:.1e}")
print("weight on padding:", weights[0, :, :, ~text_mask[0]].abs().max().item())

# %% [markdown]
# Now a real generation. `attention_when_drawn` watches the model draw, and keeps for each image token the weights of
# the very step in which that token was drawn: what was it looking at when it came to be?

# %%
prompt = "a photo of a red umbrella left of a blue car"
image, weights = attention_when_drawn(pipe, prompt, seed=seed, **options)  # (3, H, W), (L, N, S+1)
labels = text_labels(pipe, prompt)
show(attention_heatmaps(image, weights, labels),
     alt=f'Heat maps for "{prompt}": one row for each of the {len(weights)} blocks, one column for each text token, '
         "each a 4x4 grid of image tokens. " + " ".join(
             f"Block {b + 1} looks most at {labels[int(w.mean(dim=0).argmax())]!r}." for b, w in enumerate(weights)),
     caption="Rows: blocks. Columns: text tokens. Dark: this image token looks here. (Mean over attention heads.)")
for b, w in enumerate(weights.mean(dim=1), start=1):                                       # (S+1,) of each block
    print(f"block {b} looks most at " + ", ".join(f"{labels[s]!r} ({w[s]:.0%})" for s in w.topk(3).indices.tolist()))
print(f"an equal share would be {1 / len(labels):.0%} each")

# %% [markdown]
# Some tokens are looked at by everybody. In large models these are often tokens of little meaning, where a head can
# rest that has nothing to ask; which ones it is here, the lines above say. More telling than "how much" is "where more
# than elsewhere". So divide each token's weights by their mean over the image, and lay them over the picture.

# %%
content = ["red", "umbrella", "left", "blue", "car"]
show(overlay_figure(image, weights.mean(dim=0), labels, content),
     alt="The generated image five times, bright where the image tokens looked more at: " + ", ".join(content) + ".",
     caption="Bright: looked at this word more than the other places did. The number says how much more, at most.")
lift = weights.mean(dim=0) / weights.mean(dim=(0, 1))  # (N, S+1)
for word in content:
    place = int(lift[:, labels.index(word)].argmax())
    print(f"{word:<9} most at row {place // 4}, column {place % 4} ({lift[place, labels.index(word)]:.2f} x the mean)")

# %% [markdown]
# Look at a few more prompts before you believe a story: change `prompt` and `content` and run the two cells again. And
# keep in mind that attention is not the same as influence. A feature at "umbrella" already holds "red" and "left", as
# the probe has shown, so an image token can learn the colour without ever looking at the word "red".
#
# ### From pieces to words
#
# The columns are pieces. As long as each word is one piece, pieces are words; a plural already is two.

# %% tags=["needed"]
plural = "a photo of three teddy bears"
picture, looked = attention_when_drawn(pipe, plural, seed=seed, **options)                # (3, H, W), (L, N, S+1)
print(encoder.tokenize(plural))

# %% [markdown] tags=["instructor"]
# **Say:** attention pictures are easy to make and easy to believe. Before you show one, ask what it would look like if
# the story were wrong. Here: would the map of "of" look any different?
#
# **Goes wrong:** the null token in front shifts all columns by one. Then "red" gets the map of "a", the maps still look
# plausible, and nobody notices.

# %% [markdown] tags=["exercise"]
# title: What a word gets
# minutes: 15
# level: 3
# task: |-
#   Write `word_attention(weights, pieces)`. `weights` has the shape (N, S + 1): what each of N image tokens puts on the
#   null token (column 0) and on the S pieces behind it. `pieces` is the list of S strings, such as
#   `["▁three", "▁bear", "s", "</s>"]`; the last is always `</s>`. A piece that begins with `▁` (copy the sign, it is no
#   underscore) begins a word, and the pieces behind it without the sign belong to the same word. Return (N, W) with a
#   column for each word from left to right: the share of attention that the whole word gets. Null token and `</s>`
#   belong to no word.
# right: |-
#   "a photo of three teddy bears" has six columns, the last made of the two pieces "▁bear" and "s".
# hints:
#   - "Shares of parts: is the share of the whole their mean, their largest, or their sum?"
#   - |-
#     Walk over `enumerate(pieces[:-1])` with a list of columns. Piece number s stands in `weights[:, s + 1]`.
#   - |-
#     If `piece.startswith("▁")` append the column to the list, else add it to the last one (with `columns[-1] =
#     columns[-1] + ...`, so that nothing is changed in place). At the end `torch.stack(columns, dim=1)`.
# why: |-
#   Softmax weights are shares of one whole, so parts add up. The sum favours words of many pieces, and rightly: they
#   have more places to be looked at. `columns[-1] += ...` would write into `weights` itself, because
#   `weights[:, s + 1]` is a view.

# %% tags=["target"]
by_word = torch.stack([checks.check_word_attention.own(w, encoder.tokenize(plural)) for w in looked])     # (L, N, W)
show(attention_heatmaps(picture, by_word, plural.split()),
     alt=f'Heat maps for "{plural}": one row for each block, one column for each of the six words, "bears" among them '
         "as one.",
     caption="One column a word when it is right. Null token and end are left out.")

# %% tags=["stub"]
def word_attention(weights, pieces):
    """What each word gets: weights (N, S + 1), column 0 the null token's, and S pieces, the last </s> -> (N, W)."""
    ...


# %% tags=["solution"]
def word_attention(weights, pieces):
    """What each word gets: weights (N, S + 1), column 0 the null token's, and S pieces, the last </s> -> (N, W)."""
    columns = []
    for s, piece in enumerate(pieces[:-1]):
        if piece.startswith("▁"):
            columns.append(weights[:, s + 1])                         # (N,)
        else:
            columns[-1] = columns[-1] + weights[:, s + 1]
    return torch.stack(columns, dim=1)                                # (N, W)


# %% tags=["check"]
word_attention = checks.check_word_attention(word_attention)
shares = word_attention(looked.mean(dim=0), encoder.tokenize(plural)).mean(dim=0)         # (W,)
print(", ".join(f"{word} {share:.0%}" for word, share in zip(plural.split(), shares.tolist(), strict=True)),
      f"and {1 - shares.sum():.0%} on the null token and the end")

# %% [markdown]
# ## Nothing to look at
#
# The empty prompt has no token. What is a softmax over nothing?

# %%
scores = torch.full((1, 4), -math.inf)  # four text tokens, all of them padding
print("softmax over nothing:", scores.softmax(dim=-1))

# %% [markdown]
# $e^{-\infty} = 0$, and $0 / 0$ is not a number. One such row turns the whole network to NaN, and in training the
# whole model. There are bad cures (attend to padding; replace NaN by 0) and a good one: there is always one token to
# look at, and it is learned. That is the **null token** in front of every prompt.

# %% [markdown] tags=["instructor"]
# **Poll:** could we spare the null token, and give an empty prompt one token of padding to look at?
#
# <details><summary>Answer</summary>
#
# It would not be NaN. But what stands in padding is nobody's choice: it was never trained to mean "no text", and it may
# change with the batch. A learned token is the same everywhere, and text dropout teaches it what pictures look like in
# general.
#
# </details>

# %%
with torch.no_grad(), record_attention(model) as records:
    nothing, nothing_mask = encoder([""])
    tokens = model.head.blank(1, model.config.seq_len)
    z = model.hidden(tokens, torch.ones(1, model.config.seq_len, dtype=torch.bool), *aligner(nothing, nothing_mask))
print("mask of the empty prompt:", nothing_mask.tolist())
print("with the null token in front:", aligner(nothing, nothing_mask)[1].tolist())
print("attention of image token 0, per text token:", records[0][0][0].mean(dim=0)[0].tolist())
print("all outputs finite:", z.isfinite().all().item())

# %% [markdown]
# ## Text dropout, and what it is good for
#
# How does the null token learn? In training some images lose their text: their mask is set to False everywhere, and
# they must be predicted from the null token alone. (Probability 0.1 is a common choice. The paper's is **not
# confirmed**.) It takes two lines in `train/trainer.py`:

# %%
text_dropout, generator = 0.1, torch.Generator().manual_seed(seed)
full_mask = torch.ones(1000, 12, dtype=torch.bool)  # 1000 prompts of 12 tokens
keep = torch.rand(len(full_mask), 1, generator=generator) >= text_dropout
dropped = full_mask & keep
print(f"{(~dropped.any(dim=1)).sum()} of {len(dropped)} prompts lost their text; no prompt lost only a part:",
      bool((dropped.all(dim=1) | ~dropped.any(dim=1)).all()))

# %% [markdown]
# So one network learns two things: images that belong to a text, and images in general. Here are both.

# %%
rows = {"no text": pipe([""] * num_images, seed=seed, **options),
        "text, scale 1": pipe([prompt] * num_images, seed=seed, **{**options, "guidance_scale": 1.0}),
        "text, scale 3": pipe([prompt] * num_images, seed=seed, **options)}
show(contact_sheet(torch.cat([row.pixels for row in rows.values()]), list(rows), seeds),
     alt=f'Three rows of pictures with the same seeds: without text, with the text "{prompt}", and with the text and '
         "guidance scale 3.",
     caption=f'Same seeds. The text is "{prompt}".')

# %% [markdown]
# Without text the model draws *some* scene: whatever scenes have in common. With text it is pulled towards what was
# asked for. And in the third row the text is *amplified*: **classifier-free guidance** asks the network twice, with
# text and with the null token, and walks on in the direction that the text has pointed to:
#
# $$\hat\epsilon = \epsilon_{\text{null}} + w \, (\epsilon_{\text{text}} - \epsilon_{\text{null}})$$
#
# Scale $w = 1$ is the plain model. Notebook 06 turns this dial properly. One consequence can be checked at once: where
# text and null are the same, guidance has nothing to amplify.

# %%
quiet = pipe("", seed=seed, **{**options, "guidance_scale": 1.0})
loud = pipe("", seed=seed, **{**options, "guidance_scale": 8.0})
difference = (quiet.pixels - loud.pixels).abs().max().item()
print(f"no text, scale 1 against scale 8: pixels differ by at most {difference:.1e}")

# %% [markdown]
# ## The test from the beginning
#
# The same words, bound in two ways, from the same seeds. Does the binding survive all the way into the picture?

# %%
swapped = ["a photo of a red cat and a blue car", "a photo of a blue cat and a red car"]
drawn = pipe([caption for caption in swapped for _ in range(num_images)],
             seed=[seed + i for i in range(num_images)] * len(swapped), **options)
show(contact_sheet(drawn.pixels, [textwrap.fill(caption, 18) for caption in swapped], seeds),
     alt="Two rows of pictures with the same seeds: " + " and ".join(swapped) + ".",
     caption="Count: in how many pictures has each thing the colour that was asked for?")

# %% [markdown]
# Count, and do not be generous. Where colours are swapped or mixed, it can be the fault of the features, the aligner,
# the backbone or too little training; the probe above has acquitted or convicted the first of them. The paper reports
# that this kind of alignment is what *size* buys: a prompt with a duck that lifts weights fails at 0.2 billion
# parameters and works at 3 billion.

# %% [markdown] tags=["closing"]
# recap:
#   - SentencePiece makes every word writable, not known; our encoder names the words that it has never seen.
#   - A contextual feature knows its neighbours. A linear probe says what can be read from it, and at which accuracy.
#   - Padding is masked in the aligner and in every cross-attention; rubbish in the padding must change nothing.
#   - The aligner is trained, the encoder frozen. Image tokens are the queries, text tokens keys and values.
#   - A learned null token makes "no text" a thing to look at; text dropout trains it, guidance uses it.
# quiz:
#   - q: |-
#       "a quokka" has no unknown *piece*. Why does the encoder warn all the same?
#     a: Pieces are spelling. Nothing in the training captions connected these pieces to a meaning.
#   - q: A probe reads the own colour from the embedding of the noun at 12 %. What does that tell about the encoder?
#     a: |-
#       Nothing: the embedding is what goes into the encoder. With eight colours, 12 % is chance.
#   - q: Somebody fills the padding with zeros and drops the mask. Is that the same?
#     a: |-
#       No. A zero vector still gets a key through the projection's bias, and $e^0 = 1$ in the softmax: padding would
#       take its share of the attention, and the more padding the more.
#   - q: Why can guidance not be used on a model that was trained without text dropout?
#     a: |-
#       Its null token was never trained: what the model predicts from it is arbitrary, and so is the direction away
#       from it.
# references:
#   - Fan et al., *Fluid*, arXiv 2410.13863
#   - |-
#     Raffel et al., *Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer* (T5), arXiv
#     1910.10683
#   - Kudo, *Subword Regularization*, arXiv 1804.10959 · Kudo and Richardson, *SentencePiece*, arXiv 1808.06226
#   - Alain and Bengio, *Understanding Intermediate Layers Using Linear Classifier Probes*, arXiv 1610.01644
#   - Jain and Wallace, *Attention is not Explanation*, arXiv 1902.10186
#   - Ho and Salimans, *Classifier-Free Diffusion Guidance*, arXiv 2207.12598
