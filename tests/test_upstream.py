"""What this package takes for granted of nnU-Net: it fails here, by name, when upstream changes it.

``upstream_use.txt`` lists every method and attribute of nnU-Net, and of the libraries that its trainers are made of,
that this package overrides, calls or reads. After a change here, or once a new nnU-Net has been tried::

    python tests/upstream_use.py > tests/upstream_use.txt
"""

import importlib
import inspect
import re
from pathlib import Path

import pytest
from upstream_use import UPSTREAM, described, package_files, used_names

from nnunetv2_eccam.plans import batch_size

LISTED = {
    re.split(r"[(:]", line)[0]: line
    for line in Path(__file__).with_name("upstream_use.txt").read_text(encoding="utf-8").splitlines()
}


@pytest.mark.parametrize("name", LISTED)
def test_upstream_has(name):
    assert described(name) == LISTED[name]


def test_what_is_used_is_listed():
    used = used_names()
    assert sorted(used - LISTED.keys()) == [], "not in tests/upstream_use.txt: write it anew (see above)"
    assert sorted(LISTED.keys() - used) == [], "in tests/upstream_use.txt, and not used any more: write it anew"


def overrides():
    """Yield each function of a class here that upstream's class has too, with both."""
    for module, _ in package_files():
        for cls in vars(importlib.import_module(module)).values():
            if not inspect.isclass(cls) or cls.__module__ != module:
                continue
            upstream = next((base for base in cls.__mro__ if base.__module__.split(".")[0] in UPSTREAM), None)
            for name in vars(cls) if upstream else ():
                if inspect.isroutine(getattr(cls, name)) and inspect.isroutine(getattr(upstream, name, None)):
                    yield pytest.param(getattr(cls, name), getattr(upstream, name), id=f"{cls.__name__}.{name}")


@pytest.mark.parametrize(("ours", "theirs"), overrides())
def test_an_override_can_be_called_as_upstream_calls_it(ours, theirs):
    parameters = inspect.signature(ours).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    shared = [name for name in inspect.signature(theirs).parameters if name in parameters]
    assert shared == list(parameters)[: len(shared)]
    passes_on = inspect.Parameter.VAR_KEYWORD in kinds or inspect.Parameter.VAR_POSITIONAL in kinds
    assert passes_on or shared == list(inspect.signature(theirs).parameters)


def test_the_planners_constants_are_those_of_the_estimate():
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as planner

    source = inspect.getsource(planner.ExperimentPlanner.__init__)
    for dimension in (2, 3):
        values, batch = batch_size.REFERENCE_VALUES[dimension], batch_size.REFERENCE_BATCH[dimension]
        assert f"self.UNet_reference_val_{dimension}d = {values}" in source
        assert f"self.UNet_reference_val_corresp_bs_{dimension}d = {batch}" in source
    assert f"self.UNet_reference_val_corresp_GB = {batch_size.REFERENCE_GB:.0f}" in source
    assert f"self.UNet_min_batch_size = {batch_size.SMALLEST_BATCH}" in source
    assert f"self.max_dataset_covered = {batch_size.LARGEST_SHARE_OF_DATASET}" in source
