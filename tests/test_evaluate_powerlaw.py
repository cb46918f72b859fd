"""Power laws and intervals: known laws are found again, intervals cover, nonsense is refused."""

import numpy as np
import pytest

from fluidlab.evaluate.powerlaw import fit_power_law, hold_out_largest
from fluidlab.evaluate.statistics import paired_difference, pearson, wilson

SIZES = np.geomspace(1e5, 1e7, 6)


def noisy(seed, a=40.0, b=0.2, c=0.0, noise=0.01):
    random = np.random.default_rng(seed)
    return (a * SIZES ** -b + c) * np.exp(noise * random.standard_normal(len(SIZES)))


def test_an_exact_line_is_found_exactly():
    law = fit_power_law(SIZES, 40.0 * SIZES ** -0.2)
    assert law.a == pytest.approx(40.0) and law.b == pytest.approx(0.2) and law.c == 0.0 and law.r2 == pytest.approx(1)
    assert law(1e6) == pytest.approx(40.0 * 1e6 ** -0.2)


def test_an_exact_floor_is_found():
    law = fit_power_law(SIZES, 40.0 * SIZES ** -0.3 + 0.5, floor=True, bootstrap=0)
    assert law.c == pytest.approx(0.5, abs=0.01) and law.b == pytest.approx(0.3, abs=0.01) and law.r2 > 0.9999
    assert law.b_interval is None


def test_without_a_floor_in_the_data_the_floor_is_small():
    law = fit_power_law(SIZES, 40.0 * SIZES ** -0.3, floor=True, bootstrap=0)
    assert law.c < 0.01 * (40.0 * SIZES ** -0.3).min()


def test_the_intervals_hold_the_truth_about_as_often_as_they_say():
    """95 % intervals of 40 data sets: fewer than 30 hits have a chance below 1e-5 if they cover 95 %; bootstraps of
    six points cover a little less."""
    hits = sum(law.b_interval.low <= 0.2 <= law.b_interval.high
               for law in (fit_power_law(SIZES, noisy(seed), bootstrap=100) for seed in range(40)))
    assert hits >= 30


def test_with_noise_the_floor_lies_in_its_interval_about_as_often_as_it_says():
    """20 data sets of 6 sizes x 3 seeds; fewer than 14 hits of intervals that cover 90 % have a chance of 0.0024."""
    sizes, hits = np.repeat(SIZES, 3), 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        losses = (40.0 * sizes ** -0.3 + 0.5) * np.exp(0.005 * random.standard_normal(len(sizes)))
        law = fit_power_law(sizes, losses, floor=True, bootstrap=60)
        hits += law.c_interval.low <= 0.5 <= law.c_interval.high
    assert hits >= 14


def test_the_largest_size_is_predicted_and_a_bend_is_seen():
    law, error = hold_out_largest(SIZES, noisy(0, noise=0.0))
    assert abs(error) < 1e-6 and law.b == pytest.approx(0.2)
    bent = noisy(0, b=0.5, c=1.0, noise=0.0)  # a line must promise too little loss
    assert hold_out_largest(SIZES, bent)[1] < -0.001


def test_seeds_are_more_points_at_the_same_size():
    sizes = np.repeat(SIZES, 3)
    law = fit_power_law(sizes, 40.0 * sizes ** -0.2 * np.tile([0.99, 1.0, 1.01], len(SIZES)))
    assert law.b == pytest.approx(0.2, abs=1e-3) and law.b_interval.low < 0.2 < law.b_interval.high


def test_wilson_is_the_published_interval():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; and 0 of 20 gives 0 to 0.1611."""
    share = wilson(81, 263)
    assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)
    none = wilson(0, 20)
    assert none.low == pytest.approx(0.0, abs=1e-12) and round(none.high, 4) == 0.1611
    assert str(wilson(1, 2)).startswith("0.500 [")


def test_pearson_knows_its_ends_and_its_doubt():
    x = np.arange(6.0)
    assert pearson(x, 2 * x + 1).value == pytest.approx(1.0) and pearson(x, -x).value == pytest.approx(-1.0)
    doubtful = pearson([1, 2, 3, 4], [1, 3, 2, 4])
    assert doubtful.value == pytest.approx(0.8) and doubtful.low < 0 < doubtful.high


def test_paired_differences():
    found = paired_difference([1.2, 1.1, 1.3], [1.0, 1.0, 1.0])
    assert found.value == pytest.approx(0.2)
    assert found.high - found.value == pytest.approx(4.3027 * 0.1 / 3**0.5, abs=1e-4)  # Student's t, 2 degrees


@pytest.mark.parametrize(("call", "said"), [
    (lambda: fit_power_law([1, 2], [1, 2]), "at least 3 different sizes, got 2 sizes and 2 losses"),
    (lambda: fit_power_law([1, 1, 1, 1], [1, 2, 3, 4]), "got 1 sizes and 4 losses"),
    (lambda: fit_power_law([1, 2, 3], [1, 2, 3], floor=True), "with a floor needs at least 4"),
    (lambda: fit_power_law([1, 2, 3], [1, float("nan"), 3]), "1 of 3 pairs are not, the first 2 with nan"),
    (lambda: fit_power_law([1, 2, 3], [1, -2, 3]), "the first 2 with -2"),
    (lambda: hold_out_largest([1, 2, 3], [3, 2, 1]), "got 2 sizes"),
    (lambda: wilson(3, 2), "0 to 2 successes, got 3"),
    (lambda: wilson(0, 0), "at least 1 trial"),
    (lambda: pearson([1, 2, 3], [1, 2, 3]), "at least 4 pairs, got 3 and 3"),
    (lambda: pearson([1, 2, 3, 4], [1, 1, 1, 1]), "4 pairs of which one side is constant"),
    (lambda: pearson([1, 2, 3, float("inf")], [1, 2, 3, 4]), "got 1 pairs of 4 without"),
    (lambda: paired_difference([1], [2]), "at least 2 pairs, got 1 and 1"),
])
def test_refusals_name_the_numbers(call, said):
    with pytest.raises(ValueError, match=said):
        call()
