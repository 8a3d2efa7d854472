# Two commands matter: `make quickstart` and `make test`. Everything runs in .venv, which `make install` makes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.lift_trl_installed

# Two cores are enough for everything here, and more threads than cores slow the tiny models down.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-learning test-all test-real quality format docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with the package (editable) and all extras

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; use e.g. 'make install PYTHON=python3.12'."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@

quickstart: install  ## the whole paper on a tiny model, 8 to 13 minutes on two cores: ends with a report
	PATH="$(CURDIR)/$(BIN):$$PATH" bash recipes/mini.sh

test: install  ## everything but the slow and the learning tests, some 8 minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --session-timeout=2700 -m "not slow and not real and not learning"

test-learning: install  ## do rewards teach? trains the mini world, at most 10 minutes on two cores
	$(BIN)/python -m pytest -m learning tests/learning

test-all: install  ## everything, minutes to hours; adds DeepSpeed for the ZeRO runs, and VBench in its own environment
	$(BIN)/python -m pip install wheel
	$(BIN)/python -m pip install --no-build-isolation deepspeed
	$(BIN)/python -m pytest

test-real: install  ## checks on real clips and answers in the folder LIFT_TRL_REAL_DATA
	@test -n "$(LIFT_TRL_REAL_DATA)" \
		|| { echo "LIFT_TRL_REAL_DATA is not set: make test-real LIFT_TRL_REAL_DATA=DIR (clips/, critic/, hra/)"; exit 1; }
	LIFT_TRL_REAL_DATA="$(abspath $(LIFT_TRL_REAL_DATA))" $(BIN)/python -m pytest -m "real and not slow"

quality: install  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## apply ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## build the documentation into site/, warnings are errors
	$(BIN)/mkdocs build --strict

clean:  ## remove what the other targets made, but .venv
	rm -rf site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf
