"""From a plan to a finished data set: split, check, convert, report, publish."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError, words_of
from nnunetv2_eccam.files import read_json

from .cases import convert_case, source_checksums
from .labels import LabelPolicy, label_policy
from .model import Case, Options, Outcome, Plan, Problem
from .report import REPORT_JSON, build_report, converter_version, write_description
from .splits import FOLDS, Split, paper_split, split_with_hold_out
from .target import Staging, check_name, stale_warnings, target_folder

Results = dict[str, dict[str, Any]]
Work = Callable[[Case], dict[str, Any]]


def convert(plan: Plan, options: Options) -> Outcome:
    """Do what a plan says, or with ``options.dry_run`` only find every problem.

    The target appears complete or not at all. An interrupted conversion goes on where it stopped when
    it is started again with the same options.

    Args:
        plan: made by a converter from names only.
        options: the user's; what is None becomes the data set's own.

    Raises:
        UserError: the source, an option or the target is wrong; the target is as it was.
    """
    card = plan.card
    options = replace(
        options,
        dataset_id=card.dataset_id if options.dataset_id is None else options.dataset_id,
        name=card.name if options.name is None else options.name,
        labels=options.labels or card.default_labels,
    )
    policy = label_policy(str(options.labels), card.labels, card.organ)
    target = target_folder(int(options.dataset_id or 0), str(options.name))
    plan.cases = _without_left_out(plan, options)
    for case in plan.cases:
        check_name(case.case, "the case name")
    if plan.problems and not options.dry_run:
        more = f" (and {len(plan.problems) - 1} more; --dry-run lists them all)" if len(plan.problems) > 1 else ""
        raise UserError(f"{plan.problems[0]}{more}")
    split = _split(plan, options)
    plan.cases = _placed(plan, split, options)
    if options.dry_run:
        return _dry_run(plan, options, policy, target)
    staging = Staging(target)
    if target.exists() and not options.overwrite:
        return _already_converted(plan, options, target)
    # Options that only decide where a case goes are part of the key too: the simplest rule is the safest.
    key = {"converter": converter_version(), "data set": card.title, "source": str(plan.source.resolve())}
    with staging.opened({**key, "options": options.deciding()}):
        return _convert_and_publish(plan, options, policy, split, staging)


def _convert_and_publish(plan: Plan, options: Options, policy: LabelPolicy, split: Split, staging: Staging) -> Outcome:
    finding, results = _convert_cases(plan, options, policy, staging, [])
    report = build_report(plan, options, policy, split, [results[case.case] for case in plan.cases], finding)
    write_description(staging.folder, plan, policy, split, report)
    staging.publish()
    warnings = [*report["warnings"], *stale_warnings(staging.target.name)]
    return Outcome(staging.target, "converted", len(results), warnings, plan.notes, plan.left_out, staging.resumed)


def _convert_cases(
    plan: Plan, options: Options, policy: LabelPolicy, staging: Staging | None, problems: list[str]
) -> tuple[dict[str, Any], Results]:
    """Ask the survey, then convert every case; without a staging folder, only check and collect the problems."""

    def results_of(work: Work, cases: Sequence[Case], title: str, stage: str) -> Results:
        results = {} if staging is None else staging.finished(cases, stage)
        missing = [case for case in cases if case.case not in results]
        for case, outcome in run_cases(work, missing, options, title):
            if not isinstance(outcome, UserError):
                results[case.case] = outcome
                if staging is not None:
                    staging.record(case, stage, outcome)
            elif staging is not None:
                raise outcome
            else:
                problems.append(str(outcome))
        return results

    finding: dict[str, Any] = {}
    read = plan.read
    if plan.survey is not None:
        measured = results_of(plan.survey.measure, _labelled(plan), plan.survey.title, "survey")
        plan.cases = [case for case in plan.cases if case.case in measured or case.label is None]
        finding, read = plan.survey.decide(measured)
    # A changed answer to the survey makes cases that an interrupted run converted by the old one worthless.
    answer = hashlib.sha256(json.dumps(finding, sort_keys=True).encode()).hexdigest()[:12]
    work = partial(convert_case, folder=staging.folder if staging else None, read=read, policy=policy, plan=plan)
    return finding, results_of(work, plan.cases, "checking" if staging is None else "converting", f"case_{answer}")


def _labelled(plan: Plan) -> list[Case]:
    return [case for case in plan.cases if case.label is not None]


def _without_left_out(plan: Plan, options: Options) -> list[Case]:
    known = {case.case for case in plan.cases} | {problem.case for problem in plan.problems if problem.case}
    for name in options.leave_out:
        if name not in known:
            raise UserError(
                f"--leave-out {name}: there is no such case; the first ones are {', '.join(sorted(known)[:3])}"
            )
        plan.left_out[name] = "left out by --leave-out"
    plan.problems = [problem for problem in plan.problems if problem.case not in options.leave_out]
    return [case for case in plan.cases if case.case not in options.leave_out]


def _split(plan: Plan, options: Options) -> Split:
    labelled = [case.case for case in _labelled(plan)]
    if not labelled:
        raise UserError(str(plan.problems[0]) if plan.problems else f"{plan.source} has no labelled case")
    try:
        if options.split == "cv":
            return split_with_hold_out(labelled, options.hold_out, options.seed)
        if options.hold_out:
            raise UserError("--hold-out is for --split cv; --split paper has test cases of its own")
        if not plan.card.paper_counts:
            raise UserError(f"--split paper: {plan.card.why_no_paper_split}; use --split cv")
        return paper_split(labelled, plan.card.paper_counts, options.seed)
    except UserError as error:
        if not options.dry_run:
            raise
        plan.refuse("", str(error))  # and go on, to find the others
        return split_with_hold_out(labelled, 0, options.seed)


def _placed(plan: Plan, split: Split, options: Options) -> list[Case]:
    """Send each case to its subset; where test cases have labels, imagesTs holds only those."""
    test = set(split.test)
    unlabelled = [case.case for case in plan.cases if case.label is None]
    if test and unlabelled:
        plan.left_out.update(dict.fromkeys(unlabelled, "unlabelled; imagesTs holds exactly the cases of labelsTs"))
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


def _dry_run(plan: Plan, options: Options, policy: LabelPolicy, target: Path) -> Outcome:
    """Check every case and print what would be done and every problem; write nothing."""
    problems = [str(problem) for problem in plan.problems]
    if target.exists() and not options.overwrite:
        problems.append(f"{target} exists; --overwrite would replace it")
    warnings = []
    try:
        finding, results = _convert_cases(plan, options, policy, None, problems)
        warnings = [f"{name}: {warning}" for name in sorted(results) for warning in results[name]["warnings"]]
        if finding:
            print(f"{finding['question']}: {finding['answer']}")
    except UserError as error:  # the survey has no answer
        problems.append(str(error))
    folders = [f"images{case.subset}" for case in plan.cases]
    folders += [f"labels{case.subset}" for case in plan.cases if case.label is not None]
    counts = ", ".join(f"{folders.count(name)} in {name}" for name in ("imagesTr", "imagesTs", "labelsTs"))
    print(f"would write {target}: {counts}")
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    if problems:
        raise UserError(f"{len(problems)} problem(s), listed above; nothing was written")
    return Outcome(target, "dry run", len(plan.cases), warnings, plan.notes, plan.left_out)


def _already_converted(plan: Plan, options: Options, target: Path) -> Outcome:
    """Tell a finished conversion of the same source with the same options from anything else.

    Raises:
        UserError: it is something else.
    """
    report = read_json(target / REPORT_JSON) if (target / REPORT_JSON).is_file() else {}
    made_of = {entry["case"]: entry for entry in report.get("cases", ())}
    made_by = (report.get("options"), report.get("converter"), report.get("data_set"))
    same = made_by == (options.deciding(), converter_version(), plan.card.title)
    cases = plan.cases if same and set(made_of) == {case.case for case in plan.cases} else []
    compared = run_cases(source_checksums, cases, options, "comparing")
    if not cases or any(sources != made_of[case.case]["sources"] for case, sources in compared):
        raise UserError(
            f"{target} exists and was not made from this source with these options; "
            f"replace it with --overwrite, or choose another --id or --name"
        )
    for name in (name for entry in made_of.values() for name in entry["files"]):
        if not (target / name).is_file():
            raise UserError(f"{target / name} is missing from a finished conversion; convert again with --overwrite")
    return Outcome(target, "already converted", len(made_of), report["warnings"], plan.notes, plan.left_out)


def run_cases(
    work: Work, cases: Sequence[Case], options: Options, title: str
) -> Iterator[tuple[Case, dict[str, Any] | UserError]]:
    """Do ``work`` for each case in threads and yield the results as they come; UserError is a result, too.

    Reading, checking and compressing all let other threads run. When the consumer stops early, what is queued is
    dropped and what runs is waited for, so that nothing is written afterwards.
    """
    import SimpleITK as sitk
    from tqdm import tqdm

    workers = max(1, min(options.processes or min(8, os.cpu_count() or 1), len(cases)))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # one core for each case, as the user asked
    executor = ThreadPoolExecutor(workers)
    try:
        running = {executor.submit(attempted, work, case): case for case in cases}
        for future in tqdm(as_completed(running), title, len(cases), unit="case", disable=not options.progress):
            yield running[future], future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def attempted(work: Work, case: Case) -> dict[str, Any] | UserError:
    """Do one case's work; what is the user's to mend comes back as a value, so that others go on."""
    try:
        return work(case)
    except UserError as error:
        text = str(error)
        return UserError(str(Problem(case.case, text if case.case in text else f"{case.case}: {text}")))
    except MemoryError:
        return UserError(f"{case.case}: not enough memory; convert fewer cases at once (-np 1)")
    except OSError as error:
        advice = "make room or change the permissions, and run the same command again to go on"
        return UserError(f"{case.case}: {words_of(error)}; {advice}")
