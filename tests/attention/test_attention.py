"""``nnUNetv2_eccam attention`` through the command: what is written lines up with the image, and is what it says."""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from attention_models import Plan, centre_mm, slices_first, write_model, write_spot
from PIL import Image

from nnunetv2_eccam import cli
from nnunetv2_eccam.files import read_json, write_json

QUICK = ("--dpi", "50", "-device", "cpu", "--disable_progress_bar")


def attention(*words: object) -> int:
    return cli.main(["attention", *QUICK, *map(str, words)])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "coa", Plan())


@pytest.fixture(scope="module")
def spot(tmp_path_factory):
    return write_spot(tmp_path_factory.mktemp("images"))


def written(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.glob(f"*{ending}"))


# Reader, orientation, spacing of the image (right, front, head), oblique, downsampling.
GRIDS = [
    ("SimpleITKIO", "LPS", (1.0, 1.0, 3.0), True, "stride"),
    ("NibabelIO", "PIR", (0.8, 1.25, 3.0), False, "max_pool"),
    ("NibabelIOWithReorient", "LSA", (0.8, 0.8, 3.0), True, "stride"),
    ("SimpleITKIOWithReorient", "AIL", (0.8, 1.0, 3.0), False, "max_pool"),
]


@pytest.mark.parametrize(("reader", "orientation", "spacing", "oblique", "downsampling"), GRIDS)
def test_a_bright_spot_lights_up_where_it_is(tmp_path, reader, orientation, spacing, oblique, downsampling):
    transpose = slices_first(orientation, reader)
    plan = Plan(reader=reader, transpose=transpose, switches={"downsampling": downsampling})
    folder, image = write_model(tmp_path / "model", plan), write_spot(tmp_path, orientation, spacing, oblique)
    words = ("-m", folder, "--layer", "encoder.stages.3")
    assert attention("activation", "-i", image.path, "-o", tmp_path / "out", *words) == 0
    source = nibabel.load(image.path)
    (path,) = written(tmp_path / "out", ".nii.gz")
    shown = nibabel.load(path)
    assert shown.shape == source.shape
    assert shown.get_data_dtype() == np.float32
    np.testing.assert_array_equal(shown.affine, source.affine)
    for code in ("qform_code", "sform_code", "xyzt_units"):
        assert shown.header[code] == source.header[code]
    np.testing.assert_array_equal(shown.get_qform(), source.get_qform())
    # The layer's positions are 8 mm apart; half a position off would be 4 mm in each direction.
    assert np.abs(centre_mm(path) - image.centre_mm).max() < 1.5
    assert not shown.get_fdata()[source.get_fdata() == 0].any()  # nnU-Net crops that off


def test_attention_gathers_at_a_bright_spot(tmp_path):
    plan = Plan(patch=(64, 64), transpose=slices_first("PIL", ""), switches={"attention_scale": 1.0})
    folder, image = write_model(tmp_path / "model", plan), write_spot(tmp_path, "PIL")
    assert attention("spatial", "-i", image.path, "-o", tmp_path / "out", "-m", folder) == 0
    files = written(tmp_path / "out", ".nii.gz")
    assert [path.name for path in files] == [f"case_7_spatial_U-Net_+_CoA_{name}.nii.gz" for name in ("CoA", "SC")]
    for path in files:
        assert np.abs(centre_mm(path) - image.centre_mm).max() < 3.0


def test_gates_in_two_dimensions_and_cbam_in_three(tmp_path, spot):
    gates = write_model(tmp_path / "gates", Plan("nnUNetTrainerECCaM_AttentionUNet"))
    cbam = Plan("nnUNetTrainerECCaM_UNet_CBAM", patch=(6, 32, 32), spacing=(3.0, 1.0, 1.0))
    systems = ("--system", f"gate={gates}", "--system", f"CBAM={write_model(tmp_path / 'cbam', cbam)}")
    assert attention("spatial", "-i", spot.path, "-o", tmp_path, *systems) == 0
    for name in ("gate", "CBAM"):
        values = nibabel.load(tmp_path / f"case_7_spatial_{name}.nii.gz").get_fdata()
        assert 0 <= values.min() < values.max() <= 1
    assert np.abs(centre_mm(tmp_path / "case_7_spatial_gate.nii.gz") - spot.centre_mm).max() < 3.5


