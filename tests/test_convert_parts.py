"""The converters' parts, each against an independent statement of what it must do."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from conversion_phantoms import AXIAL, abdomen, load, save
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nnunetv2_eccam.dataset_conversion.case_checks import bounding_box
from nnunetv2_eccam.dataset_conversion.geometry import corner_distance, simpleitk_geometry
from nnunetv2_eccam.dataset_conversion.labels import label_policy, relabelled
from nnunetv2_eccam.dataset_conversion.nifti import new_header, read_nifti, write_nifti
from nnunetv2_eccam.dataset_conversion.slicing import target_spacing
from nnunetv2_eccam.dataset_conversion.splits import drawn_order, paper_split, split_with_hold_out
from nnunetv2_eccam.dataset_conversion.volumes import smallest_type

from nnunetv2_eccam.errors import UserError

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

names = st.lists(st.from_regex(r"[a-z]{1,4}_[0-9]{3}", fullmatch=True), min_size=2, max_size=40, unique=True)


@QUICK
@given(cases=names, seed=st.integers(0, 10**6), data=st.data())
def test_a_split_loses_and_repeats_no_case(cases, seed, data):
    hold_out = data.draw(st.integers(0, len(cases) - 1))
    split = split_with_hold_out(cases, hold_out, seed)
    assert sorted(split.train + split.test) == sorted(cases)
    assert len(split.test) == hold_out
    assert split == split_with_hold_out(cases[::-1], hold_out, seed)


@QUICK
@given(cases=names, seed=st.integers(0, 10**6))
def test_leaving_a_case_out_does_not_move_the_others(cases, seed):
    order = drawn_order(cases, seed)
    assert drawn_order(cases[1:], seed) == [case for case in order if case != cases[0]]


@pytest.mark.parametrize(
    ("total", "counts"), [(281, (236, 5, 40)), (82, (57, 5, 20)), (80, (55, 5, 20)), (210, (170, 10, 30))]
)
def test_the_papers_counts(total, counts):
    from nnunetv2_eccam.dataset_conversion import kits19, msd, tcia_pancreas

    known = {**msd.TASKS["msd-pancreas"].paper_counts, **tcia_pancreas.PAPER_COUNTS, **kits19.PAPER_COUNTS}
    cases = [f"case_{number:03d}" for number in range(total)]

    split = paper_split(cases, known, seed=12345)

    assert (len(split.train), len(split.validation), len(split.test)) == counts
    assert sorted(split.train + split.validation + split.test) == cases
    assert split.test != paper_split(cases, known, seed=1).test


@pytest.mark.parametrize("hold_out", [-1, 3, 4])
def test_a_hold_out_that_leaves_nothing_is_refused(hold_out):
    with pytest.raises(UserError, match="--hold-out"):
        split_with_hold_out(["a", "b", "c"], hold_out, 0)


@st.composite
def scans(draw):
    """Spacings (mm) and sizes of seven scans: any, or coarse and short along one axis as thick slices are."""
    spacings = draw(hnp.arrays(np.float64, (7, 3), elements=st.sampled_from([0.5, 0.625, 0.8, 1.0, 2.5, 5.0])))
    sizes = draw(hnp.arrays(np.int64, (7, 3), elements=st.integers(100, 600)))
    thick = draw(st.sampled_from([None, 0, 1, 2]))
    if thick is not None:
        spacings[:, thick] = draw(hnp.arrays(np.float64, 7, elements=st.sampled_from([0.5, 3.0, 6.0, 8.0, 10.0])))
        sizes[:, thick] = draw(hnp.arrays(np.int64, 7, elements=st.integers(5, 300)))
    return spacings, sizes


@settings(max_examples=150, deadline=None)
@given(scans=scans())
def test_the_target_spacing_is_the_one_of_nnunets_planner(scans):
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    spacings, sizes = scans
    planner = SimpleNamespace(
        dataset_fingerprint={"spacings": spacings.tolist(), "shapes_after_crop": sizes.tolist()},
        overwrite_target_spacing=None,
        anisotropy_threshold=3,
        suppress_transpose=False,
    )
    planner.determine_fullres_target_spacing = lambda: ExperimentPlanner.determine_fullres_target_spacing(planner)

    found = target_spacing(spacings, sizes)

    assert np.allclose(found, planner.determine_fullres_target_spacing())
    assert int(np.argmax(found)) == ExperimentPlanner.determine_transpose(planner)[0][0]


@QUICK
@given(
    voxels=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32]).flatmap(
        lambda dtype: hnp.arrays(dtype, (4, 3, 5), elements=st.integers(0, 255))
    ),
    order=st.sampled_from("CF"),
)
def test_what_is_written_is_read_back_by_every_reader(tmp_path, voxels, order):
    import SimpleITK as sitk

    path = tmp_path / "a.nii.gz"
    write_nifti(path, np.asarray(voxels, order=order), new_header(AXIAL))

    assert np.array_equal(read_nifti(path).voxels, voxels)
    assert np.array_equal(load(path), voxels)
    image = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image), voxels.T)
    assert corner_distance(simpleitk_geometry(path).affine_ras, AXIAL, voxels.shape) < 1e-4


def test_the_gzip_header_holds_no_time_and_no_name(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", np.ones((2, 2, 2), np.uint8), new_header(AXIAL))
    assert (tmp_path / "a.nii.gz").read_bytes()[3:8] == bytes(5)


@QUICK
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(tmp_path, data):
    path = save(tmp_path / "a.nii.gz", abdomen((12, 10, 8))[0])
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UserError, match=str(path)):
        read_nifti(path)


@pytest.mark.parametrize("missing", [1, 4, 8])
def test_a_file_without_its_checksum_is_refused(tmp_path, missing):
    path = save(tmp_path / "a.nii.gz", abdomen((12, 10, 8))[0])
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(UserError, match="truncated"):
        read_nifti(path)


@QUICK
@given(data=st.data())
def test_a_changed_byte_is_noticed_or_harmless(tmp_path, data):
    image = abdomen((12, 10, 8))[0]
    path = save(tmp_path / "a.nii.gz", image)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        found = read_nifti(path).voxels  # gzip's header has a time and such, which nothing depends on
    except UserError:
        return
    assert np.array_equal(found, image)


def test_changed_voxels_are_noticed(tmp_path):
    path = save(tmp_path / "a.nii.gz", abdomen((12, 10, 8))[0])
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # the CRC
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged"):
        read_nifti(path)


@pytest.mark.parametrize(
    "change", [lambda a: a.astype(">i2"), lambda a: a.astype(np.float64), lambda a: a.astype(np.int8)]
)
def test_any_number_type_and_byte_order_is_read(tmp_path, change):
    voxels = change(np.arange(24).reshape(2, 3, 4))
    path = save(tmp_path / "a.nii.gz", voxels)
    assert np.array_equal(read_nifti(path).voxels, voxels)


def test_slope_and_intercept_are_applied(tmp_path):
    image = nibabel.Nifti1Image(np.array([[[-1000.0, 37.0, 500.0]]]), AXIAL)
    image.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(read_nifti(tmp_path / "a.nii.gz").voxels, [[[-1000.0, 37.0, 500.0]]], atol=0.05)


@QUICK
@given(voxels=hnp.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 0, 0, 0, 0, 7])))
def test_the_box_holds_everything_and_no_more(voxels):
    box = bounding_box(voxels)
    if box is None:
        assert not voxels.any()
        return
    indices = np.nonzero(voxels)
    assert box == [[int(axis.min()), int(axis.max())] for axis in indices[::-1]]


@QUICK
@given(voxels=hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2)))
@pytest.mark.parametrize(("policy", "expected"), [("merged", [0, 1, 1]), ("apart", [0, 1, 2]), ("regions", [0, 1, 2])])
def test_relabelling_maps_each_voxel(policy, expected, voxels):
    rule = label_policy(policy, {0: "background", 1: "kidney", 2: "tumor"}, "kidney")
    assert relabelled(voxels, rule).tolist() == np.array(expected)[voxels].tolist()


@QUICK
@given(voxels=hnp.arrays(np.float64, (2, 3, 4), elements=st.floats(-40000, 40000, width=32)))
def test_the_smallest_type_keeps_every_value(voxels):
    assume(np.isfinite(voxels).all())
    small = smallest_type(voxels)
    assert np.array_equal(small, voxels.astype(np.float32))
    whole = np.array_equal(voxels, np.rint(voxels)) and abs(voxels).max() <= 32767
    assert small.dtype == (np.int16 if whole else np.float32)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "IPL", "ASR"])
def test_orientations_are_named_as_nibabel_names_them(tmp_path, axes):
    ornt = nibabel.orientations.axcodes2ornt(axes)
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) @ nibabel.orientations.inv_ornt_aff(ornt, (3, 4, 5))
    path = save(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.uint8), affine)
    geometry = simpleitk_geometry(path)
    assert geometry.orientation == "".join(nibabel.aff2axcodes(affine))
    assert np.allclose(geometry.affine_ras, affine, atol=1e-5)
