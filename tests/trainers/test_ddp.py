"""The trainers under several processes: each check runs once in two processes, all of them in one start."""

import pytest
import torch
import torch.multiprocessing
from ddp_processes import CHECKS, PROCESSES, run_checks


@pytest.fixture(scope="module")
def outcomes(nnunet_base, small_dataset, tmp_path_factory) -> list[dict[str, str]]:
    """Each process's errors, by check."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("ddp")
    # Processes that are forked would inherit threads of the tests before.
    torch.multiprocessing.spawn(run_checks, (folder, nnunet_base, small_dataset()), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pth") for rank in range(PROCESSES)]


@pytest.mark.parametrize("check", CHECKS)
def test_two_processes(outcomes, check):
    errors = [f"process {rank}:\n{found[check]}" for rank, found in enumerate(outcomes) if found[check]]
    assert not errors, "\n".join(errors)
