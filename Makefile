# Everything runs in .venv, which these targets make. `make` alone lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ERP ?= sandbox
N ?= 50
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full check format bench clean

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/.ready  ## The environment, from hash-locked packages

demo: setup  ## The main job on real data (ERP=sandbox or ERP=tryton)
	$(BIN)/python examples/demo/run.py --erp $(ERP)

# Tryton's environment is made once, so its tests run in one process.
test: setup  ## All tests but the long tiers
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not tryton"
	$(BIN)/python -m pytest -m "tryton and not slow"

test-full: setup  ## All tests, the long tiers too
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not tryton"
	$(BIN)/python -m pytest -m tryton

check: setup  ## Format, lint, types, import directions, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs examples bench README.md CHANGELOG.md

format: setup  ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## Speed and memory, beside plain DuckDB
	$(BIN)/python -m bench

lock: setup  ## Resolve the locked packages anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev pyproject.toml -o requirements.lock

clean:  ## Remove what runs left behind (environments stay)
	rm -rf .demo .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
