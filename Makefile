# Holdfast. `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NODES  ?= 3
SEEDS  ?= 1000
PIP    := $(BIN)/pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help run dev check test simulate mutants bench bench-requests bench-consensus fmt proto lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.run: requirements/build.txt requirements/run.txt pyproject.toml
	@echo "installing into $(VENV) (a minute or two the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/build.txt
	@$(PIP) install --require-hashes --no-build-isolation -r requirements/run.txt
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@echo "installing the development tools into $(VENV)"
	@$(PIP) install --require-hashes --no-build-isolation -r requirements/dev.txt
	@touch $@

run: $(VENV)/.run ## start a demonstration cluster on loopback (NODES=5 for five nodes) and follow it until Ctrl-C
	@$(BIN)/python -m holdfast.client.demo --nodes $(NODES)

dev: $(VENV)/.dev ## install the development tools

check: dev ## format, lint, types, import contracts, tidy, unit, property and simulation tests
	@$(BIN)/ruff format --check --quiet . || { echo "run 'make fmt'"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo > $(VENV)/.imports || { cat $(VENV)/.imports; exit 1; }
	@$(BIN)/buf lint
	@$(BIN)/pytest -q -n 2 tests/unit tests/property tests/simulation

test: dev ## everything in check's test suites, then integration and end-to-end tests with real processes
	@$(BIN)/pytest -q -n 2 --dist loadfile tests

simulate: dev ## live SEEDS=1000 simulated lives of a cluster (SEEDS=17:17 replays one), in two processes
	@PYTHONPATH=tests $(BIN)/python tests/simulation/simulate.py $(SEEDS)

mutants: dev ## put safety mistakes into copies of the consensus module and see each noticed (ONLY=figure_8; EACH=1)
	@PYTHONPATH=tests $(BIN)/python -m mutants.run --only "$(ONLY)" $(if $(EACH),--each)

bench: bench-requests bench-consensus ## measure requests, then the consensus module alone

bench-requests: $(VENV)/.run ## measure put and get on three nodes: p50, p95, p99 and throughput
	@$(BIN)/python -m holdfast.benchmarks requests

bench-consensus: $(VENV)/.run ## measure consensus alone: writes, reads, failover, writes while a snapshot is sent
	@$(BIN)/python -m holdfast.benchmarks consensus

fmt: dev ## format the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

proto: dev ## generate the stubs from proto/v1/*.proto
	@$(BIN)/python -m grpc_tools.protoc -Isrc --python_out=src --grpc_python_out=src \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:src \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:src \
	  src/holdfast/proto/v1/*.proto

lock: ## write requirements/*.txt from pyproject.toml
	@$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-trusted-host --strip-extras \
	  --allow-unsafe --no-header --output-file requirements/build.txt requirements/build.in
	@$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-trusted-host --strip-extras \
	  --allow-unsafe --no-header --extra server --output-file requirements/run.txt pyproject.toml
	@$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-trusted-host --strip-extras \
	  --allow-unsafe --no-header --all-extras --constraint requirements/run.txt \
	  --output-file requirements/dev.txt pyproject.toml

clean: ## remove what make built (not the demonstration cluster's data)
	@rm -rf $(VENV) build dist src/holdfast.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
