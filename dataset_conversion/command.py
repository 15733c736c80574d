"""Convert a data set, as downloaded, to nnU-Net's raw format in $nnUNet_raw.

Every case is checked on the way; the data set appears in $nnUNet_raw complete or not at all, with a
report (conversion_report.json) beside its dataset.json. An interrupted run goes on where it stopped when
the same command is given again.

  nnUNetv2_eccam convert msd-heart Task02_Heart
  nnUNetv2_eccam convert msd-pancreas Task07_Pancreas --split paper
  nnUNetv2_eccam convert kits19 kits19 --labels regions
  nnUNetv2_eccam convert tcia-pancreas FOLDER_WITH_IMAGES_AND_LABELS --dry-run
  nnUNetv2_eccam convert msd Task09_Spleen
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_eccam.arguments import add_option
from nnunetv2_eccam.errors import UserError

if TYPE_CHECKING:
    from .model import Conversion, Options

DATA_SETS = {
    "msd-heart": "MSD Task02_Heart: the folder with imagesTr, labelsTr, imagesTs and dataset.json",
    "msd-pancreas": "MSD Task07_Pancreas: the folder with imagesTr, labelsTr, imagesTs and dataset.json",
    "kits19": "KiTS19: the clone of its repository, with data/case_00000 and so on and the images in them",
    "tcia-pancreas": "TCIA Pancreas-CT: the folder with the DICOM folders PANCREAS_0001 and so on and the labels",
    "msd": "any other task of the Decathlon, TaskXX_Name",
}

SHOWN_WARNINGS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data set, the source and the options, which are the same for all data sets."""
    known = "\n".join(f"{key:<14} {text}" for key, text in DATA_SETS.items())
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument("data_set", metavar="DATASET", choices=DATA_SETS, help=known)
    parser.add_argument("source", metavar="SOURCE", nargs="?", type=Path, help="the download, unpacked")
    add_option(parser, "-i", help="the same as SOURCE")
    new_name = "number XXX of the new DatasetXXX_Name, or all of that name; each data set has a default"
    add_option(parser, "-d", "--id", help=new_name)
    parser.add_argument("--name", help="Name in DatasetXXX_Name; each data set has a default")
    parser.add_argument(
        "--labels",
        choices=("merged", "apart", "regions"),
        help="an organ and its lesion as one label (merged: the paper's way and the default\n"
        "for pancreas and kidney), as two labels, or as nnU-Net's regions",
    )
    parser.add_argument(
        "--split",
        choices=("cv", "paper"),
        default="cv",
        help="cv: all labelled cases for nnU-Net's five folds (the default); paper: the\n"
        "paper's numbers of training, validation and test cases",
    )
    parser.add_argument(
        "--hold-out",
        type=int,
        default=0,
        metavar="N",
        help="with cv: N labelled cases go to imagesTs and labelsTs, for testing",
    )
    parser.add_argument("--seed", type=int, default=12345, help="decides which cases are held out (default 12345)")
    parser.add_argument("--leave-out", nargs="+", default=[], metavar="CASE", help="do not convert these cases")
    at_once = "cases at once (default: 8, or the number of cores if less); each is in memory as a whole"
    add_option(parser, "-np", help=at_once)
    parser.add_argument("--dry-run", action="store_true", help="check everything, print every problem, write nothing")
    replaced = "replace the data set if it exists, once the new one is complete"
    parser.add_argument("--overwrite", action="store_true", help=replaced)
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Convert, and say what was done."""
    from dataclasses import fields

    from .model import Options

    arguments.source = arguments.source or arguments.input
    if arguments.source is None:
        raise UserError("give the folder of the download")
    arguments.dataset_id, name = _number_and_name(arguments.dataset)
    arguments.name = arguments.name or name
    if arguments.processes is not None and arguments.processes < 1:
        raise UserError(f"-np {arguments.processes} is not a number of cases; give 1 or more")
    chosen = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    options = Options(**{**chosen, "leave_out": tuple(arguments.leave_out)})
    _say(convert_download(arguments.data_set, arguments.source, options))
    return 0


def _number_and_name(dataset: str | None) -> tuple[int | None, str | None]:
    """Read ``-d``: a number, or DatasetXXX_Name."""
    match = re.fullmatch(r"(\d+)|Dataset(\d{3})_(.+)", dataset or "")
    if dataset and not match:
        raise UserError(f"-d {dataset} is neither a number nor a name such as Dataset002_Heart")
    return (int(match[1] or match[2]), match[3]) if match else (None, None)


def convert_download(data_set: str, source: Path, options: Options) -> Conversion:
    """Convert an unpacked download, one of :data:`DATA_SETS`, to ``$nnUNet_raw/DatasetXXX_Name``.

    Raises:
        UserError: the source, an option or the target is wrong; the target is as it was.
    """
    from .engine import convert
    from .kits19 import plan_kits19
    from .msd import plan_msd
    from .tcia_pancreas import plan_tcia_pancreas

    if data_set == "kits19":
        return convert(plan_kits19(source), options)
    if data_set == "tcia-pancreas":
        return convert(plan_tcia_pancreas(source), options)
    return convert(plan_msd(source, None if data_set == "msd" else data_set, options), options)


def _say(done: Conversion) -> None:
    if done.resumed:
        print(f"{done.resumed} cases had been finished by an earlier run")
    for note in done.notes:
        print(f"note: {note}")
    if done.status == "dry run":
        print(f"dry run: {len(done.cases)} cases are good; nothing was written")
    elif done.status == "already converted":
        print(f"already converted, nothing to do: {done.folder}")
    else:
        for warning in done.warnings[:SHOWN_WARNINGS]:
            print(f"warning: {warning}")
        if len(done.warnings) > SHOWN_WARNINGS:
            print(f"and {len(done.warnings) - SHOWN_WARNINGS} more warnings in the report")
        print(
            f"converted {len(done.cases)} cases: {done.folder}\n"
            f"the report is {done.folder / 'conversion_report.json'}; next: "
            f"nnUNetv2_plan_and_preprocess -d {done.options.dataset_id} -c 2d --verify_dataset_integrity"
        )
    by_reason: dict[str, list[str]] = {}
    for name, reason in done.left_out.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        print(f"left out: {', '.join(names[:5])}{more}: {reason}")
