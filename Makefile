# `make demo`, `make test` and `make check` first set up .venv if it is missing or out of date.
# PYTHON is the interpreter for it: make test PYTHON=python3.12
PYTHON ?= python3
# How long `make fuzz` runs, for all targets together.
FUZZ_SECONDS ?= 60
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help demo test check fuzz clean
help:
	@echo "make demo    simulate, train, predict, evaluate, report and queue into demo/, which is replaced"
	@echo "make test    run the tests; at least 90 % of the lines must be covered"
	@echo "make check   run ruff, ruff format and mypy"
	@echo "make fuzz    try random tables, sound files and models for FUZZ_SECONDS (60); Linux only"
	@echo "make clean   delete .venv, demo/ and caches, but no runs of your own"

demo: .venv/.ready
	rm -rf demo
	$(BIN)/antpitta demo --out demo

test: .venv/.ready
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

check: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# On Windows and macOS there is no atheris: pip leaves it out, and the targets say so.
fuzz: .venv/.ready
	@$(PIP) -e '.[fuzz]' || { \
	  echo "atheris cannot be installed: use Linux and Python 3.11, 3.12 or 3.13." >&2; exit 1; }
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

# torch is installed first and by its plain name: pip then takes a CPU build that it is configured
# to find, and later packages keep it.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "antpitta needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." >&2; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up .venv. The first time takes some minutes, mostly for PyTorch."
	@$(PYTHON) -m venv .venv
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv demo build dist .fuzz src/*.egg-info
	rm -rf .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
