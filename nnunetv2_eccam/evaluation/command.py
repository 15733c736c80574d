r"""Score a folder of predictions: nnUNetv2_evaluate_folder, with surfaces, slices, spread and intervals.

  nnUNetv2_eccam evaluate -d 2 predictions
  nnUNetv2_eccam evaluate labelsTs predictions -djfile dataset.json
  nnUNetv2_eccam evaluate labelsTs predictions -djfile dataset.json -pfile plans.json -o scores --nsd-tolerance 1
  nnUNetv2_eccam evaluate labelsTs predictions -djfile dataset.json --group "pancreas_(\d+)_\d+"

For each label or region: Dice (nnU-Net's, to the digit), sensitivity, precision, 95% Hausdorff distance and
normalised surface Dice of each case, and the first three of each slice. Written to scores_volume.csv and
scores_slice.csv; printed with mean, SD, confidence interval, and over how many of how many cases. What is not
defined, since a reference or a prediction is empty, is left out of the means, counted and named.
"""

import argparse
import os
import sys
from pathlib import Path

from nnunetv2_eccam.arguments import add_option, raw_folder
from nnunetv2_eccam.errors import UserError

VOLUME_FILE = "scores_volume.csv"
SLICE_FILE = "scores_slice.csv"
PATIENT_FILE = "scores_patient.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; those that nnUNetv2_evaluate_folder has are named as there."""
    add = parser.add_argument
    add("references", type=Path, nargs="?", metavar="REFERENCES",
        help="folder with gt segmentations (default: labelsTs of the data set that -d names)")  # fmt: skip
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder with predicted segmentations")
    add_option(parser, "-d", help="data set in nnUNet_raw, by number or name: its labelsTs and dataset.json")
    add("-djfile", type=Path, metavar="FILE", help="dataset.json file (default: the one of -d)")
    add("-pfile", type=Path, metavar="FILE",
        help="plans.json file, which tells the axis that nnU-Net slices along (default: the one that\n"
        "prediction or training left beside PREDICTIONS, if any)")  # fmt: skip
    add("-o", dest="output", type=Path, metavar="FOLDER", help="folder for the tables (default: PREDICTIONS)")
    add("-np", dest="processes", type=int, default=_default_processes(), metavar="N",
        help="number of processes used (default: %(default)s)")  # fmt: skip
    add("--chill", action="store_true",
        help="score the cases that PREDICTIONS has, though REFERENCES has more; the rest is named")  # fmt: skip
    add("--cases", nargs="+", metavar="CASE", help="score these only, whatever else the folders hold")
    add("--group", metavar="PATTERN",
        help="regular expression of the cases' names whose group is the patient: scores per patient too,\n"
        f"of all voxels of its cases together, in {PATIENT_FILE}; intervals resample patients")  # fmt: skip
    add("--nsd-tolerance", type=float, default=2.0, metavar="MM",
        help="up to this distance surfaces count as the same in the surface Dice; pixels, where\n"
        "images have no mm (default: 2)")  # fmt: skip
    add("--hd95-of-empty", choices=("undefined", "diagonal"), default="undefined",
        help="HD95 of an empty prediction whose reference is not empty: undefined, or the length of\n"
        "the image's diagonal (default: undefined)")  # fmt: skip
    add("--slice-axis", choices=("x", "y", "z"),
        help="axis along which slices follow each other (default: from the plans; without any, z)")  # fmt: skip
    add("--no-slices", action="store_true", help="volumes only")
    add("--ignore-geometry", action="store_true",
        help="compare voxel by voxel though spacing, origin or orientation in the headers differ, as\n"
        "nnU-Net does; distances are by the reference's spacing")  # fmt: skip
    add("--confidence", type=float, default=0.95, metavar="C", help="of the intervals (default: 0.95)")
    add("--bootstrap", type=int, default=10_000, metavar="N", help="resamples of the intervals (default: 10000)")
    add("--seed", type=int, default=0, metavar="N", help="of the resampling (default: 0)")
    # The help's own line breaks hold, as in the description.
    parser.formatter_class = argparse.RawTextHelpFormatter


def _default_processes() -> int:
    """nnU-Net's own default where it is set, else eight or the number of cores."""
    given = os.environ.get("nnUNet_def_n_proc", "")
    return int(given) if given.isdecimal() and int(given) else min(8, os.cpu_count() or 1)


