"""The one reader of volumes: what it gives, against nnU-Net's own readers and nibabel, and what it refuses."""

import gzip
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conversion_phantoms import AXIAL, patched
from conversion_phantoms import save as save_nifti
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nibabel.affines import from_matvec
from stored_volumes import ORIENTATIONS, stored, write_simpleitk

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes import check_same_grid, hidden_line, list_volumes, read_image, read_labels, read_volume
from nnunetv2_eccam.volumes.nifti import new_header, read_nifti, write_nifti

VOXELS = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 8)).astype(np.int16)


def save(path: Path, voxels: np.ndarray = VOXELS, affine: np.ndarray = AXIAL) -> Path:
    return save_nifti(path, voxels, affine)


def by_simpleitk(path: Path, voxels: np.ndarray = VOXELS, compress: bool = True) -> Path:
    write_simpleitk(path, voxels.T, [0.8, 0.8, 2.5][: voxels.ndim], compress)
    return path


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("axes", "turned"), ORIENTATIONS)
def test_every_orientation_is_read_as_nnunet_reads_it_and_turned_to_ras(tmp_path, axes, turned):
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    body = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    voxels, affine = stored(body, (1.0, 2.0, 3.0), axes, turned)
    path = save(tmp_path / "a.nii.gz", voxels, affine)

    volume = read_volume(path)

    array, properties = SimpleITKIO().read_images([str(path)])
    assert np.array_equal(volume.nnunet_array, array)
    assert np.allclose(volume.nnunet_spacing, properties["spacing"])
    assert np.allclose(volume.affine, affine, atol=1e-5)
    assert volume.orientation == "".join(nibabel.aff2axcodes(affine))
    ras = volume.to_ras()
    assert np.array_equal(ras.voxels, body)
    assert ras.orientation == "RAS"
    assert np.allclose(ras.spacing, (1, 2, 3))
    nnunets, _ = NibabelIOWithReorient().read_images([str(path)])
    assert np.array_equal(ras.nnunet_array, nnunets)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "A.NII.GZ", "a.mha", "a.nrrd", "a.gipl", "a.mhd"])
def test_every_format_gives_the_same_voxels(tmp_path, name):
    plain = tmp_path / name.lower()
    path = by_simpleitk(plain, compress=plain.suffix != ".gipl").rename(tmp_path / name)
    volume = read_image(path)
    assert np.array_equal(volume.voxels, VOXELS)
    assert np.allclose(volume.spacing, (0.8, 0.8, 2.5))
    assert (volume.oriented, volume.in_mm, volume.flat) == (True, True, False)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd", "a.gipl", "a.png", "a.bmp", "a.tif"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
def test_a_truncated_file_of_any_format_is_refused(tmp_path, name, part):
    picture = np.random.default_rng(0).integers(0, 255, (60, 50), dtype=np.uint8)
    if name in ("a.png", "a.bmp"):
        from skimage import io

        io.imsave(tmp_path / name, picture, check_contrast=False)
    elif name == "a.tif":
        import tifffile

        tifffile.imwrite(tmp_path / name, VOXELS.T, compression="zlib")
    else:
        by_simpleitk(tmp_path / name, compress=name not in ("a.gipl", "a.nii"))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UserError, match=name) as error:
        read_volume(tmp_path / name)
    one_line(error)


@given(data=st.data())
def test_a_nifti_file_cut_anywhere_is_refused(tmp_path, data):
    path = save(tmp_path / "a.nii.gz")
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UserError, match=str(path)):
        read_volume(path)


@given(data=st.data())
def test_a_changed_byte_is_noticed_or_harmless(tmp_path, data):
    path = save(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        found = read_volume(path).voxels  # gzip's header has a time and such, which nothing depends on
    except UserError:
        return
    assert np.array_equal(found, VOXELS)


@pytest.mark.parametrize("pack", [
    lambda raw: gzip.compress(raw) + b"\n\n",
    lambda raw: gzip.compress(raw) + b"\0" * 600,
    lambda raw: gzip.compress(raw) + b"more text",
    lambda raw: gzip.compress(raw[:700]) + gzip.compress(raw[700:]),
], ids=["line breaks", "zeros", "text", "two members"])  # fmt: skip
def test_gzip_members_are_one_file_and_bytes_behind_them_no_part_of_it(tmp_path, pack):
    path = save(tmp_path / "a.nii.gz")
    path.write_bytes(pack(gzip.decompress(path.read_bytes())))
    assert np.array_equal(read_image(path).voxels, VOXELS)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0, 1e-30, np.nan, np.inf])
@pytest.mark.parametrize("intercept", [0.0, -3.0, np.nan, np.inf])
def test_slope_and_intercept_are_applied_as_simpleitk_applies_them(tmp_path, slope, intercept):
    import SimpleITK as sitk

    path = patched(save(tmp_path / "a.nii.gz"), 112, np.array([slope, intercept], "<f4"))
    assert np.array_equal(read_image(path).voxels, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T)


