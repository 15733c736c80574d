"""What is written beside the images: dataset.json, the split, and a report."""

from collections.abc import Sequence
from pathlib import Path

import nnunetv2_eccam
from nnunetv2_eccam.files import write_json

from .labels import REGIONS_CLASS_ORDER
from .model import CaseResult, Conversion

REPORT_JSON = "conversion_report.json"
CONVERTER = f"nnunetv2-eccam {nnunetv2_eccam.__version__}"


def write_description(folder: Path, plan: Conversion, results: Sequence[CaseResult]) -> None:
    """Write dataset.json, splits_final.json where there is a fixed split, and the report; note the cases' warnings.

    The report is what a reader needs to trust, cite or repeat the conversion. There is no date and no path of this
    computer in it: two runs give the same bytes.
    """
    card, options, split = plan.card, plan.options, plan.split
    plan.warnings += [f"{entry['case']}: {warning}" for entry in results for warning in entry["warnings"]]
    # Cases with their finest resolution across the slices pull the planner's target spacing, and nnU-Net's 2d
    # configuration slices along the axis where that is largest.
    fine = [entry["case"] for entry in results if entry["spacing"][2] < max(entry["spacing"][:2]) * 0.999]
    if fine:
        plan.warnings.append(
            f"{len(fine)} of {len(results)} cases have slices closer together than their pixels: {', '.join(fine)}"
        )
    origin = {"reference": card.reference, "licence": card.licence, "citation": card.citation}
    description = {
        "channel_names": plan.channel_names,
        "labels": plan.labels,
        **({"regions_class_order": REGIONS_CLASS_ORDER} if options.labels == "regions" else {}),
        "numTraining": sum(entry["subset"] == "Tr" for entry in results),
        "file_ending": ".nii.gz",
        "name": options.name,
        "description": f"{card.title}; labels {options.labels}, split {options.split}",
        **origin,
        "converted_by": CONVERTER,
    }
    report = {
        "data_set": card.title,
        "converter": CONVERTER,
        "source_folder": plan.source.resolve().name,
        **origin,
        "options": options.deciding(),
        "labels": plan.labels,
        "source_labels": {name: value for value, name in card.labels.items()},
        "split": split._asdict(),
        "findings": [plan.finding] if plan.finding else [],
        "warnings": plan.warnings,
        "notes": plan.notes,
        "left_out": dict(sorted(plan.left_out.items())),
        "cases": results,
    }
    write_json(folder / "dataset.json", description)
    if split.validation:
        # The planner copies it to the preprocessed folder (default_experiment_planner, nnU-Net 2.8).
        write_json(folder / "splits_final.json", [{"train": split.train, "val": split.validation}])
    write_json(folder / REPORT_JSON, report)
