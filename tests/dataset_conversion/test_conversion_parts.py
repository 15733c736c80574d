"""The converters' parts, each against an independent statement of what it must do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nnunetv2_eccam.dataset_conversion import kits19, msd, tcia_pancreas
from nnunetv2_eccam.dataset_conversion.cases import bounding_box, smallest_type
from nnunetv2_eccam.dataset_conversion.splits import drawn_order, drawn_split

names = st.lists(st.from_regex(r"[a-z]{1,4}_[0-9]{3}", fullmatch=True), min_size=2, max_size=12, unique=True)


@given(cases=names, seed=st.integers(0, 10**6), data=st.data())
def test_a_split_loses_and_repeats_no_case(cases, seed, data):
    hold_out = data.draw(st.integers(0, len(cases) - 1))
    split = drawn_split(cases, seed, test=hold_out)
    assert sorted(split.train + split.test) == sorted(cases)
    assert len(split.test) == hold_out
    assert split == drawn_split(cases[::-1], seed, test=hold_out)


@given(cases=names, seed=st.integers(0, 10**6))
def test_leaving_a_case_out_does_not_move_the_others(cases, seed):
    order = drawn_order(cases, seed)
    assert drawn_order(cases[1:], seed) == [case for case in order if case != cases[0]]


@pytest.mark.parametrize(
    ("total", "counts"), [(281, (236, 5, 40)), (82, (57, 5, 20)), (80, (55, 5, 20)), (210, (170, 10, 30))]
)
def test_the_papers_counts(total, counts):
    cards = (msd.TASKS["msd-pancreas"], tcia_pancreas.CARD, kits19.CARD)
    assert all(card.soft_tissue for card in cards)  # a label in air is refused
    known = {number: counts for card in cards for number, counts in card.paper_counts.items()}
    assert known[total] == counts
    cases = [f"case_{number:03d}" for number in range(total)]

    split = drawn_split(cases, 12345, test=counts[2], validation=counts[1])

    assert tuple(map(len, split)) == counts
    assert sorted(split.train + split.validation + split.test) == cases
    assert split.test != drawn_split(cases, 1, test=counts[2]).test


@given(voxels=hnp.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 0, 0, 0, 0, 7])))
def test_the_box_holds_everything_and_no_more(voxels):
    box = bounding_box(voxels)
    if box is None:
        assert not voxels.any()
        return
    indices = np.nonzero(voxels)
    assert box == tuple(slice(axis.min(), axis.max() + 1) for axis in indices)


@given(voxels=hnp.arrays(np.float64, (2, 3, 4), elements=st.floats(-40000, 40000, width=32)))
def test_the_smallest_type_keeps_every_value(voxels):
    small = smallest_type(voxels)
    assert np.array_equal(small, voxels.astype(np.float32))
    whole = np.array_equal(voxels, np.rint(voxels)) and abs(voxels).max() <= 32767
    assert small.dtype == (np.int16 if whole else np.float32)
