"""A trained model's folder, as nnU-Net writes it: found by its names, checked, and loaded."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from nnunetv2_eccam.arguments import dataset_name
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, read_json

CHECKPOINT = "checkpoint_final.pth"
"""What nnU-Net writes when a training has ended."""

LONGEST_REASON = 300
"""Letters of another program's message that are repeated; torch lists every weight that does not fit."""


def model_folder(dataset: str, configuration: str, trainer: str, plans: str) -> Path:
    """Give the folder of a model in ``nnUNet_results``, which need not exist; of nnU-Net's ``-d -c -tr -p``.

    Raises:
        UserError: there is no such data set, or ``nnUNet_results`` is not set.
    """
    return nnunet_folder("nnUNet_results") / dataset_name(dataset) / f"{trainer}__{plans}__{configuration}"


def check_model(folder: Path, folds: Iterable[int | str] | None, checkpoint: str = CHECKPOINT) -> list[str]:
    """See that a folder holds a trained model with these folds, and that none of its files is cut short.

    Args:
        folder: with ``plans.json``, ``dataset.json`` and ``fold_0`` and so on.
        folds: numbers, or ``all``; None: whichever are there.
        checkpoint: name of the file in each fold.

    Returns:
        the folds.

    Raises:
        UserError: a file is missing or broken; the message names it, or the folds that are there.
    """
    if not folder.is_dir():
        raise UserError(f"there is no trained model at {folder}; check -d, -tr, -p, -c and nnUNet_results, or -m")
    for name in ("plans.json", "dataset.json"):
        if not isinstance(read_json(folder / name), dict):
            raise UserError(f"{folder / name} is not what nnU-Net writes: it holds no JSON object; copy it again")
    trained = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
    wanted = [str(fold) for fold in folds] if folds is not None else trained
    missing = [fold for fold in wanted if fold not in trained]
    if missing or not wanted:
        raise UserError(
            f"{folder} has no {checkpoint} for {'fold ' + ', '.join(missing) if missing else 'any fold'}; "
            + (f"it has one for {', '.join(trained)}: give -f {' '.join(trained)}" if trained else "it has none")
        )
    for fold in wanted:
        # torch saves checkpoints as zip archives, whose list of contents stands at their end.
        if not zipfile.is_zipfile(folder / f"fold_{fold}" / checkpoint):
            raise UserError(
                f"{folder / f'fold_{fold}' / checkpoint} is cut short or is not a checkpoint; copy it again, or train "
                f"the fold again"
            )
    return wanted


@contextmanager
def checked_model(folder: Path, folds: Iterable[int | str] | None, checkpoint: str = CHECKPOINT) -> Iterator[list[str]]:
    """Check a model's folder, then load its folds in the block: what fails there becomes one line.

    Raises:
        UserError: see :func:`check_model`; or the checkpoint does not fit the plans, or its trainer is not found.
    """
    found = check_model(folder, folds, checkpoint)
    try:
        yield found
    except MemoryError:
        raise
    except UserError as error:
        raise UserError(f"the model in {folder}: {error}") from error
    except Exception as error:  # torch, pickle and nnU-Net raise what they like on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON].rsplit(" ", 1)[0] + " ..."
        which = f"{checkpoint} of fold {', '.join(found)}"
        raise UserError(f"the model in {folder} ({which}) cannot be loaded: {reason}") from error


def load_predictor(
    folder: Path, folds: Iterable[int | str] | None, checkpoint: str = CHECKPOINT, **settings: Any
) -> tuple[Any, list[str]]:
    """Load folds of a model, those that are there if none are named, into nnU-Net's predictor with these settings.

    Returns:
        the predictor and the folds.

    Raises:
        UserError: see :func:`checked_model`.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with redirect_stdout(io.StringIO()):  # it comments on settings that do not matter here
        predictor = nnUNetPredictor(**settings)
        with checked_model(folder, folds, checkpoint) as found:
            predictor.initialize_from_trained_model_folder(str(folder), tuple(found), checkpoint)
    return predictor, found


def check_device(name: str) -> None:
    """See that torch can use ``cuda``, ``mps`` or ``cpu``.

    Raises:
        UserError: it cannot.
    """
    import torch

    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(name, True):
        raise UserError(f"there is no {name.upper()} device that torch can use; run on the CPU with -device cpu")
