"""What two of the compared networks need beyond the package's own requirements."""

from __future__ import annotations

import importlib
from typing import Any

from nnunetv2_eccam.errors import UserError

_MODULE = "segmentation_models_pytorch"


def segmentation_models_pytorch(needed_by: str) -> Any:
    """Import segmentation_models_pytorch: late, since few need it and it is slow to import.

    Args:
        needed_by: the network, as the error names it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        if error.name != _MODULE:
            raise  # it is there, but something that it needs itself is not: that message says more
        raise UserError(
            f"{needed_by} needs segmentation-models-pytorch: pip install 'nnunetv2-eccam[compared]'"
        ) from error
