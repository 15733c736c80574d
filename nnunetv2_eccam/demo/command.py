"""Run the main job from a download to a picture, through the commands that a user would type.

  nnUNetv2_eccam demo
  nnUNetv2_eccam demo -i ~/Downloads/Task02_Heart -o heart_demo

Without -i, the download is a phantom that is generated: MR-like volumes of an atrium among chambers
and vessels as bright as it is. Each command is shown before it runs. What an earlier run with the same
options has finished is not done again.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from nnunetv2_eccam.arguments import add_option
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import write_json

CONFIGURATIONS = {
    "2d": None,
    "2d_eccam_trial": "trial",
    "2d_unet_trial": "trial",
    "2d_eccam": "practical",
    "2d_eccam_paper": "paper_cardiac",
}
"""The configurations that can be trained, and the override that adds each to the plans."""

PHANTOM_LABELLED, PHANTOM_UNLABELLED = 16, 2
FOLDS = 5
"""nnU-Net splits the cases it trains on into this many folds, and needs a case for each."""

SNAKEFILE = Path(__file__).with_name("workflow") / "Snakefile"
OPTIONS = "demo.json"
"""The run's options; the file also marks a folder as the demonstration's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = parser.add_argument
    add_option(parser, "-i", "--data", dest="data",
        help="an unpacked Task02_Heart of the Medical Segmentation Decathlon (default: a phantom)")  # fmt: skip
    add_option(parser, "-o", "--work-dir", dest="work_dir", default=Path("eccam_demo"),
        help="where everything is written (default: %(default)s)")  # fmt: skip
    add_option(parser, "-c", "--configuration", default="2d_eccam_trial", choices=CONFIGURATIONS, metavar=None,
        help="of nnU-Net's plans, or of this package's overrides (default: %(default)s)")  # fmt: skip
    add_option(parser, "-tr", "--trainer", default=None,
        help="trainer (default: nnUNetTrainerECCaM_5epochs, with -i _10epochs)")  # fmt: skip
    add("--hold-out", type=int, default=4, metavar="N",
        help="labelled cases to keep from training and evaluate on (default: %(default)s)")  # fmt: skip
    add_option(parser, "-device", "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
        help="auto: cuda where there is one, else cpu (default: %(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, help="which phantom, and which cases are held out (default: %(default)s)")
    add("--restart", action="store_true", help="forget what an earlier run has done")


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration.

    Raises:
        UserError: an option is wrong or a command has failed.
    """
    from nnunetv2_eccam.benchmark.run_snakemake import open_work_folder, run_snakemake
    from nnunetv2_eccam.dataset_conversion import model, msd  # type: ignore[import-not-found]

    work = Path(os.path.abspath(arguments.work_dir.expanduser()))
    data = Path(os.path.abspath(arguments.data.expanduser())) if arguments.data else None
    if data and data.is_relative_to(work):
        raise UserError(f"{data} lies in the work folder {work}; give another -o")
    labelled = PHANTOM_LABELLED
    if data:
        labelled = sum(case.label is not None for case in msd.plan_msd(data, "msd-heart", model.Options()).cases)
    if not 1 <= arguments.hold_out <= labelled - FOLDS:
        raise UserError(
            f"--hold-out {arguments.hold_out}: 1 or more of the {labelled} labelled cases must be held out, and "
            f"{FOLDS} or more left for nnU-Net's {FOLDS} folds"
        )
    if arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed}: a seed is 0 or more")
    open_work_folder(work, OPTIONS)
    write_json(work / OPTIONS, {
        "data": str(data) if data else "", "labelled": labelled, "unlabelled": PHANTOM_UNLABELLED,
        "dataset": "Dataset002_Heart" if data else "Dataset502_HeartPhantom",
        "configuration": arguments.configuration, "override": CONFIGURATIONS[arguments.configuration],
        "trainer": arguments.trainer or f"nnUNetTrainerECCaM_{10 if data else 5}epochs",
        "device": _device(arguments.device), "hold_out": arguments.hold_out, "seed": arguments.seed,
    })  # fmt: skip
    variables = {name: str(work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for path in variables.values():
        Path(path).mkdir(exist_ok=True)
    # Each worker process imports torch anew, and compiling takes longer than a few short epochs.
    variables |= {"nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    os.environ.pop("nnUNet_n_proc_DA", None)  # the user's 0, good for training, would break the planning
    print(f"In a shell of your own, the commands need:\ncd {shlex.quote(str(work))}")
    print(*(f"export {name}={shlex.quote(value)}" for name, value in variables.items()), sep="\n")
    print(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"', flush=True)
    anew = ["--forceall"] if arguments.restart else []
    code = run_snakemake(SNAKEFILE, work, ["--cores", "all", "--quiet", "host", "reason", *anew], variables)
    if code:
        print("\nRun the same command again to go on from here, or with --restart to begin anew.", file=sys.stderr)
        if code == 130:
            raise KeyboardInterrupt
        raise UserError("a command has failed; see above")
    print(f"\n{(work / 'results.txt').read_text(encoding='utf-8')}")
    print(f"Table:   {work / 'scores_volume.csv'}\nPicture: {work / 'demo.png'}")
    return 0


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    # Asked of another process, since torch would stay in this one's memory throughout the training.
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return "cuda" if subprocess.run([sys.executable, "-c", question], check=False).returncode == 0 else "cpu"
