"""nnUNetv2_eccam overlay: what its picture shows and where, its files and its messages."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import nibabel
import numpy as np
import pytest
from conversion_phantoms import save as save_nifti
from matplotlib.image import imread
from PIL import Image

from nnunetv2_eccam.cli import main
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.overlay import colours
from nnunetv2_eccam.overlay.cases import CaseFiles, find_files
from nnunetv2_eccam.overlay.overlay import Overlay, draw, write_overlay
from nnunetv2_eccam.overlay.rows import rows_of_case

SPACING = (1.0, 2.0, 4.0)
"""Right, anterior, superior; so slices are axial and pixels twice as high as wide."""


def save(path: Path, body, spacing=SPACING) -> Path:
    """Write a volume whose axes are right, anterior, superior."""
    return save_nifti(path, body, np.diag((*spacing, 1.0)))


def phantom(shift=0):
    """An image with a bright block at the patient's right, front and head, and masks: truth and a shifted one."""
    image = np.zeros((40, 20, 6), np.int16)
    reference = np.zeros(image.shape, np.uint8)
    reference[24:34, 11:16, 3] = 1  # 10 x 10 mm, at the right (x high) and the front (y high)
    reference[26:30, 12:14, 2] = 1
    image[reference > 0] = 1000
    prediction = np.roll(reference, -shift, axis=0)  # towards the left of the patient
    return image, reference, prediction


@pytest.fixture
def folders(tmp_path) -> Path:
    """Two cases; system A is perfect, B is shifted by 4 mm to the patient's left."""
    for case in ("a", "b"):
        image, reference, shifted = phantom(shift=4)
        save(tmp_path / f"images/{case}_0000.nii.gz", image)
        save(tmp_path / f"images/{case}_0001.nii.gz", 1000 - image)
        save(tmp_path / f"labels/{case}.nii.gz", reference)
        save(tmp_path / f"A/{case}.nii.gz", reference)
        save(tmp_path / f"B/{case}.nii.gz", shifted)
    return tmp_path


def words(folder: Path, *more: object, target: str = "figure.png", systems=("A", "B"), reference: bool = True):
    """Make a command line."""
    line = ["overlay", "-o", folder / target, "--images", folder / "images"]
    if reference:
        line += ["--reference", folder / "labels"]
    for name in systems:
        line += ["--system", f"{name}={folder / name}"]
    return [str(word) for word in (*line, "--dpi", 100, *more)]


def pixels_of(folder: Path, *more: object, **how) -> np.ndarray:
    """Run the command and read its PNG, RGB from 0 to 1."""
    assert main(words(folder, *more, **how)) == 0
    return imread(folder / "figure.png")[..., :3]


def places(pixels, colour, opacity=None, grey=0.0):
    """Give row and column of the pixels of a colour, over grey where it is not opaque."""
    value = np.asarray(colour) if opacity is None else (1 - opacity) * grey + opacity * np.asarray(colour)
    return np.argwhere(np.abs(pixels - value).max(axis=-1) < 0.02)


def row_of(folder: Path, is_ct: bool = False, **how):
    """Give the one row of case a, without drawing it."""
    options = Overlay(folder / "images", folder / "labels", {"B": folder / "B"}, cases=("a",), **how)
    ((row,),) = [rows_of_case(files, options, is_ct) for files in find_files(options)]
    return row


