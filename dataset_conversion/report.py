"""What is written beside the images: dataset.json, the split, and the report as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nnunetv2_eccam
from nnunetv2_eccam.files import write_json, written_whole
from nnunetv2_eccam.volumes.volume import by

from .labels import LabelPolicy
from .model import CaseResult, Options, Plan
from .slicing import slicing
from .splits import Split

REPORT_JSON = "conversion_report.json"
REPORT_TEXT = "conversion_report.md"


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
    """Collect what a reader needs to trust, cite or repeat the conversion.

    There is no date and no path of this computer in it: two runs give the same bytes.

    Args:
        plan: the finished plan.
        options: the user's.
        policy: the labels.
        split: which case is where.
        results: one entry for each published case, in their order.
        finding: the survey's answer; empty where there was no survey.
    """
    slicing_finding, slicing_warnings = slicing([entry for entry in results if entry["subset"] == "Tr"])
    per_case = [f"{entry['case']}: {warning}" for entry in results for warning in entry["warnings"]]
    # Cases with their finest resolution across the slices pull the planner's target spacing.
    fine = [entry["case"] for entry in results if entry["spacing"][2] < max(entry["spacing"][:2]) * 0.999]
    if fine:
        slicing_warnings.append(
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
        "slicing": slicing_finding,
        "findings": [dict(finding)] if finding else [],
        "warnings": [*slicing_warnings, *per_case],
        "notes": list(plan.notes),
        "left_out": dict(sorted(plan.left_out.items())),
        "cases": list(results),
    }


def write_description(
    folder: Path, plan: Plan, policy: LabelPolicy, split: Split, report: Mapping[str, Any]
) -> None:  # fmt: skip
    """Write dataset.json, splits_final.json where there is a fixed split, and the two reports."""
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
    with written_whole(folder / REPORT_TEXT) as partial:
        partial.write_text(_text(report), encoding="utf-8")


def _text(report: Mapping[str, Any]) -> str:
    """Put the report in Markdown; sizes and boxes in voxels and spacing in mm, x, y, z of the published files."""
    slices = report["slicing"]
    lines = [f"# {report['data_set']}, converted for nnU-Net", ""]
    lines += [f"- {key}: {report[key]}" for key in ("converter", "source_folder", "licence", "reference")]
    lines += [f"- cite: {each}" for each in report["citation"]]
    lines += [f"- options: {', '.join(f'{key} {value}' for key, value in report['options'].items() if value != [])}"]
    lines += [f"- labels: {', '.join(f'{name} {value}' for name, value in report['labels'].items())}"]
    lines += [f"- split: {', '.join(f'{len(cases)} {part}' for part, cases in report['split'].items() if cases)}"]
    lines += [
        f"- 2d slices: along {slices['axis']}, {slices['plane']}, "
        f"{'the' if slices['is_acquired_plane'] else 'NOT the'} stored slices; target spacing "
        f"{by(slices['target_spacing'])} mm"
    ]
    for finding in report["findings"]:
        lines += [
            "",
            f"## {finding['question']}",
            "",
            finding["answer"],
            "",
            "| candidate | mean score |",
            "| --- | --- |",
        ]
        lines += [f"| {name} | {score:.4f} |" for name, score in finding["scores"].items()]
    left_out = [f"{name}: {why}" for name, why in report["left_out"].items()]
    for title, entries in (("Warnings", report["warnings"]), ("Notes", report["notes"]), ("Left out", left_out)):
        lines += ["", f"## {title}", "", *(f"- {entry}" for entry in entries)] if entries else []
    lines += [
        "",
        "## Cases",
        "",
        "| case | folder | size | spacing mm | orientation | intensity | label voxels | box |",
    ]
    lines += ["| --- " * 8 + "|"]
    for entry in report["cases"]:
        voxels = ", ".join(f"{name} {count}" for name, count in entry.get("label_voxels", {}).items())
        box = ", ".join(f"{first}-{last}" for first, last in entry.get("label_box", []))
        low, high = entry["intensity"]
        lines.append(
            f"| {entry['case']} | images{entry['subset']} | {by(entry['size'])} | {by(entry['spacing'])} | "
            f"{entry['orientation']} | {low:g} to {high:g} | {voxels or '-'} | {box or '-'} |"
        )
    return "\n".join(lines) + "\n"
