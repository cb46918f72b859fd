"""Right answers to the exercises, written otherwise than the package's own: two for each check at least."""

from answers import evaluation, heads, orders, sampling, scaling, sharding, text, tokenizers, training

TOPICS = (evaluation, heads, orders, sampling, scaling, sharding, text, tokenizers, training)
RIGHT_ANSWERS = {name: answers for topic in TOPICS for name, answers in topic.ANSWERS.items()}
