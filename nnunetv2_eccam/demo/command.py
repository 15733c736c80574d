"""Run the main job from a download to a picture, through the commands that a user would type.

Without --data, the download is a phantom that is generated: MR-like volumes of an atrium among chambers
and vessels as bright as it is. Each command is echoed before it runs. What an earlier run with the same
options has finished is not done again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from nnunetv2_eccam.demo.journal import Journal, open_work_folder, remove
from nnunetv2_eccam.demo.runner import echo, ended_by_signal, run_command, script
from nnunetv2_eccam.demo.steps import CONFIGURATIONS, Job, Step, count_labelled, steps_of
from nnunetv2_eccam.errors import UserError

PHANTOM_LABELLED, PHANTOM_UNLABELLED = 16, 2
PHANTOM_FOLDER = "Task502_HeartPhantom"
FOLDS = 5
"""nnU-Net splits the cases it trains on into this many folds, and needs a case for each."""
ROWS = 4
"""How many cases the picture shows at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--data", type=Path, metavar="FOLDER",
                        help="an unpacked Task02_Heart of the Medical Segmentation Decathlon (default: "
                        "a phantom)")
    parser.add_argument("--work-dir", type=Path, default=Path("eccam_demo"), metavar="DIR",
                        help="where everything is written (default: %(default)s)")
    parser.add_argument("--configuration", default="2d_eccam_trial", choices=CONFIGURATIONS,
                        help="configuration to train, of nnU-Net's plans or of this package's overrides "
                        "(default: %(default)s)")
    parser.add_argument("--trainer", metavar="CLASS",
                        help="trainer (default: nnUNetTrainerECCaM_5epochs, with --data _10epochs)")
    parser.add_argument("--hold-out", type=int, default=4, metavar="N",
                        help="labelled cases to keep from training and evaluate on (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
                        help="auto: cuda where there is one, else cpu (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="which phantom, and which cases are held out (default: %(default)s)")
    parser.add_argument("--restart", action="store_true", help="forget what an earlier run has done")


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration.

    Raises:
        UserError: an option is wrong or a command has failed.
    """
    job = _job(arguments)
    journal = open_work_folder(job.work, arguments.restart)
    with ended_by_signal():
        try:
            if arguments.data is None:
                _generate(job, journal)
            _run_steps(job, journal)
        except (KeyboardInterrupt, UserError):
            print("\nRun the same command again to go on from here, or with --restart to begin anew.",
                  file=sys.stderr)
            raise
        _report(job, journal)
    return 0


def _job(arguments: argparse.Namespace) -> Job:
    """Check the options and turn them into a job, before anything is written."""
    work = Path(os.path.abspath(arguments.work_dir.expanduser()))
    phantom = arguments.data is None
    if phantom:
        download, labelled = work / "download" / PHANTOM_FOLDER, PHANTOM_LABELLED
    else:
        download = Path(os.path.abspath(arguments.data.expanduser()))
        labelled = count_labelled(download)
        if download.is_relative_to(work):
            raise UserError(f"{download} lies in the work folder {work}; give another --work-dir")
    if not 1 <= arguments.hold_out <= labelled - FOLDS:
        raise UserError(
            f"--hold-out {arguments.hold_out}: of {labelled} labelled cases, 1 to {labelled - FOLDS} can be "
            f"held out, since nnU-Net's {FOLDS} folds need as many cases"
        )
    if arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed}: a seed is 0 or more")
    return Job(
        work, download, 502 if phantom else 2, "HeartPhantom" if phantom else "Heart",
        arguments.configuration,
        arguments.trainer or ("nnUNetTrainerECCaM_5epochs" if phantom else "nnUNetTrainerECCaM_10epochs"),
        _device(arguments.device), arguments.hold_out, arguments.seed,
    )


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    # Asked of another process, since torch would stay in this one's memory throughout the training.
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return "cuda" if subprocess.run([sys.executable, "-c", question], check=False).returncode == 0 else "cpu"


def _generate(job: Job, journal: Journal) -> None:
    from nnunetv2_eccam.demo.phantom_folder import write_phantom

    def generate() -> None:
        remove(job.download)
        write_phantom(job.download, PHANTOM_LABELLED, PHANTOM_UNLABELLED, job.seed)

    options = [str(job.download), str(PHANTOM_LABELLED), str(PHANTOM_UNLABELLED), str(job.seed)]
    if not journal.skip("phantom", options):
        print(f"Generating a phantom of {PHANTOM_LABELLED} labelled cases in {job.download}", flush=True)
        journal.begin("phantom", options)
        _timed(journal, "phantom", generate)


def _run_steps(job: Job, journal: Journal) -> None:
    steps = steps_of(job)
    for step in steps:
        script(step.command[0])  # all are there, before the first one takes its time
    for base in job.base_folders().values():
        base.mkdir(exist_ok=True)
    print("\nIn a shell of your own, these commands need:")
    for name, value in job.variables().items():
        print(f"export {name}={shlex.quote(value)}")
    folder = str(Path(sys.executable).parent)
    if folder not in os.environ.get("PATH", "").split(os.pathsep):
        print(f'export PATH={shlex.quote(folder)}:"$PATH"')
    for step in steps:
        print()
        if journal.skip(step.name, _options(step)):
            echo(step.command, step.settings)
            print("  done before")
        else:
            _run_step(step, job, journal)


def _options(step: Step) -> list[str]:
    return [f"{name}={value}" for name, value in step.settings.items()] + list(step.command)


def _run_step(step: Step, job: Job, journal: Journal) -> None:
    begun_before = journal.begin(step.name, _options(step))
    more = step.resume() if step.resume and begun_before else ()
    if not more:
        remove(*step.clears)
    command = (*step.command, *more)
    echo(command, step.settings)

    def execute() -> None:
        run_command(command, _environment(job, step.settings), job.work / "logs" / f"{step.name}.txt",
                    step.progress())

    _timed(journal, step.name, execute)


def _environment(job: Job, settings: Mapping[str, str]) -> dict[str, str]:
    inherited = dict(os.environ)
    inherited.pop("nnUNet_n_proc_DA", None)  # the user's 0, good for training, would break the planning
    # Unbuffered, so that the progress is shown when it is made.
    return {**inherited, **job.variables(), **settings, "PYTHONUNBUFFERED": "1"}


def _timed(journal: Journal, name: str, action: Callable[[], None]) -> None:
    began = time.monotonic()
    action()
    seconds = time.monotonic() - began
    journal.finish(seconds)
    print(f"  {name} took {seconds:.0f} s", flush=True)


def _report(job: Job, journal: Journal) -> None:
    """Print the table and write it and the picture into the work folder."""
    from nnunetv2_eccam.demo.picture import draw_picture, load_slice
    from nnunetv2_eccam.demo.results import SUFFIX, read_results, table, write_csv

    results = read_results(job.predictions / "summary.json")
    write_csv(results, job.work / "results.csv")
    draw_picture(
        [load_slice(each.case, job.raw / "imagesTs" / f"{each.case}_0000{SUFFIX}",
                    job.raw / "labelsTs" / f"{each.case}{SUFFIX}", job.predictions / f"{each.case}{SUFFIX}")
         for each in results[:ROWS]],
        job.work / "demo.png",
    )
    seconds = journal.seconds()
    print(f"\n{table(results)}\n")
    print("Seconds:", ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
          f"- {sum(seconds.values()):.0f} in all")
    print(f"Table:   {job.work / 'results.csv'}\nPicture: {job.work / 'demo.png'}")
