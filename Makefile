# Podium. `make help` lists the targets.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-input
PORT ?= 8000
HOST ?= 127.0.0.1
# A Python 3.11 or newer; 3.11 and 3.12 come first, for they have a packaged Redis.
FIND_PYTHON := for python in $(PYTHON) python3 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null && echo $$python && exit; done; \
	for python in python3 python3.13 python3.14; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; done; \
	echo 'Podium needs Python 3.11 or newer; none was found. Install one, or name it: make up PYTHON=/path/to/python3' >&2; exit 1
# Settings of .env, where there is one, for what runs here.
WITH_ENV := set -a; [ ! -f .env ] || . ./.env; set +a;

# A venv whose interpreter has gone is no venv.
ifeq ($(shell $(PY) -c 'print("runs")' 2>/dev/null),)
  $(shell rm -f $(VENV)/.made $(VENV)/.installed $(VENV)/.installed-dev)
endif

.DEFAULT_GOAL := help
.PHONY: help setup up run worker embed-worker gpu-worker test test-fast fmt lint types \
	migrations-check check bench-search bench-rerank bench-rerank-gpu bench-load bench-memory bench-zelo bench-api \
	soak-api npm-sdk snippet-sdks bench-losses bench-features training-worker zelo-small default-model clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# A venv whose making was interrupted has no working pip and is made again.
$(VENV)/.made:
	@set -e; python=$$($(FIND_PYTHON)); \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  echo "making $(VENV) with $$python"; \
	  $$python -m venv --clear $(VENV) || { echo "Python could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi; touch $@

# The mark is set after the last package, so an interrupted installation goes on at the next make.
$(VENV)/.installed: requirements.txt | $(VENV)/.made
	@echo "installing what Podium runs on (the first time takes a few minutes)"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt $(VENV)/.installed
	@echo "installing what the tests need"
	@$(PIP) -r requirements-dev.txt
	@touch $@

setup: $(VENV)/.installed ## .venv with everything Podium runs on

up: setup ## start everything: servers, web, workers, demo collections (PORT=8000, HOST=127.0.0.1)
	@$(WITH_ENV) exec $(PY) manage.py up --port $(PORT) --host $(HOST)

run: setup ## only the web process, on PORT
	@$(WITH_ENV) BIND=$(HOST):$(PORT) exec $(PY) -m gunicorn -c gunicorn.conf.py

worker: setup ## only the default worker, with the clock of the periodic tasks
	@$(WITH_ENV) exec $(PY) -m celery -A searchapp worker -l INFO -n default@%h -Q default -c 2 -B --scheduler celery.beat.Scheduler

embed-worker: setup ## only the embed worker
	@$(WITH_ENV) exec $(PY) -m celery -A searchapp worker -l INFO -n embed@%h -Q embed -P threads -c 4

gpu-worker: setup ## only the rerank worker
	@$(WITH_ENV) exec $(PY) -m celery -A searchapp worker -l INFO -n gpu@%h -Q gpu -P threads -c 32

training-worker: setup ## only the training worker
	@$(WITH_ENV) exec $(PY) -m celery -A searchapp worker -l INFO -n training@%h -Q training -c 1 --max-tasks-per-child=1

zelo-small: setup ## train a reranker on a small invented world, all stages, in about two minutes
	@$(PY) -m rerank zelo small --directory var/zelo-small $(ARGS)

# A worker per core, up to four, each with servers of its own. ARGS="-n 0" has only one process.
PYTEST := $(PY) -m pytest -n auto

test: $(VENV)/.installed-dev ## every test (ARGS="-n 0 tests/test_rerank -x" and the like for pytest)
	@$(PYTEST) $(ARGS)

test-fast: $(VENV)/.installed-dev ## without browsers and without processes of their own
	@$(PYTEST) -m "not browser and not process" $(ARGS)

fmt: $(VENV)/.installed-dev ## format the code
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

lint: $(VENV)/.installed-dev ## style
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

types: $(VENV)/.installed-dev ## types
	@$(PY) -m mypy searchapp rerank manage.py

migrations-check: setup ## models and migrations agree
	@$(PY) manage.py makemigrations --check --dry-run

check: lint types migrations-check test ## everything that must hold before a change goes in

bench-search: $(VENV)/.installed-dev ## speed and memory of searching and ingesting, as a table and JSON
	@$(PY) -m benches.search $(ARGS)

# What the rerank bench compares with needs an older transformers, so it has an environment of its own.
PEERS := .venv-peers
$(PEERS)/.installed: benches/peers.txt | $(VENV)/.made
	@$(PY) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r benches/peers.txt
	@touch $@

bench-rerank: $(VENV)/.installed-dev $(PEERS)/.installed ## cross-encoders on the CPU side by side, as a table, JSON and a plot
	@$(PY) -m benches.rerank --peers $(PEERS)/bin/python $(ARGS)

bench-rerank-gpu: $(VENV)/.installed-dev ## a model of zerank-2's size on a GPU (ARGS="--tiny --device cpu" walks the same way on any machine)
	@$(PY) -m benches.rerank_gpu $(ARGS)

bench-load: $(VENV)/.installed-dev ## the rerank worker under Poisson load, as a table, JSON and a picture
	@$(PY) -m benches.load $(ARGS)

bench-memory: $(VENV)/.installed-dev ## peak memory by batch budget, and growth over 2,000 requests, on the CPU
	@$(PY) -m benches.memory $(ARGS)

bench-zelo: $(VENV)/.installed-dev ## fits and graphs of zELO beside choix and a known truth
	@$(PY) -m benches.zelo $(ARGS)

bench-api: $(VENV)/.installed-dev ## the API over HTTP: overhead, adding, searching, calls by chance
	@$(PY) -m benches.api $(ARGS)

soak-api: $(VENV)/.installed-dev ## 32 callers of one collection for a minute, each knowing what must be there
	@$(PY) -m benches.soak_api $(ARGS)

npm-sdk: ## fetch the official client for Node, which a test uses where it is there
	@npm install --silent --no-audit --no-fund --prefix .npm-sdk zeroentropy@0.1.0-alpha.10

SNIPPETS := .venv-snippets
$(SNIPPETS)/.installed: tests/snippets.txt | $(VENV)/.made
	@$(PY) -m venv --clear $(SNIPPETS)
	@$(SNIPPETS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r tests/snippets.txt
	@touch $@

snippet-sdks: $(SNIPPETS)/.installed ## fetch the packages of the documentation's snippets, which a test uses where they are there

DATA ?= ../shared/datasets
default-model: $(VENV)/.installed-dev ## fit the built-in reranker on DATA/train and measure it on DATA/eval (ARGS=--train: train a challenger too)
	@$(PY) -m benches.default_model $(DATA) $(ARGS)

bench-losses: $(VENV)/.installed-dev ## losses, targets and layers of the built-in reranker, on DATA/train
	@$(PY) -m benches.losses $(DATA) $(ARGS)

bench-features: $(VENV)/.installed-dev ## a small network over features beside the untrained reranker, on DATA/train
	@$(PY) -m benches.features $(DATA) $(ARGS)

clean: ## remove caches; data under var/ stays
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
