"""FID as it is published: the Frechet distance in the 2048 features of one particular Inception-v3.

The network is that of Heusel et al. (2017, arXiv 1706.08500) in torch-fidelity's port (Obukhov et al.), which resizes
as TensorFlow 1 did; another resizing or another Inception gives other numbers that look like FID. This file knows the
network and nothing of data sets or models: pictures come in as uint8, features go out. What to notice: torch-fidelity
unpickles its weights, so they are read here first, safely, and handed to it as bytes that we wrote ourselves.
"""

import io
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fluidlab.evaluate.resume import digest_of, digest_of_weights
from fluidlab.hub import hub_failure

LAYER = "2048"                # the pooled features, after which only the classifier follows
PAPER_IMAGES = 30_000         # of MS-COCO 2014, in the paper's zero-shot protocol


class InceptionFeatures:
    """Images to the features that FID is defined by.

    Args:
        weights: a .safetensors or .pth file of torch-fidelity's Inception; None fetches its own, once, into torch's
            cache.
        device: where it runs.

    Raises:
        ValueError: torch-fidelity is not installed, or the weights cannot be had, read safely or fitted.
    """

    def __init__(self, weights: str | Path | None = None, device: str | torch.device = "cpu"):
        network, url = _torch_fidelity()
        handed = io.BytesIO()
        torch.save(_read(Path(weights)) if weights else _fetch(url), handed)
        handed.seek(0)
        try:
            self.model = network("inception-v3-compat", [LAYER], handed).to(device)
        except Exception as error:                             # other weights, or something that is none
            raise ValueError(f"{weights or url} does not hold the weights of torch-fidelity's Inception-v3 "
                             f"({_told(error)}); they are at {url}.") from error
        self.device = torch.device(device)
        self.fingerprint = digest_of(["torch-fidelity inception-v3-compat", LAYER, digest_of_weights(self.model)])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 of any size to features (B, 2048) float32.

        Raises:
            ValueError: images of another kind.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"Inception looks at images (B, 3, H, W) in uint8, got {tuple(images.shape)} in "
                             f"{images.dtype}.")
        return self.model(images.to(self.device))[0]


def _torch_fidelity() -> tuple[type, str]:
    """torch-fidelity's network, and where its weights are."""
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as module
    except ImportError as error:
        raise ValueError(f"FID needs torch-fidelity and the torchvision that belongs to your torch ({error}): "
                         f"pip install 'fluidlab[fid]'; without them `fluidlab evaluate images` measures a Frechet "
                         f"distance that is not FID.") from error
    return module.FeatureExtractorInceptionV3, module.URL_INCEPTION_V3


def _fetch(url: str) -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except Exception as error:                                 # what the way there raises varies
        raise hub_failure(error, "network of FID", "inception-v3-compat", url=url) from error


def _read(path: Path) -> dict[str, Tensor]:
    """Weights of a file, without running anything that may be in it."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give a .safetensors or .pth file of torch-fidelity's Inception-v3.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken or hostile file raises depends on where it is broken
        raise ValueError(f"{path} cannot be read as weights alone ({_told(error)}).") from error


def _told(error: Exception) -> str:
    """An exception in a line; some have nothing to say but their name."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
