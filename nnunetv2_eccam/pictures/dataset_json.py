"""What a ``dataset.json`` beside images, masks or predictions says about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json


def label_names(sources: Sequence[Path]) -> dict[int, str]:
    """Give the names of labels, from the first ``dataset.json`` that has any.

    nnU-Net writes names to numbers, the Decathlon numbers to names. Regions, which are lists of labels, have no
    single number and are left out; the background too.

    Args:
        sources: folders or files; ``dataset.json`` is looked for there and one folder up. nnU-Net puts one beside
            its predictions.
    """
    for content in _contents(sources):
        labels = content.get("labels")
        names = {}
        for key, value in labels.items() if isinstance(labels, dict) else ():
            if isinstance(value, int) and not isinstance(value, bool):
                names[value] = str(key)
            elif isinstance(value, str) and str(key).isdecimal():
                names[int(key)] = value
        names.pop(0, None)
        if names:
            return names
    return {}


def is_computed_tomography(source: Path, channel: int) -> bool:
    """Say whether ``dataset.json`` calls a channel CT, by which nnU-Net knows that intensities are in HU."""
    for content in _contents([source]):
        names = content.get("channel_names", content.get("modality"))
        if isinstance(names, dict):
            return str(names.get(str(channel), "")).lower() == "ct"
    return False


def _contents(sources: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for source in sources:
        folder = source if source.is_dir() else source.parent
        for place in (folder, folder.resolve().parent):
            if (place / "dataset.json").is_file():
                try:
                    content = read_json(place / "dataset.json")
                except UserError:
                    continue  # names are a convenience; a picture needs none
                if isinstance(content, dict):
                    yield content
