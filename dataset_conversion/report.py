"""What is written beside the images: dataset.json, the split, and a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nnunetv2_eccam
from nnunetv2_eccam.files import write_json

from .labels import LabelPolicy
from .model import CaseResult, Options, Plan
from .splits import Split

REPORT_JSON = "conversion_report.json"


def converter_version() -> str:
    """Name this package and its version."""
    return f"nnunetv2-eccam {nnunetv2_eccam.__version__}"


def build_report(
    plan: Plan,
    options: Options,
    policy: LabelPolicy,
    split: Split,
    results: Sequence[CaseResult],
    finding: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect what a reader needs to trust, cite or repeat the conversion, with the survey's finding, if any.

    There is no date and no path of this computer in it: two runs give the same bytes.
    """
    warnings = [f"{entry['case']}: {warning}" for entry in results for warning in entry["warnings"]]
    # Cases with their finest resolution across the slices pull the planner's target spacing, and nnU-Net's 2d
    # configuration slices along the axis where that is largest.
    fine = [entry["case"] for entry in results if entry["spacing"][2] < max(entry["spacing"][:2]) * 0.999]
    if fine:
        warnings.append(
            f"{len(fine)} of {len(results)} cases have slices closer together than their pixels: {', '.join(fine)}"
        )
    return {
        "data_set": plan.card.title,
        "converter": converter_version(),
        "source_folder": plan.source.resolve().name,
        "licence": plan.card.licence,
        "reference": plan.card.reference,
        "citation": list(plan.card.citation),
        "options": options.deciding(),
        "labels": dict(policy.labels),
        "source_labels": {name: value for value, name in policy.declared.items()},
        "split": {"train": split.train, "validation": split.validation or (), "test": split.test},
        "findings": [dict(finding)] if finding else [],
        "warnings": warnings,
        "notes": list(plan.notes),
        "left_out": dict(sorted(plan.left_out.items())),
        "cases": list(results),
    }


def write_description(
    folder: Path, plan: Plan, policy: LabelPolicy, split: Split, report: Mapping[str, Any]
) -> None:  # fmt: skip
    """Write dataset.json, splits_final.json where there is a fixed split, and the report."""
    order = policy.regions_class_order
    content: dict[str, Any] = {
        "channel_names": dict(plan.channel_names),
        "labels": dict(policy.labels),
        **({} if order is None else {"regions_class_order": list(order)}),
        "numTraining": sum(entry["subset"] == "Tr" for entry in report["cases"]),
        "file_ending": ".nii.gz",
        "name": report["options"]["name"],
        "description": f"{plan.card.title}; labels {policy.policy}, split {report['options']['split']}",
        "reference": plan.card.reference,
        "licence": plan.card.licence,
        "citation": list(plan.card.citation),
        "converted_by": report["converter"],
    }
    write_json(folder / "dataset.json", content)
    if split.validation is not None:
        # The planner copies it to the preprocessed folder (default_experiment_planner, nnU-Net 2.8).
        write_json(folder / "splits_final.json", [{"train": list(split.train), "val": list(split.validation)}])
    write_json(folder / REPORT_JSON, report)
