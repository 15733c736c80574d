"""nnU-Net's integration test with EC-CaM-UNet: see docs/integration.md.

  python tests/integration/nnunet_integration.py --work-dir DIR [--jobs 2]

Run it again to go on where it was stopped. Exit code 0 means that every command succeeded, that every file is there and
that every Dice reaches its bar; 1 that something failed; 2 that the options are wrong.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from integration_results import failures, table, write_table
from integration_steps import CONFIGURATIONS, PREVIOUS_STAGE, SCENARIOS, IntegrationTest, steps_of
from step_runner import Run

from nnunetv2_eccam.demo.progress import duration
from nnunetv2_eccam.demo.runner import ended_by_signal
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import write_json

MARK = "integration_test.json"
"""Marks a folder as one of this script's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; give its exit code."""
    given = _parser().parse_args(arguments)
    try:
        with ended_by_signal():
            return _run(_test_of(given), given.jobs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Go on with: " + shlex.join([sys.executable, *sys.argv]), file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work-dir", type=Path, required=True, help="everything is written there; an earlier run's goes on")
    add("--scenarios", type=int, nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NUMBER",
        help=f"data sets: {', '.join(f'{number} ({name})' for number, name in SCENARIOS.items())}")  # fmt: skip
    add("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS), metavar="NAME",
        help="of " + ", ".join(CONFIGURATIONS))  # fmt: skip
    add("--folds", type=int, nargs="+", choices=range(5), default=list(range(5)), metavar="FOLD")
    add("--trainer", default=IntegrationTest.trainer, help="of tests/integration/trainers; default %(default)s")
    add("--jobs", type=int, default=1, help="steps at once, which share the cores; default %(default)s")
    return parser


def _test_of(given: argparse.Namespace) -> IntegrationTest:
    """Make a test of the options.

    Raises:
        UserError: they do not go together.
    """
    if given.jobs < 1:
        raise UserError(f"--jobs is {given.jobs}; it must be 1 or more")
    configurations = tuple(name for name in CONFIGURATIONS if name in given.configurations)  # first stages first
    folds = tuple(sorted(set(given.folds)))
    for stage, before in PREVIOUS_STAGE.items():
        if stage in configurations and (before not in configurations or len(folds) < 5):
            raise UserError(f"--configurations {stage} needs {before} too, and all five folds")
    return IntegrationTest(given.work_dir.absolute(), tuple(given.scenarios), configurations, folds, given.trainer)


def _run(test: IntegrationTest, jobs: int) -> int:
    _open_work_folder(test.work)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))
    target = test.work / "integration.md"
    run = Run(steps_of(test), test.work, {**test.variables(), "OMP_NUM_THREADS": threads}, jobs,
              lambda: write_table(test, run.records.seconds(), target))  # fmt: skip
    began = time.monotonic()
    undone = run()
    write_table(test, run.records.seconds(), target)
    print(f"\n{table(test, run.records.seconds())}\nThis run took {duration(time.monotonic() - began)}. "
          f"Table: {target}")  # fmt: skip
    if undone:
        raise UserError(f"{len(undone)} steps are not done: {', '.join(undone)}; the same command tries them again")
    if below := list(failures(test)):
        raise UserError("; ".join(below))
    print("All steps are done, and every Dice reaches its bar.")
    return 0


def _open_work_folder(folder: Path) -> None:
    """Create the work folder, or open one of an earlier run.

    Raises:
        UserError: it holds something else.
    """
    mark = folder / MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not mark.is_file():
            if any(folder.iterdir()):
                raise UserError(f"{folder} is not empty and not of this script; give another --work-dir")
            write_json(mark, {"made by": Path(__file__).name})
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} is not a folder; give another --work-dir") from None


if __name__ == "__main__":
    sys.exit(main())