def test_errors_light_up_at_their_place_in_their_system(folders):
    pixels = pixels_of(folders, "--style", "errors", "--cases", "a")
    hits, alarms, misses = (
        places(pixels, colour, colours.OPACITY, grey)
        for colour, grey in (
            (colours.TRUE_POSITIVE, 1.0), (colours.FALSE_POSITIVE, 0.0), (colours.FALSE_NEGATIVE, 1.0),
        )
    )  # fmt: skip
    middle = hits[:, 1] < (hits[:, 1].min() + hits[:, 1].max()) / 2  # columns: image, reference, A, B
    in_a, in_b = hits[middle], hits[~middle]
    # A has no errors; B's are 4 of 10 mm wide: misses at the patient's right, so left of the hits.
    assert len(in_a) == pytest.approx(len(in_b) * 10 / 6, rel=0.05)
    assert len(misses) == pytest.approx(len(in_a) * 4 / 10, rel=0.1)
    assert len(alarms) == pytest.approx(len(misses), rel=0.1)
    assert misses[:, 1].max() < in_b[:, 1].min()
    assert in_b[:, 1].max() < alarms[:, 1].min()
    # 10 mm by 10 mm is a square, though pixels are 2 mm by 1 mm.
    height, width = np.ptp(in_a, axis=0) + 1
    assert height == pytest.approx(width, rel=0.03)


def test_slices_are_numbered_along_the_file(folders):
    before = row_of(folders)
    for path in folders.glob("*/a*.nii.gz"):  # from the head to the feet
        nibabel.save(nibabel.load(path).as_reoriented(np.array([[0, 1], [1, 1], [2, -1]])), path)
    for row in (row_of(folders), row_of(folders, slices=(2,))):
        assert (before.number, row.number) == (3, 2)
        np.testing.assert_array_equal(row.image, before.image)
        np.testing.assert_array_equal(row.predictions["B"], before.predictions["B"])


def test_contours_run_around_the_masks_in_two_colours(folders):
    pixels = pixels_of(folders, "--cases", "a", "--dpi", 200, systems=("B",))
    reference, prediction = places(pixels, colours.REFERENCE), places(pixels, colours.PREDICTION)
    legend = pixels.shape[0] * 0.7  # the legend's patches are below
    reference, prediction = reference[reference[:, 0] < legend], prediction[prediction[:, 0] < legend]
    half = (reference[:, 1].min() + reference[:, 1].max()) / 2
    in_own, in_system = reference[reference[:, 1] < half], reference[reference[:, 1] > half]
    height, width = np.ptp(in_own, axis=0) + 1
    assert height == pytest.approx(width, rel=0.06)
    # Shifted by 4 of its 10 mm towards the patient's left, which is to the right.
    shift = prediction[:, 1].min() - in_system[:, 1].min()
    assert shift == pytest.approx(0.4 * width, rel=0.1)
    assert prediction[:, 0].min() == pytest.approx(in_system[:, 0].min(), abs=3)
    # Lines, not areas.
    assert len(in_own) < 0.25 * height * width


def test_several_labels_get_several_colours(folders):
    reference = phantom()[1]
    reference[:20, :, 3] = 2
    save(folders / "labels/a.nii.gz", reference)
    pixels = pixels_of(folders, "--cases", "a", "--style", "fill", systems=("A",))
    for colour, grey in ((colours.LABELS[0], 1.0), (colours.LABELS[1], 0.0)):
        assert len(places(pixels, colour, colours.FILL_OPACITY, grey)) > 1000
    chosen = pixels_of(folders, "--cases", "a", "--style", "fill", "--label", "2", systems=("A",))
    assert len(places(chosen, colours.LABELS[0], colours.FILL_OPACITY, 0.0)) > 1000
    assert not len(places(chosen, colours.LABELS[0], colours.FILL_OPACITY, 1.0))


def test_the_channel_is_a_file_or_the_fourth_axis(folders):
    np.testing.assert_allclose(row_of(folders, channel=1).image, 1 - row_of(folders, channel=0).image)
    image = np.stack([phantom()[0], np.full((40, 20, 6), 7)], -1).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, np.diag((*SPACING, 1))), folders / "both.nii.gz")
    files = CaseFiles("a", folders / "both.nii.gz", folders / "labels/a.nii.gz", {})
    shown = [rows_of_case(files, Overlay(folders, channel=channel))[0].image for channel in (None, 0, 1)]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert not shown[2].any()
    with pytest.raises(UserError, match=r"both\.nii\.gz has 2 channels"):
        rows_of_case(files, Overlay(folders, channel=2))


