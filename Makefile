# Every task of this repository. `make help` lists them. GNU make 3.81 or newer.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
# Interpreters to look for, the best first, because the lock was resolved with 3.11.
PYTHON ?= python3.11 python3.12 python3.13 python3.14 python3 python

# Written last. It holds the name of the folder. Programs in .venv name the folder too, so a moved or copied checkout
# must be installed again.
INSTALLED := $(VENV)/.installed
ifneq ($(shell cat $(INSTALLED) 2>/dev/null || echo "$(CURDIR)"),$(CURDIR))
$(shell mv $(INSTALLED) $(VENV)/.installing)
endif

.PHONY: help
help: ## list these tasks
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(INSTALLED) ## run the whole system on this machine, with sample photos (ARGS="--photos 30")
	@$(BIN)/erni demo $(ARGS)

.PHONY: test
test: lint ## run what CI runs: lint, then every test; list the tests that did not run, and what they need
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

.PHONY: check
check: lint ## run before a commit: lint, then the fast tests
	$(BIN)/pytest -n auto --dist worksteal -m "not slow and not chaos" $(ARGS)

.PHONY: lint
lint: $(INSTALLED) ## check format, lint, types, import contract, dead code
	$(BIN)/ruff format --quiet --check .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.dead_code

.PHONY: format
format: $(INSTALLED) ## format the code, and make the fixes that are safe
	$(BIN)/ruff check --quiet --fix --exit-zero .
	$(BIN)/ruff format .

.PHONY: chaos
chaos: $(INSTALLED) ## cause faults, check that nothing is lost (SEED=… repeats a run, DURATION=… seconds, TOPOLOGY=cluster|sentinel)
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(DURATION),--duration $(DURATION)) \
		$(if $(TOPOLOGY),--topology $(TOPOLOGY)) $(if $(WAIT_REPLICAS),--wait-replicas $(WAIT_REPLICAS))

.PHONY: bench
bench: $(INSTALLED) ## measure every figure of docs/performance.md; write benchmarks/results/
	@for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

# The oldest Docker Compose that reads docker-compose.yml: an env_file that may be missing came with it
# (https://docs.docker.com/reference/compose-file/services/#required).
OLDEST_COMPOSE := 2.24.0

.PHONY: compose
compose: ## check that the Docker Compose of this machine is new enough for docker-compose.yml
	@found=$$(docker compose version --short 2>/dev/null | sed 's/^v//'); \
	if [ -z "$$found" ]; then \
	  echo "there is no Docker Compose here: install version $(OLDEST_COMPOSE) or newer" >&2; exit 1; \
	fi; \
	oldest=$$(printf '%s\n' "$(OLDEST_COMPOSE)" "$$found" | sort -V | head -n 1); \
	if [ "$$oldest" != "$(OLDEST_COMPOSE)" ]; then \
	  echo "Docker Compose $$found is too old: install version $(OLDEST_COMPOSE) or newer" >&2; exit 1; \
	fi; \
	echo "Docker Compose $$found is new enough"

.PHONY: contract
contract: $(INSTALLED) ## build erni-events, the contract for upstream systems alone, into dist/
	$(BIN)/python deploy/erni_events/build.py dist

# The project is marked as unsafe so that it stays out of its own lock. The lock names no index, because pip uses the
# index of its own configuration.
.PHONY: lock
lock: $(INSTALLED) ## resolve pyproject.toml into requirements.lock again (UPGRADE=1: to the newest versions)
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --all-extras --generate-hashes --strip-extras \
		--unsafe-package erni-foto-agency --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		$(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml 2>$(VENV)/.lock-log \
		|| { cat $(VENV)/.lock-log >&2; exit 1; }
	@awk '/^# WARNING: / { exit } NF' requirements.lock >$(VENV)/.lock && mv $(VENV)/.lock requirements.lock

.PHONY: audit
audit: $(INSTALLED) ## ask the advisory database about every locked package (needs pip-audit and the network)
	@command -v pip-audit >/dev/null || { echo "make audit: pip-audit is not installed (pipx install pip-audit)" >&2; exit 1; }
	pip-audit --disable-pip --require-hashes --requirement requirements.lock

.PHONY: clean
clean: ## remove what these tasks made, but keep all data (.erni)
	rm -rf $(VENV) build dist *.egg-info .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.erni/*' -prune -exec rm -rf {} +

# An interrupted installation leaves the mark `.installing`, and the next run starts from nothing.
$(INSTALLED): requirements.lock pyproject.toml
	@if test -e $(VENV)/.installing || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && : >$(VENV)/.installing
	@test -x $(BIN)/python || { $(FIND_PYTHON) && "$$python" -m venv $(VENV); }
	@echo "installing the locked packages into $(VENV) (once, and when requirements.lock changes)"
	@$(PIP) install --require-hashes --no-deps --requirement requirements.lock || { $(NOT_INSTALLED); }
	@$(PIP) --quiet install --no-deps --no-build-isolation --editable . || { $(NOT_INSTALLED); }
	@rm $(VENV)/.installing && echo "$(CURDIR)" >$@

define FIND_PYTHON
python=; without_venv=; \
for name in $(PYTHON); do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	if "$$name" -c 'import ensurepip, venv' 2>/dev/null; then python=$$name; break; fi; \
	without_venv=$$name; \
done; \
if test -z "$$python"; then \
	if test -n "$$without_venv"; then \
		echo "make: $$without_venv cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	else \
		echo "make: no Python 3.11 or newer found (looked for: $(PYTHON)); install one, or set PYTHON=/its/path" >&2; \
	fi; \
	rm -rf $(VENV); exit 1; \
fi
endef

define NOT_INSTALLED
rm -f $(VENV)/.installing; echo "make: the locked packages could not be installed; the message of pip above names the cause (it needs the network once). Fix it and run this again." >&2; exit 1
endef
