"""Exported networks, run by other engines: the logits that PyTorch gives, also where the network pads."""

from __future__ import annotations

import pytest
import torch
from unet_plans import plan

from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.systems import SYSTEMS
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM, nnUNetTrainerECCaMPaper

RECIPES = {"nnunet": nnUNetTrainerECCaM, "paper": nnUNetTrainerECCaMPaper}
NETWORKS = [s for s in SYSTEMS if not s.name.startswith(("alpha", "UNet_Dice", "UNet_BCE"))]
CASES = [(system, "nnunet") for system in NETWORKS] + [(NETWORKS[0], "paper")]
PADDED, FITTING = [60, 52], [64, 64]
BY_DYNAMO = [(s, r, PADDED) for s, r in CASES if not s.is_ours or s.name in ("", "UNet")]
BY_DYNAMO += [(s, r, FITTING) for s, r in CASES if s.name == ""]
"""Each class, and EC-CaM-UNet with all of its parts in both recipes: this exporter takes seconds."""


RESIDUAL = [(system, recipe, True) for system, recipe in CASES if system.name == ""]


def name_of(value) -> str:
    if value is True:
        return "residual"
    return str(value) if isinstance(value, (str, list, bool)) else value.name or "ECCaM"


def case(system, recipe, size, residual=False):
    torch.manual_seed(0)
    switches = {**RECIPES[recipe].network_switches, **system.switches}
    network = build_network(plan(3, residual=residual), FITTING, 1, 2, False, switches, system.network).eval()
    image = torch.randn(1, 1, *size)
    with torch.no_grad():
        return network, image, network(image)


def run_by_onnxruntime(network, image, file, **options) -> torch.Tensor:
    import onnxruntime

    torch.onnx.export(network, (image,), str(file), verbose=False, **options)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])


@pytest.mark.filterwarnings("ignore")  # tracing warns that a size becomes a constant
@pytest.mark.parametrize("size", [FITTING, PADDED], ids=str)
@pytest.mark.parametrize(
    ("system", "recipe", "residual"), [(*each, False) for each in CASES] + RESIDUAL, ids=name_of
)
def test_torchscript_and_the_older_onnx_exporter_give_pytorchs_logits(system, recipe, residual, size, tmp_path):
    network, image, expected = case(system, recipe, size, residual)
    traced = torch.jit.trace(network, image, check_trace=False)(image)
    with torch.no_grad():
        traced_without_gradients = torch.jit.trace(network, image, check_trace=False)(image)
    exported = run_by_onnxruntime(network, image, tmp_path / "network.onnx", dynamo=False)
    for logits in (traced, traced_without_gradients, exported):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("system", "recipe", "size"), BY_DYNAMO, ids=name_of)
def test_the_onnx_exporter_gives_pytorchs_logits(system, recipe, size, tmp_path):
    network, image, expected = case(system, recipe, size)
    exported = run_by_onnxruntime(network, image, tmp_path / "network.onnx", dynamo=True)
    torch.testing.assert_close(exported, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
