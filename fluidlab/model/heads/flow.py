"""Rectified flow of one token: straight lines from noise to data, squared error on the velocity, Euler or Heun.

Sources: Liu et al. arXiv 2209.03003; Lipman et al. arXiv 2210.02747. Time here is noise level: 1 is noise, 0 is data,
so that "late in sampling" means the same as in diffusion. The denoiser is told 1000 x time.
"""

from collections.abc import Callable

from torch import Tensor

from fluidlab.config import check_choice
from fluidlab.model.noise import Streams, normal, uniform

SOLVERS = ("heun", "euler")


class RectifiedFlow:
    """x_t = (1 - t) x0 + t noise, whose velocity towards the data is x0 - noise everywhere on the line.

    Args:
        solver: "heun" (second order, two evaluations per step) or "euler".
    """

    def __init__(self, solver: str = "heun"):
        check_choice("solver", solver, SOLVERS)
        self.solver = solver

    def corrupt(self, x0: Tensor, generator: Streams = None) -> tuple[Tensor, Tensor, Tensor]:
        """Clean tokens (B, N, C) -> tokens on the line, 1000 t (B, N), and the velocity to be predicted."""
        t = uniform(x0.shape[:-1], generator, x0.device)                              # (B, N)
        noise = normal(x0.shape, generator, x0.device)                                # (B, N, C)
        return (1 - t[..., None]) * x0 + t[..., None] * noise, 1000 * t, x0 - noise

    def sample(self, predict: Callable[[Tensor, float], Tensor], shape: tuple, num_steps: int, temperature: float,
               generator: Streams, device="cpu", solver: str | None = None) -> Tensor:
        """From noise to tokens of `shape` (B, K, C). A flow injects no noise, so temperature scales the initial one.

        Args:
            solver: in place of the flow's own.
        """
        solver = solver or self.solver
        check_choice("solver", solver, SOLVERS)
        if num_steps < 1:
            raise ValueError(f"num_denoising_steps must be at least 1, got {num_steps}.")
        x = temperature * normal(shape, generator, device)
        h = 1 / num_steps
        for i in range(num_steps):
            t, t_next = 1 - i * h, 1 - (i + 1) * h
            velocity = predict(x, 1000 * t)
            if solver == "heun" and i + 1 < num_steps:
                velocity = (velocity + predict(x + h * velocity, 1000 * t_next)) / 2
            x = x + h * velocity
        return x