def test_slices_by_disagreement_and_by_number(folders):
    prediction = phantom()[1]
    prediction[0:6, 0:6, 5] = 1
    save(folders / "B/a.nii.gz", prediction)
    assert row_of(folders).number == 3
    assert row_of(folders, slices="disagreement").number == 5
    options = Overlay(folders / "images", folders / "labels", cases=("b", "a"), slices=(4, 0))
    rows = [row for files in find_files(options) for row in rows_of_case(files, options)]
    assert [(row.case, row.number) for row in rows] == [("b", 4), ("b", 0), ("a", 4), ("a", 0)]


def test_without_a_reference_systems_are_compared_with_each_other(folders, capsys):
    pixels = pixels_of(folders, "--cases", "a", "--slices", "disagreement", "--style", "fill", reference=False)
    assert len(places(pixels, colours.LABELS[0], colours.FILL_OPACITY, 1.0)) > 500
    assert "DSC" not in capsys.readouterr().out
    with pytest.raises(UserError, match="needs two masks"):
        write_overlay(Overlay(folders / "images", None, {"A": folders / "A"}, slices="disagreement"), folders / "x.png")


def test_a_crop_is_the_labels_with_their_margin(folders):
    row, small = row_of(folders), row_of(folders, crop_mm=3.0)
    # Rows are 2 mm: 5 and 2 on either side; columns 1 mm: 14 (shifted by 4) and 3 on either side.
    assert small.image.shape == (9, 20)
    np.testing.assert_array_equal(small.image, row.image[2:11, 3:23])
    np.testing.assert_array_equal(small.reference, row.reference[2:11, 3:23])
    assert small.dice == row.dice
    assert row_of(folders, crop_mm=1000).image.shape == row.image.shape


def test_window_of_ct_is_known_from_the_dataset_json(folders):
    (folders / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"liver": 1}}))
    save(folders / "images/a_0000.nii.gz", np.full((40, 20, 6), 140, np.int16))
    options = Overlay(folders / "images", folders / "labels", cases=("a",), dpi=50)
    (row,) = write_overlay(options, folders / "x.png")
    assert row.image == pytest.approx(0.75)  # level 40, width 400
    assert row.window == "Window: level 40 HU, width 400 HU (soft-tissue)"
    assert row_of(folders, True, window=("100", "160")).image == pytest.approx(0.75)
    assert row_of(folders, True, window=("percentiles",)).image == pytest.approx(0.0)


@pytest.mark.parametrize("style", ["contour", "errors"])
def test_empty_masks_give_a_picture_and_an_undefined_dsc(folders, style, capsys):
    for name in ("labels", "A", "B"):
        save(folders / f"{name}/a.nii.gz", np.zeros((40, 20, 6), np.uint8))
    slices = "disagreement" if style == "errors" else "area"
    assert main(words(folders, "--cases", "a", "--style", style, "--slices", slices, "--crop", 5, "--per-case", 2)) == 0
    assert imread(folders / "figure.png").std() > 0
    assert "DSC A undefined, B undefined" in capsys.readouterr().out


@pytest.mark.parametrize("width_mm", [60, 88, 182])
def test_legend_and_titles_fit_a_narrow_figure(folders, width_mm):
    systems = {"A": folders / "A", "EC-CaM-UNet": folders / "B"}
    options = Overlay(folders / "images", folders / "labels", systems, ("a",), style="errors", width_mm=width_mm)
    figure = draw(rows_of_case(find_files(options)[0], options), options, {})
    figure.draw_without_rendering()
    panels, footer = figure.axes[:4], figure.axes[4]
    for part in (footer.get_legend(), figure._supxlabel, *(panel.title for panel in panels)):
        box = part.get_window_extent()
        assert figure.bbox.x0 - 1 <= box.x0 < box.x1 <= figure.bbox.x1 + 1
    height, width = panels[0].bbox.height, panels[0].bbox.width
    assert width > 0.6 * figure.bbox.width / 4
    assert height == pytest.approx(width, rel=0.05)  # 40 x 40 mm


