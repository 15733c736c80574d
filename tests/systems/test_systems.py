"""Every system: what the table says of it, and the contract that its network keeps."""

import re
from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import nn
from unet_plans import plan

from nnunetv2_eccam.architectures.compared.network import UNetFamily
from nnunetv2_eccam.architectures.from_plans import build_network, network_arguments
from nnunetv2_eccam.architectures.padding import PadsToMultiple, padded_size
from nnunetv2_eccam.cli import main
from nnunetv2_eccam.systems import RECIPES, SYSTEMS, System
from nnunetv2_eccam.systems.published import DATASETS, METRICS, PUBLISHED
from nnunetv2_eccam.systems.table import ECCAM_UNET
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM, nnUNetTrainerECCaMPaper
from nnunetv2_eccam.trainers.by_name import TRAINER_NAMES

BY_NAME = {system.name: system for system in SYSTEMS}
NETWORKS = [s for s in SYSTEMS if not s.name.startswith(("alpha", "UNet_Dice", "UNet_BCE"))]
"""The systems whose networks differ: the others are trained with another loss."""

RECIPE_SWITCHES = {
    "nnunet": nnUNetTrainerECCaM.network_switches,
    "paper": nnUNetTrainerECCaMPaper.network_switches,
}


def by_title(system: System) -> str:
    return system.name or "ECCaM"


# --- the table ----------------------------------------------------------------------------------------


def test_every_row_that_the_paper_prints_is_a_system_and_no_other_row_is_claimed():
    claimed = {(row.table, row.label) for system in SYSTEMS for row in system.rows}
    printed = {(table, label) for table, rows in PUBLISHED.items() for label in rows}
    figure_5 = {("Fig. 5", f"alpha = 0.{tenths}") for tenths in range(1, 10)}
    assert claimed == printed | figure_5
    assert len(BY_NAME) == len(SYSTEMS)


def test_the_published_numbers_are_the_papers():
    """Against the text of the paper: each table's rows of numbers, in its order."""
    paper = Path(__file__).resolve().parents[3] / "shared" / "paper.txt"
    if not paper.is_file():
        pytest.skip(f"the paper's text is not at {paper}")
    text = paper.read_text()
    bounds = [(f"TABLE {table}:", PUBLISHED[table]) for table in ("I", "II", "V")]
    for heading, rows in bounds:
        part = text[text.index(heading) :]
        lines = [re.findall(r"(?<=\t)\d\d\.\d+", line) for line in part.splitlines()]
        printed = [[float(n) for n in line] for line in lines if len(line) == 12][: len(rows)]
        assert printed == [[row[d][m] for d in DATASETS for m in METRICS] for row in rows.values()], heading
    for heading, table in (("TABLE III:", "III"), ("TABLE IV:", "IV")):
        part = text[text.index(heading) :]
        printed = [float(n) for n in re.findall(r"\t(\d\d\.\d\d)$", part, re.MULTILINE)][: 4 * 3]
        assert printed == [row[dataset]["DSC"] for dataset in DATASETS for row in PUBLISHED[table].values()], heading


def state_of(name: str) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in network_of(BY_NAME[name], "paper").state_dict().items()}


@pytest.mark.parametrize(
    ("smaller", "larger", "added"),
    [
        ("UNet", "UNet_CC", r"bottleneck\.attention\.channel\."),
        ("UNet", "UNet_SC", r"$none"),  # SC has no parameters
        ("UNet", "UNet_CoA", r"bottleneck\.attention\.channel\."),
        ("UNet", "UNet_MuS", r"bottleneck\.multi_scale\."),
        ("UNet", "UNet_SE", r"bottleneck\.attention\.(squeeze|excite)\."),
        ("UNet", "UNet_CBAM", r"bottleneck\.attention\.(mlp|spatial)\."),
        ("UNet", "UNet_DWS", r"decoder\.seg_layers\.[012]\."),
        ("UNet_SC", "UNet_SC_MuS", r"bottleneck\.(multi_scale|fuse)\."),
        ("UNet_CoA", "UNet_CoA_MuS", r"bottleneck\.(multi_scale|fuse)\."),
        ("UNet_CoA_MuS_EC", "", r"decoder\.seg_layers\.[012]\."),
        ("Sum", "", r"bottleneck\.fuse\."),
        ("Series", "", r"bottleneck\.fuse\."),
        ("Series", "Sum", r"$none"),
        ("UNet", "UNet_BCE", r"$none"),
        ("UNet", "UNet_Dice", r"$none"),
        ("alpha_010", "", r"$none"),
    ],
)
def test_two_rows_differ_in_exactly_the_named_part(smaller, larger, added):
    small, large = state_of(smaller), state_of(larger)
    assert {k: v for k, v in large.items() if not re.match(added, k)} == small
    assert (small != large) == (added != "$none")


@pytest.mark.parametrize(("without", "with_ec"), [("UNet", "UNet_EC"), ("UNet_CoA_MuS", "UNet_CoA_MuS_EC")])
def test_enhanced_convolution_changes_the_encoder_and_nothing_else(without, with_ec):
    a, b = ({k: v for k, v in state_of(name).items() if not k.startswith("encoder.")} for name in (without, with_ec))
    assert a == b


