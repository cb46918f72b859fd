"""The small MLP inside a continuous head: from a noisy token and the backbone's z, what is the noise (or velocity)?

It sees one token at a time; everything it knows of the rest of the image and of the text is in z. The design is MAR's
(arXiv 2406.11838, section 3.2): residual layers whose norm is modulated by time and z (adaLN, arXiv 2212.09748).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluidlab.layers import Norm, fill, init_norm


def time_features(t: Tensor, width: int) -> Tensor:
    """Sine and cosine of t (any shape, in 0 .. 1000) at `width` / 2 frequencies: (..., width)."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t[..., None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class ResidualLayer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = Norm(width)
        self.modulation = nn.Linear(width, 3 * width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)             # 3 x (..., W)
        update = self.down(F.silu(self.up(modulate(self.norm(h), shift, scale))))    # (..., W)
        return h + gate * update


class Denoiser(nn.Module):
    """(noisy token, time, z) -> prediction of the same shape as the token.

    Args:
        token_dim: C.  z_dim: D.  width, depth: of the residual layers (the paper: as wide as the backbone, 6).
    """

    TIME_CHANNELS = 256

    def __init__(self, token_dim: int, z_dim: int, width: int, depth: int):
        super().__init__()
        self.token_in = nn.Linear(token_dim, width)
        self.z_in = nn.Linear(z_dim, width)
        self.time_in = nn.Sequential(nn.Linear(self.TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(ResidualLayer(width) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation_out = nn.Linear(width, 2 * width)
        self.token_out = nn.Linear(width, token_dim)

    def init_weights(self) -> None:
        """Xavier for what carries signal; zero for every gate and for the output.

        With zero gates each layer begins as the identity, and with a zero output the first loss is the variance of
        the target: 1 for noise, 2 for velocity. Both are tests.
        """
        silent = {*(layer.modulation for layer in self.layers), self.modulation_out, self.token_out}
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                bound = 0.0 if layer in silent else math.sqrt(6 / (layer.in_features + layer.out_features))
                fill(layer.weight, torch.empty(layer.weight.shape).uniform_(-bound, bound))
                fill(layer.bias, torch.zeros(layer.bias.shape))
        for layer in self.layers:
            init_norm(layer.norm)

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x (..., C), t (...) in 0 .. 1000, z (..., D) -> (..., C), float32."""
        return self.denoise(x, t, self.z_in(z))

    def denoise(self, x: Tensor, t: Tensor, known: Tensor) -> Tensor:
        """The same with `known` = z_in(z) (..., W), which is computed once for all steps; t may be one for all rows."""
        condition = F.silu(known + self.time_in(time_features(t, self.TIME_CHANNELS)))           # (..., W)
        h = self.token_in(x)                                                                     # (..., W)
        for layer in self.layers:
            h = layer(h, condition)                                                              # (..., W)
        shift, scale = self.modulation_out(condition).chunk(2, dim=-1)                           # 2 x (..., W)
        return self.token_out(modulate(self.norm_out(h), shift, scale)).float()                  # (..., C)
