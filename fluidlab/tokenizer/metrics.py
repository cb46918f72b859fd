"""How much of an image a tokenizer keeps, and in how many bits: PSNR, SSIM, bits per image, codebook usage.

PSNR here is the mean over images of each image's own PSNR, with a peak of 2, the width of [-1, 1]: the same number as
on bytes with a peak of 255, but for rounding. SSIM is scikit-image's (Wang et al. 2004), on [-1, 1] with its defaults.
"""

import math

import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn


def psnr(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of images (B, 3, H, W) in [-1, 1]; infinite where they are equal."""
    error = (images.float() - reconstructions.float()).square().mean(dim=(1, 2, 3))  # (B,)
    return 10.0 * torch.log10(4.0 / error)


def ssim(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Structural similarity (B,), 1 = equal, of images (B, 3, H, W) in [-1, 1]."""
    pairs = zip(images.float().cpu().numpy(), reconstructions.float().cpu().numpy(), strict=True)
    return torch.tensor([float(structural_similarity(a, b, channel_axis=0, data_range=2.0)) for a, b in pairs])


def bits_per_image(tokenizer: nn.Module, num_tokens: int) -> float:
    """Bits in which the tokens of one image are kept.

    Discrete: N log2(V), what a list of codes takes. Continuous: 16 bits for each of the N x C numbers, float16 as a
    token cache stores them; that is storage, an upper bound, and not the entropy: see `gaussian_bits`.
    """
    if tokenizer.kind == "discrete":
        return num_tokens * math.log2(tokenizer.codebook_size)
    return 16.0 * num_tokens * tokenizer.token_dim


def gaussian_bits(tokens: Tensor, step: float) -> float:
    """Bits per image of continuous tokens (B, N, C) rounded to a grid of `step`, each channel taken as a Gaussian.

    The entropy of a Gaussian of standard deviation s rounded to steps of d is log2(s sqrt(2 pi e) / d) for d << s
    (Cover and Thomas, theorem 8.3.1). A coder that knows the dependence between channels would need fewer.
    """
    std = tokens.float().flatten(0, 1).std(dim=0)                                     # (C,)
    bits = torch.log2(std * math.sqrt(2 * math.pi * math.e) / step).clamp(min=0.0)    # (C,)
    return tokens.shape[1] * bits.sum().item()


def codebook_usage(codes: Tensor, codebook_size: int) -> float:
    """The share of the codebook, 0 to 1, that the codes (any shape) use at least once."""
    return codes.unique().numel() / codebook_size


def code_perplexity(codes: Tensor, codebook_size: int) -> float:
    """exp(entropy) of the codes' frequencies: how many equally likely codes they are worth, 1 to codebook_size."""
    share = torch.bincount(codes.flatten(), minlength=codebook_size).double() / codes.numel()
    return torch.special.entr(share).sum().exp().item()


@torch.no_grad()
def reconstruct(tokenizer: nn.Module, images: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """Encode and decode images (B, 3, H, W) in batches; the tokens and the reconstructions."""
    grid = images.shape[-2] // tokenizer.patch_size, images.shape[-1] // tokenizer.patch_size
    tokens = torch.cat([tokenizer.encode(part) for part in images.split(batch_size)])
    return tokens, torch.cat([tokenizer.decode(part, grid) for part in tokens.split(batch_size)])


def evaluate_tokenizer(tokenizer: nn.Module, images: Tensor, batch_size: int = 64) -> dict[str, float]:
    """Measure a tokenizer on images (B, 3, H, W) in [-1, 1], all of one size.

    Returns psnr (dB), ssim, bits_per_image; for a discrete one also codebook_usage and code_perplexity (both depend
    on how many images there are: 512 scenes of 16 tokens show at most 8192 codes), for a continuous one
    gaussian_bits, the estimated entropy at a rounding step of 0.1 standard deviations.
    """
    tokens, reconstructions = reconstruct(tokenizer, images, batch_size)
    result = {
        "psnr": psnr(images, reconstructions).mean().item(),
        "ssim": ssim(images, reconstructions).mean().item(),
        "bits_per_image": bits_per_image(tokenizer, tokens.shape[1]),
    }
    if tokenizer.kind == "discrete":
        result["codebook_usage"] = codebook_usage(tokens, tokenizer.codebook_size)
        result["code_perplexity"] = code_perplexity(tokens, tokenizer.codebook_size)
    else:
        result["gaussian_bits"] = gaussian_bits(tokens, step=0.1)
    return result
