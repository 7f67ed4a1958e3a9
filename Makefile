SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= ray_jobs/configs/toy.toml
OUTPUT ?= outputs/$(basename $(notdir $(CONFIG)))
DATA ?=
PORT ?= 8000
STAMP := .venv/.installed
TOOLS := .venv/tools/bin
# What the site shows, and what its pages link to.
PAGES := README.md CHANGELOG.md LICENSE docs benchmarks cluster ray_jobs recsys serve_configs
RUN := $(BIN)/python -m

LOCKED := $(BIN)/pip install --quiet --no-deps --require-hashes
TORCH ?=

.PHONY: help setup fmt check test demo generate prepare train index evaluate pipeline serve bench chaos
.PHONY: docs lock wheel sbom secrets audit
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv from .ci/lock; TORCH=cpu or cuda, by default cpu where the index has it

# Exact versions, and every file is checked by its hash. hatchling is among them, so nothing else is fetched.
$(STAMP): pyproject.toml $(wildcard .ci/lock/*.txt)
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "error: Python 3.11 or 3.12 is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(LOCKED) -r .ci/lock/dev.txt
	$(LOCKED) -r .ci/lock/$(or $(TORCH),cpu).txt $(if $(TORCH),,|| $(LOCKED) -r .ci/lock/cuda.txt)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	touch $(STAMP)

fmt: setup  ## format the code
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

check: setup docs  ## formatting, lint, types, layers, links
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

docs: setup  ## build the site into outputs/site; a broken link fails
	mkdir -p outputs/site-pages
	ln -sfn $(addprefix $(CURDIR)/,$(PAGES)) outputs/site-pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

# In an environment of their own: what they need is not what is to be served.
$(TOOLS)/.installed: .ci/lock/tools.txt | setup
	test -x $(TOOLS)/python || $(BIN)/python -m venv .venv/tools
	$(TOOLS)/pip install --quiet --no-deps --require-hashes -r .ci/lock/tools.txt
	touch $(TOOLS)/.installed

lock: $(TOOLS)/.installed  ## resolve constraints.txt anew and write .ci/lock with the hashes of all files
	$(TOOLS)/python .ci/lock.py

wheel: setup  ## build the wheel into outputs/dist, and try it from an empty directory
	rm -rf outputs/dist outputs/wheel-try
	$(BIN)/hatchling build -t wheel -d outputs/dist
	$(BIN)/pip install --quiet --no-deps --no-index --target outputs/wheel-try outputs/dist/recsys-*.whl
	cd outputs/wheel-try && ../../$(BIN)/python -c 'import recsys; print(recsys.__file__)'

sbom: $(TOOLS)/.installed  ## what .venv holds, as CycloneDX, into outputs/sbom.json
	mkdir -p outputs
	$(TOOLS)/cyclonedx-py environment .venv --pyproject pyproject.toml --output-reproducible -o outputs/sbom.json

secrets: $(TOOLS)/.installed  ## search all committed files for keys and passwords
	git ls-files -z ':!.ci/lock' ':!.ci/secrets.json' | xargs -0 $(TOOLS)/detect-secrets-hook --no-verify --baseline .ci/secrets.json

audit: $(TOOLS)/.installed  ## known vulnerabilities of all locked versions; needs the package index's JSON API
	$(TOOLS)/pip-audit --strict --disable-pip --progress-spinner off -r .ci/lock/dev.txt -r .ci/lock/cuda.txt