def test_class_activation_beside_each_other(tmp_path, spot, model):
    three = write_model(tmp_path / "three", Plan(patch=(6, 32, 32), spacing=(3.0, 1.0, 1.0)))
    plain = write_model(tmp_path / "plain", Plan("nnUNetTrainerECCaM_UNet"))
    systems = [word for name, folder in (("2D", model), ("3D", three), ("plain", plain))
               for word in ("--system", f"{name}={folder}")]  # fmt: skip
    assert attention("cam", "-i", spot.path, "-o", tmp_path, *systems, "--reference", spot.mask, "--dpi", "150") == 0
    for name in ("2D", "3D", "plain"):
        path = tmp_path / f"case_7_cam_{name}.nii.gz"
        assert np.abs(centre_mm(path) - spot.centre_mm).max() < 3.5
        assert nibabel.load(path).get_fdata().min() >= 0
    with Image.open(tmp_path / "case_7_cam.png") as picture:
        assert picture.width > 1000  # 182 mm at 150 dpi


def test_strength_of_the_features_that_leave_the_attention(tmp_path, spot, model):
    assert attention("activation", "-i", spot.path, "-o", tmp_path, "--system", f"CoA={model}", "--rows", 1) == 0
    assert np.abs(centre_mm(tmp_path / "case_7_activation_CoA.nii.gz") - spot.centre_mm).max() < 3.5


def test_channel_weights_as_tables(tmp_path, spot, model):
    se = write_model(tmp_path / "se", Plan("nnUNetTrainerECCaM_UNet_SE", patch=(6, 32, 32), spacing=(3.0, 1.0, 1.0)))
    systems = ("--system", f"CoA={model}", "--system", f"SE={se}")
    assert attention("channels", "-i", spot.path, "-o", tmp_path / "out", *systems) == 0
    files = written(tmp_path / "out", "")
    assert [path.name for path in files] == [
        f"case_7_channels_{name}.csv" for name in ("CoA_bottleneck.attention.channel", "SE_bottleneck.attention")
    ]
    for path in files:
        table = pd.read_csv(path)
        assert table.columns.tolist() == ["channel", "mean", "lowest", "highest"]
        assert table["channel"].tolist() == list(range(8))
        assert ((table["lowest"] > 0) & (table["lowest"] <= table["mean"])).all()
        assert ((table["mean"] <= table["highest"]) & (table["highest"] < 1)).all()
        assert (table["lowest"] < table["highest"]).any()


def test_the_picture_takes_slices_plane_window_and_format(tmp_path, spot, model):
    words = ("--slices", "4,5", "--axis", "axial", "--window", "150", "300", "--format", "svg", "--scale", "case")
    assert attention("spatial", "-i", spot.path, "-o", tmp_path, "-m", model, "--map", "SC", *words) == 0
    text = (tmp_path / "case_7_spatial.svg").read_text()
    for part in ("slice 4", "slice 5", "level 150", "Axial slices, seen from the feet", "Each column", "R", "low"):
        assert part in text
    assert len(written(tmp_path, ".nii.gz")) == 1


def test_an_image_of_two_channels_in_one_file_or_two(tmp_path, spot):
    model = write_model(tmp_path / "model", Plan(channels=("T1", "T2")))
    second, image = write_spot(tmp_path, name="other"), nibabel.load(spot.path)
    both = tmp_path / "both.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.stack([image.get_fdata()] * 2, -1), image.affine), both)
    for files in ((spot.path, second.path), (both,)):
        assert attention("spatial", "-i", *files, "-o", tmp_path, "-m", model, "--channel", 1, "--map", "CoA") == 0
    for name in ("case_7", "both"):
        path = tmp_path / f"{name}_spatial_U-Net_+_CoA_CoA.nii.gz"
        assert nibabel.load(path).shape == image.shape
        assert np.abs(centre_mm(path) - spot.centre_mm).max() < 2


def test_a_photograph(tmp_path):
    pixels = np.zeros((60, 44, 3), np.uint8)
    pixels[5:55, 4:40] = 90
    pixels[30:46, 10:26] = 250
    Image.fromarray(pixels).save(tmp_path / "photo_0000.png")
    model = write_model(tmp_path / "model", Plan(reader="NaturalImage2DIO", channels=("R", "G", "B")))
    words = ("-i", tmp_path / "photo_0000.png", "-m", model, "--layer", "encoder.stages.3")
    assert attention("activation", "-o", tmp_path, *words) == 0
    shown = nibabel.load(tmp_path / "photo_activation_U-Net_+_CoA.nii.gz").get_fdata()
    assert shown.shape == (44, 60, 1)
    assert np.abs(np.argwhere(shown > 0.9 * shown.max()).mean(0) - (17.5, 37.5, 0)).max() < 3