@pytest.mark.parametrize("system", SYSTEMS, ids=by_title)
def test_switches_are_the_networks_arguments_and_only_ours_has_any(system):
    network_arguments(plan(5), [64, 64], system.switches)  # raises for an unknown one
    assert system.network == ECCAM_UNET or not system.switches


# --- the contract of every network --------------------------------------------------------------------


def network_of(system, recipe="nnunet", dimension=2, channels=1, classes=2, deep_supervision=True):
    switches = {**RECIPE_SWITCHES[recipe], **system.switches}
    supervised = deep_supervision and system.side_outputs
    size = [64] * dimension
    return build_network(plan(5, dimension), size, channels, classes, supervised, switches, system.network)


def outputs_of(output) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else output


def case_name(value) -> str:
    return f"{value}D" if isinstance(value, int) else by_title(value)


@pytest.mark.parametrize(
    ("system", "dimension"), [(s, dimension) for s in NETWORKS for dimension in s.dimensions], ids=case_name
)
def test_it_trains_on_one_image_of_an_odd_size_with_any_number_of_channels_and_classes(system, dimension):
    torch.manual_seed(0)
    size, classes, channels = [37, 50, 19][:dimension], 3, 2
    network = network_of(system, "nnunet" if dimension == 3 else "paper", dimension, channels, classes).train()
    assert isinstance(network, PadsToMultiple)
    for module in network.modules():  # IV.C: "same initialization method"
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            assert module.bias is None or not module.bias.any()
    outputs = outputs_of(network(torch.randn(1, channels, *size)))
    assert outputs[0].shape == (1, classes, *size)
    assert (len(outputs) > 1) == system.side_outputs
    sum(output.square().mean() for output in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("system", NETWORKS, ids=by_title)
def test_its_weights_load_for_inference_and_for_other_classes(system, tmp_path):
    trained = network_of(system, "paper", deep_supervision=True).train()
    with torch.no_grad():
        trained(torch.randn(2, 1, 64, 64))  # moves the running statistics
    torch.save({"network_weights": trained.state_dict()}, tmp_path / "checkpoint.pth")
    given = torch.load(tmp_path / "checkpoint.pth")["network_weights"]
    # As nnU-Net's predictor builds it.
    network = network_of(system, "paper", deep_supervision=False)
    network.load_state_dict(given)
    network, trained = network.double().eval(), trained.double().eval()
    images = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        together = network(images)
        assert isinstance(together, torch.Tensor)
        assert together.dtype == torch.float64
        torch.testing.assert_close(together, outputs_of(trained(images))[0], rtol=1e-9, atol=1e-9)
        alone = network(images[:1])  # a batch is its images
        torch.testing.assert_close(together[:1], alone, rtol=1e-9, atol=1e-9)
    # By nnU-Net's own function, as -pretrained_weights calls it.
    other = network_of(system, "paper", classes=5)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    load_pretrained_weights(other, str(tmp_path / "checkpoint.pth"))
    for name, value in other.state_dict().items():
        is_head = value.shape != given[name].shape
        assert is_head == (".seg_layers." in name), name
        assert torch.equal(value, before[name] if is_head else given[name])


@pytest.mark.parametrize("system", NETWORKS, ids=by_title)
def test_large_activations_stay_finite_in_mixed_precision_and_it_compiles_whole(system):
    network = network_of(system, "nnunet", deep_supervision=False).eval()
    image = 100 * torch.randn(1, 1, 60, 52)  # is padded
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(network(image)).all()
    if system.name not in ("UNet_SE", "UNet_CBAM", "CENet") and not isinstance(network, UNetFamily):
        return  # tests/architectures/test_compile.py compiles EC-CaM-UNet; other backbones are timm's own
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)  # a graph break is an error
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), network(image))


def test_padding_is_what_the_docs_say():
    assert padded_size([144, 112], [32, 32], 64) == [160, 128]
    assert padded_size([20, 70], [32, 32], 64) == [64, 96]
    assert padded_size([64, 96], [32, 32], 64) == [64, 96]


# --- the command --------------------------------------------------------------------------------------


def test_the_list_has_every_name_with_its_row(capsys):
    assert main(["trainers"]) == 0
    listed = capsys.readouterr().out
    assert main(["trainers", "--names"]) == 0
    assert tuple(capsys.readouterr().out.split()) == TRAINER_NAMES
    lines = listed.splitlines()
    for system in SYSTEMS:
        for recipe in RECIPES:
            at = next(i for i, line in enumerate(lines) if line.split()[:1] == [system.trainer_name(recipe)])
            assert system.differs in lines[at]
            assert system.where in lines[at + 1]


def test_a_table_and_its_published_numbers(capsys):
    assert main(["trainers", "--table", "V", "--published"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 5
    assert "68.16 / 67.70 / 78.98" in next(line for line in lines if "_UNet_CBAM " in line)
    assert main(["trainers", "--table", "related", "--names", "--recipe", "paper"]) == 0
    assert len(capsys.readouterr().out.split()) == 3


def test_the_docs_have_the_table_as_the_command_prints_it(capsys):
    assert main(["trainers", "--markdown"]) == 0
    docs = Path(__file__).resolve().parents[2] / "docs" / "reference" / "systems.md"
    assert capsys.readouterr().out in docs.read_text(encoding="utf-8")
