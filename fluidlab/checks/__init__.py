"""What looks at a machine (`doctor`) and at a student's answers (`check_...`, one for each exercise)."""

from fluidlab.checks.evaluation import (
    check_count_is_right,
    check_directions,
    check_frechet_gaussians,
    check_wilson_interval,
)
from fluidlab.checks.orders import check_causal_mask, check_cosine_schedule, check_shift_by_one
from fluidlab.checks.scaling import check_best_within, check_correlation, check_held_out_error, check_power_law
from fluidlab.checks.sharding import check_rows_of, check_state_bytes, check_step_gradient

__all__ = ["check_best_within", "check_causal_mask", "check_correlation", "check_cosine_schedule",
           "check_count_is_right", "check_directions", "check_frechet_gaussians", "check_held_out_error",
           "check_power_law", "check_rows_of", "check_shift_by_one", "check_state_bytes", "check_step_gradient",
           "check_wilson_interval"]
