"""The start-up hook: shows nnU-Net the folder with this package's trainers when nnU-Net is imported.

Runs in every Python process of the environment, so it imports only what Python has loaded by then.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing itself would be most of this file's start-up time
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "nnUNet_extTrainer"
"""nnU-Net's own variable: folders with trainers, separated by ``os.pathsep``."""

SWITCH = "nnUNet_eccam_lookup"
"""Set to 0, false or no to turn the hook off."""

TRAINER_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "ext")
"""The folder that nnU-Net is shown; one file in it re-exports the trainers by absolute import, so that
nnU-Net's search gives the same class object as a plain import."""


def with_trainer_folder(value: str | None) -> str:
    """Append :data:`TRAINER_FOLDER` to a value of ``nnUNet_extTrainer``, once, behind the user's folders."""
    folders = [folder for folder in (value or "").split(os.pathsep) if folder.strip()]
    if TRAINER_FOLDER not in folders:
        folders.append(TRAINER_FOLDER)
    return os.pathsep.join(folders)


def show_trainer_folder() -> None:
    """Make nnU-Net search :data:`TRAINER_FOLDER` after its own trainers and the user's folders.

    nnU-Net reads the variable anew at each search, through the object ``nnunetv2.paths.nnUNet_extTrainer``.
    That object's ``get`` is extended, in this process: what the user sets, even after the import, stays
    in force, and child processes inherit nothing. Where a later nnU-Net has no such object, the
    environment variable itself, which is nnU-Net's documented interface, is set.
    """
    try:
        from nnunetv2 import paths

        variable: Any = paths.nnUNet_extTrainer
        users_value = variable.get

        def get() -> str:
            return with_trainer_folder(users_value())

        variable.get = get
        shown = variable.get() == get() and variable.is_set()
    except Exception:
        shown = False
    if not shown:
        os.environ[VARIABLE] = with_trainer_folder(os.environ.get(VARIABLE))


class _NnunetImport:
    """A finder that finds nothing: it notices the first import of nnU-Net's trainer search."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002
        if name == "nnunetv2.utilities.find_objects":
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            show_trainer_folder()


def install() -> None:
    """Wait for nnU-Net, unless :data:`SWITCH` says not to; called once by ``nnunetv2_eccam.pth``."""
    if os.environ.get(SWITCH, "").strip().lower() in ("0", "false", "no", "off"):
        return
    if any(type(finder).__name__ == _NnunetImport.__name__ for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _NnunetImport())
