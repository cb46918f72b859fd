"""Right answers to the exercises, written otherwise than the package's own: two for each check at least."""

from answers import heads, orders, sampling, text, tokenizers, training

RIGHT_ANSWERS = {**heads.ANSWERS, **orders.ANSWERS, **sampling.ANSWERS, **text.ANSWERS, **tokenizers.ANSWERS,
                 **training.ANSWERS}
