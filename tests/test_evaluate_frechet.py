"""The Frechet distance: closed forms, equal sets, batch sizes, the bias of small samples, refusals."""

import numpy as np
import pytest
import torch

from fluidlab.evaluate.frechet import (
    Gaussian,
    extract_features,
    frechet_at_infinity,
    frechet_between,
    frechet_distance,
    gaussian_of,
)


def draw(n, features=8, mean=0.0, std=1.0, seed=0):
    return mean + std * torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_sets_have_no_distance_even_with_a_singular_covariance():
    assert frechet_distance(draw(500), draw(500)) < 1e-9
    few = draw(5, features=32)  # rank 4 of 32
    assert frechet_distance(few, few) < 1e-9


def test_two_gaussians_have_the_distance_of_the_closed_form():
    """Independent channels: the distance is the sum of (difference of means)^2 + (difference of stds)^2."""
    means, stds = np.array([0.0, 1.0, -2.0]), np.array([1.0, 0.5, 3.0])
    other_means, other_stds = np.array([0.5, 1.0, 2.0]), np.array([2.0, 0.25, 3.0])
    a, b = Gaussian(means, np.diag(stds**2), 10), Gaussian(other_means, np.diag(other_stds**2), 10)
    expected = ((means - other_means) ** 2).sum() + ((stds - other_stds) ** 2).sum()
    assert abs(frechet_between(a, b) - expected) < 1e-12
    turn = np.linalg.qr(np.sin(np.arange(9.0)).reshape(3, 3))[0]  # a rotation of both changes nothing
    turned = [Gaussian(turn @ g.mean, turn @ g.covariance @ turn.T, 10) for g in (a, b)]
    assert abs(frechet_between(*turned) - expected) < 1e-10


def test_the_same_whichever_comes_first():
    a, b = draw(300), draw(300, mean=0.3, std=1.4, seed=1)
    assert abs(frechet_distance(a, b) - frechet_distance(b, a)) < 1e-9


def test_features_do_not_depend_on_the_batch_size():
    images = draw(12, features=3 * 16 * 16).view(12, 3, 16, 16).float()
    extractor = lambda x: x.mean(dim=(2, 3))  # noqa: E731
    whole = extract_features([images], extractor)
    parts = extract_features(images.split(5), extractor)
    assert torch.equal(whole, parts) and whole.shape == (12, 3)


def test_small_samples_are_too_far_and_the_line_to_infinity_mends_it():
    """400 samples of the reference's own distribution. By arithmetic their distance is 16/400 + 272/1600 = 0.21 on
    average for no reason but their number; the extrapolated one must lose at least two thirds of that."""
    reference, sample = draw(50_000, features=16), draw(400, features=16, seed=1)
    distance = frechet_distance(sample, reference)
    assert 0.1 < distance < 0.4
    value, error = frechet_at_infinity(sample, reference)
    assert abs(value) < distance / 3 and 0 < error < distance


@pytest.mark.parametrize(("call", "said"), [
    (lambda: extract_features([], lambda x: x), "needs images, got 0"),
    (lambda: extract_features([torch.zeros(2, 3, 16, 16)], lambda x: x), r"2 images into \(2, F\)"),
    (lambda: gaussian_of(torch.zeros(1, 4)), r"at least 2 feature vectors \(n, F\), got \(1, 4\)"),
    (lambda: gaussian_of(torch.tensor([[0.0], [float("nan")], [1.0]])), "1 of 3 feature vectors hold"),
    (lambda: frechet_distance(draw(9, features=3), draw(9, features=4)), "got 3 and 4 numbers"),
    (lambda: frechet_at_infinity(draw(50), draw(50)), "at least 200 images, 3 points .* got 50, 12 and 10"),
])
def test_refusals_name_the_numbers(call, said):
    with pytest.raises(ValueError, match=said):
        call()
