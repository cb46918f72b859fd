"""What looks at a machine (`doctor`, `online`) and at a student's answers (`check_...`, one for each exercise).

The checks are imported when they are asked for: the doctor must be able to speak where half of the packages is missing.
"""

from importlib import import_module

EXERCISES = {
    "tokenizers": ("psnr", "unpack", "perplexity", "vq_lookup"),
    "text": ("cosine_similarities", "masked_mean", "text_attention", "word_attention"),
    "orders": ("causal_mask", "shift_by_one", "cosine_schedule"),
    "heads": ("draw_code", "diffusion_loss", "euler_walk", "temperature"),
    "training": ("mean_over_hidden", "rate", "ema_update", "clip_gradients"),
    "sampling": ("guidance", "growing_scales", "ring", "fill"),
    "evaluation": ("count_is_right", "directions", "wilson_interval", "frechet_gaussians"),
    "scaling": ("power_law", "held_out_error", "best_within", "correlation"),
    "sharding": ("rows_of", "state_bytes", "step_gradient"),
}
WHERE = {f"check_{name}": topic for topic, names in EXERCISES.items() for name in names}
__all__ = list(WHERE)


def __getattr__(name):
    if name not in WHERE:
        raise AttributeError(f"fluidlab.checks has no {name}; it has {', '.join(WHERE)}")
    return getattr(import_module(f"fluidlab.checks.{WHERE[name]}"), name)
