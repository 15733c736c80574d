"""What a checkpoint says of itself, and what is said where it does not fit."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from small_training import make_trainer
from torch import nn
from unet_plans import plan

import nnunetv2_eccam
from nnunetv2_eccam import trainers
from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.architectures.origin import KEY, CheckpointMismatch, Origin
from nnunetv2_eccam.cli import main
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.trainers.checkpoints import read_checkpoint, unwrapped

COMPARED = "nnunetv2_eccam.architectures.compared.attention_unet.AttentionUNet"


def network(switches=None, n_stages=3, num_classes=2, path=None, **more):
    named = {} if path is None else {"network": path}
    return build_network(plan(n_stages, **more), [32, 32], 1, num_classes, False, switches, **named)


def through_a_file(weights, tmp_path: Path):
    torch.save(weights, tmp_path / "weights.pth")
    return torch.load(tmp_path / "weights.pth", weights_only=True)  # JSON's types: nothing that needs trust


def without_origin(weights):
    """Weights as they were before they said where they come from."""
    del weights._metadata[""][KEY]
    return weights


@pytest.fixture(scope="module")
def trained(nnunet_base, small_dataset) -> Path:
    """A fold's folder after one short epoch."""
    trainer = make_trainer(trainers.nnUNetTrainerECCaM_1epoch, nnunet_base, small_dataset())
    trainer.run_training()
    return Path(trainer.output_folder)


# --- what a checkpoint says ---------------------------------------------------------------------------


def test_every_checkpoint_of_a_training_says_trainer_version_system_and_switches(trained):
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        origin = Origin.of(read_checkpoint(str(trained / name))["network_weights"])
        assert (origin.trainer, origin.system) == ("nnUNetTrainerECCaM_1epoch", "EC-CaM-UNet")
        assert origin.version == nnunetv2_eccam.__version__
        assert origin.network == "nnunetv2_eccam.architectures.eccam_unet.ECCaMUNet"
        assert origin.arguments["attention_scale"] == "1/sqrt(C)"  # a default, which a later version may change
        assert origin.arguments["num_classes"] == 3


def test_the_keys_of_a_checkpoint_are_nnunets(trained):
    checkpoint = torch.load(trained / "checkpoint_final.pth", weights_only=False)
    assert set(checkpoint) == {
        "network_weights", "optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch",
        "init_args", "trainer_name", "inference_allowed_mirroring_axes",
    }  # fmt: skip
    assert set(checkpoint["network_weights"]) == set(network_of(trained).state_dict())


def network_of(fold: Path) -> nn.Module:
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(fold.parent), (0,), "checkpoint_final.pth")
    return predictor.network


def test_a_switch_that_is_a_class_becomes_its_name(tmp_path):
    made = network({"norm_op": nn.BatchNorm2d, "dilations": (1, (2, 2))})
    arguments = Origin.of(through_a_file(made.state_dict(), tmp_path)).arguments
    assert arguments["norm_op"] == "torch.nn.modules.batchnorm.BatchNorm2d"
    assert arguments["dilations"] == [1, [2, 2]]


def test_an_entry_that_a_later_version_writes_otherwise_is_read_as_far_as_it_is_known():
    weights = network().state_dict()
    entry = weights._metadata[""][KEY]
    entry["invented later"] = 1
    assert Origin.of(weights).network == entry["network"]
    del entry["arguments"]
    assert Origin.of(weights) is None
    weights._metadata[""][KEY] = "text"
    assert Origin.of(weights) is None


# --- what loads as before -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, COMPARED])
def test_weights_without_origin_load(path, recwarn):
    made = network(path=path)
    made.load_state_dict(without_origin(network(path=path).state_dict()))
    made.load_state_dict(dict(network(path=path).state_dict()))  # copied entry by entry
    assert not recwarn.list


def test_the_same_network_loads_whoever_trained_it_in_whatever_version_and_however_it_began(recwarn):
    weights = network({"branch_init": "he_each"}).state_dict()
    weights._metadata[""][KEY] |= {"version": "99.0", "trainer": "nnUNetTrainerECCaM_300epochs"}
    network().load_state_dict(weights)
    assert not recwarn.list


@pytest.mark.parametrize("saved_as", ["itself", "before", "several GPUs"])
def test_a_checkpoint_is_continued_from(trained, nnunet_base, small_dataset, tmp_path, saved_as, capsys):
    checkpoint = torch.load(trained / "checkpoint_final.pth", weights_only=False)
    weights = checkpoint["network_weights"]
    expected = {name: value.clone() for name, value in weights.items()}
    if saved_as == "before":
        without_origin(weights)
    elif saved_as == "several GPUs":
        checkpoint["network_weights"] = {f"module.{name}": value for name, value in weights.items()}
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    trainer = make_trainer(trainers.nnUNetTrainerECCaM_1epoch, nnunet_base, small_dataset())
    trainer.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert all(torch.equal(value, expected[name]) for name, value in trainer.network.state_dict().items())
    assert trainer.current_epoch == 1
    assert "WARNING" not in capsys.readouterr().out