def test_photographs_are_shown_in_their_colours(tmp_path, capsys):
    photograph, mask = np.full((8, 12, 3), (200, 100, 50), np.uint8), np.zeros((8, 12), np.uint8)
    photograph[1:3, 2:6] = (10, 20, 240)
    mask[1:3, 2:6] = 1
    for folder in ("images", "labels", "A"):
        (tmp_path / folder).mkdir()
    Image.fromarray(photograph).save(tmp_path / "images/p_0000.png")
    Image.fromarray(mask).save(tmp_path / "labels/p.png")
    Image.fromarray(mask).save(tmp_path / "A/p.tif")
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}}))  # PNG holds no HU
    folders = (tmp_path / "images", tmp_path / "labels", {"A": tmp_path / "A"})
    (row,) = write_overlay(Overlay(*folders, style="fill", width_mm=300, dpi=150), tmp_path / "figure.png")
    np.testing.assert_array_equal(row.reference, mask)
    np.testing.assert_allclose(row.image, photograph / 255, atol=1e-6)
    assert row.dice == {"A": 1.0}
    assert row.slice_name == ""
    assert len(places(imread(tmp_path / "figure.png")[..., :3], np.array([200, 100, 50]) / 255)) > 2_500
    # One channel, or a window of one's own, is shown as asked for.
    (files,) = find_files(Overlay(*folders))
    (red,) = rows_of_case(files, Overlay(*folders, channel=0), is_ct=True)
    assert red.image.shape == (8, 12)
    assert red.window == "Grey values: percentiles 1 to 99 of each volume"
    (wide,) = rows_of_case(files, Overlay(*folders, window=("100", "200")))
    np.testing.assert_allclose(wide.image[0, 0], (1, 0.5, 0.25))


# ---- the files ------------------------------------------------------------------------------------

STRANGE = r"$x_1$ \frac{a}{b} <&> _ %"


def test_names_are_written_as_they_are(folders):
    (folders / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "_$L$ <&>": 1}}))
    line = words(folders, "--system", f"{STRANGE}={folders / 'A'}", "--cases", "a", "--width", 400, target="figure.svg")
    assert main(line) == 0
    texts = ["".join(each.itertext()) for each in ElementTree.parse(folders / "figure.svg").iter()
             if each.tag.endswith("text")]  # fmt: skip
    assert any(STRANGE in text for text in texts)
    assert "reference: _$L$ <&>" in texts
    assert any("the patient's right (R) at the left edge" in text for text in texts)
    assert any(re.search(r"level|percentiles 1 to 99", text) for text in texts)
    assert texts.count("DSC 1.000") == 2


@pytest.mark.parametrize(("name", "magic"), [("f.png", b"\x89PNG"), ("f.svg", b"<?xml"), ("f.PDF", b"%PDF")])
def test_the_same_input_gives_the_same_file_whatever_matplotlibs_settings(folders, name, magic):
    contents = set()
    for own in ({}, {"text.usetex": True, "axes.facecolor": "red", "font.size": 30, "image.origin": "lower"}):
        with matplotlib.rc_context(own):
            before = matplotlib.rcParams["font.size"]
            assert main(words(folders, "--cases", "a", target=name, systems=())) == 0
            assert matplotlib.rcParams["font.size"] == before
        contents.add((folders / name).read_bytes())
    (content,) = contents
    assert content.startswith(magic)
    assert b"/Type3" not in content  # journals refuse these fonts


def test_a_case_that_a_system_lacks_is_named_before_anything_is_read(folders, refused):
    (folders / "B/b.nii.gz").unlink()
    (folders / "images/a_0000.nii.gz").write_bytes(b"nothing that can be read")
    assert f"B: {folders / 'B'} has no b with" in refused(*words(folders, "--cases", "a", "b"))
    assert not (folders / "figure.png").exists()


