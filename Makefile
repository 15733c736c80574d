# GNU make and a POSIX shell; nothing else needs to be installed but Python 3.11 to 3.13.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORK_DIR ?= demo_run

# An interpreter that nnU-Net supports: the first of these that is there, or the one given as PYTHON=.
PYTHON ?=
CANDIDATES := python3.13 python3.12 python3.11 python3 python

.PHONY: gpu gpu-packages help install demo test test-quick pytest lint docs dist benchmark clean
.DEFAULT_GOAL := help

help:
	@echo 'make install   a virtual environment in $(VENV) with this package and what its tests need'
	@echo 'make demo      install, then the whole way on a generated phantom: convert, plan, train, predict'
	@echo 'make demo DATA=/path/to/Task02_Heart   the same on a real download'
	@echo 'make test      install, then lint and run all tests; make test-quick leaves out the slow ones'
	@echo 'make lint      install, then ruff and mypy'
	@echo 'make docs      install, then the documentation in site/; a broken link is an error'
	@echo 'make dist      install, then wheel and source archive in dist/, checked'
	@echo 'make benchmark install, then speed and memory beside nnU-Net'"'"'s own network'
	@echo 'make gpu       install, then all figures that need a GPU, in six minutes (docs/reference/speed.md)'
	@echo 'make clean     remove the virtual environment, caches and what is built'
	@echo 'PYTHON=python3.12 chooses the interpreter; WORK_DIR=... the demonstration'"'"'s folder.'

install: $(STAMP)

# Modules are compiled when they are first imported: of all that are installed, few are.
$(STAMP): pyproject.toml
	@python=; \
	fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; \
	if [ -n "$(PYTHON)" ]; then \
	  "$(PYTHON)" -c "$$fits" || { echo 'PYTHON=$(PYTHON) is not a Python from 3.11 to 3.13' >&2; exit 1; }; \
	  python="$(PYTHON)"; \
	else \
	  for candidate in $(CANDIDATES); do \
	    if command -v "$$candidate" >/dev/null 2>&1 && "$$candidate" -c "$$fits" 2>/dev/null; then \
	      python="$$candidate"; break; \
	    fi; \
	  done; \
	fi; \
	if [ -z "$$python" ]; then \
	  echo 'No Python from 3.11 to 3.13 was found; install one, or name one: make install PYTHON=/path/to/python3' >&2; \
	  exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$python" --version 2>&1)"; \
	"$$python" -m venv $(VENV) || { \
	  echo 'The module venv is missing; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -e '.[test,docs]'
	@touch $(STAMP)

# Through the environment, so that any character in a path reaches the program as it is.
demo: export DEMO_DATA := $(DATA)
demo: export DEMO_WORK_DIR := $(WORK_DIR)
demo: install
	$(BIN)/nnUNetv2_eccam demo --work-dir "$$DEMO_WORK_DIR" $(if $(DATA),--data "$$DEMO_DATA")

test: lint pytest

# Three processes on two cores, since some tests wait for others; each file of tests in one of them.
pytest: install
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-quick: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install
	$(BIN)/zensical build --clean --strict

# The wheel is tried where nothing of the checkout is on the path: without its dependencies it can print its version.
dist: install
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m venv dist/try
	dist/try/bin/python -m pip install --disable-pip-version-check --quiet --no-deps dist/*.whl
	cd dist && try/bin/nnUNetv2_eccam --version && try/bin/nnUNetv2_eccam trainer-path
	rm -rf dist/try

benchmark: install
	$(BIN)/python -m benchmarks.speed

# On a machine with a GPU: all figures that need one. Where nothing can be installed, see docs/reference/speed.md.
gpu: install
	$(BIN)/python -m benchmarks.gpu

# nnU-Net and what it needs, for a machine without a network.
gpu-packages: install
	$(BIN)/python -m benchmarks.gpu_packages pack

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site *.egg-info demo_run
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
