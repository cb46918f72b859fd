"""The convolutional halves that both tokenizers are made of, built so that two CPU cores can train them.

Pixels are folded into channels first (`pixel_unshuffle`): a 3x3 convolution at 1/8 size is a large matrix product,
which a CPU does at full speed, while the same arithmetic at full resolution waits for memory. There is no
normalisation: group norm would tie every pixel to the whole image, and a crop would no longer encode as the picture
does. Residual branches that start at zero make training stable without it (Zhang et al. 2019, Fixup). Most weights
sit at 1/16 size, one position a token: there four times the weights cost the same time, and they know the emoji.
"""

import torch
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


class MixBlock(nn.Module):
    """x + MLP(depthwise 3x3(x)), the MLP 3 times as wide (ConvNeXt, Liu et al. 2022, figure 4, without its norm).

    At 1/16 size mixing positions is cheap and mixing channels is the work, so a depthwise convolution is enough.
    """

    def __init__(self, width: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.widen = nn.Conv2d(width, 3 * width, 1)
        self.narrow = nn.Conv2d(3 * width, width, 1)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        return x + self.narrow(F.silu(self.widen(self.depthwise(x))))


def mix_blocks(width: int, depth: int) -> nn.Sequential:
    """`depth` mix blocks in a row."""
    return nn.Sequential(*(MixBlock(width) for _ in range(depth)))


def res_blocks(width: int, depth: int) -> nn.Sequential:
    """`depth` residual blocks in a row."""
    return nn.Sequential(*(ResBlock(width) for _ in range(depth)))


class FromPixels(nn.Module):
    """Images (B, 3, H, W) to features (B, width, H/8, W/8): 8x8 pixels into channels, a convolution, res blocks."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.conv = nn.Conv2d(3 * 64, width, 3, padding=1)
        self.blocks = res_blocks(width, depth)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, width, H/8, W/8)."""
        x = F.pixel_unshuffle(images, 8).contiguous(memory_format=torch.channels_last)  # (B, 192, H/8, W/8)
        return self.blocks(self.conv(x))                                                # (B, width, H/8, W/8)


class ToPixels(nn.Module):
    """The way back: residual blocks, then from every position alone through a wide layer to its own 8x8 pixels.

    An outline may cross the 8x8 pixels anywhere, and a linear layer can only add up pictures that it knows. A wide
    hidden layer decides which of many to add: after 600 steps of 62 CPU seconds 1.3 dB more than a 3x3 convolution
    after 600 steps of 58 (`data/README.md` has the table).
    """

    def __init__(self, width: int, depth: int, hidden: int):
        super().__init__()
        self.blocks = res_blocks(width, depth)
        self.widen = nn.Conv2d(width, hidden, 1)
        self.narrow = nn.Conv2d(hidden, 3 * 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to (B, 3, 8h, 8w)."""
        x = self.widen(F.silu(self.blocks(x)))   # (B, hidden, h, w)
        x = self.narrow(F.silu(x))               # (B, 192, h, w)
        return F.pixel_shuffle(x, 8)             # (B, 3, 8h, 8w)


class Shrink(nn.Module):
    """Features to half the size and another width: 2x2 positions into channels, a 1x1 convolution, mix blocks."""

    def __init__(self, width: int, coarse_width: int, depth: int):
        super().__init__()
        self.conv = nn.Conv2d(4 * width, coarse_width, 1)
        self.blocks = mix_blocks(coarse_width, depth)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to (B, coarse_width, h/2, w/2)."""
        return self.blocks(self.conv(F.pixel_unshuffle(x, 2)))


class Grow(nn.Module):
    """Features to twice the size and another width: a 1x1 convolution, channels into 2x2 positions."""

    def __init__(self, coarse_width: int, width: int):
        super().__init__()
        self.conv = nn.Conv2d(coarse_width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, coarse_width, h, w) to (B, width, 2h, 2w)."""
        return F.pixel_shuffle(self.conv(F.silu(x)), 2)
