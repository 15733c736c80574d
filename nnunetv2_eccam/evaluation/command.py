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

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.arguments import add_option, raw_folder
from nnunetv2_eccam.errors import UserError

if TYPE_CHECKING:
    import pandas

VOLUME_FILE = "scores_volume.csv"
SLICE_FILE = "scores_slice.csv"
PATIENT_FILE = "scores_patient.csv"

OVERLAP = {"dsc": "DSC", "sensitivity": "sensitivity", "precision": "precision"}
"""Columns that slices and patients have too, and their names in what is printed."""

Tables = dict[str, "pandas.DataFrame"]
"""The tables of ``score_files`` by what their rows are: ``cases``, ``slices`` that hold the structure in the reference,
where a case has several, and ``patients``, where a group is asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; those that nnUNetv2_evaluate_folder has are named as there."""
    add = parser.add_argument
    add("references", type=Path, nargs="?", metavar="REFERENCES",
        help="folder with gt segmentations (default: labelsTs of the data set that -d names)")  # fmt: skip
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder with predicted segmentations")
    add_option(parser, "-d", help="data set in nnUNet_raw, by number or name: its labelsTs and dataset.json")
    add("-djfile", type=Path, metavar="FILE", help="dataset.json file (default: the one of -d)")
    add("-pfile", type=Path, metavar="FILE",
        help="plans.json file, which tells the axis that nnU-Net slices along (default: the one that prediction or "
        "training left beside PREDICTIONS, if any)")  # fmt: skip
    add("-o", dest="output", type=Path, metavar="FOLDER", help="folder for the tables (default: PREDICTIONS)")
    add("-np", dest="processes", type=int, default=_default_processes(), metavar="N",
        help="number of processes used (default: %(default)s)")  # fmt: skip
    add("--chill", action="store_true",
        help="score the cases that PREDICTIONS has, though REFERENCES has more; the rest is named")  # fmt: skip
    add("--cases", nargs="+", metavar="CASE", help="score these only, whatever else the folders hold")
    add("--group", metavar="PATTERN",
        help="regular expression of the cases' names whose group is the patient: scores per patient too, of all voxels "
        f"of its cases together, in {PATIENT_FILE}; intervals resample patients")  # fmt: skip
    add("--nsd-tolerance", type=float, default=2.0, metavar="MM",
        help="up to this distance surfaces count as the same in the surface Dice; pixels, where images have no mm "
        "(default: 2)")  # fmt: skip
    add("--hd95-of-empty", choices=("undefined", "diagonal"), default="undefined",
        help="HD95 of an empty prediction whose reference is not empty: undefined, or the length of the image's "
        "diagonal (default: undefined)")  # fmt: skip
    add("--slice-axis", choices=("x", "y", "z"),
        help="axis along which slices follow each other (default: from the plans; without any, z)")  # fmt: skip
    add("--no-slices", action="store_true", help="volumes only")
    add("--ignore-geometry", action="store_true",
        help="compare voxel by voxel though spacing, origin or orientation in the headers differ, as nnU-Net does; "
        "distances are by the reference's spacing")  # fmt: skip
    add("--confidence", type=float, default=0.95, metavar="C", help="of the intervals (default: 0.95)")
    add("--bootstrap", type=int, default=10_000, metavar="N", help="resamples of the intervals (default: 10000)")
    add("--seed", type=int, default=0, metavar="N", help="of the resampling (default: 0)")


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
    folder, tables = arguments.output or arguments.predictions, {"cases": volumes}
    written = {folder / VOLUME_FILE: volumes}
    if not arguments.no_slices:
        written[folder / SLICE_FILE] = slices
        if slices.duplicated(["case", "label"]).any():  # of flat images, the slices are the cases
            tables["slices"] = slices[slices["tp"] + slices["fn"] > 0]
    if arguments.group is not None:
        tables["patients"] = written[folder / PATIENT_FILE] = pool_patients(volumes, arguments.group)
    for path, scores in written.items():
        write_scores(scores, path)
    interval = {"confidence": arguments.confidence, "n_bootstrap": arguments.bootstrap, "seed": arguments.seed}
    print(_table(tables, arguments.group, interval), _remarks(tables, interval), sep="\n\n")
    if "slices" in tables:
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
        (0 < arguments.confidence < 1, "--confidence", "it is between 0 and 1; 0.95 is usual"),
        (arguments.bootstrap >= 100, "--bootstrap", "an interval needs 100 resamples or more"),
        (arguments.seed >= 0, "--seed", "a seed is 0 or more"),
    ):
        if not is_right:
            raise UserError(f"{name} {getattr(arguments, name[2:])} will not do: {advice}")


