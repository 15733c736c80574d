"""Cross-validate systems against each other: nnU-Net's own trainings, scores, statistics and a report.

  nnUNetv2_eccam benchmark SPEC.yaml
  nnUNetv2_eccam benchmark -d 2 -c 2d -tr nnUNetTrainer nnUNetTrainerECCaM -f 0 1 2 3 4 --jobs 2
  nnUNetv2_eccam benchmark --work-dir FOLDER     go on with one

Trains every system on every fold of every data set, scores nnU-Net's validation, predicts and scores test images
that have labels, and writes FOLDER/report/index.html. What is there is not made again: neither trainings in
nnUNet_results, nor what an earlier run has finished. Options win over SPEC.yaml. Snakemake runs it: any other
option is passed on to it, as --dry-run, --summary or --profile=cluster. See docs/how-to/benchmark.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.benchmark.run_snakemake import check_options, open_work_folder, run_snakemake
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json

if TYPE_CHECKING:
    from nnunetv2_eccam.benchmark.checks import Dataset
    from nnunetv2_eccam.benchmark.spec import Spec

SNAKEFILE = Path(__file__).with_name("workflow") / "Snakefile"


def main(words: Sequence[str]) -> int:
    """Run a benchmark, or write its report.

    Raises:
        UserError: an option or the specification is wrong, or jobs have failed.
    """
    given, snakemake_options = _parser().parse_known_args(words)
    from nnunetv2_eccam.benchmark.spec import read_spec, read_spec_of  # which needs pydantic, unlike -h

    if snakemake_options and snakemake_options[0].endswith((".yaml", ".yml")):
        given.spec = Path(snakemake_options.pop(0))
    if snakemake_options:
        check_options(snakemake_options)
    content, source, work = _content(given)
    if given.report_only:
        _write_report(work, read_spec_of(work))
        return 0
    from nnunetv2_eccam.benchmark.checks import find_datasets

    spec, datasets = find_datasets(read_spec(content, source))
    nnunet_folder("nnUNet_raw")
    nnunet_folder("nnUNet_results")
    is_dry = any(option in ("-n", "--dry-run", "--dryrun") for option in snakemake_options)
    variables: dict[str, str] = {}
    if not is_dry:
        # In a process of its own, since nnU-Net and PyTorch would stay in the memory of this one, which waits for days.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            variables = pool.submit(_check, spec, datasets).result()
    open_work_folder(work, "spec.json")
    write_json(work / "spec.json", spec.model_dump(mode="json"))
    part = work / ".report_of_a_part"  # which Snakemake takes for the whole
    again = ["--forcerun", "report"] if part.exists() else []
    code = run_snakemake(SNAKEFILE, work, [*_options(spec, variables), *again, *snakemake_options], variables)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        if not is_dry and any((work / "scores").rglob("fold_*_volume.csv")):
            _write_report(work, spec)
            part.touch()
        raise UserError("not all jobs are done; see above. When the cause is mended, the same command goes on")
    if not is_dry:
        part.unlink(missing_ok=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_eccam benchmark", usage="%(prog)s [SPEC.yaml] [options] [options of Snakemake]",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.set_defaults(spec=None)
    add = parser.add_argument
    add("-d", dest="datasets", nargs="+", metavar="DATASET", help="data sets, by number or name")
    add("-c", dest="configurations", nargs="+", metavar="CONFIGURATION", help="configurations of their plans")
    add("-tr", dest="trainers", nargs="+", metavar="TRAINER", help="trainers")
    add("-f", dest="folds", nargs="+", type=int, metavar="FOLD", help="folds (default: 0 1 2 3 4)")
    add("-p", dest="plans", metavar="PLANS", help="plans identifier, for all trainers (default: nnUNetPlans)")
    add("-device", "--device", dest="device", choices=("cpu", "cuda", "mps"), help="where networks run (default: cuda)")
    add("--repeats", type=int, metavar="N", help="trainings of each system and fold (default: 1)")
    add("--no-test", action="store_true", help="leave test images alone")
    add("-o", "--work-dir", dest="work_dir", type=Path, metavar="FOLDER",
        help="where logs, scores and report go (default: what SPEC.yaml says; else SPEC_benchmark beside it, or "
        "eccam_benchmark here)")  # fmt: skip
    add("--engine", choices=("local", "slurm"), help="this machine, or jobs of SLURM (default: local)")
    add("--jobs", type=int, metavar="N",
        help="jobs at once (default: one for each GPU, one without; 64 in SLURM's queue)")  # fmt: skip
    add("--report-only", action="store_true", help="write the report on what is there")
    return parser


def _content(given: argparse.Namespace) -> tuple[dict[str, Any], str, Path]:
    """Give the specification as it is written, with what the options change; its source; and the work folder."""
    names = ("datasets", "configurations", "trainers", "folds", "plans", "device", "repeats")
    options = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    written: dict[str, Any] = {}
    source, work = "the options", given.work_dir
    if given.spec:
        from nnunetv2_eccam.benchmark.spec import read_yaml

        written, source = read_yaml(given.spec), str(given.spec)
        beside = given.spec.parent / str(written.pop("work_dir", f"{given.spec.stem}_benchmark"))
        work = work or beside
        written.setdefault("name", given.spec.stem)
    elif work and "datasets" not in options and (work / "spec.json").is_file():
        written, source = read_json(work / "spec.json"), str(work / "spec.json")
    elif not options and not given.report_only:
        raise UserError("name a specification, or give data sets, configurations and trainers: -d, -c and -tr")
    work = Path(os.path.abspath((work or Path("eccam_benchmark")).expanduser()))
    content = {**written, **options}
    if given.plans and content.get("trainers"):
        entries = content["trainers"]
        content["trainers"] = [_without_plans(each) for each in (entries if isinstance(entries, list) else [entries])]
    if given.no_test:
        content |= {"predict_test": False, "predict_unlabelled": False}
    run = {name: getattr(given, name) for name in ("engine", "jobs") if getattr(given, name) is not None}
    if run:
        content["run"] = {**(content.get("run") or {}), **run}
    return content, source, work


def _without_plans(entry: Any) -> Any:
    """Take from a system its plans, which -p gives, and its title where that only names them."""
    if not isinstance(entry, Mapping):
        return entry
    named = f"{entry.get('trainer')}__{entry.get('plans')}"
    return {
        field: value for field, value in entry.items()
        if field != "plans" and not (field == "title" and str(value).startswith(named))
    }  # fmt: skip


def _check(spec: Spec, datasets: Mapping[str, Dataset]) -> dict[str, str]:
    """Check by nnU-Net what is about to be used; give the variables that tell jobs their GPUs."""
    from nnunetv2_eccam.benchmark.checks import GPUS, check_trainers, gpus_of_jobs, make_splits

    check_trainers(entry.trainer for entry in spec.trainers)
    make_splits(datasets)
    if spec.run.engine == "slurm":
        return {}
    gpus = gpus_of_jobs(spec.device, spec.run.gpus, spec.run.jobs)
    # In this order NVML counts, which measures energy; numbers of the user's own are in the user's order.
    order = {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {GPUS: ";".join(gpus), **order} if gpus else {}


def _options(spec: Spec, variables: dict[str, str]) -> list[str]:
    """Give Snakemake's options for where the jobs run."""
    from nnunetv2_eccam.benchmark.checks import GPUS

    jobs = spec.run.jobs or len(variables.get(GPUS, "").split(";"))
    if spec.run.engine == "slurm":
        # A training that needs more than its hours fails, and goes on in another job. squeue needs no accounting.
        more = ["--retries", "3", "--slurm-status-command", "squeue"]
        return ["--executor", "slurm", "--jobs", str(jobs), *more]
    return ["--cores", "all", "--resources", f"job={jobs}", f"gpu={jobs * max(1, spec.run.gpus)}"]


def _write_report(work: Path, spec: Spec) -> None:
    from nnunetv2_eccam.benchmark.records import write_training_records
    from nnunetv2_eccam.report import write_report

    write_training_records(work, spec)
    print(f"Report: {write_report(work)}", file=sys.stderr)
