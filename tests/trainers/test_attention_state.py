"""What a training says of its attention, where it is asked to, and nnU-Net's own record beside it."""

import math
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from small_training import make_trainer

from nnunetv2_eccam import trainers
from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation
from nnunetv2_eccam.trainers.attention_state import attention_state, is_wanted


def fusion(scale) -> torch.nn.Module:
    ops = LayerOps(torch.nn.Conv2d)
    attention = CollaborativeAttention(ChannelCorrelation(6, ops), SpatialCorrelation(scale))
    return torch.nn.ModuleDict({"place": CoAGMuSFu(6, ops, attention, None, residual=True)})


@pytest.mark.parametrize(("scale", "entropy"), [(1e-9, 1.0), (1e6, 0.0)])
def test_the_entropy_is_one_where_all_positions_count_alike_and_zero_where_one_does(scale, entropy):
    module = fusion(scale)
    module.forward = module["place"].forward
    assert attention_state(module, torch.randn(2, 6, 4, 5))["place/entropy"] == pytest.approx(entropy, abs=1e-4)


def test_the_numbers_are_those_of_the_formulas():
    module = fusion("1/sqrt(C)")
    module.forward = module["place"].forward
    features = torch.randn(2, 6, 4, 5)
    state = attention_state(module, features)
    gates = module["place"].attention.channel.channel_weights(features).detach()
    assert [state[f"place/gate_{name}"] for name in ("min", "mean", "max")] == pytest.approx(
        [float(gates.min()), float(gates.mean()), float(gates.max())]
    )
    columns = features.flatten(2)
    correlation = (columns.transpose(1, 2) @ columns / math.sqrt(6)).softmax(2)
    entropy = -(correlation * correlation.log()).sum(2).mean() / math.log(20)
    assert state["place/entropy"] == pytest.approx(float(entropy), abs=1e-5)
    assert state["place/gain_max"] == 0


def test_nnunets_record_of_a_training_and_the_attention_behind_a_switch(nnunet_base, small_dataset, monkeypatch):
    monkeypatch.setenv("nnUNet_log_attention", "1")
    trainer = make_trainer(trainers.nnUNetTrainerECCaM_1epoch, nnunet_base, small_dataset())
    trainer.logger.loggers.append(recorder := Mock())  # of Weights & Biases, which needs an account
    trainer.run_training()
    folder = Path(trainer.output_folder)
    assert (folder / "progress.png").stat().st_size > 10_000
    keys = {call.args[0] for call in recorder.log.call_args_list}
    assert {"train_losses", "val_losses", "mean_fg_dice", "attention/bottleneck/entropy"} <= keys
    log = sorted(folder.glob("training_log_*.txt"))[-1].read_text()
    assert log.count("Attention at bottleneck: entropy ") == 1
    saved = torch.load(folder / "checkpoint_final.pth", weights_only=False)["logging"]
    assert {len(values) for values in saved.values()} == {1}
    monkeypatch.setenv("nnUNet_log_attention", "0")
    assert not is_wanted()


def test_a_network_without_the_module_has_nothing_to_say():
    assert attention_state(torch.nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 4, 4)) == {}
