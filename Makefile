SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= ray_jobs/configs/toy.toml
OUTPUT ?= outputs/$(basename $(notdir $(CONFIG)))
DATA ?=
PORT ?= 8000
STAMP := .venv/.installed
RUN := $(BIN)/python -m

.PHONY: help setup fmt check test demo generate prepare train index evaluate pipeline serve bench chaos
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv with exact versions

# torch first and alone: a later resolver step then keeps the build that is there.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else "error: Python 3.11 or 3.12 is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

fmt: setup  ## format the code
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

check: setup  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: setup  ## run all tests
	$(BIN)/pytest

demo: setup  ## the whole road on this machine; DATA=<dir> for your own data
	$(RUN) ray_jobs.demo --config $(CONFIG) $(if $(DATA),--data $(DATA) --output outputs/demo-$(notdir $(patsubst %/,%,$(DATA))),)

generate: setup  ## write a generated world to outputs/world
	$(RUN) ray_jobs.generate --output outputs/world

prepare pipeline: setup  ## stages that read DATA=<dir>
	$(RUN) ray_jobs.$@ --config $(CONFIG) --output $(OUTPUT) --data $(DATA)

train index evaluate: setup  ## stages on artifacts in OUTPUT=<dir>
	$(RUN) ray_jobs.$@ --config $(CONFIG) --output $(OUTPUT)

serve: setup  ## serve CHECKPOINT=<dir> INDEX=<dir> PORT=<port>, RANKER=<dir> if there is one, until stopped
	$(RUN) ray_jobs.serve --checkpoint $(CHECKPOINT) --index $(INDEX) --port $(PORT) $(if $(RANKER),--ranker $(RANKER))

bench: setup  ## run benchmarks/NAME.py
	$(RUN) benchmarks.$(NAME)

chaos: setup  ## break trainings and a running service on purpose; needs what make demo leaves
	$(RUN) benchmarks.chaos.training --output outputs/demo
	$(RUN) benchmarks.chaos.serving --output outputs/demo
	$(RUN) benchmarks.chaos.serving --output outputs/demo --haproxy
