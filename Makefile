# Tillgate. Needs python3 (3.11 or newer) with venv, git and make; everything else is installed into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Pinned and hashed wheels only: nothing is compiled, and nothing else is run, while installing.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PINNED := $(PIP) --require-hashes --only-binary=:all:
# The checkout itself; its build tool is a program that is looked up on PATH.
THIS := PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --no-deps --no-build-isolation --editable .

# Stamps: written when a step is done, so that a second `make` does nothing unless what it was made from has changed.
MADE := $(VENV)/.made
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev

ARGS ?=
ROUNDS ?= 1000

.PHONY: help install install-dev demo test check format wheel-check bench bench-ci crash lock clean

help: ## List what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  Arguments go on with ARGS, as in: make demo ARGS=--exit'

install: $(RUNTIME) ## Install what the hub needs into .venv

install-dev: $(DEV) ## Install what tests and checks need as well

demo: $(RUNTIME) ## Run hub, worker and sandbox, and show payments being made (ARGS=--exit ends after the show)
	@$(BIN)/tillgate demo $(ARGS)

# Three for two cores: a third of a test's time is waiting (a lease, a payer, a process).
test: $(DEV) ## Run all tests, on SQLite, PostgreSQL and a browser (ARGS='-k word' for some)
	@$(BIN)/python tests/support/browser.py
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: $(DEV) ## Check format, lint, types, architecture and dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

format: $(DEV) ## Format the code and mend what lint can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

wheel-check: $(DEV) ## Install the wheel alone into an empty environment, and run the demo there
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip --disable-pip-version-check wheel --quiet \
	  --no-deps --no-build-isolation --wheel-dir "$$work/dist" .; \
	$(PYTHON) -m venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip --disable-pip-version-check install --quiet \
	  --require-hashes --only-binary=:all: -r requirements/runtime.txt; \
	"$$work/venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps "$$work"/dist/*.whl; \
	"$$work/venv/bin/python" -m pip --disable-pip-version-check check; \
	mkdir "$$work/empty"; cd "$$work/empty"; "$$work/venv/bin/tillgate" demo --exit; \
	echo "The wheel works alone: $$(basename "$$work"/dist/*.whl)"

bench: $(DEV) ## Measure, and print the table of figures
	@$(BIN)/python -m bench $(ARGS)

bench-ci: $(DEV) ## Count instructions per payment, and fail if they grew
	@$(BIN)/python -m bench.ci $(ARGS)

crash: $(DEV) ## Kill the hub again and again, and look for what was lost or doubled (ROUNDS=1000)
	@TILLGATE_CRASH_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest tests/crash -n0 --timeout=0 $(ARGS)

lock: ## Pin the dependencies anew (ARGS=--upgrade for the newest allowed)
	requirements/compile.sh $(ARGS)

clean: ## Remove .venv and all that tools left behind
	rm -rf $(VENV) .hypothesis .mypy_cache .ruff_cache .import_linter_cache build dist
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: $(PYTHON) is $$($(PYTHON) -V 2>&1). Try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(RUNTIME): requirements/runtime.txt requirements/build.txt pyproject.toml | $(MADE)
	@echo 'Installing what the hub needs; this takes a minute the first time.'
	$(PINNED) -r requirements/build.txt -r requirements/runtime.txt
	$(THIS)
	@touch $@

$(DEV): requirements/dev.txt pyproject.toml | $(MADE)
	@echo 'Installing what the hub, its tests and checks need; this takes a few minutes the first time.'
	$(PINNED) -r requirements/dev.txt
	$(THIS)
	@touch $(RUNTIME) $@
