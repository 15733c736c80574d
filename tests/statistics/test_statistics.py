"""Statistics over cases: by hand, against scipy, by simulation, and what must not change them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from nnunetv2_eccam.statistics import compare, holm, smallest_visible_difference, summarise

NAN = math.nan

pytestmark = pytest.mark.filterwarnings("error")


class TestSummarise:
    def test_the_interval_is_scipys_bca(self):
        values = np.random.default_rng(3).beta(8, 2, 25)
        expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=2000, batch=2000,
                                   random_state=np.random.default_rng(7)).confidence_interval  # fmt: skip
        summary = summarise(values, n_bootstrap=2000, seed=7)
        assert (summary.low, summary.high) == pytest.approx((expected.low, expected.high))
        assert summary[:2] == pytest.approx((values.mean(), values.std(ddof=1)))

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([], (NAN, NAN, NAN, NAN, 0, 0)),
            ([NAN, NAN], (NAN, NAN, NAN, NAN, 0, 2)),
            ([0.4, math.inf], (0.4, NAN, NAN, NAN, 1, 2)),
            ([0.1, 0.1, 0.1, NAN], (0.1, 0.0, 0.1, 0.1, 3, 4)),
        ],
    )
    def test_too_few_equal_or_undefined_values(self, values, expected):
        assert tuple(summarise(values)) == pytest.approx(expected, abs=1e-12, nan_ok=True)

    @given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
    def test_the_interval_is_within_the_values(self, values):
        summary = summarise(values, n_bootstrap=200)
        assert min(values) - 1e-12 <= summary.low <= summary.high <= max(values) + 1e-12

    def test_a_seed_gives_the_same_interval_and_another_another(self):
        for trainings in (1, 2):
            values = np.random.default_rng(0).normal(size=(15, trainings))
            assert summarise(values, seed=4) == summarise(values, seed=4)
            assert summarise(values, seed=4)[2:4] != summarise(values, seed=5)[2:4]


class TestPartsOfCases:
    """Slices of a volume, or slices of a patient."""

    def test_repeating_a_case_does_not_narrow_the_interval(self):
        values, cases = [0.2, 0.4, 0.5, 0.9, 0.95], list("abcde")
        once, often = summarise(values, cases), summarise(values * 40, cases * 40)
        assert often.mean == pytest.approx(once.mean)
        assert often[2:4] == pytest.approx(once[2:4], abs=0.02)
        assert often.n_all == 200

    def test_refuses_what_makes_no_interval(self):
        for wrong, match in (({"cases": "ab"}, "3 values belong to 2 cases"), ({"confidence": 95}, "between 0 and 1"),
                             ({"n_bootstrap": 0}, "at least one resample")):  # fmt: skip
            with pytest.raises(ValueError, match=match):
                summarise([1.0, 2.0, 3.0], **wrong)


def simulated(rng, cases=40, trainings=3, of_case=1.0, of_training=1.0, folds=4):
    """Scores whose cases, and whose trainings of each fold, have effects of their own; the true mean is 0."""
    fold = np.arange(cases) % folds
    lift = rng.normal(0, of_training, (folds, trainings))
    noise = rng.normal(0, 0.2, (cases, trainings))
    return rng.normal(0, of_case, (cases, 1)) + lift[fold] + noise, fold.tolist()


class TestTrainings:
    def test_the_interval_holds_the_true_mean_as_often_as_it_says(self):
        """Where trainings differ, resampling cases alone would hold it in some two thirds of the studies."""
        rng = np.random.default_rng(11)
        hits, of_cases_only = 0, 0
        for _ in range(150):
            values, folds = simulated(rng, trainings=2)
            found = summarise(values, folds=folds, n_bootstrap=300)
            alone = summarise(values.mean(axis=1), n_bootstrap=300)
            hits += found.low <= 0 <= found.high
            of_cases_only += alone.low <= 0 <= alone.high
        assert 0.86 <= hits / 150 <= 0.985
        assert of_cases_only / 150 < 0.8

    def test_the_standard_error_is_that_of_the_design(self):
        """Var = of_case^2 / cases + (of_training^2 / trainings + noise) / folds, for each of two systems."""
        rng = np.random.default_rng(5)
        errors = []
        for _ in range(60):
            (a, folds), (b, _) = (simulated(rng, 48, 3, 0.0, 1.0, 4) for _ in range(2))
            errors.append(compare(a, b, folds, n_bootstrap=300).standard_error ** 2)
        assert np.mean(errors) == pytest.approx(2 * (1 / 3 / 4 + 0.04 / 48 / 3), rel=0.2)

    def test_a_fold_that_lacks_a_training_does_with_the_others(self):
        values, folds = simulated(np.random.default_rng(3))
        gaps = values.copy()
        gaps[np.asarray(folds) == 1, 2] = NAN
        gaps[0, 0] = NAN
        found = summarise(gaps, folds=folds, n_bootstrap=300)
        assert found.mean == pytest.approx(np.nanmean(gaps, axis=1).mean())
        assert found.low < found.mean < found.high
        assert found.n_defined == 40


class TestCompare:
    def test_a_worked_example(self):
        """Differences 1, -2, 3, 4, 5, 6, 7: W- = 2, so P = 2 x 3 / 128 (sums 0, 1 and 2 have one way each)."""
        found = compare([1, 0, 3, 4, 5, 6, 7], [0, 2, 0, 0, 0, 0, 0])
        assert found.p_value == pytest.approx(6 / 128)
        assert found.effect_size == pytest.approx((26 - 2) / 28)
        assert found.mean_difference == pytest.approx(24 / 7)
        assert found.cohens_d_z == pytest.approx((24 / 7) / math.sqrt((140 - 24**2 / 7) / 6))
        assert (found.n_pairs, found.n_higher) == (7, 6)

    @pytest.mark.parametrize("n", [1, 2, 7, 25, 50])
    def test_untied_p_values_are_scipys_exact_ones(self, n):
        differences = np.random.default_rng(n).normal(0.3, 1, n)
        expected = stats.wilcoxon(differences, method="exact").pvalue
        assert compare(differences, np.zeros(n)).p_value == pytest.approx(expected)

    @given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
    def test_tied_p_values_are_those_of_all_signs(self, differences):
        placed = stats.rankdata(np.abs(differences))
        placed = [rank if d > 0 else -rank for rank, d in zip(placed, differences, strict=True) if d]
        low = min(sum(rank for rank in placed if rank > 0), -sum(rank for rank in placed if rank < 0))
        sums = [sum(abs(rank) for rank, up in zip(placed, signs, strict=True) if up)
                for signs in itertools.product((0, 1), repeat=len(placed))]  # fmt: skip
        expected = min(1, 2 * np.mean([each <= low for each in sums]))
        assert compare(differences, [0] * len(differences), n_bootstrap=10).p_value == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            ([], [], {"n_pairs": 0, "p_value": NAN, "mean_difference": NAN, "effect_size": NAN}),
            ([NAN, 1], [1, NAN], {"n_pairs": 0, "n_all": 2, "p_value": NAN, "low": NAN}),
            ([0.5], [0.3], {"n_pairs": 1, "p_value": 1, "low": NAN, "effect_size": 1, "cohens_d_z": NAN}),
            ([1, 2, 3], [1, 2, 3], {"p_value": 1, "low": 0, "high": 0, "effect_size": 0, "cohens_d_z": 0}),
            ([0.3, 0.4], [0.2, 0.3], {"mean_difference": 0.1, "low": 0.1, "high": 0.1, "cohens_d_z": NAN}),
        ],
    )
    def test_degenerate_pairs(self, a, b, expected):
        found = compare(a, b)._asdict()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, nan_ok=True), name

    def test_refuses_other_lengths(self):
        with pytest.raises(ValueError, match="same length"):
            compare([1, 2], [1])


class TestPower:
    @pytest.mark.parametrize("n", [6, 20, 421])
    def test_it_is_that_of_statsmodels(self, n):
        expected = TTestPower().solve_power(nobs=n * 3 / math.pi, alpha=0.05, power=0.8)
        assert smallest_visible_difference(1 / math.sqrt(n), n) == pytest.approx(expected, rel=1e-5)

    def test_fewer_than_six_pairs_see_nothing(self):
        assert math.isnan(smallest_visible_difference(0.1, 5))
        assert math.isnan(compare([1, 2, 3], [0, 0, 1]).smallest_visible)


class TestHolm:
    def test_it_is_that_of_statsmodels(self):
        p_values = np.random.default_rng(1).uniform(0, 0.1, 12)
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
        assert holm([0.9, *p_values[:2]]) == pytest.approx(multipletests([0.9, *p_values[:2]], method="holm")[1])

    def test_undefined_ones_do_not_count(self):
        assert holm([0.02, NAN, 0.5]) == pytest.approx([0.04, NAN, 0.5], nan_ok=True)
        assert holm([]) == []
