"""The files of cases, named as nnU-Net names them, and what a ``dataset.json`` beside them says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.volumes import ENDINGS, ending_of, list_volumes


def find_mask(source: Path, case: str, whose: str) -> Path:
    """Find a case's mask: ``source`` itself where it is a file, else CASE with a known ending in that folder.

    Raises:
        UserError: there is none.
    """
    return _find(source, (case,), whose)


def find_image(source: Path, case: str, channel: int = 0) -> Path:
    """Find a case's image, CASE_0000 for channel 0 or CASE as raw downloads name it.

    Raises:
        UserError: there is none.
    """
    return _find(source, (f"{case}_{channel:04d}", case), "image")


def _find(source: Path, stems: Sequence[str], what: str) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(f"{what}: {source} does not exist; give a folder, or the file of a single case")
    files = list_volumes(source).files
    for stem in stems:
        if stem in files:
            return files[stem]
    raise UserError(f"{what}: {source} has no {' or '.join(stems)} with one of the endings {', '.join(ENDINGS)}")


def cases_of_images(source: Path, channel: int = 0) -> list[str]:
    """List the cases of a folder of images, or the one of an image's file, sorted.

    Raises:
        UserError: ``source`` does not exist, or is a file of another kind.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; --images is the folder of the images, or one image's file")
    if source.is_file():
        ending = ending_of(source)
        if ending is None:
            raise UserError(f"{source} ends in none of {', '.join(ENDINGS)}")
        stems = [source.name[: -len(ending)]]
    else:
        stems = list(list_volumes(source).files)
    suffix = f"_{channel:04d}"
    named = sorted(stem.removesuffix(suffix) for stem in stems if stem.endswith(suffix))
    return named or sorted(stems)


def label_names(sources: Sequence[Path]) -> dict[int, str]:
    """Give the names of labels, from the first ``dataset.json`` that has any.

    nnU-Net writes names to numbers, the Decathlon numbers to names. Regions, which are lists of labels, have no
    single number and are left out; the background too. It is looked for beside each source and one folder up; nnU-Net
    puts one beside its predictions.
    """
    for content in _dataset_jsons(sources):
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
    for content in _dataset_jsons([source]):
        names = content.get("channel_names", content.get("modality"))
        if isinstance(names, dict):
            return str(names.get(str(channel), "")).lower() == "ct"
    return False


def holds_hu(image: Path) -> bool:
    """Say whether an image's format can hold HU; PNG and BMP cannot, which have no negative numbers."""
    return ending_of(image) not in (".png", ".bmp")


def _dataset_jsons(sources: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for source in sources:
        folder = source if source.is_dir() else source.parent
        for place in (folder, folder.resolve().parent):
            if (place / "dataset.json").is_file():
                content = read_json(place / "dataset.json")
                if not isinstance(content, dict):
                    raise UserError(f"{place / 'dataset.json'} is not what nnU-Net writes: it holds no JSON object")
                yield content
