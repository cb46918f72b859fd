"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598): away from what the model says without the text."""

from torch import Tensor


def guide(conditional: Tensor, null: Tensor | None, scale: float) -> Tensor:
    """null + scale (conditional - null), on logits, noise or velocity alike. Scale 1 or no null: conditional itself."""
    return conditional if null is None or scale == 1.0 else null + scale * (conditional - null)


def scale_at(schedule: str, scale: float, known: float) -> float:
    """The scale when a fraction `known` of the tokens will be known after this step.

    "constant": the same always. "linear" (MAR): from 1 with nothing known up to `scale` at the end, because early
    tokens decide the layout and suffer most from being pushed.
    """
    return scale if schedule == "constant" else 1.0 + (scale - 1.0) * known
