"""Statistics over cases: by hand, against scipy, and what must not change them."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from nnunetv2_eccam.statistics import (
    compare,
    holm,
    mean_of_repeats,
    rank_cases,
    ranks,
    summarise,
    summarise_parts,
)

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
COARSE = st.lists(st.tuples(*[st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8, 1.0, math.nan])] * 2), max_size=11)
P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=12)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def same(first, second):
    return all(a == pytest.approx(b, abs=1e-12, nan_ok=True) for a, b in zip(first, second, strict=True))


class TestSummarise:
    def test_mean_and_sample_sd(self):
        summary = summarise([1.0, 2.0, 4.0, 5.0])
        assert summary.mean == 3
        assert summary.sd == pytest.approx(math.sqrt(10 / 3))
        assert (summary.n_defined, summary.n_all) == (4, 4)

    def test_the_interval_is_scipys_bca(self):
        values = np.sort(np.random.default_rng(3).beta(8, 2, 25))
        expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=2000, batch=2000,
                                   random_state=np.random.default_rng(7)).confidence_interval  # fmt: skip
        summary = summarise(values.tolist(), 0.95, 2000, 7)
        assert (summary.low, summary.high) == pytest.approx((expected.low, expected.high))

    def test_the_interval_of_many_normal_values_is_students(self):
        values = np.random.default_rng(0).normal(5, 2, 400)
        half = stats.t.ppf(0.975, 399) * values.std(ddof=1) / 20
        summary = summarise(values.tolist())
        assert summary.low == pytest.approx(values.mean() - half, abs=0.02)
        assert summary.high == pytest.approx(values.mean() + half, abs=0.02)

    def test_undefined_values_are_left_out_and_counted(self):
        assert same(summarise([0.5, math.nan, 0.7, math.inf]), (*summarise([0.5, 0.7])[:5], 4))

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([], (math.nan, math.nan, math.nan, math.nan, 0, 0)),
            ([math.nan, math.nan], (math.nan, math.nan, math.nan, math.nan, 0, 2)),
            ([0.4], (0.4, math.nan, math.nan, math.nan, 1, 1)),
            ([0.1, 0.1, 0.1], (0.1, 0.0, 0.1, 0.1, 3, 3)),
        ],
    )
    def test_too_few_or_equal_values(self, values, expected):
        assert same(summarise(values), expected)

    @settings(max_examples=40, deadline=None)
    @given(SCORES, st.randoms(use_true_random=False))
    def test_order_is_of_no_matter_and_the_interval_holds_the_mean(self, values, random):
        summary = summarise(values, n_bootstrap=200)
        shuffled = list(values)
        random.shuffle(shuffled)
        assert same(summary, summarise(shuffled, n_bootstrap=200))
        if len(values) > 1:
            assert min(values) - 1e-12 <= summary.low <= summary.high <= max(values) + 1e-12

    def test_a_seed_gives_the_same_interval_and_another_another(self):
        values = [0.1, 0.5, 0.6, 0.8, 0.85, 0.9]
        assert summarise(values, seed=4) == summarise(values, seed=4)
        assert summarise(values, seed=4)[2:4] != summarise(values, seed=5)[2:4]

    def test_more_confidence_is_wider(self):
        values = np.random.default_rng(1).normal(size=30).tolist()
        narrow, wide = summarise(values, 0.8), summarise(values, 0.99)
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_refuses_a_confidence_that_is_none(self):
        with pytest.raises(ValueError, match="between 0 and 1"):
            summarise([1.0, 2.0], 95)


class TestParts:
    def test_one_part_a_case_is_the_plain_summary(self):
        values = [0.2, 0.4, 0.5, 0.9, 0.95]
        parts = summarise_parts(values, list("abcde"))
        assert parts[:2] == pytest.approx(summarise(values)[:2])
        assert parts[2:4] == pytest.approx(summarise(values)[2:4], abs=0.02)

    def test_repeating_a_case_does_not_narrow_the_interval(self):
        values, cases = [0.2, 0.4, 0.5, 0.9, 0.95], list("abcde")
        once, often = summarise_parts(values, cases), summarise_parts(values * 40, cases * 40)
        assert often.mean == pytest.approx(once.mean)
        assert often[2:4] == pytest.approx(once[2:4], abs=0.02)
        assert often.n_all == 200

    def test_parts_weigh_the_same(self):
        assert summarise_parts([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]).mean == 0.75

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=15),
           st.randoms(use_true_random=False))  # fmt: skip
    def test_order_and_names_are_of_no_matter(self, parts, random):
        summary = summarise_parts(*zip(*parts, strict=True), n_bootstrap=100)
        random.shuffle(parts)
        renamed = summarise_parts([value for value, _ in parts], [f"case {-c}" for _, c in parts], n_bootstrap=100)
        assert same(summary, renamed)

    def test_refuses_other_lengths(self):
        with pytest.raises(ValueError, match="3 values belong to 2 cases"):
            summarise_parts([1.0, 2.0, 3.0], ["a", "b"])

    def test_nothing_is_defined_without_values(self):
        assert same(summarise_parts([math.nan], ["a"]), (math.nan, math.nan, math.nan, math.nan, 0, 1))


class TestCompare:
    def test_a_worked_example(self):
        """Differences 1, -2, 3, 4, 5, 6, 7: W- = 2, so P = 2 x 3 / 128 (sums 0, 1 and 2 have one way each)."""
        found = compare([1, 0, 3, 4, 5, 6, 7], [0, 2, 0, 0, 0, 0, 0])
        assert found.statistic == 2
        assert found.p_value == pytest.approx(6 / 128)
        assert found.effect_size == pytest.approx((26 - 2) / 28)
        assert found.mean_difference == pytest.approx(24 / 7)
        assert found.cohens_d_z == pytest.approx((24 / 7) / math.sqrt((140 - 24**2 / 7) / 6))
        assert found.exact

    def test_zeros_and_ties_by_pratt(self):
        """|d| = 0, 1, 1, 2: ranks 1, 2.5, 2.5, 4; the zero's is left out. W- = 2.5 of 9: P = 2 x 3 / 8."""
        found = compare([5, 6, 4, 7], [5, 5, 5, 5])
        assert found.statistic == 2.5
        assert found.p_value == pytest.approx(6 / 8)
        assert found.effect_size == pytest.approx((6.5 - 2.5) / 9)
        assert (found.n_zero, found.n_pairs) == (1, 4)

    @pytest.mark.parametrize("n", [1, 2, 7, 25, 50])
    def test_untied_p_values_are_scipys_exact_ones(self, n):
        differences = np.random.default_rng(n).normal(0.3, 1, n)
        expected = stats.wilcoxon(differences, method="exact")
        found = compare(differences, np.zeros(n))
        assert found.statistic == pytest.approx(expected.statistic)
        assert found.p_value == pytest.approx(expected.pvalue)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
    def test_tied_p_values_are_those_of_all_signs(self, differences):
        found = compare(differences, [0] * len(differences))
        placed = stats.rankdata(np.abs(differences))
        placed = [rank for rank, d in zip(placed, differences, strict=True) if d]
        sums = [sum(rank for rank, up in zip(placed, signs, strict=True) if up)
                for signs in itertools.product((0, 1), repeat=len(placed))]  # fmt: skip
        as_low = np.mean([each <= found.statistic for each in sums])
        assert found.p_value == pytest.approx(min(1, 2 * as_low))

    def test_many_pairs_are_close_to_the_normal_approximation(self):
        rng = np.random.default_rng(2)
        a, b = rng.normal(0.1, 1, 400).round(1), np.zeros(400)
        exact, large = compare(a, b, n_bootstrap=100), compare(np.tile(a, 2), np.tile(b, 2), n_bootstrap=100)
        expected = stats.wilcoxon(a, zero_method="pratt", method="asymptotic")
        assert exact.exact
        assert exact.p_value == pytest.approx(expected.pvalue, rel=0.02)
        assert not large.exact
        assert large.p_value == stats.wilcoxon(np.tile(a, 2), zero_method="pratt", method="asymptotic").pvalue

    def test_few_differences_among_zeros_are_not_significant(self):
        """The normal approximation says p = 0.046, though four signs cannot give less than 1/8."""
        found = compare([0.1, 0.2, 0.3, 0.4] + [0] * 16, [0] * 20)
        assert stats.wilcoxon([0.1, 0.2, 0.3, 0.4] + [0] * 16, zero_method="pratt", method="asymptotic").pvalue < 0.05
        assert found.p_value == pytest.approx(1 / 8)
        assert found.smallest_p_value == 1 / 8
        assert not found.can_reach(0.05)

    @pytest.mark.parametrize(("n", "reaches"), [(5, False), (6, True)])
    def test_fewer_than_six_pairs_cannot_reach_five_percent(self, n, reaches):
        found = compare(range(1, n + 1), [0] * n)
        assert found.p_value == found.smallest_p_value == 2 / 2**n
        assert found.can_reach() is reaches
        assert (found.p_value <= 0.05) is reaches

    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            ([], [], {"n_pairs": 0, "p_value": math.nan, "mean_difference": math.nan, "effect_size": math.nan}),
            ([math.nan, 1], [1, math.nan], {"n_pairs": 0, "n_all": 2, "p_value": math.nan, "low": math.nan}),
            ([0.5], [0.3], {"n_pairs": 1, "p_value": 1, "low": math.nan, "effect_size": 1, "cohens_d_z": math.nan}),
            ([1, 2, 3], [1, 2, 3], {"p_value": 1, "statistic": 0, "low": 0, "high": 0, "effect_size": 0,
                                    "cohens_d_z": 0, "n_zero": 3}),
            ([0.3, 0.4], [0.2, 0.3], {"mean_difference": 0.1, "low": 0.1, "high": 0.1, "cohens_d_z": math.nan}),
        ],
    )  # fmt: skip
    def test_degenerate_pairs(self, a, b, expected):
        found = compare(a, b)._asdict()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, nan_ok=True), name

    @settings(max_examples=60, deadline=None)
    @given(COARSE)
    @example([(0.0, 0.0), (0.0, 0.1), (0.1, 0.0)])  # differences that are the same, swapped
    def test_swapping_turns_the_signs_and_nothing_else(self, pairs):
        a, b = [each for each, _ in pairs], [each for _, each in pairs]
        one, other = compare(a, b, n_bootstrap=100), compare(b, a, n_bootstrap=100)
        assert same(
            (one.mean_difference, one.low, one.high, one.effect_size, one.cohens_d_z),
            (-other.mean_difference, -other.high, -other.low, -other.effect_size, -other.cohens_d_z),
        )
        same_fields = ("n_pairs", "statistic", "p_value", "exact", "n_zero", "n_all", "smallest_p_value")
        assert same([getattr(one, name) for name in same_fields], [getattr(other, name) for name in same_fields])

    @settings(max_examples=60, deadline=None)
    @given(COARSE, st.randoms(use_true_random=False))
    def test_order_is_of_no_matter(self, pairs, random):
        shuffled = list(pairs)
        random.shuffle(shuffled)
        one, other = (
            compare([a for a, _ in each], [b for _, b in each], n_bootstrap=100) for each in (pairs, shuffled)
        )
        assert same(one, other)
        if one.n_pairs:
            assert 0 < one.p_value <= 1
            assert one.p_value >= one.smallest_p_value - 1e-15
            assert -1 <= one.effect_size <= 1

    def test_rounding_makes_no_difference_of_equal_ones(self):
        assert compare([0.3, 0.9, 0.7], [0.1 + 0.2, 0.9, 0.7]).n_zero == 3

    def test_refuses_other_lengths(self):
        with pytest.raises(ValueError, match="same length"):
            compare([1, 2], [1])


