"""What looks at a machine (`doctor`) and at a student's answers (`check_...`, one for each exercise)."""

from fluidlab.checks.orders import check_causal_mask, check_cosine_schedule, check_shift_by_one
from fluidlab.checks.text import (
    check_cosine_similarities,
    check_masked_mean,
    check_text_attention,
    check_word_attention,
)
from fluidlab.checks.tokenizers import check_perplexity, check_psnr, check_unpack, check_vq_lookup

__all__ = [
    "check_causal_mask", "check_cosine_schedule", "check_cosine_similarities", "check_masked_mean", "check_perplexity",
    "check_psnr", "check_shift_by_one", "check_text_attention", "check_unpack", "check_vq_lookup",
    "check_word_attention",
]
