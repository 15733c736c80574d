"""nnU-Net's integration test with EC-CaM-UNet: see docs/reference/integration.md.

  python tests/integration/nnunet_integration.py --work-dir DIR [--jobs 2]

Run it again to go on where it was stopped. Exit code 0 means that every command succeeded, that every file is there and
that every Dice reaches its bar; 1 that something failed; 2 that the options are wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from integration_results import failures, table
from integration_steps import (
    CONFIGURATIONS,
    OPTIONS,
    PREVIOUS_STAGE,
    SCENARIOS,
    IntegrationTest,
    write_options,
)

from nnunetv2_eccam.benchmark.run_snakemake import run_snakemake
from nnunetv2_eccam.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; give its exit code."""
    given, snakemake_options = _parser().parse_known_args(arguments)
    try:
        return _run(_test_of(given), ["--cores", str(given.jobs), *snakemake_options])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--work-dir", type=Path, required=True, help="everything is written there; an earlier run's goes on")
    add("--scenarios", type=int, nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NUMBER",
        help=f"data sets: {', '.join(f'{number} ({name})' for number, name in SCENARIOS.items())}")  # fmt: skip
    add("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS), metavar="NAME",
        help="of " + ", ".join(CONFIGURATIONS))  # fmt: skip
    add("--folds", type=int, nargs="+", choices=range(5), default=list(range(5)), metavar="FOLD")
    add("--trainer", default=IntegrationTest.trainer, help="of tests/integration/trainers; default %(default)s")
    add("--jobs", type=int, default=1, help="steps at once; default %(default)s")
    return parser


def _test_of(given: argparse.Namespace) -> IntegrationTest:
    """Make a test of the options.

    Raises:
        UserError: they do not go together.
    """
    if given.jobs < 1:
        raise UserError(f"--jobs is {given.jobs}; it must be 1 or more")
    configurations = tuple(name for name in CONFIGURATIONS if name in given.configurations)
    folds = tuple(sorted(set(given.folds)))
    for stage, before in PREVIOUS_STAGE.items():
        if stage in configurations and (before not in configurations or len(folds) < 5):
            raise UserError(f"--configurations {stage} needs {before} too, and all five folds")
    return IntegrationTest(given.work_dir.absolute(), tuple(given.scenarios), configurations, folds, given.trainer)


def _run(test: IntegrationTest, options: list[str]) -> int:
    try:
        test.work.mkdir(parents=True, exist_ok=True)
        if any(test.work.iterdir()) and not (test.work / OPTIONS).is_file():
            raise UserError(f"{test.work} is not empty and not of this script; give another --work-dir")
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{test.work} is not a folder; give another --work-dir") from None
    write_options(test)
    code = run_snakemake(Path(__file__).with_name("Snakefile"), test.work, options, test.variables())
    print(f"\n{table(test)}")
    if code:
        raise UserError("not all steps are done; see above. The same command goes on")
    if below := list(failures(test)):
        raise UserError("; ".join(below))
    print("All steps are done, and every Dice reaches its bar.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
