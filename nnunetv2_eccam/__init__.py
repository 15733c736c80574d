"""EC-CaM-UNet as an extension of nnU-Net v2.

This file imports nothing: the look-up hook (:mod:`nnunetv2_eccam.lookup`) passes through it in every
Python process of the environment, so it must cost nothing.
"""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """Give ``__version__`` on demand, from the installed distribution's metadata."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("nnunetv2-eccam")
        except PackageNotFoundError:  # a source checkout on PYTHONPATH
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
