"""What the converters' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from conversion_phantoms import use_nnunet_folders


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """nnU-Net's folder of raw data sets, for one test."""
    return use_nnunet_folders(tmp_path, monkeypatch)
