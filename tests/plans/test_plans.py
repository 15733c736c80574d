"""Plans overrides: what enters the plans, what stays, and what is refused with what is wrong."""

import json
import math
import os
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from unet_plans import plan

from nnunetv2_eccam.architectures.from_plans import CLASS_NAME
from nnunetv2_eccam.cli import main
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.plans.batch_size import dataset_voxels, estimate_batch_size
from nnunetv2_eccam.plans.configuration import make_configuration
from nnunetv2_eccam.plans.overrides import load_override, shipped_overrides

DATASET_JSON = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1}, "numTraining": 16}


def plans_with(patch=(160, 192), n_stages=6) -> dict:
    """Plans as nnU-Net writes them, with the keys that are read here."""
    dimensions_3 = {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]],
                    "kernel_sizes": [[1, 3, 3], [1, 3, 3], *[[3, 3, 3]] * 4]}  # fmt: skip
    return {
        "dataset_name": "Dataset901_Organ",
        "plans_name": "nnUNetPlans",
        "original_median_shape_after_transp": [88, 143, 191],
        "configurations": {
            "2d": {
                "data_identifier": "nnUNetPlans_2d",
                "batch_size": 78,
                "patch_size": list(patch),
                "median_image_size_in_voxels": [143.0, 191.5],
                "spacing": [0.625, 0.625],
                "architecture": plan(
                    n_stages,
                    features_per_stage=[min(32 * 2**i, 512) for i in range(n_stages)],
                    n_conv_per_stage_decoder=[2] * (n_stages - 1),
                ),
            },
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "batch_size": 2,
                "patch_size": [20, 320, 256],
                "median_image_size_in_voxels": [20.0, 320.0, 319.0],
                "spacing": [3.6, 0.625, 0.625],
                "architecture": plan(
                    6,
                    3,
                    features_per_stage=[32, 64, 128, 256, 320, 320],
                    n_conv_per_stage_decoder=[2] * 5,
                    **dimensions_3,
                ),
            },
            "mine": {"inherits_from": "2d", "batch_size": 5},
        },
    }


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Path:
    """A preprocessed data set's folder, 901."""
    folder = tmp_path / "preprocessed" / "Dataset901_Organ"
    folder.mkdir(parents=True)
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans_with(), indent=4))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return folder


def custom(tmp_path: Path, **entry) -> str:
    file = tmp_path / "my_override.json"
    file.write_text(json.dumps({"configurations": {"2d_mine": {"inherits_from": "2d", **entry}}}))
    return str(file)


# --- what is added ------------------------------------------------------------------------------------


def test_every_shipped_override_fits_nnunets_plans_and_resolves_there(dataset, capsys):
    papers = {f"paper_{name}" for name in ("msd_pancreas", "tcia_pancreas", "kits19", "cardiac")}
    assert papers | {"practical", "trial", "practical_3d", "trial_3d"} == set(shipped_overrides())
    for name in shipped_overrides():
        assert main(["plans", "901", name]) == 0
        for override in load_override(name).configurations:
            plans = PlansManager(json.loads((dataset / "nnUNetPlans.json").read_text()))
            configuration = plans.get_configuration(override.name)
            in_2d = override.name.startswith("2d")
            # preprocessed data is reused
            assert configuration.data_identifier == ("nnUNetPlans_2d" if in_2d else "nnUNetPlans_3d_fullres")
            assert configuration.spacing == ([] if in_2d else [3.6]) + [0.625, 0.625]


def test_it_is_idempotent_and_leaves_the_rest_alone(dataset, capsys):
    file = dataset / "nnUNetPlans.json"
    assert main(["plans", "901", "practical", "trial"]) == 0
    assert capsys.readouterr().out.count("  added ") == 3
    once, when = file.read_text(), file.stat().st_mtime_ns
    assert main(["plans", "Dataset901_Organ", "practical", "trial"]) == 0
    assert capsys.readouterr().out.count("  unchanged ") == 3
    assert (file.read_text(), file.stat().st_mtime_ns) == (once, when)
    written = json.loads(once)
    for name in ("2d_eccam", "2d_eccam_trial", "2d_unet_trial"):
        del written["configurations"][name]
    assert written == plans_with()
    assert [path.name for path in dataset.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "patch", "decay"),
    [("msd_pancreas", 512, 1e-4), ("tcia_pancreas", 512, 2e-4), ("kits19", 512, 1e-4), ("cardiac", 320, 2e-4)],
)
def test_the_papers_configurations_have_the_papers_numbers(dataset, name, patch, decay):
    """III: widths, norm, dilations. IV.A: sizes. IV.C: batch and weight decay."""
    main(["plans", "901", f"paper_{name}"])
    entry = json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"]["2d_eccam_paper"]
    network = entry["architecture"]["arch_kwargs"]
    assert entry["patch_size"] == [patch, patch]
    assert entry["batch_size"] == 4
    assert entry["recipe"] == {"weight_decay": decay}
    assert network["features_per_stage"] == [64, 128, 256, 512, 1024]
    assert network["dilations"] == [6, 12, 18]
    assert network["norm_op"] == "torch.nn.BatchNorm2d"
    assert network["norm_per_branch"] is True


