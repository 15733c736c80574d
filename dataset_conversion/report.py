"""What is written beside the images: dataset.json, the split, and the report as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nnunetv2_eccam
from nnunetv2_eccam.files import write_json, written_whole

from .model import CaseResult, Options, Plan
from .slicing import slicing
from .splits import Split

REPORT_JSON = "conversion_report.json"
REPORT_TEXT = "conversion_report.md"


def converter_version() -> str:
    """Name this package and its version."""
    return f"nnunetv2-eccam {nnunetv2_eccam.__version__}"


def build_report(
    plan: Plan, options: Options, split: Split, results: Sequence[CaseResult], finding: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect what a reader needs to trust, cite or repeat the conversion.

    There is no date and no path of this computer in it: two runs give the same bytes.

    Args:
        plan: the finished plan.
        options: the user's.
        split: which case is where.
        results: one entry for each published case, in their order.
        finding: the survey's answer; empty where there was no survey.
    """
    slicing_finding, slicing_warnings = slicing([entry for entry in results if entry["subset"] == "Tr"])
    per_case = [f"{entry['case']}: {warning}" for entry in results for warning in entry["warnings"]]
    return {
        "data_set": plan.card.title,
        "converter": converter_version(),
        "source_folder": plan.source.resolve().name,
        "licence": plan.card.licence,
        "reference": plan.card.reference,
        "citation": list(plan.card.citation),
        "options": options.deciding(),
        "labels": dict(plan.policy.labels),
        "source_labels": {name: value for value, name in plan.policy.declared.items()},
        "split": {
            "train": list(split.train),
            "validation": list(split.validation or ()),
            "test": list(split.test),
        },
        "slicing": slicing_finding,
        "findings": [dict(finding)] if finding else [],
        "warnings": [*slicing_warnings, *_fine_slices(results), *per_case],
        "notes": list(plan.notes),
        "left_out": dict(sorted(plan.left_out.items())),
        "cases": list(results),
    }


def _fine_slices(results: Sequence[CaseResult]) -> list[str]:
    """Name the cases that have their finest resolution across the slices; they pull the target spacing."""
    fine = [entry["case"] for entry in results if entry["spacing"][2] < max(entry["spacing"][:2]) * 0.999]
    if not fine:
        return []
    return [f"{len(fine)} of {len(results)} cases have slices closer together than their pixels: {', '.join(fine)}"]


def write_description(folder: Path, plan: Plan, split: Split, report: Mapping[str, Any]) -> None:
    """Write dataset.json, splits_final.json where there is a fixed split, and the two reports."""
    write_json(folder / "dataset.json", _dataset_json(plan, report))
    splits = split.splits_final()
    if splits is not None:
        # The planner copies it to the preprocessed folder (default_experiment_planner, nnU-Net 2.8).
        write_json(folder / "splits_final.json", splits)
    write_json(folder / REPORT_JSON, report)
    with written_whole(folder / REPORT_TEXT) as partial:
        partial.write_text(_text(report), encoding="utf-8")


def _dataset_json(plan: Plan, report: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "channel_names": dict(plan.channel_names),
        "labels": dict(plan.policy.labels),
    }
    if plan.policy.regions_class_order is not None:
        content["regions_class_order"] = list(plan.policy.regions_class_order)
    training = sum(entry["subset"] == "Tr" for entry in report["cases"])
    return {
        **content,
        "numTraining": training,
        "file_ending": ".nii.gz",
        "name": report["options"]["name"],
        "description": f"{plan.card.title}; labels {plan.policy.policy}, split {report['options']['split']}",
        "reference": plan.card.reference,
        "licence": plan.card.licence,
        "citation": list(plan.card.citation),
        "converted_by": report["converter"],
    }


def _text(report: Mapping[str, Any]) -> str:
    sections = [
        f"# {report['data_set']}, converted for nnU-Net\n",
        _properties(
            {
                "Converter": report["converter"],
                "Source folder": report["source_folder"],
                "Options": ", ".join(f"{key} {value}" for key, value in report["options"].items() if value != []),
                "Labels": ", ".join(f"{name} {value}" for name, value in report["labels"].items()),
                "Cases": _counts(report),
                "2d slices": _slicing_text(report["slicing"]),
                "Licence": report["licence"],
                "Download": report["reference"],
                "Cite": " / ".join(report["citation"]),
            }
        ),
    ]
    for finding in report["findings"]:
        scores = "".join(f"| {name} | {score:.4f} |\n" for name, score in finding["scores"].items())
        sections.append(
            f"## {finding['question']}\n\n{finding['answer']}\n\n| candidate | mean score |\n| --- | --- |\n{scores}"
        )
    for title, lines in (
        ("Warnings", report["warnings"]),
        ("Notes", report["notes"]),
        ("Left out", [f"{name}: {why}" for name, why in report["left_out"].items()]),
    ):
        if lines:
            sections.append(f"## {title}\n\n" + "".join(f"- {line}\n" for line in lines))
    sections.append("## Cases\n\n" + _case_table(report["cases"]))
    return "\n".join(sections)


def _properties(properties: Mapping[str, str]) -> str:
    return "".join(f"- {name}: {value}\n" for name, value in properties.items())


def _counts(report: Mapping[str, Any]) -> str:
    split = report["split"]
    unlabelled = sum(not entry["labelled"] for entry in report["cases"])
    parts = [
        f"{len(split['train'])} training",
        f"{len(split['validation'])} validation",
        f"{len(split['test'])} test",
        f"{unlabelled} unlabelled",
    ]
    return ", ".join(part for part in parts if not part.startswith("0 "))


def _slicing_text(finding: Mapping[str, Any]) -> str:
    acquired = "the stored slices" if finding["is_acquired_plane"] else "NOT the stored slices"
    return (
        f"along {finding['axis']}, {finding['plane']}, {acquired}; target spacing "
        f"{' x '.join(f'{value:g}' for value in finding['target_spacing'])} mm"
    )


def _case_table(cases: Sequence[CaseResult]) -> str:
    """One row a case: sizes and boxes in voxels and spacing in mm, x, y, z of the published file."""
    rows = [
        "| case | folder | size | spacing mm | orientation | intensity | label voxels | label box |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in cases:
        voxels = ", ".join(f"{name} {count}" for name, count in entry.get("label_voxels", {}).items())
        box = ", ".join(f"{first}-{last}" for first, last in entry.get("label_box", []))
        rows.append(
            f"| {entry['case']} | images{entry['subset']} | {' x '.join(map(str, entry['size']))} "
            f"| {' x '.join(f'{value:.4g}' for value in entry['spacing'])} | {entry['orientation']} "
            f"| {entry['intensity'][0]:g} to {entry['intensity'][1]:g} | {voxels or '-'} | {box or '-'} |"
        )
    return "\n".join(rows) + "\n"
