"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the tests' tensors are small: threads would cost more than they give

# nnU-Net reads these when it is imported; tests that need folders of their own set them per test.
os.environ.setdefault("nnUNet_compile", "f")
os.environ.setdefault("nnUNet_n_proc_DA", "0")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def heart_download() -> Path:
    """The real left-atrium MRIs, in the layout of MSD Task02_Heart."""
    folder = SHARED_DATA / "Task02_Heart"
    if not folder.is_dir():
        pytest.skip(f"the real images are not at {folder}")
    return folder
