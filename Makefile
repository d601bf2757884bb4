# Every target works alone in a fresh clone: what it needs is installed first.
.DEFAULT_GOAL := help
.PHONY: help install serve worker test check migrate revision openapi bench lock

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE # compiling the tests again takes ten seconds of each run
m      ?= change
bench  ?= store

help: ## Show the available commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.serve: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.test: requirements-dev.lock clients/langgraph-memoryd/pyproject.toml $(VENV)/.serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable clients/langgraph-memoryd
	touch $@

$(VENV)/.bench: benchmarks/requirements.lock $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benchmarks/requirements.lock
	touch $@

install: $(VENV)/.bench ## Install everything that serving, testing and checking need into .venv

serve: $(VENV)/.serve ## Serve memoryd on 127.0.0.1:8080 with its own database in .memoryd
	@$(BIN)/memoryd serve

worker: $(VENV)/.serve ## Run the background worker
	@$(BIN)/memoryd worker

test: check ## Run the checks and all tests
	$(BIN)/pytest -q -n 3 --dist worksteal -m slow # more than there are cores: much of it waits

check: $(VENV)/.bench ## The inner loop: format, lint, import contract, types, budgets, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/mypy clients/langgraph-memoryd/tests
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow"

migrate: $(VENV)/.serve ## Bring the database's schema up to date
	@$(BIN)/memoryd migrate

revision: $(VENV)/.test ## Write a new migration from the models: make revision m="add widgets"
	$(BIN)/alembic revision --autogenerate -m "$(m)"

openapi: $(VENV)/.test ## Regenerate openapi.yaml from the app
	$(BIN)/python -m app.cli.openapi > openapi.yaml

bench: $(VENV)/.bench ## Run a benchmark: make bench bench=store
	$(BIN)/python -m benchmarks.$(bench)

lock: $(VENV)/.test ## Recompile the hash-pinned locks from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra build --universal --python-version 3.11 --generate-hashes --no-header --quiet --output-file requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml --extra build --constraint requirements-dev.lock --universal --python-version 3.11 --generate-hashes --no-header --quiet --output-file requirements.lock
	$(BIN)/uv pip compile benchmarks/requirements.in --constraint requirements-dev.lock --universal --python-version 3.11 --generate-hashes --no-header --quiet --output-file benchmarks/requirements.lock
