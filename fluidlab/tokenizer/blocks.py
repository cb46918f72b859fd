"""The convolutional halves that both tokenizers are made of, built so that two CPU cores can train them.

Pixels are folded into channels first (`pixel_unshuffle`): a 3x3 convolution at 1/8 size is a large matrix product,
which a CPU does at full speed, while the same arithmetic at full resolution waits for memory. There is no
normalisation: group norm would tie every pixel to the whole image, and a crop would no longer encode as the picture
does. Residual branches that start at zero make training stable without it (Zhang et al. 2019, Fixup).
"""

from torch import Tensor, nn
from torch.nn import functional as F


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), both 3x3; the last convolution starts at zero, the block as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))
