"""Gaussian diffusion of one token: the cosine schedule, squared error on the noise, ancestral sampling.

Sources: Ho et al. arXiv 2006.11239; cosine schedule and re-spacing, Nichol and Dhariwal arXiv 2102.09672.
All arithmetic is float32 and the schedule is computed in float64. What to notice: near t = 999 the factor that turns
predicted noise into a predicted token is 2e4, so the predicted token is clipped; without that an error of 0.001 in
the noise becomes a token of size 20.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fluidlab.config import check_choice
from fluidlab.model.noise import Streams, normal, uniform

SOLVERS = ("ancestral", "dpm++", "ddim")
LOG_SNR = (-5.0, 3.0)           # half of it, between which times_even_in_log_snr walks


def cosine_alphas(num_timesteps: int) -> Tensor:
    """Share of the signal's variance left after each step, alpha-bar: (T,) float64, falling from almost 1 to 2e-9."""
    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    T = num_timesteps
    betas = [min(1 - alpha_bar((i + 1) / T) / alpha_bar(i / T), 0.999) for i in range(T)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64, device="cpu"), dim=0)


class CosineDiffusion:
    """The forward and backward process of a token.

    Args:
        num_timesteps: noise levels in training (the paper: 1000).
        clip: bound of the predicted token in standard deviations of the latents.
    """

    def __init__(self, num_timesteps: int = 1000, clip: float = 5.0):
        self.num_timesteps, self.clip = num_timesteps, clip
        self.alphas = cosine_alphas(num_timesteps)                                    # (T,) float64

    def corrupt(self, x0: Tensor, generator: Streams = None) -> tuple[Tensor, Tensor, Tensor]:
        """Clean tokens (B, N, C) -> noisy tokens, their time t (B, N) in 0 .. T-1, and the noise to be predicted."""
        t = (uniform(x0.shape[:-1], generator, x0.device) * self.num_timesteps).long()    # (B, N)
        noise = normal(x0.shape, generator, x0.device)                                    # (B, N, C)
        alpha = self.alphas.to(x0.device)[t].float()[..., None]                           # (B, N, 1)
        return alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise, self.model_time(t), noise

    def model_time(self, t):
        """Time as the denoiser is told it, 0 .. 1000 whatever T is."""
        return t * (1000 / self.num_timesteps)

    def timesteps(self, num_steps: int) -> list[int]:
        """Re-spacing: `num_steps` of the T training times, evenly from T-1 down to 0.

        Raises:
            ValueError: more steps than T, or fewer than one.
        """
        if not 1 <= num_steps <= self.num_timesteps:
            raise ValueError(f"num_denoising_steps must be from 1 to {self.num_timesteps}, got {num_steps}.")
        return torch.linspace(self.num_timesteps - 1, 0, num_steps, dtype=torch.float64).round().long().tolist()

    def times_even_in_log_snr(self, num_steps: int) -> list[int]:
        """At most `num_steps` of the T times, evenly in half the log signal-to-noise ratio: what `extrapolated` wants.

        Evenly in time, the last step would be many times as long as the one before it, and overshoot. From e^-10 to e^6
        the ratio decides something; T-1 always comes first, since all begins with noise alone.
        """
        self.timesteps(num_steps)                                                         # refuses what is out of range
        halves = (self.alphas / (1 - self.alphas)).log() / 2                              # (T,) falling
        wanted = torch.linspace(*LOG_SNR, num_steps, dtype=torch.float64)[1:]
        return [self.num_timesteps - 1, *sorted({int((halves - w).abs().argmin()) for w in wanted}, reverse=True)]

    def clean(self, x: Tensor, predicted_noise: Tensor, t: int) -> Tensor:
        """The token that the predicted noise leaves, clipped."""
        alpha = float(self.alphas[t])
        return ((x - (1 - alpha) ** 0.5 * predicted_noise) / alpha ** 0.5).clamp(-self.clip, self.clip)

    def step(self, x: Tensor, x0: Tensor, t: int, t_next: int | None, noise: Tensor) -> Tensor:
        """One ancestral step from time t to t_next (None: the clean token) towards x0, injecting the given noise.

        The mean and variance of q(x_next | x, x0) (arXiv 2006.11239, eq. 6 and 7).
        """
        alpha, alpha_next = self._alphas_at(t, t_next)
        ratio = alpha / alpha_next                                                        # signal kept between the two
        mean = (alpha_next ** 0.5 * (1 - ratio) * x0 + ratio ** 0.5 * (1 - alpha_next) * x) / (1 - alpha)
        variance = (1 - alpha_next) / (1 - alpha) * (1 - ratio)
        return mean + variance ** 0.5 * noise

    def implicit_step(self, x: Tensor, x0: Tensor, t: int, t_next: int | None, noise: Tensor, eta: float) -> Tensor:
        """One DDIM step (arXiv 2010.02502, eq. 12): the noise in x is kept, but for the share that eta makes new."""
        alpha, alpha_next = self._alphas_at(t, t_next)
        kept = (x - alpha ** 0.5 * x0) / (1 - alpha) ** 0.5                               # the noise that x0 implies
        fresh = eta ** 2 * (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)      # its variance
        direction = max(1 - alpha_next - fresh, 0.0) ** 0.5 * kept
        return alpha_next ** 0.5 * x0 + direction + fresh ** 0.5 * noise

    def extrapolated(self, x0: Tensor, x0_before: Tensor, t_before: int, t: int, t_next: int) -> Tensor:
        """x0 moved on along its last change, half-way to t_next in log signal-to-noise.

        With it an ancestral step becomes one of SDE-DPM-Solver++ (2M) (arXiv 2211.01095, algorithm 2 and appendix), of
        second order: x0 is followed while it changes, instead of held for the step.
        """
        before, now, after = (self._half_log_snr(time) for time in (t_before, t, t_next))
        return x0 + (x0 - x0_before) * (after - now) / (2 * (now - before))

    def _alphas_at(self, t: int, t_next: int | None) -> tuple[float, float]:
        return float(self.alphas[t]), 1.0 if t_next is None else float(self.alphas[t_next])

    def _half_log_snr(self, t: int) -> float:
        alpha = float(self.alphas[t])
        return math.log(alpha / (1 - alpha)) / 2

    def sample(self, predict: Callable[[Tensor, float], Tensor], shape: tuple, num_steps: int, temperature: float,
               generator: Streams, device="cpu", solver: str | None = None) -> Tensor:
        """From noise to tokens of `shape` (B, K, C); temperature scales the injected noise, not the initial noise.

        Args:
            solver: "ancestral" (None), "dpm++" (of second order: as good in fewer steps) or "ddim", in which
                temperature is eta, so that 0 is deterministic.
        """
        check_choice("solver", solver or "ancestral", SOLVERS)
        times = self.times_even_in_log_snr(num_steps) if solver == "dpm++" else self.timesteps(num_steps)
        num_steps, (B, K, C) = len(times), shape
        noise = normal((B, num_steps, K, C), generator, device)                       # one draw per image for all steps
        x, before = noise[:, 0], None
        for i, t in enumerate(times):
            t_next, injected = (times[i + 1], noise[:, i + 1]) if i + 1 < num_steps else (None, torch.zeros_like(x))
            x0 = self.clean(x, predict(x, self.model_time(t)), t)
            if solver == "ddim":
                x = self.implicit_step(x, x0, t, t_next, injected, temperature)
                continue
            second_order = solver == "dpm++" and before is not None and t_next is not None
            towards = self.extrapolated(x0, before, times[i - 1], t, t_next) if second_order else x0
            x, before = self.step(x, towards, t, t_next, temperature * injected), x0
        return x
