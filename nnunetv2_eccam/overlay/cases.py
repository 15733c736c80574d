"""The files of cases, named as nnU-Net names them, and what a ``dataset.json`` beside them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.volumes import ENDINGS, ending_of, list_volumes

if TYPE_CHECKING:
    from nnunetv2_eccam.overlay.overlay import Overlay

MOST_ROWS = 8
"""How many rows a picture gets of cases that nobody named."""


class CaseFiles(NamedTuple):
    """The files of one case: its image, its true mask (None: unlabelled), and each system's prediction."""

    case: str
    image: Path
    reference: Path | None
    systems: Mapping[str, Path]


def find_files(options: Overlay) -> list[CaseFiles]:
    """Find all files of all cases, before any is read.

    Raises:
        UserError: one is missing, or there are more cases than one picture holds and none was named.
    """
    channel = f"_{options.channel or 0:04d}"
    found = []
    for case in _cases(options, channel):
        # Raw downloads have no channel in their names.
        image = _find(options.images, (case + channel, case), "image")
        reference = None if options.reference is None else _find(options.reference, (case,), "reference")
        systems = {name: _find(source, (case,), name) for name, source in options.systems.items()}
        found.append(CaseFiles(case, image, reference, systems))
    return found


def _find(source: Path, stems: Sequence[str], what: str) -> Path:
    """Give a file: ``source`` itself where it is one, else the first of the names with a known ending in a folder."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(f"{what}: {source} does not exist; give a folder, or the file of a single case")
    files = list_volumes(source)
    for stem in stems:
        if stem in files:
            return files[stem]
    raise UserError(f"{what}: {source} has no {' or '.join(stems)} with one of the endings {', '.join(ENDINGS)}")


def _cases(options: Overlay, channel: str) -> list[str]:
    """Name the cases: those asked for, else those that every folder has."""
    cases = list(dict.fromkeys(options.cases or _cases_of_images(options.images, channel)))
    if options.cases is None:
        for folder in options.masks:
            if folder.is_dir():
                present = list_volumes(folder)
                cases = [case for case in cases if case in present]
    if not cases:
        masks = ", ".join(map(str, options.masks))
        raise UserError(f"no image of channel {int(channel[1:])} in {options.images} has its mask in each of {masks}")
    single = [source for source in (*options.masks, options.images) if source.is_file()]
    if single and len(cases) > 1:
        raise UserError(f"{single[0]} is the file of a single case, but there are {len(cases)}; name one with --cases")
    per_case = options.per_case if isinstance(options.slices, str) else len(options.slices)
    if options.cases is None and len(cases) > 1 and len(cases) * per_case > MOST_ROWS:
        raise UserError(
            f"{len(cases)} cases are in all folders, more than a picture holds; name some with --cases: "
            f"{' '.join(cases)}"
        )
    return cases


def _cases_of_images(source: Path, channel: str) -> list[str]:
    """List the cases of a folder of images, or the one of an image's file, sorted."""
    if not source.exists():
        raise UserError(f"{source} does not exist; --images is the folder of the images, or one image's file")
    if source.is_dir():
        stems = list(list_volumes(source))
    else:
        ending = ending_of(source)
        if ending is None:
            raise UserError(f"{source} ends in none of {', '.join(ENDINGS)}")
        stems = [source.name[: -len(ending)]]
    named = sorted(stem.removesuffix(channel) for stem in stems if stem.endswith(channel))
    return named or sorted(stems)


def label_names(sources: Sequence[Path]) -> dict[int, str]:
    """Give the names of labels, from the first ``dataset.json`` that has any, beside a source or one folder up.

    nnU-Net writes names to numbers, the Decathlon numbers to names. Regions, which are lists of labels, have no
    single number and are left out; the background too.
    """
    for content in _dataset_jsons(sources):
        labels = content.get("labels")
        names = {}
        for key, value in labels.items() if isinstance(labels, dict) else ():
            if isinstance(value, int):
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


def _dataset_jsons(sources: Sequence[Path]) -> list[dict[str, Any]]:
    folders = [source if source.is_dir() else source.parent for source in sources]
    paths = [place / "dataset.json" for folder in folders for place in (folder, folder.resolve().parent)]
    contents = {path: read_json(path) for path in paths if path.is_file()}
    for path, content in contents.items():
        if not isinstance(content, dict):
            raise UserError(f"{path} is not what nnU-Net writes: it holds no JSON object")
    return list(contents.values())
