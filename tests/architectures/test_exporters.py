"""Exported networks, run by other engines: the logits that PyTorch gives, also where the network pads."""

import pytest
import torch
from unet_plans import plan

from nnunetv2_eccam.architectures.from_plans import CLASS_NAME, build_network
from nnunetv2_eccam.systems import SYSTEMS
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM, nnUNetTrainerECCaMPaper

RECIPES = {"nnunet": nnUNetTrainerECCaM, "paper": nnUNetTrainerECCaMPaper}
LARGE = ("HRNet", "DeepLabV3Plus", "SegFormer", "DANet")  # backbones of timm and segmentation_models_pytorch
OURS = ("", "UNet_SE", "UNet_CBAM")
KINDS = [s for s in SYSTEMS if (s.name in OURS if s.network == CLASS_NAME else s.name not in LARGE)]
CASES = [(system, "nnunet", False) for system in KINDS] + [(KINDS[0], "paper", False), (KINDS[0], "nnunet", True)]
"""Classes of network and attention that are written here, and EC-CaM-UNet in both recipes and on a residual plan."""
PADDED, FITTING = [60, 52], [64, 64]


def name_of(value) -> str:
    if isinstance(value, bool):
        return "residual" if value else "plain"
    return value if isinstance(value, str) else value.name or "ECCaM"


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
@pytest.mark.parametrize(("system", "recipe", "residual"), CASES, ids=name_of)
def test_torchscript_and_the_older_onnx_exporter_give_pytorchs_logits(system, recipe, residual, tmp_path):
    network, image, expected = case(system, recipe, PADDED, residual)
    traced = torch.jit.trace(network, image, check_trace=False)(image)
    exported = run_by_onnxruntime(network, image, tmp_path / "network.onnx", dynamo=False)
    for logits in (traced, exported):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore")
def test_the_onnx_exporter_gives_pytorchs_logits(tmp_path):
    """Of the paper's recipe; tests/inference/test_export.py exports nnU-Net's so."""
    network, image, expected = case(KINDS[0], "paper", FITTING)
    exported = run_by_onnxruntime(network, image, tmp_path / "network.onnx", dynamo=True)
    torch.testing.assert_close(exported, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
