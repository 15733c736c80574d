"""From a plan to a finished data set: split, check, convert, report, publish."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

from .checksums import source_checksums
from .model import Case, CaseResult, ConvertCase, Options, Outcome, Plan, Problem
from .parallel import run_cases
from .report import REPORT_JSON, build_report, converter_version, write_description
from .splits import FOLDS, Split, paper_split, split_with_hold_out
from .target import Staging, check_name, stale_results, target_folder


def convert(plan: Plan, options: Options) -> Outcome:
    """Do what a plan says, or with ``options.dry_run`` only find every problem.

    The target appears complete or not at all. An interrupted conversion goes on where it stopped when
    it is started again with the same options.

    Raises:
        UserError: the source, an option or the target is wrong; the target is as it was.
    """
    target = target_folder(options)
    plan.cases = _without_left_out(plan, options)
    _check_layout(plan, options)
    split = _split(plan, options)
    plan.cases = _placed(plan, split, options)
    if options.dry_run:
        return _dry_run(plan, options, target)
    staging = Staging(target)
    try:
        staging.recover()
        if target.exists() and not options.overwrite:
            return _already_converted(plan, options, target)
        with staging.opened(_key(plan, options)):
            return _convert_and_publish(plan, options, split, staging)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or target}: {error.strerror or error}; make room or change "
            f"the permissions, and run the same command again to go on"
        ) from error


def _convert_and_publish(plan: Plan, options: Options, split: Split, staging: Staging) -> Outcome:
    finding: dict[str, Any] = {}
    convert_case = plan.convert
    if plan.survey is not None:
        labelled = [case for case in plan.cases if case.label is not None]
        measured, _ = _all_cases(plan.survey.measure, labelled, options, plan.survey.title, staging, "survey")
        finding, convert_case = plan.survey.decide(measured)
    work = partial(_convert_into, convert_case, staging.folder)
    # A changed answer to the survey makes cases that an interrupted run converted by the old one worthless.
    answer = hashlib.sha256(json.dumps(finding, sort_keys=True).encode()).hexdigest()[:12]
    results, resumed = _all_cases(work, plan.cases, options, "converting", staging, f"case_{answer}")
    report = build_report(plan, options, split, [results[case.case] for case in plan.cases], finding)
    write_description(staging.folder, plan, split, report)
    staging.publish()
    warnings = [*report["warnings"], *_stale_warnings(options)]
    return Outcome(staging.target, "converted", len(results), warnings, resumed)


def _convert_into(convert_case: ConvertCase, folder: Path | None, case: Case) -> CaseResult:
    """Give :func:`run_cases` a function of the case alone; a lambda could not be pickled."""
    return convert_case(case, folder)


def _all_cases(
    work: Callable[[Case], dict[str, Any]],
    cases: Sequence[Case],
    options: Options,
    title: str,
    staging: Staging,
    stage: str,
) -> tuple[dict[str, dict[str, Any]], int]:
    """Do all that is not done yet, recording each case as it is finished; stop at the first problem."""
    results = {case.case: result for case in cases if (result := staging.finished(case, stage)) is not None}
    resumed = len(results)
    missing = [case for case in cases if case.case not in results]
    for case, outcome in run_cases(work, missing, options.processes, title, options.progress):
        if isinstance(outcome, UserError):
            raise outcome
        staging.record(case, stage, outcome)
        results[case.case] = outcome
    return results, resumed


def _without_left_out(plan: Plan, options: Options) -> list[Case]:
    known = {case.case for case in plan.cases} | {problem.case for problem in plan.problems}
    for name in options.leave_out:
        if name not in known:
            raise UserError(
                f"--leave-out {name}: there is no such case; the first ones are {', '.join(sorted(known)[:3])}"
            )
        plan.left_out[name] = "left out by --leave-out"
    plan.problems = [problem for problem in plan.problems if problem.case not in options.leave_out]
    return [case for case in plan.cases if case.case not in options.leave_out]


def _split(plan: Plan, options: Options) -> Split:
    labelled = [case.case for case in plan.cases if case.label is not None]
    if not labelled:
        problem = plan.problems[0].message if plan.problems else f"{plan.source} has no labelled case"
        raise UserError(problem)
    try:
        return _chosen_split(plan, options, labelled)
    except UserError as error:
        if not options.dry_run:
            raise
        plan.problems.append(Problem("", str(error)))  # and go on, to find the others
        return split_with_hold_out(labelled, 0, options.seed)


def _chosen_split(plan: Plan, options: Options, labelled: Sequence[str]) -> Split:
    if options.split == "cv":
        return split_with_hold_out(labelled, options.hold_out, options.seed)
    if options.hold_out:
        raise UserError("--hold-out is for --split cv; --split paper has test cases of its own")
    if not plan.paper_counts:
        raise UserError(f"--split paper: {plan.why_no_paper_split}; use --split cv")
    return paper_split(labelled, plan.paper_counts, options.seed)


def _placed(plan: Plan, split: Split, options: Options) -> list[Case]:
    """Send each case to its subset; where test cases have labels, imagesTs holds only those."""
    test = set(split.test)
    unlabelled = [case.case for case in plan.cases if case.label is None]
    if test and unlabelled:
        plan.notes.append(
            f"The source's {len(unlabelled)} unlabelled cases are left out: imagesTs holds exactly "
            f"the cases of labelsTs, so that predictions can be scored."
        )
        plan.left_out.update(dict.fromkeys(unlabelled, "unlabelled; imagesTs is for the held-out cases"))
    if len(split.train) < FOLDS and split.validation is None:
        plan.notes.append(
            f"{len(split.train)} training cases are too few for nnU-Net's five folds: train with fold 'all'."
        )
    if split.validation is not None:
        plan.notes.append(
            f"splits_final.json has one fold, drawn with seed {options.seed}: train fold 0 only. "
            f"nnU-Net makes up a random split for a fold that the file does not have."
        )
    placed = [
        replace(case, subset="Ts" if case.label is None or case.case in test else "Tr")
        for case in plan.cases
        if case.label is not None or not test
    ]
    return sorted(placed, key=lambda case: case.case)


def _check_layout(plan: Plan, options: Options) -> None:
    for case in plan.cases:
        check_name(case.case, "the case name")
    if plan.problems and not options.dry_run:
        more = f" (and {len(plan.problems) - 1} more; --dry-run lists them all)" if len(plan.problems) > 1 else ""
        raise UserError(plan.problems[0].message + more)


def _dry_run(plan: Plan, options: Options, target: Path) -> Outcome:
    """Check every case and print what would be done and every problem; write nothing."""
    problems, warnings = [problem.message for problem in plan.problems], []
    if target.exists() and not options.overwrite:
        problems.append(f"{target} exists; --overwrite would replace it")
    convert_case: ConvertCase | None = plan.convert
    if plan.survey is not None:
        labelled = [case for case in plan.cases if case.label is not None]
        measured = _every_result(plan.survey.measure, labelled, options, plan.survey.title, problems)
        try:
            finding, convert_case = plan.survey.decide(measured)
            print(f"{finding['question']}: {finding['answer']}")
        except UserError as error:
            problems.append(str(error))
            convert_case = None
        plan.cases = [case for case in plan.cases if case.case in measured]
    if convert_case is not None:
        work = partial(_convert_into, convert_case, None)
        results = _every_result(work, plan.cases, options, "checking", problems)
        warnings = [f"{name}: {warning}" for name, result in results.items() for warning in result["warnings"]]
    _print_dry_run(plan, target, problems, warnings)
    if problems:
        raise UserError(f"{len(problems)} problem(s), listed above; nothing was written")
    return Outcome(target, "dry run", len(plan.cases), warnings)


def _every_result(
    work: Callable[[Case], dict[str, Any]],
    cases: Sequence[Case],
    options: Options,
    title: str,
    problems: list[str],
) -> dict[str, dict[str, Any]]:
    found = {case.case: result for case, result in run_cases(work, cases, options.processes, title, options.progress)}
    problems += [str(result) for name in sorted(found) if isinstance(result := found[name], UserError)]
    return {name: result for name, result in sorted(found.items()) if not isinstance(result, UserError)}


def _print_dry_run(plan: Plan, target: Path, problems: Sequence[str], warnings: Sequence[str]) -> None:
    counts = {
        "imagesTr": sum(case.subset == "Tr" for case in plan.cases),
        "imagesTs": sum(case.subset == "Ts" for case in plan.cases),
        "labelsTs": sum(case.subset == "Ts" and case.label is not None for case in plan.cases),
    }
    print(f"would write {target}: " + ", ".join(f"{count} in {name}" for name, count in counts.items()))
    print(f"labels: {plan.policy.policy}: {dict(plan.policy.labels)}")
    for name, reason in plan.left_out.items():
        print(f"left out: {name}: {reason}")
    for note in plan.notes:
        print(f"note: {note}")
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)


def _key(plan: Plan, options: Options) -> dict[str, Any]:
    """Tell whether an interrupted run's cases can be used: same converter, source and options.

    Options that only decide where a case goes are part of it too: the simplest rule is the safest.
    """
    return {
        "converter": converter_version(),
        "data set": plan.card.title,
        "source": str(plan.source.resolve()),
        "options": options.deciding(),
    }


def _already_converted(plan: Plan, options: Options, target: Path) -> Outcome:
    """Tell a finished conversion of the same source with the same options from anything else.

    Raises:
        UserError: it is something else.
    """
    different = UserError(
        f"{target} exists and was not made from this source with these options; "
        f"replace it with --overwrite, or choose another --id or --name"
    )
    report_file = target / REPORT_JSON
    if not report_file.is_file():
        raise different
    report: Mapping[str, Any] = read_json(report_file)
    made_of = {entry["case"]: entry for entry in report.get("cases", ())}
    same_options = (report.get("options"), report.get("converter")) == (
        options.deciding(),
        converter_version(),
    )
    if (
        not same_options
        or report.get("data_set") != plan.card.title
        or set(made_of) != {case.case for case in plan.cases}
    ):
        raise different
    for entry in made_of.values():
        for name in entry["files"]:
            if not (target / name).is_file():
                raise UserError(
                    f"{target / name} is missing from a finished conversion; convert again with --overwrite"
                )
    for case, result in run_cases(source_checksums, plan.cases, options.processes, "comparing", options.progress):
        if isinstance(result, UserError) or result != made_of[case.case]["sources"]:
            raise different
    return Outcome(target, "already converted", len(made_of), report["warnings"])


def _stale_warnings(options: Options) -> list[str]:
    return [
        f"{folder} was made from an earlier data set of this name; delete it, then plan and preprocess again"
        for folder in stale_results(options)
    ]