def test_cases_are_those_of_all_folders_unless_named(folders, capsys):
    (folders / "B/b.nii.gz").unlink()
    (folders / "labels/._a.nii.gz").write_bytes(b"from a Mac")
    assert main(words(folders)) == 0
    out = capsys.readouterr().out
    # Slice 3: 50 voxels, of which B finds 30; slice 2: 8 voxels 4 mm long, of which it finds none. 60 / 116.
    assert out.startswith("a, axial slice 3: DSC A 1.000, B 0.517\nwrote ")
    assert main(words(folders, systems=("A",))) == 0
    assert "\nb, axial slice 3" in capsys.readouterr().out


def test_too_many_cases_that_nobody_named_are_listed(folders, refused):
    for number in range(9):
        for name in ("images/{}_0000", "labels/{}", "A/{}", "B/{}"):
            source = folders / (name.format("a") + ".nii.gz")
            (folders / (name.format(f"c{number}") + ".nii.gz")).write_bytes(source.read_bytes())
    error = refused(*words(folders))
    assert "11 cases" in error
    assert "--cases: a b c0 c1" in error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--slices", "40"), "a_0000.nii.gz has the axial slices 0 to 5; there is no slice 40"),
        (("--slices", "largest"), "--slices largest is none of area, disagreement and numbers"),
        (("--slices", "-1"), "--slices -1 is none of"),
        (("--label", "0"), "--label: labels are whole numbers from 1"),
        (("--label", *"12345678"), "there are 8 labels and 7 colours"),
        (("--system", "C"), "--system C has no name or no folder"),
        (("--system", "A=x"), "--system A is given twice"),
        (("--system", "C=nowhere"), "C: nowhere does not exist"),
        (("--window", "spleen"), "--window spleen is not a window"),
        (("--per-case", "0"), "--per-case 0 is too small"),
        (("--dpi", "0"), "--dpi 0 is too small"),
        (("--width", "30"), "--width 30 is too narrow for 4 columns; give 60 mm or more"),
        (("--crop", "-1"), "--crop -1 is not a margin"),
        (("--channel", "7"), "image of channel 7: "),
        (("--channel", "-1"), "--channel -1 is not a channel"),
    ],
)
def test_wrong_options_are_explained(folders, refused, more, said):
    assert said in refused(*words(folders, "--cases", "a", *more))


@pytest.mark.parametrize(
    ("target", "said"),
    [("figure.jpg", "ends in .png, .svg, .pdf"), ("nowhere/x.png", "is not a folder"), ("images.png", "is a folder")],
)
def test_a_target_that_cannot_be_is_refused_first(folders, refused, target, said):
    (folders / "images.png").mkdir()
    assert said in refused(*words(folders, target=target, systems=("nowhere",)))


def test_what_cannot_be_drawn_is_explained(folders, refused):
    assert "nothing to draw" in refused(*words(folders, systems=(), reference=False))
    assert "errors compares with a reference" in refused(*words(folders, "--style", "errors", reference=False))
    lone = ["overlay", "-o", str(folders / "x.png"), "--images", str(folders / "images"), "--system",
            f"A={folders / 'A/a.nii.gz'}"]  # fmt: skip
    assert "is the file of a single case, but there are 2" in refused(*lone)
    assert main([*lone, "--cases", "a"]) == 0
    (folders / "none").mkdir()
    assert "no image of channel 0" in refused(*words(folders, systems=("none",)))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("images/a_0000.nii.gz", lambda path: path.write_bytes(path.read_bytes()[:-60]), "is truncated"),
        ("labels/a.nii.gz", lambda path: save(path, phantom()[1], (1.0, 2.0, 5.0)), "on different grids"),
        ("B/a.nii.gz", lambda path: save(path, np.full((40, 20, 6), np.nan, np.float32)), "NaN"),
        ("dataset.json", lambda path: path.write_text("{"), "is not valid JSON"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_nothing_is_drawn(folders, refused, name, damage, said):
    damage(folders / name)
    error = refused(*words(folders, "--cases", "a"))
    assert str(folders / name) in error
    assert said in error
    assert not (folders / "figure.png").exists()
