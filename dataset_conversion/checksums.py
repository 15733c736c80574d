"""SHA-256 of what a case was made of, so that a published data set can be traced to its download."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .model import Case
from .nifti import sha256_of

SERIES = "DICOM series"
"""A series' name among the sources; its files may be named anything."""


def source_name(path: Path) -> str:
    """Name a file in the report: with its folder, which tells KiTS19's equally named files apart."""
    return "/".join(path.parts[-2:])


def series_checksum(checksums: Iterable[str]) -> str:
    """Give one checksum for the files of a series, whatever they are called and in whatever order."""
    return hashlib.sha256("\n".join(sorted(checksums)).encode()).hexdigest()


def source_checksums(case: Case) -> dict[str, str]:
    """Read all of a case's sources for their checksums only; the names are those of its report."""
    if len(case.images) == 1:
        return {source_name(path): sha256_of(path) for path in case.sources}
    checksums = {SERIES: series_checksum(sha256_of(path) for path in case.images)}
    if case.label is not None:
        checksums[source_name(case.label)] = sha256_of(case.label)
    return checksums
