"""From what a converter found to a finished data set: split, check, convert, report, publish."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path

import SimpleITK as sitk
from tqdm import tqdm

from nnunetv2_eccam.errors import UserError, words_of
from nnunetv2_eccam.files import read_json

from .cases import convert_case, source_checksums
from .labels import published_labels
from .model import Case, CaseResult, Conversion, Options, Work, advised
from .report import CONVERTER, REPORT_JSON, write_description
from .splits import FOLDS, drawn_split
from .target import check_name, growing, put_back, remembered, stale_warnings, target_folder


def convert(plan: Conversion, options: Options) -> Conversion:
    """Do what a converter planned, or with ``options.dry_run`` only find every problem.

    The data set appears complete or not at all. An interrupted conversion goes on where it stopped when
    it is started again with the same options.

    Args:
        plan: made by a converter from names only.
        options: the user's; what is None becomes the data set's own.

    Returns:
        The plan, with what came of it.

    Raises:
        UserError: the source, an option or the target is wrong; the target is as it was.
    """
    card = plan.card
    options = plan.options = replace(
        options,
        dataset_id=card.dataset_id if options.dataset_id is None else options.dataset_id,
        name=card.name if options.name is None else options.name,
        labels=options.labels or card.default_labels,
    )
    plan.labels, plan.mapping = published_labels(str(options.labels), card.labels, card.organ)
    plan.folder = target_folder(int(options.dataset_id or 0), str(options.name))
    _leave_out(plan)
    for case in plan.cases:
        check_name(case.case, "the case name")
    if plan.problems and not options.dry_run:
        more = f" (and {len(plan.problems) - 1} more; --dry-run lists them all)" if len(plan.problems) > 1 else ""
        raise UserError(f"{plan.problems[0][1]}{more}")
    _split(plan)
    if options.dry_run:
        _dry_run(plan)
        return plan
    put_back(plan.folder)
    if plan.folder.exists() and not options.overwrite:
        _compare_with_finished(plan)
        return plan
    # Options that only decide where a case goes are part of the key too: the simplest rule is the safest.
    key = {"converter": CONVERTER, "data set": card.title, "source": str(plan.source.resolve())}
    with growing(plan.folder, {**key, "options": options.deciding()}) as folder:
        results = _convert_cases(plan, folder)
        write_description(folder, plan, [results[case.case] for case in plan.cases])
    plan.warnings += stale_warnings(plan.folder.name)
    plan.status = "converted"
    return plan


def _convert_cases(plan: Conversion, folder: Path | None) -> dict[str, CaseResult]:
    """Ask the survey, then convert every case; without a folder, only check and collect the problems."""

    def results_of(work: Work, cases: Sequence[Case], title: str, stage: str) -> dict[str, CaseResult]:
        results: dict[str, CaseResult] = {}
        kept: list[str] = []
        work = work if folder is None else partial(remembered, work, folder, stage, kept)
        for case, outcome in run_cases(work, cases, plan.options, title):
            try:
                results[case.case] = outcome.result()
            except UserError as error:
                if folder is not None:
                    raise
                plan.problems.append((case.case, str(error)))
        plan.resumed = len(kept)
        return results

    if plan.survey is not None:
        measure, decide = plan.survey
        measured = results_of(measure, plan.labelled, "looking", "survey")
        plan.cases = [case for case in plan.cases if case.case in measured or case.label is None]
        plan.finding, plan.read = decide(measured)
    # A changed answer to the survey makes cases that an interrupted run converted by the old one worthless.
    answer = hashlib.sha256(json.dumps(plan.finding, sort_keys=True).encode()).hexdigest()[:12]
    work = partial(convert_case, plan=plan, folder=folder)
    return results_of(work, plan.cases, "checking" if folder is None else "converting", f"case_{answer}")


def _leave_out(plan: Conversion) -> None:
    names = plan.options.leave_out
    known = {case.case for case in plan.cases} | {case for case, _ in plan.problems if case}
    for name in names:
        if name not in known:
            raise UserError(
                f"--leave-out {name}: there is no such case; the first ones are {', '.join(sorted(known)[:3])}"
            )
        plan.left_out[name] = "left out by --leave-out"
    plan.problems = [(case, problem) for case, problem in plan.problems if case not in names]
    plan.cases = [case for case in plan.cases if case.case not in names]


def _split(plan: Conversion) -> None:
    """Split the cases, and send each to its subset; where test cases have labels, imagesTs holds only those."""
    options, counts, cases = plan.options, plan.card.paper_counts, [case.case for case in plan.labelled]
    wrong, validation, test = "", 0, options.hold_out
    if not cases:
        raise UserError(plan.problems[0][1] if plan.problems else f"{plan.source} has no labelled case")
    if options.split == "cv":
        if not 0 <= options.hold_out < len(cases):
            could = f"of {len(cases)} labelled cases, 0 to {len(cases) - 1} can be held out"
            wrong = f"--hold-out {options.hold_out}: {could}"
    elif options.hold_out:
        wrong = "--hold-out is for --split cv; --split paper has test cases of its own"
    elif not counts:
        wrong = f"--split paper: {plan.card.why_no_paper_split}; use --split cv"
    elif len(cases) not in counts:
        wrong = (
            f"--split paper needs all of the data set's {' or '.join(map(str, counts))} labelled cases; found "
            f"{len(cases)}: complete the download, or use --split cv"
        )
    else:
        _, validation, test = counts[len(cases)]
    if wrong and not options.dry_run:
        raise UserError(wrong)
    if wrong:
        plan.refuse("", wrong)  # and go on, to find the others
        test = 0
    plan.split = split = drawn_split(cases, options.seed, test=test, validation=validation)
    if split.test:
        unlabelled = [case.case for case in plan.cases if case.label is None]
        plan.left_out |= dict.fromkeys(unlabelled, "unlabelled; imagesTs holds exactly the cases of labelsTs")
    if split.validation:
        plan.notes.append(
            f"splits_final.json has one fold, drawn with seed {options.seed}: train fold 0 only. "
            f"nnU-Net makes up a random split for a fold that the file does not have."
        )
    elif len(split.train) < FOLDS:
        plan.notes.append(
            f"{len(split.train)} training cases are too few for nnU-Net's five folds: train with fold 'all'."
        )
    placed = [
        replace(case, subset="Ts" if case.label is None or case.case in split.test else "Tr")
        for case in plan.cases
        if case.label is not None or not split.test
    ]
    plan.cases = sorted(placed, key=lambda case: case.case)


def _dry_run(plan: Conversion) -> None:
    """Check every case and print what would be done and every problem; write nothing."""
    plan.status = "dry run"
    if plan.folder.exists() and not plan.options.overwrite:
        plan.refuse("", f"{plan.folder} exists; --overwrite would replace it")
    try:
        results = _convert_cases(plan, None)
        plan.warnings = [f"{name}: {warning}" for name in sorted(results) for warning in results[name]["warnings"]]
        if plan.finding:
            print(f"{plan.finding['question']}: {plan.finding['answer']}")
    except UserError as error:  # the survey has no answer
        plan.refuse("", str(error))
    folders = [f"images{case.subset}" for case in plan.cases] + [f"labels{case.subset}" for case in plan.labelled]
    counts = ", ".join(f"{folders.count(name)} in {name}" for name in ("imagesTr", "imagesTs", "labelsTs"))
    print(f"would write {plan.folder}: {counts}")
    for warning in plan.warnings:
        print(f"warning: {warning}")
    for _, problem in plan.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if plan.problems:
        raise UserError(f"{len(plan.problems)} problem(s), listed above; nothing was written")


def _compare_with_finished(plan: Conversion) -> None:
    """Tell a finished conversion of the same source with the same options from anything else.

    Raises:
        UserError: it is something else.
    """
    plan.status = "already converted"
    file = plan.folder / REPORT_JSON
    report = read_json(file) if file.is_file() else {"cases": []}
    made_by = (report.get("options"), report.get("converter"), report.get("data_set"))
    same = made_by == (plan.options.deciding(), CONVERTER, plan.card.title)
    compared = run_cases(source_checksums, plan.cases if same else [], plan.options, "comparing")
    sources = {case.case: sums.result() for case, sums in compared}
    if not same or sources != {entry["case"]: entry["sources"] for entry in report["cases"]}:
        raise UserError(
            f"{plan.folder} exists and was not made from this source with these options; "
            f"replace it with --overwrite, or choose another --id or --name"
        )
    for name in (name for entry in report["cases"] for name in entry["files"]):
        if not (plan.folder / name).is_file():
            raise UserError(
                f"{plan.folder / name} is missing from a finished conversion; convert again with --overwrite"
            )


def run_cases(
    work: Work, cases: Sequence[Case], options: Options, title: str
) -> Iterator[tuple[Case, Future[CaseResult]]]:
    """Do ``work`` for each case in threads and yield the results as they come.

    Reading, checking and compressing all let other threads run. When the consumer stops early, what is queued is
    dropped and what runs is waited for, so that nothing is written afterwards.
    """
    workers = max(1, min(options.processes or min(8, os.cpu_count() or 1), len(cases)))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # one core for each case, as the user asked
    executor = ThreadPoolExecutor(workers)
    try:
        running = {executor.submit(with_advice, work, case): case for case in cases}
        for future in tqdm(as_completed(running), title, len(cases), unit="case", disable=not options.progress):
            yield running[future], future
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def with_advice(work: Work, case: Case) -> CaseResult:
    """Do one case's work; what is the user's to mend is told with the case's name and what to do."""
    try:
        return work(case)
    except UserError as error:
        text = str(error)
        raise UserError(advised(case.case, text if case.case in text else f"{case.case}: {text}")) from error
    except MemoryError:
        raise UserError(f"{case.case}: not enough memory; convert fewer cases at once (-np 1)") from None
    except OSError as error:
        advice = "make room or change the permissions, and run the same command again to go on"
        raise UserError(f"{case.case}: {words_of(error)}; {advice}") from error