def test_model_by_data_set_configuration_and_trainer(tmp_path, spot, nnunet_base):
    name = "nnUNetTrainerECCaM_UNet_CoA"
    write_model(nnunet_base / "results" / "Dataset950_Spot" / f"{name}__nnUNetPlans__model", Plan())
    (nnunet_base / "raw" / "Dataset950_Spot").mkdir(exist_ok=True)
    words = ("-d", "950", "-c", "model", "-tr", name, "-f", "0", "--map", "CoA")
    assert attention("spatial", "-i", spot.path, "-o", tmp_path, *words) == 0
    assert len(written(tmp_path, ".nii.gz")) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-f", "3"), "it has one for 0: give -f 0"),
        (("-f", "0", "1"), "folds are networks of their own; give one"),
        (("--map", "gate"), "it has CoA at bottleneck.attention, SC at bottleneck.attention.spatial"),
        (("--layer", "encoder"), "no such map"),
        (("--slices", "4,99"), "there is no slice 99"),
        (("--slices", "four"), "--slices four"),
        (("--rows", "0"), "--rows 0"),
        (("--window", "bright"), "--window bright is not a window"),
        (("--channel", "-1"), "--channel -1: the image"),
        (("--channel", "1"), "--channel 1: the image has 1 channels, counted from 0: MRI"),
        (("--reference", "nowhere.nii.gz"), "nowhere.nii.gz does not exist"),
        (("-i", "cut.nii.gz"), "cut.nii.gz is truncated"),
        (("-step_size", "2"), "-step_size 2"),
        (("-chk", "checkpoint_best.pth"), "it has none"),
        (("--system", "x=y"), "leave out -m"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, spot, model, refused, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("cut.nii.gz").write_bytes(spot.path.read_bytes()[:-99])
    given = ("-i", spot.path, "-m", model, "-o", tmp_path / "out")
    assert message in refused("attention", *QUICK, "spatial", *given, *words)
    assert not written(tmp_path / "out", ".nii.gz")


@pytest.mark.parametrize(
    ("trainer", "words", "message"),
    [
        ("UNet_SE", ("spatial",), "has no attention of positions; it has SE (channels)"),
        ("UNet", ("activation",), "has no attention whose output could be shown; name one of its layers"),
        ("UNet", ("channels",), "it has none at all"),
        ("UNet", ("cam", "--label", "liver"), "has no label liver; it has spot"),
        ("UNet", ("cam", "--layer", "neck"), "has no layer neck; it has encoder"),
        ("UNet", ("cam", "--layer", "encoder"), "not a map of the image"),
    ],
)
def test_what_a_network_does_not_have(tmp_path, spot, refused, trainer, words, message):
    folder = write_model(tmp_path / "model", Plan(f"nnUNetTrainerECCaM_{trainer}"))
    assert message in refused("attention", *QUICK, *words, "-i", spot.path, "-o", tmp_path, "-m", folder)


def test_of_several_systems_all_are_checked_before_the_first_is_run(tmp_path, spot, model, refused):
    se = write_model(tmp_path / "se", Plan("nnUNetTrainerECCaM_UNet_SE"))
    systems = ("--system", f"CoA={model}", "--system", f"SE={se}")
    error = refused("attention", *QUICK, "spatial", "-i", spot.path, "-o", tmp_path, *systems)
    assert "has no attention of positions" in error
    assert not written(tmp_path, ".nii.gz")


def test_systems_need_names_and_files_of_their_own(tmp_path, spot, model, refused):
    for names, message in (
        (("A B=", "A_B="), "files of one name"), (("A=", "A="), "is given twice"), (("",), "has no name or no folder")
    ):  # fmt: skip
        systems = [word for name in names for word in ("--system", f"{name}{model}")]
        assert message in refused("attention", *QUICK, "channels", "-i", spot.path, "-o", tmp_path, *systems)


def test_the_second_stage_of_a_cascade_is_refused(tmp_path, spot, refused):
    folder = write_model(tmp_path / "model", Plan(channels=("MRI", "spot of the first stage")))
    plans, description = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    plans["configurations"]["model"]["previous_stage"] = "first"
    del description["channel_names"]["1"]
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", description)
    error = refused("attention", *QUICK, "cam", "-i", spot.path, "-o", tmp_path, "-m", folder)
    assert "is the second model of a cascade" in error