def run(arguments: argparse.Namespace) -> int:
    """Score, write the tables and print what they say."""
    _take_dataset(arguments)
    _check(arguments)
    axis, reason = _slice_axis(arguments)
    from nnunetv2_eccam.evaluation.case_scores import Scoring
    from nnunetv2_eccam.evaluation.folders import cases_in, score_folder
    from nnunetv2_eccam.evaluation.labels import read_dataset_json
    from nnunetv2_eccam.evaluation.score_files import patients_of, pool_patients, write_scores
    from nnunetv2_eccam.evaluation.summary_table import Scores, remarks, table

    labels = read_dataset_json(arguments.djfile)
    references = cases_in(arguments.references, labels.file_ending, "references")
    if arguments.group is not None:
        patients_of(arguments.cases or list(references), arguments.group)  # before any work is done
    scoring = Scoring(
        labels, arguments.nsd_tolerance, axis, not arguments.no_slices, arguments.hd95_of_empty,
        compare_headers=not arguments.ignore_geometry,
    )  # fmt: skip
    volumes, slices = score_folder(
        arguments.references, arguments.predictions, scoring, cases=arguments.cases, chill=arguments.chill,
        n_processes=arguments.processes, progress=sys.stderr.isatty(),
    )  # fmt: skip
    scored = Scores(
        volumes, None if arguments.no_slices else slices,
        None if arguments.group is None else pool_patients(volumes, arguments.group), arguments.group,
    )  # fmt: skip
    folder = arguments.output or arguments.predictions
    tables = {VOLUME_FILE: volumes, SLICE_FILE: scored.slices, PATIENT_FILE: scored.patients}
    written = {folder / name: scores for name, scores in tables.items() if scores is not None}
    for path, scores in written.items():
        write_scores(scores, path)
    interval = {"confidence": arguments.confidence, "n_bootstrap": arguments.bootstrap, "seed": arguments.seed}
    print(table(scored, interval), remarks(scored, interval), sep="\n\n")
    if scored.has_slices:
        print(f"Slices are along {'zyx'[axis]} ({reason})")
    if left := sorted(set(references) - set(volumes["case"])):
        print(f"Not scored, as asked: {len(left)} of {len(references)} references ({', '.join(left)})")
    print("Written: " + ", ".join(map(str, written)))
    return 0


def _take_dataset(arguments: argparse.Namespace) -> None:
    """Fill in what ``-d`` names.

    Raises:
        UserError: there is no such data set; or neither ``-d`` nor the files are given.
    """
    folder = raw_folder(arguments.dataset) if arguments.dataset else None
    arguments.references = arguments.references or (folder and folder / "labelsTs")
    arguments.djfile = arguments.djfile or (folder and folder / "dataset.json")
    if arguments.references is None or arguments.djfile is None:
        raise UserError("give REFERENCES and -djfile, or a data set of nnUNet_raw by -d")


def _check(arguments: argparse.Namespace) -> None:
    """See to the numbers, before any work is done.

    Raises:
        UserError: one is out of range.
    """
    for is_right, name, advice in (
        (arguments.processes >= 1, "-np", "a number of processes is 1 or more"),
        (0 < arguments.confidence < 1, "--confidence", "it is between 0 and 1; 0.95 is usual"),
        (arguments.bootstrap >= 100, "--bootstrap", "an interval needs 100 resamples or more"),
        (arguments.seed >= 0, "--seed", "a seed is 0 or more"),
    ):
        if not is_right:
            value = getattr(arguments, {"-np": "processes"}.get(name, name.strip("-")))
            raise UserError(f"{name} {value} will not do: {advice}")


def _slice_axis(arguments: argparse.Namespace) -> tuple[int, str]:
    """Find the axis of nnU-Net's arrays to slice along, and say where it is from."""
    from nnunetv2_eccam.evaluation.labels import AXES, plans_beside, slice_axis_of_plans

    if arguments.slice_axis:
        return AXES.index(arguments.slice_axis), "--slice-axis"
    plans = arguments.pfile or (None if arguments.no_slices else plans_beside(arguments.predictions))
    if plans is None:
        return 0, "no plans were found; nnU-Net's axis is in them: -pfile"
    return slice_axis_of_plans(plans), str(plans)
