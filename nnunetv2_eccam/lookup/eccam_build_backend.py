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
CHECKOUT = Path(__file__).resolve().parents[2]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build a wheel by setuptools and add the start-up file."""
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    _rewrite(Path(wheel_directory, name), {STARTUP.name: STARTUP.read_bytes()}, dropped="")
    return name


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build an editable wheel by setuptools, add the start-up file, and name the checkout in plain words.

    setuptools maps the two folders at the top of the checkout by an import hook that costs every Python
    process of the environment some 15 ms. ``nnunetv2_eccam/__init__.py`` finds them by itself, so a line
    with the checkout's path does.
    """
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    path = f"{CHECKOUT}\n".encode()
    added = {"__editable__.nnunetv2_eccam.pth": path, STARTUP.name: STARTUP.read_bytes()}
    _rewrite(Path(wheel_directory, name), added, dropped="__editable__")
    return name


def _rewrite(wheel: Path, added: dict[str, bytes], dropped: str) -> None:
    """Add files to the top of ``wheel``, and drop those whose names begin with ``dropped``, if anything.

    The wheel's RECORD follows; the wheel is replaced whole or not at all.
    """
    partial = wheel.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            data = old.read(item)
            if dropped and item.filename.startswith(dropped):
                continue
            if item.filename.endswith(".dist-info/RECORD"):
                lines = data.decode().splitlines()
                kept = [line for line in lines if not (dropped and line.startswith(dropped))]
                data = "\n".join([*(_record(*entry) for entry in added.items()), *kept, ""]).encode()
            new.writestr(item, data)
        for name, content in added.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            new.writestr(entry, content, zipfile.ZIP_DEFLATED)
    partial.replace(wheel)


def _record(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"
