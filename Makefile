# The one entry to this repository: `make help` lists what it can do.
# Needs GNU make 3.81 or newer and a POSIX shell. Everything else is put into .venv by `setup`.

.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# Which agent the demo talks to: the built-in `demo` needs no account.
RUNTIME ?= demo
# SIM=1: the pinned real CLI from the project's cache and a scripted model: no account, no network.
SIM ?=
# Arguments handed on to pytest: make test ARGS="tests/unit -k names"
ARGS ?=

BIN := .venv/bin
PY := $(BIN)/python
TREE := src tests scripts benchmarks noxfile.py

# A foreign module path must not leak into the environment we build.
unexport PYTHONPATH PYTHONHOME
export PYTHONUTF8 := 1
# uv trusts the certificates that the system trusts, as pip does: a company's proxy works with both.
export UV_SYSTEM_CERTS := 1
# tmux and the agents draw UTF-8: without such a locale, take the one every system has.
ifeq ($(findstring utf8,$(subst -,,$(subst UTF,utf,$(firstword $(LC_ALL) $(LC_CTYPE) $(LANG))))),)
export LC_ALL := C.UTF-8
endif

# By another name: a recipe with the usual one would run even under `make -n`.
THIS_MAKE := $(MAKE)

say = @printf '==> %s\n' $(1)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: setup tmux ## Watch a team of agents talk, offline (RUNTIME=claude: your own; SIM=1: real CLIs, scripted model)
	@$(PY) -m $(if $(SIM),iapeer.testing.simulated_tour,iapeer.apps.tour) $(RUNTIME)

.PHONY: setup
setup: ## Make .venv from the locked packages (does nothing when it is up to date)
	@sh scripts/setup.sh

.PHONY: tmux
tmux: ## Make sure that tmux 3.2 or newer is there
	@sh scripts/ensure_tmux.sh

.PHONY: test
test: setup tmux ## Run the checks and all tests, with the real agents where npm is
	@MAKE="$(THIS_MAKE)" sh scripts/test.sh all $(ARGS)

.PHONY: test-real
test-real: setup tmux ## Run Claude Code and Codex against a simulated model, offline (ARGS="tests/real -k claude")
	@sh scripts/test.sh real $(ARGS)

.PHONY: test-real-all
test-real-all: setup tmux ## The same with opencode and Qwen Code too
	@sh scripts/test.sh real-all $(ARGS)

.PHONY: check
check: setup ## Run the checks that run no product code: lint, format, types, layers
	$(call say,"lint")
	@$(PY) -m ruff check --quiet --output-format concise $(TREE)
	$(call say,"format")
	@$(PY) -m ruff format --check --quiet $(TREE) || { echo "the files above are not formatted: run 'make format'" >&2; exit 1; }
	$(call say,"types")
	@$(PY) -m mypy --no-error-summary
	$(call say,"layers")
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/import_linter >.cache/layers.log 2>&1 || { cat .cache/layers.log; exit 1; }

.PHONY: format
format: setup ## Format the code and mend what can be mended
	@$(PY) -m ruff check --fix --quiet --exit-zero $(TREE)
	@$(PY) -m ruff format $(TREE)

.PHONY: test-kill
test-kill: setup tmux ## Kill everything at random for a quarter of an hour; delivery must not lie (ARGS="--seed 7")
	@$(PY) -m iapeer.testing.chaos $(ARGS)

.PHONY: test-workers
test-workers: setup tmux ## 100 tasks through one ephemeral worker, the daemon killed 20 times: five minutes (ARGS="--seed 7")
	@$(PY) -m iapeer.testing.workers $(ARGS)

.PHONY: test-burst
test-burst: setup tmux ## 2,000 messages from 16 senders to one agent (ARGS=number)
	@$(PY) scripts/burst.py $(ARGS)

.PHONY: bench
bench: setup tmux ## Measure every budget beside its limit and write docs/performance.md (ARGS=row: one, nothing written)
	@$(PY) -m benchmarks $(if $(ARGS),$(ARGS),--write)

.PHONY: bench-gate
bench-gate: setup tmux ## Fail when a quick row has become slow, by its ratio to the limit (under a minute)
	@$(PY) -m benchmarks --gate

.PHONY: bench-agents
bench-agents: setup tmux ## How long a message takes to a real agent's model beyond its own time (ARGS="cold warm" runs)
	@$(PY) -m iapeer.testing.agents install claude codex
	@$(PY) scripts/bench_agents.py $(ARGS)

.PHONY: bench-rivals
bench-rivals: setup tmux ## Measure other message routers beside iapeer and write docs/rivals.md (ARGS=--quick)
	@$(PY) -m benchmarks.rivals $(if $(ARGS),$(ARGS),--write)

.PHONY: coverage
coverage: setup tmux ## Run the tests and report the lines and branches they miss
	@rm -f .coverage .coverage.*
	@PYTHONWARNDEFAULTENCODING=1 $(PY) -m coverage run -m pytest -n 2 --dist worksteal $(ARGS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report

.PHONY: matrix
matrix: setup tmux ## Run checks and tests on Python 3.11, 3.12 and 3.13
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PY) -m nox

# `make lock` keeps what is pinned as far as it can; `make lock UPGRADE=1` takes the newest of everything.
COMPILE = $(PY) -m uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-config --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: setup ## Pin all packages anew from pyproject.toml (UPGRADE=1: newest versions)
	$(call say,"requirements/runtime.txt")
	@$(COMPILE) --output-file requirements/runtime.txt
	$(call say,"requirements/dev.txt")
	@$(COMPILE) --group dev --constraint requirements/runtime.txt --output-file requirements/dev.txt

.PHONY: picture
picture: setup tmux ## Draw docs/demo.svg anew from a real run of the demo
	@$(PY) scripts/record_demo.py

.PHONY: changelog
changelog: setup ## Show the next release's changelog, assembled from changes/
	@$(PY) -m towncrier build --draft

.PHONY: clean
clean: ## Remove .venv and everything that was generated
	@rm -rf .venv .nox .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build dist
	@rm -rf __pycache__
	@find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
