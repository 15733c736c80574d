"""The demonstration: what it refuses, and that it goes from a phantom to a table and a picture, stopped in between."""

import argparse
import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from nnunetv2_eccam.demo import command
from nnunetv2_eccam.errors import UserError

TRAINER = '''
from pathlib import Path
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class TinyDemo(nnUNetTrainer):
    """Two epochs of one small step, no mirroring; fails after the first while a file beside this one says so."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1, 1
        self.configuration_manager.configuration["batch_size"] = 2

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        *others, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return (*others, None)

    def on_epoch_end(self):
        super().on_epoch_end()
        if Path(__file__).with_name("fail").exists():
            self.save_checkpoint(self.output_folder + "/checkpoint_best.pth")
            raise RuntimeError("out of memory")
'''


def options_of(*words) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([*map(str, words), "--device", "cpu"])


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_ends_with_table_and_picture(tmp_path, monkeypatch, capfd):
    work, trainers = tmp_path / "work folder", tmp_path / "trainers"
    trainers.mkdir()
    (trainers / "tiny_demo.py").write_text(TRAINER)
    (trainers / "fail").touch()
    monkeypatch.setattr(command, "PHANTOM_LABELLED", 6)
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # must not reach the planning
    options = options_of("--work-dir", work, "--hold-out", 1, "--trainer", "TinyDemo", "-c", "2d_unet_trial")

    with pytest.raises(UserError, match="a command has failed"):
        command.run(options)
    out, err = capfd.readouterr()
    assert "out of memory" in out + err
    for line in (
        f"export nnUNet_raw='{work}/nnUNet_raw'",
        "nnUNetv2_eccam convert msd-heart download --id 502 --name HeartPhantom --hold-out 1 --seed 0",
        "nnUNetv2_plan_and_preprocess -d 502 -c 2d -np 1 -npfp 1 --verify_dataset_integrity",
        "nnUNetv2_eccam plans 502 trial",
        "nnUNet_n_proc_DA=0 nnUNetv2_train 502 2d_unet_trial 0 -tr TinyDemo -device cpu",
    ):
        assert line in out + err

    (trainers / "fail").unlink()
    assert command.run(options) == 0
    out, err = capfd.readouterr()
    assert "nnUNetv2_eccam convert" not in err, "what is done is not done again"
    (log,) = sorted((work / "nnUNet_results").rglob("training_log_*.txt"))[1:]
    assert "Epoch 0" not in log.read_text(), "the training goes on from its checkpoint"
    (case,) = [path.name.removesuffix(".nii.gz") for path in (work / "predictions").glob("*.nii.gz")]
    assert case in (work / "scores_volume.csv").read_text()
    assert "DSC" in out[-2000:]
    assert imread(work / "demo.png").shape[1] > 500
    assert out.splitlines()[-2:] == [f"Table:   {work / 'scores_volume.csv'}", f"Picture: {work / 'demo.png'}"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "data does not exist; give the folder with imagesTr"),
        (["other/readme"], "data is not the folder with imagesTr"),
        (["labelsTr/a.nii.gz", "imagesTr/b.nii.gz"], "1 or more of the 0 labelled cases must be held out"),
        (["labelsTr/._a.nii.gz", "imagesTr/._a.nii.gz"], "1 or more of the 0 labelled cases must be held out"),
    ],
)
def test_no_download_and_options_out_of_range_are_refused_before_anything_is_written(tmp_path, made, said):
    data = tmp_path / "data"
    for name in made:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
        labels = {"0": "background", "1": "left atrium"}
        (data / "dataset.json").write_text(json.dumps({"labels": labels, "modality": {"0": "MRI"}}))
    with pytest.raises(UserError, match=said):
        command.run(options_of("--data", data, "--work-dir", tmp_path / "work"))
    for words in (("--hold-out", 0), ("--hold-out", 12), ("--seed", -1)):
        with pytest.raises(UserError, match=words[0]):
            command.run(options_of("--work-dir", tmp_path / "work", *words))
    assert not (tmp_path / "work").exists()


def test_a_work_folder_of_somebody_elses_or_that_cannot_be_is_refused_and_left_alone(tmp_path, refused):
    (tmp_path / "precious").touch()
    for folder, said in (
        (tmp_path, "is not empty and not a work folder"), (tmp_path / "precious", "a file is there"),
        (tmp_path / "precious" / "below", "Not a directory"),
    ):  # fmt: skip
        line = refused("demo", "-o", folder)
        assert line.startswith(f"nnUNetv2_eccam demo: error: {folder}")
        assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("configuration", command.CONFIGURATIONS)
def test_each_configuration_is_one_that_its_override_adds(configuration):
    override = command.CONFIGURATIONS[configuration]
    added = Path(command.__file__).parents[2] / "plans_overrides" / f"{override}.json"
    assert override is None or configuration in json.loads(added.read_text())["configurations"]
