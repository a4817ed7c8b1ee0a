# Every target does all the set-up it needs: a virtual environment in $(VENV), the exact packages of
# requirements.txt, and this project as an editable install. Re-runs skip what is up to date.
#
#   make demo        fine-tune three small models on synthetic data and compare them (no network but the package index)
#   make test        the quick tests
#   make test-slow   the tests on real weights and data (HF_MIXUP_DATA names the data folder), and those of transformers
#   make compat      the quick tests on the oldest packages that pyproject.toml admits (PYTHON=python3.10: and Python)
#   make bench       time and memory of a mixed training step against a plain one, appended to BENCH_OUTPUT
#   make lint        ruff check and ruff format --check
#   make format      mend what ruff can mend
#   make wheel       build dist/*.whl
#   make clean       remove builds and caches (the virtual environment stays)

PYTHON ?= python3
VENV ?= .venv
REQUIREMENTS ?= requirements.txt
BENCH_OUTPUT ?= bench.jsonl
BIN := $(VENV)/bin
# Two pytest workers with one torch thread each: the models are tiny, more threads only get in each other's way.
TEST_WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow compat bench lint format wheel clean

help:
	@sed -n 's/^#   //p' Makefile

# Threads that wait for each other without spinning: on two busy cores the demo takes a fraction of the time.
demo: $(VENV)/.project
	OMP_WAIT_POLICY=PASSIVE $(BIN)/hf-mixup demo

test: $(VENV)/.project
	$(PYTEST)

test-slow: $(VENV)/.project
	$(PYTEST) -m slow

# An environment of its own beside the one for all else.
compat:
	$(MAKE) test VENV=.venv-compat REQUIREMENTS=requirements-minimum.txt

bench: $(VENV)/.project
	$(BIN)/python benchmarks/step_time.py --suite quick --output $(BENCH_OUTPUT)

lint: $(VENV)/.requirements
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.requirements
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.requirements
	rm -rf dist
	$(BIN)/python -m build --wheel

clean:
	rm -rf build dist .cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# The version is read from hf_mixup/__init__.py, so the installed metadata is renewed with it.
$(VENV)/.project: pyproject.toml hf_mixup/__init__.py $(VENV)/.requirements
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Several packages pinned in requirements.txt have left Python 3.10 behind; there the ranges of pyproject.toml decide.
$(VENV)/.requirements: $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing the packages of $(REQUIREMENTS) into $(VENV) (the first time this takes some minutes)."
	@if [ $(REQUIREMENTS) != requirements.txt ] || $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS); \
	else \
	    echo "requirements.txt is for Python 3.11 or newer: on 3.10 the ranges of pyproject.toml are installed."; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check '.[test,dev]'; \
	fi
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is missing or older than 3.10: give a newer one, for example make $(MAKECMDGOALS) PYTHON=python3.12." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment: on Debian or Ubuntu run apt install python3-venv first." >&2; exit 1; }
