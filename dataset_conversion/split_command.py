r"""Write splits_final.json, nnU-Net's folds, so that a group of cases is never in training and validation at once.

nnU-Net draws its folds from single cases. Where several are of one patient (slices, time points), its validation then
sees patients that it trained on. --by is a regular expression for the whole name of a case; what its parentheses
match names the group.

  nnUNetv2_eccam splits -d 82 --by 'pancreas_(\d+)_\d+'

The file goes to the data set's folders in $nnUNet_raw, from where nnU-Net's planner copies it, and in
$nnUNet_preprocessed, where nnU-Net's trainer reads it. Give the command before the first training.
"""

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunetv2_eccam.arguments import add_option, dataset_name
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json

Folds = list[dict[str, list[str]]]

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; those that nnU-Net has go by its names."""
    add_option(parser, "-d", required=True)
    parser.add_argument("--by", required=True, metavar="PATTERN", help="regular expression with the group in ( )")
    parser.add_argument("--n_splits", type=int, default=5, metavar="N", help="folds (default 5)")
    parser.add_argument("--seed", type=int, default=12345, help="of the shuffling (default 12345, nnU-Net's)")
    parser.add_argument("--overwrite", action="store_true", help="replace a splits_final.json that has other folds")


def run(arguments: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    name = dataset_name(arguments.dataset, *FOLDERS)
    folders = [Path(base, name) for variable in FOLDERS if (base := os.environ.get(variable))]
    folders = [folder for folder in folders if folder.is_dir()]
    groups = groups_of(cases_of(folders), arguments.by)
    folds = grouped_folds(groups, arguments.n_splits, arguments.seed)
    for folder in folders:
        print(f"{write_folds(folder / 'splits_final.json', folds, arguments.overwrite)}")
    sizes = ", ".join(str(len(fold["val"])) for fold in folds)
    print(f"{sum(map(len, groups.values()))} cases of {len(groups)} groups; cases to validate by fold: {sizes}")
    return 0


def cases_of(folders: Sequence[Path]) -> list[str]:
    """List a data set's training cases by its reference segmentations, raw or preprocessed.

    Raises:
        UserError: it has none.
    """
    from nnunetv2_eccam.volumes import list_volumes

    for folder in folders:
        for labels in (folder / "labelsTr", folder / "gt_segmentations"):
            if labels.is_dir():
                content = read_json(folder / "dataset.json")
                ending = content.get("file_ending") if isinstance(content, dict) else None
                if cases := list(list_volumes(labels, ending)):
                    return cases
    raise UserError(f"there are no training cases (labelsTr, gt_segmentations) in {' or '.join(map(str, folders))}")


def groups_of(cases: Iterable[str], pattern: str) -> dict[str, list[str]]:
    """Sort cases into groups by what a pattern's parentheses match in their names.

    Raises:
        UserError: the pattern is none, has no parentheses, or does not match a case's whole name.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--by {pattern!r} is no regular expression: {error}") from None
    if not compiled.groups:
        raise UserError(f"--by {pattern!r} has no group in parentheses; for instance '(patient_\\d+)_.*'")
    groups: dict[str, list[str]] = {}
    for case in sorted(cases):
        match = compiled.fullmatch(case)
        if match is None:
            raise UserError(f"--by {pattern!r} does not match the whole name of the case {case}")
        groups.setdefault("_".join(part or "" for part in match.groups()), []).append(case)
    return groups


def grouped_folds(groups: dict[str, list[str]], n_splits: int = 5, seed: int = 12345) -> Folds:
    """Draw folds as nnU-Net does (KFold, shuffled), but of groups, whose cases are given.

    Raises:
        UserError: there are fewer than two folds, or more folds than groups.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    if not 2 <= n_splits <= len(groups):
        raise UserError(f"--n_splits {n_splits} is not possible with {len(groups)} groups; give 2 to {len(groups)}")
    return [
        {part: sorted(case for name in names for case in groups[str(name)]) for part, names in fold.items()}
        for fold in generate_crossval_split(sorted(groups), seed=seed, n_splits=n_splits)
    ]


def write_folds(file: Path, folds: Folds, overwrite: bool = False) -> str:
    """Write splits_final.json, whole or not at all, and say what was done.

    Raises:
        UserError: it is there with other folds, and ``overwrite`` is False.
    """
    if file.exists() and not overwrite:
        if read_json(file) == folds:
            return f"unchanged: {file}"
        raise UserError(
            f"{file} is there and has other folds; models trained on these no longer fit if it changes. "
            f"Replace it with --overwrite"
        )
    write_json(file, folds)
    return f"written: {file}"