def test_the_trial_compares_two_networks_of_the_same_size(dataset):
    main(["plans", "901", "trial"])
    entries = json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"]
    ours, plain = entries["2d_eccam_trial"], entries["2d_unet_trial"]
    assert ours["architecture"]["network_class_name"] == CLASS_NAME
    assert plain["architecture"]["network_class_name"].endswith("PlainConvUNet")
    for key in ("n_stages", "features_per_stage", "strides", "kernel_sizes", "norm_op", "nonlin"):
        assert ours["architecture"]["arch_kwargs"][key] == plain["architecture"]["arch_kwargs"][key]
    assert (ours["patch_size"], ours["batch_size"]) == (plain["patch_size"], plain["batch_size"]) == ([160, 192], 4)


def test_in_three_dimensions_strides_and_kernels_are_nnunets_and_rates_follow_each_axis(dataset):
    """A slab: 20 thick slices, which nnU-Net does not halve at every stage."""
    main(["plans", "901", "practical_3d", "trial_3d"])
    entries = json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"]
    practical, trial, plain = (
        entries[f"3d_fullres_{name}"]["architecture"]["arch_kwargs"] for name in ("eccam", "eccam_trial", "unet_trial")
    )
    parent = entries["3d_fullres"]["architecture"]["arch_kwargs"]
    for key in ("strides", "kernel_sizes"):
        assert practical[key] == parent[key]
        assert trial[key] == plain[key] == parent[key][:5]
    assert entries["3d_fullres_eccam"]["patch_size"] == [20, 320, 256]
    assert practical["features_per_stage"] == [32, 64, 128, 256, 320, 320]
    assert practical["dilations"] == [[1, 2, 2], [2, 4, 3], [3, 6, 4]]  # of a bottleneck of 5x10x8
    assert entries["3d_fullres_eccam"]["batch_size"] >= 2
    assert entries["3d_fullres_eccam_trial"]["patch_size"] == entries["3d_fullres_unet_trial"]["patch_size"]
    assert entries["3d_fullres_eccam_trial"]["patch_size"] == [20, 64, 64]
    assert trial["dilations"] == [1, 2, 3]  # of 5x4x4
    assert trial["features_per_stage"] == plain["features_per_stage"] == [8, 16, 32, 64, 128]


@pytest.mark.parametrize(
    ("parent", "capped"), [((512, 512), (192, 192)), ((208, 96), (192, 96)), ((96, 112), (96, 112))]
)
def test_the_trials_patch_is_capped_and_stays_divisible(parent, capped):
    plans = plans_with(patch=parent, n_stages=5)
    (override, _) = load_override("trial").configurations
    assert tuple(make_configuration(override, plans, DATASET_JSON, 8)["patch_size"]) == capped


# --- the batch ----------------------------------------------------------------------------------------