class Stopped(Exception):
    """The power is cut."""


def drawing_by_epoch(trainer, stop_before: int | None = None):
    """The trainer, with the same samples for the same epoch whenever it begins; and ended before one, if asked."""
    begin = trainer.on_train_epoch_start

    def begin_with_seed():
        if trainer.current_epoch == stop_before:
            raise Stopped
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(trainer.current_epoch)
        begin()

    trainer.on_train_epoch_start = begin_with_seed
    return trainer


@pytest.mark.parametrize("recipe", [trainers.nnUNetTrainerECCaM, trainers.nnUNetTrainerECCaMPaper])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(nnunet_base, small_dataset, recipe, monkeypatch):
    """Weights, momentum and moments, learning rate, moving averages, the choice of the best epoch."""
    monkeypatch.setattr(recipe, "epochs", 3)  # which are saved each
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda *_: None)  # it takes longer than an epoch here
    monkeypatch.setattr(  # else the paper's recipe takes an epoch's length from the data
        recipe, "get_tr_and_val_datasets", trainers.nnUNetTrainerECCaM.get_tr_and_val_datasets
    )
    ends = []
    for stop in (None, 1):
        trainer = make_trainer(recipe, nnunet_base, small_dataset())
        torch.manual_seed(7)  # of the first weights
        drawing_by_epoch(trainer, stop)
        if stop is not None:
            with pytest.raises(Stopped):
                trainer.run_training()
            trainer = drawing_by_epoch(make_trainer(recipe, nnunet_base, small_dataset()))
            torch.manual_seed(8)  # what it goes on with comes from the file alone
            maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)
            assert trainer.current_epoch == stop
        trainer.run_training()
        ends.append(read_checkpoint(str(Path(trainer.output_folder, "checkpoint_final.pth"))))
        shutil.rmtree(trainer.output_folder)  # or the next would go on from this one
    whole, continued = ends
    for name, value in whole["network_weights"].items():
        assert torch.equal(value, continued["network_weights"][name]), name
    assert whole["current_epoch"] == continued["current_epoch"] == 3
    states = [end["optimizer_state"] for end in ends]
    for parameter, state in states[0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, states[1]["state"][parameter][name]), name
    for name in ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs"):
        logged = [end["logging"][name] for end in ends]
        assert len(logged[0]) == 3
        assert logged[0] == logged[1], name


def test_the_compiled_network_saves_and_loads_without_the_wrappers_names(tmp_path):
    made, compiled = network(), torch.compile(network(), backend="eager")
    assert unwrapped(compiled) is compiled._orig_mod
    weights = through_a_file(unwrapped(compiled).state_dict(), tmp_path)
    assert Origin.of(weights) is not None
    made.load_state_dict(weights)


# --- what does not fit --------------------------------------------------------------------------------


def refusal(into: nn.Module, weights) -> str:
    with pytest.raises(CheckpointMismatch) as caught:
        into.load_state_dict(weights)
    assert isinstance(caught.value, (UserError, RuntimeError))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def said_by(trainer: str, made):
    made.origin = replace(made.origin, trainer=trainer, system=trainer.removeprefix("nnUNetTrainerECCaM_"))
    return made


def test_another_trainers_weights_name_both_and_the_way_out():
    ours = said_by("nnUNetTrainerECCaM_Sum", network({"fusion": "sum"}))
    theirs = said_by("nnUNetTrainerECCaM_Other", network())
    said = refusal(ours, theirs.state_dict())
    assert "trained with nnUNetTrainerECCaM_Other (Other) of nnunetv2-eccam" in said
    assert "here is nnUNetTrainerECCaM_Sum (Sum)" in said
    assert "they differ in fusion (concatenation, here sum)" in said
    assert "-tr nnUNetTrainerECCaM_Other" in said
    assert "has and this network has not: bottleneck.fuse.conv.weight" in said


def test_another_configurations_weights_say_what_has_changed():
    said = refusal(network(n_stages=3), network(n_stages=3, features_per_stage=[3, 4, 5], num_classes=4).state_dict())
    assert "features_per_stage ([3, 4, 5], here [2, 4, 8])" in said
    assert "num_classes (4, here 2)" in said
    assert "plans.json that lies beside" in said
    assert "Weights that the checkpoint has in another shape: encoder.stages.0.0.square.weight of 3x1x3x3 ins" in said


def test_another_versions_weights_name_the_version_to_install():
    weights = network({"multi_scale": False}).state_dict()
    weights._metadata[""][KEY]["version"] = "0.0.7"
    said = refusal(network(), weights)
    assert "Install nnunetv2-eccam 0.0.7" in said
    assert f"here is ECCaMUNet of nnunetv2-eccam {nnunetv2_eccam.__version__}" in said


def test_weights_without_origin_that_do_not_fit_say_that_and_what_to_check():
    said = refusal(network(), without_origin(network(n_stages=4).state_dict()))
    assert "does not say what it was trained with" in said
    assert "(-tr), configuration (-c) and plans (-p)" in said


