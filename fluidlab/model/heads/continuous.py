"""The continuous head: a linear layer in, and out a small network that turns noise into a token, given z.

It owns no mathematics of its own: a process (`CosineDiffusion` or `RectifiedFlow`) says how a token is corrupted in
training and how noise is walked back in sampling. That is the whole difference between the two continuous heads.
"""

import torch
from torch import Tensor, nn

from fluidlab.config import ModelConfig
from fluidlab.layers import fill, fill_normal
from fluidlab.model.guidance import guide
from fluidlab.model.heads.denoiser import Denoiser
from fluidlab.model.noise import Streams


class ContinuousHead(nn.Module):
    """Diffusion Loss of MAR (arXiv 2406.11838) with an exchangeable process."""

    token_kind = "continuous"

    def __init__(self, config: ModelConfig, process):
        super().__init__()
        self.token_dim, self.repeats, self.process = config.token_dim, config.head_repeats, process
        self.token_in = nn.Linear(config.token_dim, config.width)
        self.denoiser = Denoiser(config.token_dim, config.width, config.head_width or config.width, config.head_depth)
        self.init_weights()

    def init_weights(self) -> None:
        fill_normal(self.token_in.weight, self.token_dim ** -0.5)                # unit tokens arrive at unit scale
        fill(self.token_in.bias, torch.zeros(self.token_in.bias.shape))
        self.denoiser.init_weights()

    def blank(self, B: int, N: int, device="cpu") -> Tensor:
        return torch.zeros(B, N, self.token_dim, device=device)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.token_in(tokens)                                             # (B, N, D)

    def loss(self, z: Tensor, tokens: Tensor, generator: Streams = None) -> Tensor:
        """Squared error of the denoiser per token, mean over channels and `head_repeats` noise draws: (B, N)."""
        total = 0.0
        for _ in range(self.repeats):
            x, t, target = self.process.corrupt(tokens.float(), generator)       # (B, N, C), (B, N), (B, N, C)
            total = total + (self.denoiser(x, t, z) - target).square().mean(-1)  # (B, N)
        return total / self.repeats

    def sample(self, z: Tensor, z_null: Tensor | None, guidance_scale: float, temperature: float, generator: Streams,
               num_denoising_steps: int = 25, solver: str | None = None) -> Tensor:
        """Walk from noise to a token for each z: (B, K, D) -> (B, K, C). Always float32, whatever the autocast.

        With z_null the guided prediction null + scale (conditional - null) drives every step.
        """
        both = z.float() if z_null is None else torch.cat([z, z_null]).float()   # (B or 2B, K, D)

        def predict(x: Tensor, t: float) -> Tensor:
            x = x if z_null is None else torch.cat([x, x])
            out = self.denoiser.denoise(x, torch.tensor(t, device=x.device), known)
            return guide(*out.chunk(2), guidance_scale) if z_null is not None else out

        with torch.autocast(z.device.type, enabled=False):
            known = self.denoiser.z_in(both)                                     # (B or 2B, K, W)
            return self.process.sample(predict, (*z.shape[:2], self.token_dim), num_denoising_steps, temperature,
                                       generator, z.device, solver)
