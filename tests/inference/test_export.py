"""``nnUNetv2_eccam export``: the file gives PyTorch's logits, or there is no file."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.model_folder import unet_architecture, write_model
from nnunetv2_eccam import cli
from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution
from nnunetv2_eccam.inference import export
from nnunetv2_eccam.inference.folding import folded
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM, nnUNetTrainerECCaMPaper

STRIDES = {2: [[1, 1], [2, 2]], 3: [[1, 1, 1], [1, 2, 2]]}
PATCH = {2: [32, 24], 3: [4, 16, 16]}
WIDTHS = [4, 6]


def model(folder: Path, trainer: str, dimension: int = 2, residual: bool = False, folds=(0,)) -> Path:
    architecture = unet_architecture(WIDTHS, STRIDES[dimension], residual)
    return write_model(folder, architecture, PATCH[dimension], [1.0] * dimension, trainer, folds=folds)


def settled(network: nn.Module, size) -> nn.Module:
    """Batch norms away from their beginning, where folding them would change nothing."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 1, *size) * 3 + 1)
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize(
    ("recipe", "switches", "left"),
    [
        (nnUNetTrainerECCaM, {}, 0),
        (nnUNetTrainerECCaMPaper, {"norm_op": "torch.nn.BatchNormNd"}, 0),
        (nnUNetTrainerECCaM, {"branch_form": "batch_norm"}, 0),
        (nnUNetTrainerECCaM, {"branch_form": "weight_norm"}, 0),
        (nnUNetTrainerECCaM, {"norm_per_branch": True}, None),  # instance norms of their own depend on the image
    ],
    ids=["practical", "paper", "batch norm per branch", "weight norm", "instance norm per branch"],
)
def test_folded_networks_give_the_same_logits(recipe, switches, left, dimension):
    torch.manual_seed(0)
    switches = {**recipe.network_switches, **switches}
    if "norm_op" in switches:
        switches["norm_op"] = f"torch.nn.BatchNorm{dimension}d"
    plan = unet_architecture(WIDTHS, STRIDES[dimension])
    network = settled(build_network(plan, PATCH[dimension], 1, 2, False, switches), PATCH[dimension]).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = folded(network)
    image = torch.randn(2, 1, *PATCH[dimension], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(plain(image), network(image), rtol=1e-9, atol=1e-9)
    remaining = sum(isinstance(module, EnhancedConvolution) for module in plain.modules())
    found = sum(isinstance(module, EnhancedConvolution) for module in network.modules())
    assert remaining == (found if left is None else left)
    assert found > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def run_onnx(file: Path, image: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


@pytest.mark.parametrize(
    ("trainer", "dimension", "folds", "sizes"),
    [
        ("nnUNetTrainerECCaM", 2, ("0",), [[3, 1, 32, 24], [1, 1, 64, 40]]),  # on a residual plan, of any size
        ("nnUNetTrainer", 3, ("0", "1"), [[2, 1, 4, 16, 16]]),
    ],
)
def test_one_onnx_file_for_each_fold_gives_pytorchs_logits(tmp_path, capsys, trainer, dimension, folds, sizes):
    folder = model(tmp_path / "model", trainer, dimension, residual=dimension == 2, folds=folds)
    words = ["export", "-m", str(folder), "-o", str(tmp_path / "new" / "model.onnx"), "-f", *folds]
    assert cli.main([*words, "--dynamic"] if len(sizes) > 1 else words) == 0
    said = capsys.readouterr().out
    loaded = export.load_model(folder, folds)
    for fold, weights in loaded.weights.items():
        file = tmp_path / "new" / (f"model_fold_{fold}.onnx" if len(folds) > 1 else "model.onnx")
        assert f"{file}: fold {fold}" in said
        loaded.network.load_state_dict(weights)
        for size in sizes:
            image = torch.randn(size)
            with torch.no_grad():
                torch.testing.assert_close(run_onnx(file, image), loaded.network(image), rtol=0, atol=1e-3)
    assert len(list(file.parent.iterdir())) == len(folds)


def test_the_weights_alone_fit_the_folded_network(tmp_path):
    folder = model(tmp_path / "model", "nnUNetTrainerECCaM")
    assert cli.main(["export", "-m", str(folder), "-o", str(tmp_path / "model.pth")]) == 0
    network = export.load_model(folder, None).network
    plain = folded(network)
    torch.manual_seed(5)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    plain.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    image = torch.randn(1, 1, *PATCH[2])
    with torch.no_grad():
        torch.testing.assert_close(plain(image), network(image))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "model.txt"], "must end in .onnx"),
        (["-o", "model.onnx", "--size", "8"], "the model is of 2 dimensions, --size has 1 numbers"),
        (["-o", "model.onnx", "--size", "33", "24"], "this network cannot be exported"),
        (["-o", "model.pth"], "would give other logits than PyTorch"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_leaves_no_file(tmp_path, words, message, monkeypatch, capsys):
    folder = model(tmp_path / "model", "nnUNetTrainer")
    if "other logits" in message:
        monkeypatch.setattr(export, "folded", lambda network: nn.Sequential(nn.Conv2d(1, 3, 1)))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "-m", str(folder), *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