@pytest.mark.parametrize(("offset", "value", "said"), [
    (40, np.array([7, *[32000] * 7], "<i2"), "is truncated"),  # dim, whose product needs more than 64 bits
    (40, np.array([3, 12, -10, 8], "<i2"), r"shape \(12, -10, 8\)"),
    (70, np.array([128, 24], "<i2"), "voxels of type"),  # RGB
    (80, np.float32(np.nan), "pixdim"),
    (108, np.float32(np.nan), "voxels from byte nan"),
    (108, np.float32(-1e9), "voxels from byte -1"),
    (272, np.float32(np.nan), "qoffset_y"),
    (280, np.float32(np.nan), "srow_x"),
])  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(tmp_path, offset, value, said):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, VOXELS, new_header(AXIAL))
    with pytest.raises(UserError, match=rf"a\.nii\.gz.*{said}") as error:
        read_volume(patched(path, offset, value))
    one_line(error)


@pytest.mark.parametrize("dtype", [">i2", "<f8", "i1", "u2", ">f4"])
def test_any_number_type_and_byte_order_is_read(tmp_path, dtype):
    voxels = np.arange(24).reshape(2, 3, 4).astype(dtype)
    assert np.array_equal(read_image(save(tmp_path / "a.nii.gz", voxels)).voxels, voxels)


def test_nifti_2_is_read_and_says_what_simpleitk_misses(tmp_path):
    nibabel.save(nibabel.Nifti2Image(VOXELS, AXIAL), tmp_path / "a.nii.gz")
    volume = read_image(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.voxels, VOXELS)
    assert np.allclose(volume.affine, AXIAL)
    assert "NIfTI-2" in volume.simpleitk_error


def test_a_sheared_grid_is_read_by_nibabel(tmp_path):
    affine = AXIAL.copy()
    affine[0, 2] = 1.0
    volume = read_image(save(tmp_path / "a.nii.gz", affine=affine))
    assert np.allclose(volume.affine, affine, atol=1e-5)
    assert "right angles" in volume.simpleitk_error


@pytest.mark.parametrize("axis", [(0, 0, 0), (-0.8, 0, 0)], ids=["no width", "two axes of one direction"])
def test_a_grid_without_orientation_is_refused(tmp_path, axis):
    image = nibabel.load(save(tmp_path / "a.nii.gz"))
    affine = AXIAL.copy()
    affine[:3, 2] = axis
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "b.nii.gz")
    with pytest.raises(UserError, match=r"b\.nii\.gz: .* no usable spacing, orientation or position") as error:
        read_volume(tmp_path / "b.nii.gz")
    one_line(error)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to(path.name), "is a link to itself or"),
        (lambda path: path.symlink_to("nowhere.nii.gz"), "is a link to .* not there"),
        (lambda path: path.write_bytes(b"no gzip"), "not compressed by gzip"),
        (lambda path: path.write_bytes(gzip.compress(b"no image" * 100)), "not a NIfTI image"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: None, "does not exist"),
        (lambda path: save(path.with_name("a.nii")), "gzip a.nii"),
        (lambda path: save(path.with_name("A.nii.gz")), "rename it to a.nii.gz"),
        (lambda path: by_simpleitk(path.with_name("a.mha")), "store it as a.nii.gz"),
    ],
)
def test_what_is_no_file_is_named_with_the_remedy(tmp_path, make, expected):
    make(tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match=expected) as error:
        read_volume(tmp_path / "a.nii.gz")
    assert str(tmp_path / "a.nii.gz") in one_line(error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(tmp_path, value):
    voxels = VOXELS.astype(np.float32)
    voxels[:2, 0, 0] = value
    with pytest.raises(UserError, match="2 of its 960 voxels"):
        read_image(save(tmp_path / "a.nii.gz", voxels))
    with pytest.raises(UserError, match="2 of its 960 labels"):
        read_labels(save(tmp_path / "a.nii.gz", np.where(np.isfinite(voxels), 1, voxels)))


@pytest.mark.parametrize(
    ("value", "found"), [(1.00000006, 1), (0.99999994, 1), (-1e-7, 0), (300.0, 300), (2, 2), (70000, 70000)]
)
def test_labels_are_taken_as_whole_numbers(tmp_path, value, found):
    path = save(tmp_path / "a.nii.gz", np.array([[[0, value]]], np.float32))
    labels = read_labels(path).voxels
    assert labels.tolist() == [[[0, found]]]
    assert labels.dtype == np.min_scalar_type(found)


@pytest.mark.parametrize(("value", "shown"), [(1.0009765625, "1.0009765625"), (-1.0, "-1.0"), (0.5, "0.5")])
def test_what_is_no_label_is_shown_with_all_its_digits(tmp_path, value, shown):
    with pytest.raises(UserError, match=shown):
        read_labels(save(tmp_path / "a.nii.gz", np.array([[[0, value]]], np.float32)))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_photographs_are_read_as_nnunet_reads_them(tmp_path, name, shape):
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from skimage import io

    io.imsave(tmp_path / name, np.random.default_rng(0).integers(0, 255, shape, np.uint8), check_contrast=False)
    array, properties = NaturalImage2DIO().read_images([str(tmp_path / name)])
    volume = read_image(tmp_path / name)
    assert np.array_equal(volume.nnunet_array, array)
    assert volume.nnunet_spacing == properties["spacing"]
    assert (volume.oriented, volume.in_mm, volume.flat) == (False, False, True)
    assert volume.colour == (len(volume.channels) == 3)


def test_a_volume_in_a_tiff_is_read_with_the_spacing_beside_it(tmp_path):
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    Tiff3DIO().write_seg(VOXELS.T % 3, str(tmp_path / "a.tif"), {"spacing": [2.5, 0.8, 0.7]})
    array, properties = Tiff3DIO().read_seg(str(tmp_path / "a.tif"))
    volume = read_labels(tmp_path / "a.tif")
    assert np.array_equal(volume.nnunet_array, array)
    assert np.allclose(volume.nnunet_spacing, properties["spacing"])
    assert volume.in_mm
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [1, 0, 1]}))
    with pytest.raises(UserError, match="three positive numbers"):
        read_labels(tmp_path / "a.tif")