class TestHolm:
    def test_a_worked_example(self):
        """0.01 x 4, 0.02 x 3 = 0.06, 0.03 x 2 = 0.06, 0.04 x 1 -> not below the one before."""
        assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
        assert holm([0.005, 0.011, 0.02, 0.04, 0.13]) == pytest.approx([0.025, 0.044, 0.06, 0.08, 0.13])

    def test_undefined_ones_do_not_count(self):
        assert holm([0.02, math.nan, 0.5]) == pytest.approx([0.04, math.nan, 0.5], nan_ok=True)
        assert holm([]) == []

    @given(P_VALUES, st.randoms(use_true_random=False))
    def test_keeps_order_never_lowers_and_goes_with_its_test(self, p_values, random):
        adjusted = holm(p_values)
        defined = [(p, q) for p, q in zip(p_values, adjusted, strict=True) if not math.isnan(p)]
        assert all(p <= q <= 1 for p, q in defined)
        assert all(math.isnan(q) for p, q in zip(p_values, adjusted, strict=True) if math.isnan(p))
        in_order = sorted(defined)
        assert all(first[1] <= second[1] for first, second in itertools.pairwise(in_order))
        if in_order:
            assert in_order[0][1] == min(1, len(in_order) * in_order[0][0])
        places = list(range(len(p_values)))
        random.shuffle(places)
        assert same(holm([p_values[i] for i in places]), [adjusted[i] for i in places])

    @pytest.mark.parametrize("p", [-0.1, 1.01])
    def test_refuses_what_is_no_probability(self, p):
        with pytest.raises(ValueError, match="from 0 to 1"):
            holm([0.5, p])


