"""The networks of an optional package say how to install it."""

from __future__ import annotations

import importlib
import sys

import pytest

from nnunetv2_eccam.architectures.compared.deeplab_v3_plus import DeepLabV3Plus
from nnunetv2_eccam.architectures.compared.segformer import SegFormer
from nnunetv2_eccam.errors import UserError


@pytest.mark.parametrize(("network", "title"), [(DeepLabV3Plus, r"DeepLabV3\+"), (SegFormer, "SegFormer")])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, network, title):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(
        UserError, match=title + r" needs segmentation-models-pytorch: pip install 'nnunetv2-eccam\[compared\]'$"
    ):
        network(1, 2)


def test_a_package_that_is_there_but_broken_keeps_its_own_message(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="timm"):
        SegFormer(1, 2)