def _slice_axis(arguments: argparse.Namespace) -> tuple[int, str]:
    """Find the axis of nnU-Net's arrays to slice along, and say where it is from."""
    from nnunetv2_eccam.evaluation.labels import AXES, plans_beside, slice_axis_of_plans

    if arguments.slice_axis:
        return AXES.index(arguments.slice_axis), "--slice-axis"
    plans = arguments.pfile or (None if arguments.no_slices else plans_beside(arguments.predictions))
    if plans is None:
        return 0, "no plans were found; nnU-Net's axis is in them: -pfile"
    return slice_axis_of_plans(plans), str(plans)


def _table(tables: Tables, group: str | None, interval: dict[str, Any]) -> str:
    """Lay out each label's metrics: mean, SD, interval, and over how many; what is not defined is a dash."""
    import pandas

    from nnunetv2_eccam.evaluation.score_files import patients_of
    from nnunetv2_eccam.statistics import summarise

    rows = []
    for label, volumes in tables["cases"].groupby("label", sort=False):
        unit, tolerance = "/".join(dict.fromkeys(volumes["unit"])), float(volumes["nsd_tolerance"].iloc[0])
        surfaces = {"hd95": f"HD95 ({unit})", "nsd": f"NSD at {tolerance:g} {unit}"}
        for what, table in tables.items():
            of_label = table[table["label"] == label]
            independent = of_label["patient" if what == "patients" else "case"].tolist()
            if group is not None and what != "patients":
                independent = patients_of(independent, group)
            for column, name in (OVERLAP | surfaces if what == "cases" else OVERLAP).items():
                found = summarise(of_label[column].tolist(), independent, **interval)
                digits = 2 if column == "hd95" else 4
                mean, sd, low, high = (f"{value:.{digits}f}" if not math.isnan(value) else "-" for value in found[:4])
                ends = "-" if low == "-" else f"{low} to {high}"
                metric = name if what == "cases" else f"{name} per {what[:-1]}"
                rows.append((label, metric, mean, sd, ends, f"{found.n_defined} of {found.n_all} {what}"))
    columns = ["label", "metric", "mean", "SD", f"{100 * interval['confidence']:g}% CI", "n"]
    laid = pandas.DataFrame(rows, columns=columns).set_index(["label", "metric"])
    text: str = laid.rename_axis([None, None]).to_string()
    return text


def _remarks(tables: Tables, interval: dict[str, Any]) -> str:
    """Say how the numbers are to be read, and name each case for which something is not defined."""
    volumes, units = tables["cases"], "patients" if "patients" in tables else "cases"
    count = tables[units][units[:-1]].nunique()
    words = [f"CI: of the mean, bootstrap over {units} ({interval['n_bootstrap']} resamples, seed {interval['seed']})"]
    if "slices" in tables:
        words.append(f"Per slice: the slices that hold the structure in the reference; the CI resamples whole {units}")
    if "patients" in tables:
        words.append("Per patient: of the voxels of all its cases together")
    if "px" in set(volumes["unit"]):
        words.append("px: pixels, since the images do not say how large one is in mm")
    if 1 < count < 10:
        words.append(f"{count} {units} are few: their CI is likely too narrow")
    means = [volumes.loc[volumes["label"] == label, "dsc"].mean() for label in dict.fromkeys(volumes["label"])]
    if len(means) > 1:
        mean = sum(means) / len(means)
        shown = "not defined" if math.isnan(mean) else f"{mean:.4f}"
        words.append(f"Mean of the labels' mean DSC (nnU-Net's foreground_mean): {shown}")
    noted = volumes[volumes["note"] != ""]
    words += [f"{case}, {label}: {note}" for case, label, note in noted[["case", "label", "note"]].values.tolist()]
    return "\n".join(words)
