"""The option that widens nnU-Net's integration test from what CI runs to all of it."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="all four kinds of labels, five folds, longer trainings")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "finished" in metafunc.fixturenames:
        scenarios = (999, 998, 997, 996) if metafunc.config.getoption("--full", default=False) else (996,)
        metafunc.parametrize("finished", scenarios, indirect=True, scope="module")