def test_the_estimate_for_nnunets_own_network_is_nnunets_batch(nnunet_base, small_dataset):
    """On the plans that nnU-Net itself made, with its own network, its batch comes out."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    folder = next((nnunet_base / "preprocessed").glob(f"Dataset{small_dataset()}_*"))
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((folder / "dataset.json").read_text())
    for name in ("2d", "3d_fullres"):
        configuration = plans["configurations"][name]
        architecture = configuration["architecture"]
        network = get_network_from_plans(
            architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"],
            1, len(dataset_json["labels"]), allow_init=False,
        )  # fmt: skip
        values = network.compute_conv_feature_map_size(configuration["patch_size"])
        voxels = dataset_voxels(plans, configuration, dataset_json["numTraining"])
        assert estimate_batch_size(values, configuration["patch_size"], voxels, 8) == configuration["batch_size"]


def test_the_memory_target_sets_the_batch(dataset, capsys):
    share = round(math.prod([88, 143.0, 191.5]) * 16 * 0.05 / (160 * 192))  # nnU-Net's cap: 5% of the data set
    for gigabytes, batch in (("1", 13), ("4", 53), ("8", share)):
        assert main(["plans", "901", "-gpu_memory_target", gigabytes, "practical"]) == 0
        entry = json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"]["2d_eccam"]
        assert entry["batch_size"] == batch


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"patchsize": [64, 64]}, r"unknown key 'patchsize'; known are"),
        ({"arch_kwargs": {"dilation": [1]}}, "the network dilation, which this package does not know; it knows"),
        ({"arch_kwargs": {"features_per_stage": [8, 16]}}, "features_per_stage must have 6 entries, got 2"),
        ({"patch_size": [100, 96], "arch_kwargs": {"features_per_stage": [8, 16, 32, 64, 128]}},
         "patch_size [100, 96] is not divisible by [16, 16], the product of the strides over 5 stages; "
         "the nearest that is: [96, 96]"),
        ({"patch_size": [48, 96], "arch_kwargs": {"features_per_stage": [8, 16, 32, 64, 128]}},
         "5 stages leave a bottleneck of [3, 6]"),
        ({"patch_size": [64, 64]}, "must give features_per_stage"),
        ({"arch_kwargs": {"dilations": [2, 4, 12]}}, "dilations [2, 4, 12] reach outside the bottleneck of [5, 6]"),
        ({"arch_kwargs": {"fusion": "product"}}, "fusion must be one of concatenation, series, sum"),
        ({"arch_kwargs": {"attention_scale": -1}}, "scale must be a positive number"),
        ({"network": "UNet"}, "network must be one of ECCaMUNet, PlainConvUNet, got 'UNet'"),
        ({"batch_size": 0}, "batch_size must be a number of at least 1 or 'estimate', got 0"),
        ({"patch_size": 64}, "patch_size must be a list of voxels per axis, got 64"),
        ({"recipe": {"lr": 1}}, "recipe has an unknown key 'lr'"),
        ({"inherits_from": "3d_lowres"},
         "inherits from 3d_lowres, which the plans do not have; they have 2d, 3d_fullres, mine"),
        ({"inherits_from": "3d_fullres", "arch_kwargs": {"dilations": [1, [5, 10, 8]]}},
         "dilations [1, [5, 10, 8]] reach outside the bottleneck of [5, 10, 8]"),
        ({"inherits_from": "3d_fullres", "arch_kwargs": {"dilations": [[1, 2]]}},
         "a dilation must be one number or 3, one per axis; got [1, 2]"),
    ],
)  # fmt: skip
def test_an_override_that_makes_no_sense_is_refused_and_nothing_is_written(dataset, tmp_path, refused, entry, message):
    before = (dataset / "nnUNetPlans.json").read_bytes()
    assert message in refused("plans", "901", custom(tmp_path, **entry))
    assert (dataset / "nnUNetPlans.json").read_bytes() == before


def test_a_configuration_of_somebody_else_is_kept_unless_told_otherwise(dataset, tmp_path, refused):
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps({"configurations": {"mine": {"inherits_from": "2d"}}}))
    assert "has a configuration mine that this command did not write" in refused("plans", "901", str(file))
    assert main(["plans", "901", str(file), "--overwrite"]) == 0


def test_missing_things_are_named(dataset, tmp_path, refused, monkeypatch):
    assert f"no data set 902 in {dataset.parent} (there are Dataset901_Organ)" in refused("plans", "902", "practical")
    assert "no override named exotic; there are paper_cardiac," in refused("plans", "901", "exotic")
    assert "nowhere.json does not exist" in refused("plans", "901", str(tmp_path / "nowhere.json"))
    assert "has no nnUNetResEncUNetMPlans.json" in refused("plans", "901", "practical", "-p", "nnUNetResEncUNetMPlans")
    assert "must be more than 0 GB" in refused("plans", "901", "practical", "-gpu_memory_target", "0")
    (tmp_path / "broken.json").write_text("{")
    assert "broken.json is not valid JSON" in refused("plans", "901", str(tmp_path / "broken.json"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "gone"))
    assert "gone, which is not a folder" in refused("plans", "901", "practical")
    monkeypatch.delenv("nnUNet_preprocessed")
    assert "nnUNet_preprocessed is not set" in refused("plans", "901", "practical")


def test_a_plans_file_that_cannot_be_replaced_stays_whole(dataset, refused, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = (dataset / "nnUNetPlans.json").read_bytes()
    monkeypatch.setattr(os, "replace", full)
    assert "No space left on device" in refused("plans", "901", "practical")
    assert (dataset / "nnUNetPlans.json").read_bytes() == before
    assert sorted(path.name for path in dataset.iterdir()) == ["dataset.json", "nnUNetPlans.json"]


def test_lists_and_shows(dataset, capsys, refused):
    assert main(["plans", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in shipped_overrides())
    assert main(["plans", "--show", "trial"]) == 0
    assert "2d_unet_trial" in json.loads(capsys.readouterr().out)["configurations"]
    assert main(["plans", "901"]) == 0
    shown = capsys.readouterr().out
    assert "PlainConvUNet, 6 stages" in shown
    assert "mine" in shown
    assert "there is no override named x" in refused("plans", "--show", "x")
    assert "give a data set" in refused("plans")


def test_an_override_is_refused_when_it_is_not_one(tmp_path):
    file = tmp_path / "list.json"
    file.write_text("[]")
    with pytest.raises(UserError, match="the file must be an object, got list"):
        load_override(str(file))
    file.write_text('{"configurations": {}}')
    with pytest.raises(UserError, match="must name at least one configuration"):
        load_override(str(file))
    file.write_text('{"configurations": {"a": {}}}')
    with pytest.raises(UserError, match="configuration a must say which configuration it inherits from"):
        load_override(str(file))
