"""What is drawn: the options, the files of cases, named as nnU-Net names them, and what a ``dataset.json`` says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.overlay.page import PAGE_WIDTH_MM
from nnunetv2_eccam.volumes import ENDINGS, ending_of, list_volumes

MOST_ROWS = 8
"""How many rows a picture gets of cases that nobody named."""


@dataclass(frozen=True)
class Overlay:
    """What is drawn, and how.

    Attributes:
        images: folder of images CASE_0000.nii.gz, or one image's file.
        reference: folder of true masks CASE.nii.gz, or one's file; None for unlabelled cases.
        systems: folder of predictions CASE.nii.gz, or one's file, by the system's name, in the order of columns.
        cases: names of cases; None: all that are in every folder, if these are few.
        slices: ``area``: the largest reference (or, without one, predictions); ``disagreement``: most pixels in
            which a system differs from the reference (or, without one, from another system); or numbers along the
            file's axis, from 0.
        per_case: slices of each case, unless they are numbered.
        plane: axial, coronal or sagittal; None: across the largest voxels, in doubt axial.
        channel: of the images; None: the colours of photographs, of all else channel 0.
        window: words as on the command line, see :func:`~nnunetv2_eccam.overlay.window.parse_window`; None: see
            :func:`~nnunetv2_eccam.overlay.window.shown_voxels`.
        style: ``contour`` or ``fill`` for labels, ``errors`` for hits, false alarms and misses; the last takes all
            labels that are drawn as one.
        labels: labels that are drawn; None: all.
        crop_mm: cut out what is at most so far from the labels; None: whole slices.
        width_mm: the picture's width at most.
        dpi: pixels per inch, of the images in SVG and PDF too.
    """

    images: Path
    reference: Path | None = None
    systems: Mapping[str, Path] = field(default_factory=dict)
    cases: Sequence[str] | None = None
    slices: Literal["area", "disagreement"] | Sequence[int] = "area"
    per_case: int = 1
    plane: str | None = None
    channel: int | None = None
    window: Sequence[str] | None = None
    style: Literal["contour", "fill", "errors"] = "contour"
    labels: Sequence[int] | None = None
    crop_mm: float | None = None
    width_mm: float = PAGE_WIDTH_MM
    dpi: int = 300

    @property
    def merged(self) -> bool:
        """All labels that are drawn are taken as one."""
        return self.style == "errors"

    @property
    def masks(self) -> list[Path]:
        """Where the masks are: of the reference, if there is one, and of each system."""
        return [*([] if self.reference is None else [self.reference]), *self.systems.values()]

    def check(self) -> None:
        """See that the options can be followed, before a file is read.

        Raises:
            UserError: they cannot.
        """
        if not self.masks:
            raise UserError(
                "there is nothing to draw over the images; give --reference, or --system NAME=FOLDER, or both"
            )
        if self.style == "errors" and self.reference is None:
            raise UserError("--style errors compares with a reference; give --reference, or another --style")
        if self.slices == "disagreement" and len(self.masks) < 2:
            raise UserError(
                "--slices disagreement needs two masks to compare: a reference and a system, or two systems"
            )
        for what, value in (("--per-case", self.per_case), ("--width", self.width_mm), ("--dpi", self.dpi)):
            if value <= 0:
                raise UserError(f"{what} {value} is too small; give a number above 0")
        if self.crop_mm is not None and self.crop_mm < 0:
            raise UserError(f"--crop {self.crop_mm:g} is not a margin in mm; give 0 or more")
        if self.channel is not None and self.channel < 0:
            raise UserError(f"--channel {self.channel} is not a channel; they are counted from 0")
        if self.labels is not None and min(self.labels, default=0) < 1:
            raise UserError("--label: labels are whole numbers from 1; 0 is the background")


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
    number, files = options.channel or 0, _listed("image", options.images)
    channel = f"_{number:04d}"
    # Raw downloads have no channel in their names.
    images = {stem.removesuffix(channel): path for stem, path in files.items() if stem.endswith(channel)} or files
    names = [*([] if options.reference is None else ["reference"]), *options.systems]
    masks = [(name, source, _listed(name, source)) for name, source in zip(names, options.masks, strict=True)]
    present = [case for case in sorted(images) if all(path.is_file() or case in of for _, path, of in masks)]
    if not (options.cases or present):
        sources = ", ".join(map(str, options.masks))
        raise UserError(f"no image of channel {number} in {options.images} has its mask in each of {sources}")
    found = []
    for case in _checked_cases(options, present):
        image = _file(f"image of channel {number}", options.images, images, case)
        own = [_file(*each, case) for each in masks]
        reference = None if options.reference is None else own.pop(0)
        found.append(CaseFiles(case, image, reference, dict(zip(options.systems, own, strict=True))))
    return found


def _listed(what: str, source: Path) -> dict[str, Path]:
    """List the volumes of a folder by their names without ending, or a single one."""
    if source.is_file():
        return {source.name[: len(source.name) - len(ending_of(source) or "")]: source}
    if not source.is_dir():
        raise UserError(f"{what}: {source} does not exist; give a folder, or the file of a single case")
    return list_volumes(source)


def _file(what: str, source: Path, files: Mapping[str, Path], case: str) -> Path:
    """Give the file of a case: ``source`` itself where it is one, else the one of this name."""
    if source.is_file():
        return source
    if case not in files:
        raise UserError(f"{what}: {source} has no {case} with one of the endings {', '.join(ENDINGS)}")
    return files[case]


def _checked_cases(options: Overlay, present: Sequence[str]) -> list[str]:
    """Give the cases that are asked for, or those that are there if a picture holds them."""
    cases = list(dict.fromkeys(options.cases or present))
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
