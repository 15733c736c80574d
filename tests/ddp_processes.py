"""Two processes that share a batch, over gloo on the CPU: nnU-Net's multi-GPU training without GPUs.

nnU-Net's own multi-GPU training asks for CUDA by name, in the trainer's constructor and where it wraps the
network. So a trainer is made as for one process, and what nnU-Net then does for several is done here: the loss
is built with ``is_ddp``, and the network is wrapped, without ``find_unused_parameters``. All else, the step
itself above all, is the trainer's.
"""

import os
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from small_training import make_trainer
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_eccam import trainers

PROCESSES = 2
BATCH = 4
PAPER = "nnUNetTrainerECCaMPaper"


class Processes:
    """The processes as one of them sees them.

    Args:
        rank: its number.
        folder: where they meet, and where nnU-Net's folders are.
        dataset: the small data set.
    """

    def __init__(self, rank: int, folder: Path, base: Path, dataset: int) -> None:
        self.rank, self.folder, self.base, self.dataset = rank, folder, base, dataset

    def trainer_of(self, trainer_class: type, **more: Any) -> Any:
        """A trainer as for one process: its constructor would ask for CUDA where it sees several."""
        torch.manual_seed(7)
        with mock.patch.object(dist, "is_initialized", return_value=False):
            trainer = make_trainer(trainer_class, self.base, self.dataset, **more)
        trainer.initialize()
        return trainer

    def mine(self, batch: dict[str, Any]) -> dict[str, Any]:
        """This process's share of a batch."""
        size = BATCH // PROCESSES
        share = slice(self.rank * size, (self.rank + 1) * size)
        return {key: [t[share] for t in v] if isinstance(v, list) else v[share] for key, v in batch.items()}


def small_trainer(name: str, processes: Processes, batch_dice: bool = True) -> Any:
    """A trainer as for one process, always with the same weights; with instance norm, since that of a batch over
    several processes is torch's own, which needs CUDA."""
    switches = {"norm_op": "torch.nn.InstanceNorm2d"}
    return processes.trainer_of(getattr(trainers, name), switches=switches, batch_dice=batch_dice)


def share_the_batch(trainer: Any, rank: int) -> None:
    """Do what ``initialize`` does for several processes."""
    trainer.is_ddp, trainer.local_rank = True, rank
    trainer.network = DistributedDataParallel(trainer.network)
    trainer.loss = trainer._build_loss()


def whole_batch(trainer: Any) -> dict[str, Any]:
    """A batch of ``BATCH`` samples in double precision, with a target for each output."""
    generator = torch.Generator().manual_seed(3)
    patch = trainer.configuration_manager.patch_size
    data = torch.randn(BATCH, 1, *patch, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, trainer.label_manager.num_segmentation_heads, (BATCH, 1, *patch), generator=generator)
    scales = trainer._get_deep_supervision_scales()
    if scales is None:
        return {"data": data, "target": labels}
    steps = [[round(1 / factor) for factor in scale] for scale in scales]
    return {"data": data, "target": [labels[..., :: step[0], :: step[1]] for step in steps]}


