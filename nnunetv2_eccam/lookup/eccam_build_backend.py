"""setuptools' build backend, with ``nnunetv2_eccam.pth`` added to the top of each wheel.

Used by pip while it builds (``backend-path`` in pyproject.toml), never at run time. setuptools has no
declarative way to place a file at the top of site-packages, and an editable wheel leaves out what a
custom command copies; adding one file to the finished wheel serves both kinds alike.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

STARTUP = Path(__file__).with_name("nnunetv2_eccam.pth")


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build a wheel by setuptools and add the start-up file."""
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    _add(Path(wheel_directory, name))
    return name


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build an editable wheel by setuptools and add the start-up file."""
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _add(Path(wheel_directory, name))
    return name


def _add(wheel: Path) -> None:
    """Add the start-up file to the top of ``wheel``, whose RECORD follows; it is replaced whole or not at all."""
    name, content = STARTUP.name, STARTUP.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    partial = wheel.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                data = f"{name},sha256={digest},{len(content)}\n".encode() + data
            new.writestr(item, data)
        entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o644 << 16
        new.writestr(entry, content, zipfile.ZIP_DEFLATED)
    partial.replace(wheel)
