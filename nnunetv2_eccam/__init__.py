"""EC-CaM-UNet as an extension of nnU-Net v2.

This file imports nothing of weight: the look-up hook (:mod:`nnunetv2_eccam.lookup`) passes through it
in every Python process of the environment, so it must cost nothing.
"""

import os

_checkout = os.path.dirname(__path__[0])
if os.path.isfile(os.path.join(_checkout, "plans_overrides", "__init__.py")):
    # A source checkout, used in place: dataset_conversion/ and plans_overrides/, which install inside
    # this package, stand beside it.
    __path__.append(_checkout)


def __getattr__(name: str) -> str:
    """Give ``__version__`` on demand, from the installed distribution's metadata."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("nnunetv2-eccam")
        except PackageNotFoundError:  # a source checkout on PYTHONPATH
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