def two_steps(trainer: Any, batch: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """The gradients of two consecutive steps of nnU-Net's, with a validation after each."""
    gradients = []
    for _ in range(2):
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
        trainer.network.train()
        trainer.train_step(batch)
        named = {name.removeprefix("module."): p.grad for name, p in trainer.network.named_parameters()}
        gradients.append({name: grad.clone() for name, grad in named.items() if grad is not None})
        trainer.set_deep_supervision_enabled(False)  # as nnU-Net does for the final validation
        trainer.network.eval()
        with torch.no_grad():
            assert isinstance(trainer.network(batch["data"]), torch.Tensor)
    return gradients


# --- the checks ---------------------------------------------------------------------------------------


def gradients_are_those_of_one_process(name: str, batch_dice: bool, processes: Processes) -> None:
    made = [small_trainer(name, processes, batch_dice) for _ in range(2)]
    for trainer in made:
        trainer.network.double()
        trainer.optimizer = torch.optim.SGD(trainer.network.parameters(), 0.01)  # Adam hides a gradient's scale
    several, alone = made
    batch = whole_batch(alone)
    if alone.loss.supervision == "dice_ce_all":
        alone.loss.lowest_weight = 1e-6  # several processes' weight of the lowest output
    expected = two_steps(alone, batch)
    share_the_batch(several, processes.rank)
    assert several.loss.terms.soft_dice.ddp
    assert several.loss.terms.soft_dice.batch_dice == batch_dice
    found = two_steps(several, processes.mine(batch))
    names = {name for name, _ in alone.network.named_parameters()}
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys() == names
        for weight in names:
            # nnU-Net's Dice counts in single precision; a missing share of the batch would be a factor.
            largest = float(other[weight].abs().max())
            torch.testing.assert_close(
                one[weight], other[weight], rtol=1e-5, atol=max(1e-5 * largest, 1e-9), msg=f"{weight}: {{}}".format
            )


class WithoutDeepSupervision(trainers.nnUNetTrainerECCaM):
    """What a user writes to train the same network on its prediction alone, as nnU-Net's own such trainer does."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False


def a_subclass_may_switch_deep_supervision_off(processes: Processes) -> None:
    """torch raises at the second step where a weight that wants a gradient had none in the first."""
    trainer = processes.trainer_of(WithoutDeepSupervision)
    network, batch = trainer.network, whole_batch(trainer)
    batch["data"] = batch["data"].float()
    share_the_batch(trainer, processes.rank)
    two_steps(trainer, processes.mine(batch))
    n_heads = len(network.decoder.seg_layers)
    untrained = {name for name, p in network.named_parameters() if p.grad is None}
    expected = {f"decoder.seg_layers.{level}.{part}" for level in range(n_heads - 1) for part in ("weight", "bias")}
    assert untrained == expected != set()


def a_compiled_network_needs_no_weight_for_the_lowest_output(processes: Processes) -> None:
    """nnU-Net's loss leaves it out there: the compiled graph gives its head a gradient of zeros."""
    trainer = small_trainer("nnUNetTrainerECCaM", processes)
    network = trainer.network
    trainer.network = torch.compile(network, backend="aot_eager")
    batch = whole_batch(trainer)
    batch["data"] = batch["data"].float()
    share_the_batch(trainer, processes.rank)
    trainer.loss.lowest_weight = 0.0  # as it is built where nnU-Net compiles
    trainer.set_deep_supervision_enabled(True)
    for _ in range(2):
        trainer.train_step(processes.mine(batch))
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def the_best_epoch_is_read_once_it_is_written(processes: Processes) -> None:
    """The paper's recipe: all processes read the file that one of them writes, which takes its time."""
    trainer = small_trainer(PAPER, processes)
    network = trainer.network
    trainer.output_folder = str(processes.folder)
    share_the_batch(trainer, processes.rank)
    if processes.rank == 0:
        time.sleep(0.5)
        weights = {name: torch.full_like(value, 2) for name, value in network.state_dict().items()}
        torch.save({"network_weights": weights}, processes.folder / "checkpoint_best.pth")
    trainer._load_best_weights()
    assert all(bool((value == 2).all()) for value in network.state_dict().values())


CHECKS: dict[str, Callable[[Processes], None]] = {
    "same gradients, batch Dice": partial(gradients_are_those_of_one_process, "nnUNetTrainerECCaM", True),
    "same gradients, the paper's recipe": partial(gradients_are_those_of_one_process, PAPER, False),
    "deep supervision off": a_subclass_may_switch_deep_supervision_off,
    "compiled": a_compiled_network_needs_no_weight_for_the_lowest_output,
    "best epoch": the_best_epoch_is_read_once_it_is_written,
}
"""Every check by name, in the order in which both processes run them."""


def run_checks(rank: int, folder: Path, base: Path, dataset: int) -> None:
    """Run all checks in one of the processes, and write each check's error, or nothing."""
    torch.set_num_threads(1)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    meeting = (folder / "meeting").as_uri()
    dist.init_process_group("gloo", meeting, timedelta(seconds=30), world_size=PROCESSES, rank=rank)
    processes = Processes(rank, folder, base, dataset)
    found = {}
    for name, check in CHECKS.items():
        try:
            check(processes)
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
    torch.save(found, folder / f"{rank}.pth")
