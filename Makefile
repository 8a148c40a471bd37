# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo demo-quick test test-fast test-oldest lint types docs clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.demo  ## Install and run the demo: adapt, index and search the Python standard library (10 minutes)
	$(BIN)/revela demo

demo-quick: $(VENV)/.demo  ## The demo on a small corpus (under 2 minutes)
	$(BIN)/revela demo --quick

test: $(VENV)/.dev  ## Install and run every test, in WORKERS=2 processes
	$(PYTEST)

test-fast: $(VENV)/.dev  ## Install and run the fast tests only
	$(PYTEST) -m "not slow"

test-oldest:  ## Install the oldest supported versions beside it, and run the tests of hostile files (2 minutes)
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c tests/fire/oldest.txt \
	  -e '.[training,chroma]' pytest pytest-asyncio pytest-timeout
	$(VENV)-oldest/bin/python -m pytest tests/fire

lint: $(VENV)/.dev  ## ruff: errors, imports, docstrings, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy
	$(BIN)/mypy

docs: $(VENV)/.docs  ## Build the manual into build/site; a broken link, or a page that asks another server, is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@! grep -rElI --include='*.html' '(src|href)="(https?:)?//[^"]*\.(js|css|woff2?|png|svg)"' build/site || \
	  { echo "These pages load something from another server."; exit 1; }

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) $(VENV)-oldest .pytest_cache .mypy_cache .ruff_cache build dist

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing revela-rag and its demo into $(VENV) (a few minutes the first time) ..."
	$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing revela-rag and its test tools into $(VENV) (a few minutes the first time) ..."
	$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing what builds the manual into $(VENV) ..."
	$(INSTALL) -e '.[docs]'
	@touch $@
