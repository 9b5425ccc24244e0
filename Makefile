# Each target says itself. A machine with Python 3.11 and make is enough for run, test and check.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
# Without bytecode each of a run's many processes would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE
# Each process has stores, practice servers and lab hosts of its own; the longest modules begin first.
PARALLEL ?= --numprocesses=3 --no-loadscope-reorder

.PHONY: run test faults check lab bench docs openapi lock format

run: $(VENV)/.sandbox  ## everything on this machine, with a practice server
	@exec $(BIN)/alfa-cloud sandbox --port $(PORT)

test: $(VENV)/.dev  ## the fast suite, and the small lab suite where root and a Docker engine are there
	$(BIN)/python -m pytest $(PARALLEL)

lab: $(VENV)/.dev  ## the lab suite alone, and required: real hosts
	ALFA_LAB=full $(BIN)/python -m pytest $(PARALLEL) tests/lab

faults: $(VENV)/.dev  ## dead workers, failing commands and cut connections at every step
	ALFA_FAULTS=full $(BIN)/python -m pytest $(PARALLEL) tests/faults tests/commands tests/playbooks/test_rollout.py

check: $(VENV)/.dev  ## all that CI runs
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/deptry src
	$(MAKE) --no-print-directory test

bench: $(VENV)/.dev  ## each benchmark with its peer or its limit beside it
	$(BIN)/python -m benchmarks

docs: $(VENV)/.dev  ## docs/frontend.md and the examples of the OpenAPI document, by a real run
	ALFA_WRITE_DOCS=1 $(BIN)/python -m pytest -q tests/docs

openapi: $(VENV)/.dev  ## the OpenAPI document
	@$(BIN)/alfa-cloud openapi

format: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock:  ## needs uv
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links pyproject.toml --extra sandbox --extra dev -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -c requirements-dev.lock pyproject.toml --extra sandbox -o requirements-sandbox.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -c requirements-dev.lock pyproject.toml -o requirements.lock

# .dev holds all of .sandbox: whichever came first, the other only adds to it.
$(VENV)/.sandbox: requirements-sandbox.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-sandbox.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.sandbox
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
