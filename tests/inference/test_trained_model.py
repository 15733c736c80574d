"""A trained model's folder: broken ones are told in one line that names the file."""

import json
from pathlib import Path

import pytest
import torch
from attention_models import Plan, write_model, write_spot

from nnunetv2_eccam import cli
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.trained_model import check_model, checked_model


@pytest.fixture
def model(tmp_path) -> Path:
    return write_model(tmp_path / "model", Plan())


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


BROKEN = {
    "a checkpoint cut short": (
        "fold_0/checkpoint_final.pth", cut, "fold_0/checkpoint_final.pth is cut short or is not a checkpoint"
    ),
    "an empty checkpoint": ("fold_0/checkpoint_final.pth", lambda path: path.write_bytes(b""), "is cut short"),
    "something else as a checkpoint": (
        "fold_0/checkpoint_final.pth", lambda path: torch.save({"epoch": 1}, path), "cannot be loaded: 'trainer_name'"
    ),
    "plans that are no JSON": ("plans.json", cut, "plans.json is not valid JSON"),
    "a data set's description that is a list": (
        "dataset.json", lambda path: path.write_text("[]"), "dataset.json is not what nnU-Net writes"
    ),
    "plans without the configuration": (
        "plans.json", lambda path: path.write_text(json.dumps({**Plan().plans(), "configurations": {}})),
        "cannot be loaded: ",
    ),
    "plans that are missing": ("plans.json", Path.unlink, "plans.json does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_told_in_one_line(tmp_path, model, capsys, name):
    file, damage, message = BROKEN[name]
    damage(model / file)
    words = ("cam", "-i", write_spot(tmp_path).path, "-m", model, "-o", tmp_path / "out", "-device", "cpu")
    assert cli.main(["attention", *map(str, words)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(model) in line


def test_folds_are_checked_and_named(model):
    assert check_model(model, (0,)) == check_model(model, None) == ["0"]
    with pytest.raises(UserError, match=r"no checkpoint_final.pth for fold 1, all; it has one for 0: give -f 0"):
        check_model(model, ("0", 1, "all"))
    with pytest.raises(UserError, match=r"no checkpoint_best.pth for any fold; it has none"):
        check_model(model, None, "checkpoint_best.pth")


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("nnUNetTrainerECCaM_UNet_CoA", "does not fit this network. .* trained with ECCaMUNet"),
        ("nnUNetTrainer", "cannot be loaded: Error"),
    ],
)
def test_weights_of_another_network_do_not_fill_the_screen(model, trainer, message):
    path = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["trainer_name"] = trainer
    checkpoint["network_weights"].clear()  # of what they were trained with they still say
    checkpoint["network_weights"].update({f"of.another.network.{n}": torch.zeros(1) for n in range(500)})
    torch.save(checkpoint, path)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with pytest.raises(UserError, match=message) as caught, checked_model(model, (0,)):
        nnUNetPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(model), (0,))
    assert str(model) in str(caught.value)
    assert len(str(caught.value)) < 1000
