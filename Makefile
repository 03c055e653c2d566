# Every target does its own set-up into .venv/. `make` alone prints what there is.
PYTHON ?= python3
# Address of an index to take torch from, for instance PyTorch's own for CPU builds; empty: pip's default.
TORCH_INDEX ?=
# make demo MODEL=nomic-ai/nomic-embed-text-v2-moe downloads that model (1.9 GB) and uses it.
MODEL ?=
DATA ?= demo-data
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
READY := $(VENV)/.ready
CHECKED := api cli domain extractors migrations retrieval storage workers tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check fix serve worker migrate bench chaos docs lock

help:  ## Print this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "OpenPeek needs Python 3.11 or newer; say which with make PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VENV) (a few minutes the first time: torch is large) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install pip==26.3
	@$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY)  ## Set up .venv with everything that is pinned

demo: $(READY)  ## Run the main job for real: ingest, extract, index, search (MODEL=… for another model)
	@$(BIN)/openpeek demo --data $(DATA) $(if $(MODEL),--model $(MODEL))

test: $(READY)  ## Run all tests, with real PostgreSQL, Redis and S3 servers started from packages
	@$(BIN)/python -m pytest -q -m "not chaos"

test-fast: $(READY)  ## Run the tests that need no services and no model weights (under a minute)
	@$(BIN)/python -m pytest -q -m "not services and not model and not chaos"

check: $(READY)  ## Lint, format, types, import directions, house rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/test_house.py tests/test_docs.py

fix: $(READY)  ## Mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

serve: $(READY)  ## Serve the API on port 8000, data in ./openpeek-data
	@$(BIN)/openpeek serve

worker: $(READY)  ## Work for a distributed set-up (OPENPEEK_QUEUE_URL and others must be set)
	@$(BIN)/openpeek worker

migrate: $(READY)  ## Bring the database's schema to what this version needs
	@$(BIN)/openpeek migrate

bench: $(READY)  ## Measure the platform; results go to benchmarks/RESULTS.md by hand
	@$(BIN)/python -m benchmarks.ingest
	@$(BIN)/python -m benchmarks.search

chaos: $(READY)  ## Kill processes at random moments of batches, in both modes (SEED=1)
	@OPENPEEK_TEST_SEED=$(SEED) $(BIN)/python -m pytest -q -s -m chaos --timeout 1200

docs: $(READY)  ## Write the generated pages, then check that the docs are true
	@$(BIN)/python -m benchmarks.model_pages
	@$(BIN)/python -m pytest -q tests/test_docs.py

lock:  ## Renew requirements.lock (torch is pinned in the Makefile; what only sentence-transformers needs is left out)
	@$(BIN)/pip-compile -q --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --no-emit-options --extra dev --unsafe-package torch \
		$(foreach one,sentence-transformers scikit-learn scipy joblib threadpoolctl narwhals,--unsafe-package $(one)) \
		-o requirements.lock pyproject.toml
