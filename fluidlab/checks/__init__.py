"""What looks at a machine (`doctor`) and at a student's answers (`check_...`, one for each exercise)."""

from fluidlab.checks.heads import check_denoise_step, check_diffusion_loss, check_draw_code, check_euler_walk
from fluidlab.checks.orders import check_causal_mask, check_cosine_schedule, check_shift_by_one
from fluidlab.checks.sampling import check_fill, check_growing_scales, check_guided_probabilities, check_ring
from fluidlab.checks.training import check_clip_gradients, check_ema_update, check_mean_over_hidden, check_rate

__all__ = ["check_causal_mask", "check_clip_gradients", "check_cosine_schedule", "check_denoise_step",
           "check_diffusion_loss", "check_draw_code", "check_ema_update", "check_euler_walk", "check_fill",
           "check_growing_scales", "check_guided_probabilities", "check_mean_over_hidden", "check_rate", "check_ring",
           "check_shift_by_one"]
