"""nnU-Net's commands in this process, and quick: each new one would import torch again."""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace
from unittest.mock import patch


@contextmanager
def threads_for_processes() -> Iterator[None]:
    """Let nnU-Net's pools be threads within the block, and let it look at few voxels of each case.

    It draws a hundred million voxels for the statistics of a data set, however small that is.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    analyze = DatasetFingerprintExtractor.analyze_case
    pools = SimpleNamespace(Pool=ThreadPool)
    with (
        patch.object(multiprocessing, "get_context", lambda method=None: pools),
        patch.object(multiprocessing, "cpu_count", lambda: 1),  # what nnU-Net gives torch on the CPU
        patch.object(DatasetFingerprintExtractor, "analyze_case", lambda *case: analyze(*case[:3], num_samples=10_000)),
    ):
        yield


def call(program: str, *words: str) -> None:
    """Run a command of this environment (``nnUNetv2_train``, ...) as its script would, and see that it succeeds."""
    (script,) = entry_points(group="console_scripts", name=program)
    command = script.load()
    with patch.object(sys, "argv", [program, *words]):
        if program == "nnUNetv2_eccam":
            assert command() == 0
            return
        with threads_for_processes():
            command()
