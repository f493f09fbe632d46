# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
INTERPRETER ?= python3.12
OTHER = .venv-$(notdir $(INTERPRETER))
JOBS ?= 2
# tests/conftest.py puts the longest files first.
PARALLEL = -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20
# What parses, loads, learns, goes on and draws: where the libraries meet.
QUICK := tests/cli tests/diffusion tests/registry tests/evaluation tests/test_configs.py tests/test_pipeline.py \
	--ignore tests/cli/test_bad_input.py --ignore tests/evaluation/test_evaluate.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test oldest interpreter dist wheel-check lint types arch docs format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

setup: $(STAMP) ## make .venv with the tested versions

demo: $(STAMP) ## learn seven concepts on the model that ships with the project
	$(BIN)/python -m cns_lightning demo --run runs/demo

test: $(STAMP) ## run the tests, JOBS of their files at a time
	$(BIN)/python -m pytest $(PARALLEL)

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable ".[tensorboard,loras]" pytest
	touch $(OLDEST)/.installed

oldest: $(OLDEST)/.installed ## run the quick tests with the oldest supported libraries
	$(OLDEST)/bin/python -m pytest -m "not slow" $(QUICK)

interpreter: ## run the tests with another Python: make interpreter INTERPRETER=python3.13
	@command -v $(INTERPRETER) >/dev/null || { echo "there is no $(INTERPRETER) on this machine"; exit 1; }
	test -x $(OTHER)/bin/python || $(INTERPRETER) -m venv $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(OTHER)/bin/python -m pytest $(PARALLEL)

dist: $(STAMP) ## build sdist and wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .

wheel-check: $(STAMP) ## build sdist and wheel, install the wheel elsewhere, run its demo from an empty folder
	$(BIN)/python -m pytest tests/test_release.py

lint: $(STAMP) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## check types
	$(BIN)/pyright

arch: $(STAMP) ## check who imports whom
	$(BIN)/lint-imports

docs: $(STAMP) ## build the documentation into build/docs; a warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going -n -q docs build/docs

format: $(STAMP) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