def test_weights_of_this_very_network_that_were_changed_are_called_so():
    weights = network().state_dict()
    del weights["decoder.seg_layers.1.bias"]
    assert "weights were changed after the training" in refusal(network(), weights)


@pytest.mark.parametrize(
    ("switches", "difference"),
    [
        ({"attention_scale": 1.0}, "attention_scale (1.0, here 1/sqrt(C))"),
        ({"dilations": [1, 2, 9]}, "dilations ([1, 2, 9], here [2, 3, 4])"),
    ],
)
def test_weights_that_fit_a_network_that_computes_something_else_are_loaded_with_a_warning(switches, difference):
    with pytest.warns(UserWarning, match="another network") as caught:
        network().load_state_dict(network(switches).state_dict())
    assert difference in str(caught[0].message)


def test_torchs_own_words_stay_where_nothing_is_to_be_explained():
    made = network()
    weights = made.state_dict()
    weights["decoder.seg_layers.1.bias"] = "not a tensor"
    with pytest.raises(RuntimeError, match=r"expected torch\.Tensor"):
        made.load_state_dict(weights)


# --- where nnU-Net loads ------------------------------------------------------------------------------


def test_continuing_with_other_plans_is_explained(trained, nnunet_base, small_dataset):
    trainer = make_trainer(trainers.nnUNetTrainerECCaM_1epoch, nnunet_base, small_dataset())
    arguments = trainer.configuration_manager.configuration["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [3] * arguments["n_stages"]
    with pytest.raises(CheckpointMismatch) as caught:
        trainer.load_checkpoint(str(trained / "checkpoint_final.pth"))
    said = str(caught.value)
    assert str(trained / "checkpoint_final.pth") in said
    assert "features_per_stage ([4, 6, 8, 10" in said


def test_continuing_with_other_rates_is_said_aloud(trained, nnunet_base, small_dataset, capsys):
    switches = {"dilations": [1, 1, 1]}
    trainer = make_trainer(trainers.nnUNetTrainerECCaM_1epoch, nnunet_base, small_dataset(), switches=switches)
    trainer.load_checkpoint(str(trained / "checkpoint_final.pth"))
    assert "here [1, 1, 1]" in " ".join(capsys.readouterr().out.split())
    assert "here [1, 1, 1]" in " ".join(Path(trainer.log_file).read_text().split())


def test_a_checkpoint_of_the_other_recipes_optimiser_is_refused_before_the_first_step(
    trained, nnunet_base, small_dataset, tmp_path
):
    checkpoint = torch.load(trained / "checkpoint_final.pth", weights_only=False)
    trainer = make_trainer(trainers.nnUNetTrainerECCaM_1epoch, nnunet_base, small_dataset())
    trainer.initialize()
    checkpoint["optimizer_state"] = torch.optim.Adam(trainer.network.parameters()).state_dict()
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match="trained with Adam and this trainer uses SGD"):
        trainer.load_checkpoint(str(tmp_path / "checkpoint.pth"))


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:2000])


def without_logging(file: Path) -> None:
    checkpoint = torch.load(file, weights_only=False)
    del checkpoint["logging"]
    torch.save(checkpoint, file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damaged, "cannot be read .* it is damaged"),
        (Path.unlink, "there is no checkpoint"),
        (lambda file: torch.save({"state_dict": {}}, file), "not a checkpoint of nnU-Net"),
        (without_logging, "cannot be continued from: it has no 'logging'"),
    ],
)
def test_a_file_that_is_no_whole_checkpoint_is_named(trained, nnunet_base, small_dataset, tmp_path, spoil, message):
    file = Path(shutil.copy(trained / "checkpoint_final.pth", tmp_path))
    spoil(file)
    trainer = make_trainer(trainers.nnUNetTrainerECCaM_1epoch, nnunet_base, small_dataset())
    with pytest.raises(UserError, match=message):
        trainer.load_checkpoint(str(file))


# --- the command --------------------------------------------------------------------------------------


def test_the_command_says_what_a_model_was_trained_with(trained, tmp_path, capsys):
    assert main(["checkpoint", str(trained)]) == 0
    said = capsys.readouterr().out
    assert said.count("nnUNetTrainerECCaM_1epoch\n") == 2  # the final and the best
    assert main(["checkpoint", str(trained.parent)]) == 0
    assert said in capsys.readouterr().out
    assert "2d, fold 0" in said
    assert f"nnunetv2-eccam {nnunetv2_eccam.__version__}\n" in said
    assert '"1/sqrt(C)"' in said
    old = torch.load(trained / "checkpoint_final.pth", weights_only=False)
    without_origin(old["network_weights"])
    torch.save(old, tmp_path / "checkpoint_old.pth")
    assert main(["checkpoint", str(tmp_path / "checkpoint_old.pth")]) == 0
    assert "nnunetv2-eccam not said" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["checkpoint", str(tmp_path / "empty")]) == 1
    assert "has no checkpoint_" in capsys.readouterr().err