class TestRanks:
    TABLE = pd.DataFrame(
        {"A": [0.9, 0.8, 0.5, math.nan], "B": [0.9, 0.7, 0.6, 0.9], "C": [0.1, 0.6, 0.7, 0.8]}, index=list("wxyz")
    )

    def test_ties_share_their_places_and_undefined_cases_are_left_out(self):
        assert rank_cases(self.TABLE).to_dict("index") == {
            "w": {"A": 1.5, "B": 1.5, "C": 3}, "x": {"A": 1, "B": 2, "C": 3}, "y": {"A": 3, "B": 2, "C": 1}
        }  # fmt: skip
        assert ranks(self.TABLE).to_dict() == pytest.approx({"A": 5.5 / 3, "B": 5.5 / 3, "C": 7 / 3})

    def test_of_distances_the_smallest_is_first(self):
        assert ranks(self.TABLE, higher_is_better=False).to_dict() == pytest.approx(
            {"A": 4 - 5.5 / 3, "B": 4 - 5.5 / 3, "C": 4 - 7 / 3}
        )

    def test_nothing_to_rank(self):
        assert ranks(self.TABLE.iloc[3:]).isna().all()

    @given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=8))
    def test_ranks_of_a_case_add_up(self, rows):
        assert ranks(pd.DataFrame(rows)).sum() == pytest.approx(6)


def test_repeats_of_a_case_become_one_value():
    cases = pd.Series(["b", "a", "b", "a", "c", "a"])
    values = pd.Series([0.5, 0.2, 0.7, math.nan, math.nan, 0.4])
    means = mean_of_repeats(cases, values)
    assert list(means.index) == ["a", "b", "c"]
    assert means.tolist() == pytest.approx([0.3, 0.6, math.nan], nan_ok=True)