def test_an_image_of_two_axes_has_one_slice(tmp_path):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    path = by_simpleitk(tmp_path / "a.nii.gz", VOXELS[..., 0])
    array, properties = SimpleITKIO().read_images([str(path)])
    volume = read_image(path)
    assert np.array_equal(volume.nnunet_array, array)
    assert np.allclose(volume.nnunet_spacing, properties["spacing"])
    assert volume.flat


def test_channels_of_nifti_and_of_vectors(tmp_path):
    import SimpleITK as sitk

    voxels = np.stack([VOXELS, VOXELS + 1], axis=-1)
    assert [each[0, 0, 0] for each in read_image(save(tmp_path / "a.nii.gz", voxels)).channels] == list(voxels[0, 0, 0])
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0, 3), isVector=True)
    for name in ("a.nii.gz", "a.nrrd", "a.mha"):
        sitk.WriteImage(image, str(tmp_path / name))
        assert np.array_equal(read_image(tmp_path / name).voxels, voxels)
    with pytest.raises(UserError, match="one label for each voxel"):
        read_labels(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("affine", "voxels", "expected"),
    [
        (AXIAL, VOXELS[:-1], "differ in shape"),
        (np.diag([0.8, 0.8, 2.5, 1.0]), VOXELS, "up to 22.74 mm apart.*LPS and RAS"),
        (from_matvec(AXIAL[:3, :3], [0.3, 0, 0]), VOXELS, None),
        (from_matvec(AXIAL[:3, :3], [0.5, 0, 0]), VOXELS, "different grids"),
        (AXIAL * [[1], [1], [1.02], [1]], VOXELS, "differ in spacing"),
    ],
)
def test_two_grids_are_compared(tmp_path, affine, voxels, expected):
    first, second = read_image(save(tmp_path / "a.nii.gz")), read_image(save(tmp_path / "b.nii.gz", voxels, affine))
    if expected is None:
        check_same_grid(first, second, advice="do this")
        return
    with pytest.raises(UserError, match=f"{expected}.*do this") as error:
        check_same_grid(first, second, advice="do this")
    one_line(error)
    if voxels is VOXELS:
        check_same_grid(first, second, advice="", headers=False)


def test_a_folder_is_listed_without_hidden_files(tmp_path):
    for name in ("b.nii.gz", "a.nii.gz", "._a.nii.gz", "c.nii", "notes.txt", "dataset.json"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "other").mkdir()
    assert list(list_volumes(tmp_path, ".nii.gz")) == ["a", "b"]
    assert list(list_volumes(tmp_path)) == ["a", "b", "c"]
    assert hidden_line(tmp_path / "other", tmp_path) == "1 hidden file(s) passed over, such as ._a.nii.gz"
    assert hidden_line(tmp_path / "other", tmp_path / "nowhere") == ""
    with pytest.raises(UserError, match="does not exist"):
        list_volumes(tmp_path / "nowhere")


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

    assert np.array_equal(read_nifti(path)[1], voxels)
    assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), voxels)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), voxels.T)
    assert np.allclose(read_volume(path).affine, AXIAL, atol=1e-5)
    assert path.read_bytes()[3:8] == bytes(5)  # no time and no name in gzip's header
