# Everything a contributor runs. Each recipe first sees to .venv, with uv where there is one and with venv and
# pip where there is not, and asks the network for nothing once that is done (.ci/prepare.py).
#
#   make PYTHON=python3.12 test     choose the interpreter
#   make UV= test                   do without uv
#   make test ARGS="-k store -x"    pass arguments on

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.SUFFIXES:
.PHONY: help setup demo test slow faults sim test-agents cover lint types docs check fix bench bench-million bench-hanoi bench-replay clean

UV ?= $(shell command -v uv 2>/dev/null)
PYTHON ?=
# Many tests wait for processes, so that there is room for more of them than there are cores.
JOBS ?= 3
SEEDS ?= 500
ARGS ?=
# Where make test-agents installs them.
AGENTS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/beadtown-agents

# The tests start hundreds of processes of ours; without byte code each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
CANDIDATES = python3.13 python3.12 python3.11 python3 "$$($(or $(UV),false) python find '>=3.11' 2>/dev/null)"
RECENT := import sys; sys.exit(sys.version_info < (3, 11))

help: ## Say what there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

# Not a file target: modification times do not tell a moved or half-made environment from a good one.
setup:
	@python='$(PYTHON)'; \
	[ -z "$$python" ] && $(BIN)/python .ci/prepare.py --check 2>/dev/null && exit; \
	if [ -z "$$python" ]; then \
		for candidate in $(CANDIDATES); do \
			if "$$candidate" -c '$(RECENT)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
		done; \
	elif ! "$$python" -c '$(RECENT)'; then \
		echo "error: PYTHON=$$python is not a Python 3.11 or newer" >&2; exit 1; \
	fi; \
	if [ -z "$$python" ]; then \
		echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	exec "$$python" .ci/prepare.py --uv '$(UV)'

demo: setup ## Watch a town land work in a temporary repository; no account, no key.
	@$(BIN)/town demo $(ARGS)

test: setup ## Run the tests.
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

slow: setup ## Run the tests that take minutes each.
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow $(ARGS)
faults: setup ## Kill and fail the store and the Refinery at every step that writes, and longer storms; takes some minutes.
	@FAULTS=all $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "" tests/faults tests/beads/test_races.py tests/refinery/test_workshop.py tests/refinery/test_kills.py $(ARGS)

sim: setup ## Run whole towns under a seeded scheduler, with faults; SEEDS=20000 for many, ARGS="--show 7" for one, "--planted" for bugs.
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

test-agents: setup ## Drive real coding agents, which are installed first (3 GB), against a provider of our own.
	@$(BIN)/python .ci/agents.py '$(AGENTS)'
	@BEADTOWN_AGENTS='$(AGENTS)' $(BIN)/python -m pytest -n $(JOBS) -m agents tests/agents $(ARGS)

cover: setup ## Run the tests and say which lines they did not reach.
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n $(JOBS) $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: setup ## Look for mistakes, formatting, and imports that go up a layer.
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet || { echo "Run make fix." >&2; exit 1; }
	@$(BIN)/lint-imports --no-logo

types: setup ## Check the types.
	@$(BIN)/mypy

docs: setup ## Check that links resolve, examples run, and every command is documented.
	@$(BIN)/python -m pytest tests/test_docs.py

check: lint types docs ## Everything but the tests.

fix: setup ## Repair what can be repaired, and write docs/commands.md again.
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format
	@$(BIN)/python -m tests.reference --write

bench: setup ## Measure what the performance claims are made of; ARGS="store hanoi" only those.
	@$(BIN)/python -m benchmarks $(ARGS)

bench-million: setup ## Measure the store with a million beads, which takes long; ARGS="--beads 100000" with fewer.
	@$(BIN)/python -m benchmarks.million $(ARGS)

bench-hanoi: setup ## Work off a chain of a million beads under fire, which takes long; ARGS="--discs 14" a shorter one.
	@$(BIN)/python -m benchmarks.hanoi --discs 20 --kills 10 --group 1000 $(ARGS)

bench-replay: setup ## Make merges of a history again and compare with git merge; ARGS="--repository ../clone".
	@$(BIN)/python -m benchmarks.replay $(ARGS)

clean: ## Remove what was built and cached, but not .venv.
	@rm -rf build dist *.egg-info .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . \( -name .venv -o -name .git \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
