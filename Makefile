# make setup   create .venv and install into it (again only when pyproject.toml or constraints.txt changed)
# make sweep   the main job on the embedded digits; everything it writes lies under TUNE_RSST_HOME
# make quick   lint, types, import rules, fast tests: before each commit, at most 2 minutes on 2 cores
# make test    lint, types, import rules, all tests
# make chaos   kill, stop and damage real sweeps from a seed: SEED=n MINUTES=m, ends within m + 3 minutes

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := all,bench,dev
AZURITE := azurite@3.37.0
ARGS ?=
PYTEST_ARGS ?=
SEED ?= 2026
MINUTES ?= 5
CHAOS_ARGS ?=

TUNE_RSST_HOME ?= $(CURDIR)/.tune_rsst
export TUNE_RSST_HOME

.PHONY: help setup sweep test ready quick chaos lint types imports test-tools format clean

help:
	@sed -n 's/^# //p' Makefile | head -5

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "PYTHON = $(PYTHON): valid is a Python >= 3.11; say which: make PYTHON=python3.11 setup" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "could not create $(VENV); on Debian install the package python3-venv" >&2; rm -rf $(VENV); exit 2; }
	@echo "Installing into $(VENV) (torch alone is several GB the first time) …"
	$(BIN)/python tools/constraints.py > $(VENV)/constraints.txt
	$(BIN)/python tools/install.py $(VENV)/constraints.txt '.[$(EXTRAS)]'
	@touch $@

sweep: setup
	$(BIN)/tune-rsst sweep $(ARGS)

# Tests that need one core run three at a time, for some of them wait; then those that start servers and Ray, two at a time and in
# their order: the default, files of many tests first, leaves the longest single one for the end. 5 is "nothing was selected".
test: ready
	@$(MAKE) --no-print-directory -j 2 lint types imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile $(PYTEST_ARGS) || test $$? -eq 5
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) || test $$? -eq 5

# Python's libraries and the other programs that tests need are fetched side by side.
ready:
	@$(MAKE) --no-print-directory -j 2 setup test-tools

quick: setup lint types imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow and not medium" -n 2 --dist loadfile $(PYTEST_ARGS)

chaos: setup
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(CHAOS_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# The browser test needs Chromium, the PostgreSQL tests its server programs, those of Azure's storage Azurite, which is a
# program for node. Installed where that is possible without asking (root and apt-get, npm); elsewhere said once, and the
# tests concerned skip with the reason.
test-tools:
	@missing=""; \
	command -v chromium >/dev/null 2>&1 || missing="$$missing chromium"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	command -v npm >/dev/null 2>&1 || missing="$$missing nodejs npm"; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing for the tests:$$missing"; \
	  { timeout 300 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -qq --no-install-recommends $$missing; } \
	    || echo "apt-get failed: tests that need$$missing will skip"; \
	else echo "Not here and not installable without root:$$missing; tests that need them will skip"; fi
	@test -d $(VENV)/azurite/node_modules/azurite || { echo "Installing for the tests: $(AZURITE)"; \
	  timeout 300 npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(VENV)/azurite $(AZURITE); } \
	  || echo "npm failed: tests that need Azurite will skip"

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
