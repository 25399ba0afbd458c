# Everything that can be done here. Each target first makes .venv and installs into it what it
# needs: only Python 3.11, make, git and PyPI have to be there.
# The tests of certificates need Chromium and Poppler too: root on Debian gets them by `make check`.

PYTHON ?= python3
T ?= tests
DEMO_ARGS ?=
BENCH_ARGS ?=

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

# From the root, `python -m` would put the root on the path, and any folder in it would import as an
# empty package: `server` beside `comity_server`. Then one class exists twice.
export PYTHONSAFEPATH := 1

.DEFAULT_GOAL := help
.PHONY: help demo check cover long bench fix test sizes

help: ## show this list
	@sed -n 's/^\([a-z]*\):.* ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 8

demo: .venv/.server ## two cases between four States, on this machine (DEMO_ARGS="--headless --json")
	$(BIN)/comity demo $(DEMO_ARGS)

check: .venv/.dev ## every check: format, lint, types, import contracts, tests
	sh deploy/browser.sh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest

cover: .venv/.dev ## the tests with coverage, which takes half as long again
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

long: .venv/.foreign ## all tests, those that take minutes too, and property tests that search longer
	COMITY_LONG=1 $(BIN)/pytest -m "" --timeout 3600

bench: .venv/.dev ## measure the relay and the client on this machine (BENCH_ARGS="--quick")
	PYTHONPATH=bench:tests $(BIN)/python bench/run.py $(BENCH_ARGS)

fix: .venv/.dev ## format, and repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: .venv/.dev ## some tests: make test T=tests/test_protocol
	$(BIN)/pytest $(T)

sizes: .venv/bin/python ## the ten longest files and functions
	@$(BIN)/python deploy/sizes.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

# A stamp lives in .venv, so that it goes when .venv goes; it is renewed when pyproject.toml changes.
.venv/.server: pyproject.toml | .venv/bin/python
	$(INSTALL) '.[server]'
	touch $@

.venv/.dev: pyproject.toml | .venv/bin/python
	$(INSTALL) '.[dev]'
	touch .venv/.server $@

.venv/.foreign: .venv/.dev
	$(INSTALL) '.[foreign]'
	touch $@
