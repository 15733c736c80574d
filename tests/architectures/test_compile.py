"""torch.compile, counted by dynamo itself: no graph break, and nothing is compiled anew for a further batch."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from unet_plans import plan

from benchmarks.measuring import step_job
from benchmarks.speed import networks
from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.losses.side_output import DiceAndCrossEntropy, SideOutputLoss
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM, nnUNetTrainerECCaMPaper

NEWER = {"attention_stages": "both", "attention_residual": True, "branch_form": "scale", "branch_init": "he_sum"}


class Residual(nnUNetTrainerECCaM):
    """On a residual plan, with every switch away from its default."""

    network_switches = {"n_blocks_per_stage": 1, "n_conv_per_stage": None, **NEWER}


class BatchNormInBranches(nnUNetTrainerECCaM):
    network_switches = {"branch_form": "batch_norm"}


SIZE = [16, 24]


class Compiled:
    """A network and its loss, compiled as a trainer does on a GPU: the network, and Dice."""

    def __init__(self, trainer, deep_supervision: bool, backend: str = "eager") -> None:
        torch._dynamo.reset()
        torch.manual_seed(0)
        switches = {**trainer.network_switches, "side_outputs": deep_supervision}
        small = plan(3, n_conv_per_stage=1, n_conv_per_stage_decoder=1)
        self.network = build_network(small, SIZE, 1, 3, deep_supervision, switches)
        self.counter = CompileCounterWithBackend(backend)
        self.compiled = torch.compile(self.network, backend=self.counter, fullgraph=True)  # a graph break is an error
        terms = DiceAndCrossEntropy(regions=False, ignore_label=None, batch_dice=True, ddp=False)
        terms.soft_dice = torch.compile(terms.soft_dice, backend=self.counter, fullgraph=True)
        self.loss = SideOutputLoss(terms, trainer.supervision)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.01)

    @property
    def compilations(self) -> int:
        return self.counter.frame_count

    def step(self, batch: int = 2) -> None:
        self.compiled.train()
        self.optimizer.zero_grad(set_to_none=True)
        output = self.compiled(torch.randn(batch, 1, *SIZE))
        outputs = output if isinstance(output, list) else [output]
        targets = [torch.randint(0, 3, (batch, 1, *o.shape[2:])).float() for o in outputs]
        self.loss(outputs, targets).backward()
        self.optimizer.step()

    def validate(self) -> torch.Tensor | list[torch.Tensor]:
        """As between the epochs and in prediction."""
        self.compiled.eval()
        with torch.no_grad():
            return self.compiled(torch.randn(2, 1, *SIZE))


@pytest.mark.parametrize("trainer", [nnUNetTrainerECCaM, nnUNetTrainerECCaMPaper])
def test_a_training_compiles_once_and_whole(trainer):
    compiled = Compiled(trainer, True, "aot_eager")
    compiled.step()
    # The network is one graph, and Dice is one: of two outputs the lowest has no Dice in either recipe.
    once = compiled.compilations
    assert once == 2
    for _ in range(3):
        compiled.step()
    assert compiled.compilations == once
    assert all(p.grad is not None for p in compiled.network.parameters())


def test_switching_between_training_and_validation_compiles_each_once():
    """What nnU-Net does each epoch, then its final validation without side outputs."""
    compiled = Compiled(nnUNetTrainerECCaMPaper, True)
    for epoch in range(3):
        compiled.step()
        compiled.validate()
        if epoch == 0:
            once = compiled.compilations
    assert compiled.compilations == once
    compiled.network.decoder.deep_supervision = False
    assert isinstance(compiled.validate(), torch.Tensor)
    assert compiled.compilations == once + 1
    compiled.network.decoder.deep_supervision = True
    assert isinstance(compiled.validate(), list)
    compiled.step()
    assert compiled.compilations == once + 1


@pytest.mark.parametrize("trainer", [Residual, BatchNormInBranches])
def test_inference_is_one_graph_and_gives_what_the_network_gives(trainer):
    compiled = Compiled(trainer, False)
    compiled.network.eval()
    image = torch.randn(2, 1, *SIZE)
    with torch.no_grad():
        expected = compiled.network(image)
        for _ in range(3):
            torch.testing.assert_close(compiled.compiled(image), expected)
    assert compiled.compilations == 1


def test_further_batch_sizes_are_compiled_once_for_all():
    """A data set's last tiles make a smaller batch: the second size makes one graph for all that follow."""
    compiled = Compiled(nnUNetTrainerECCaM, False)
    compiled.compiled.eval()
    with torch.no_grad():
        for batch in (2, 3, 4, 5, 7):
            compiled.compiled(torch.randn(batch, 1, *SIZE))
    assert compiled.compilations == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("row", range(4))
def test_on_a_gpu_a_training_step_compiles_in_mixed_precision(row):
    """Full widths and size: which kernels there are depends on them (Triton 3.6 failed in the paper's network's)."""
    torch._dynamo.reset()
    _, _, network = networks([32, 64, 128, 256, 512], [256, 256])[row]
    network.cuda().decoder.deep_supervision = True
    step_job(torch.compile(network), torch.randn(12, 1, 256, 256, device="cuda"), True)()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
