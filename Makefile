# `make demo`, `make test` and `make check` each set up .venv first where it is missing or stale.
# PYTHON chooses the interpreter it is made with: make test PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help demo test check clean
help:
	@echo "make demo    the whole story on built-in sound, into demo/ (what was there is replaced)"
	@echo "make test    the tests, with line coverage of at least 90 %"
	@echo "make check   ruff, ruff format and mypy"
	@echo "make clean   remove .venv, demo/ and caches; runs of your own stay"

demo: .venv/.ready
	rm -rf demo
	$(BIN)/antpitta demo --out demo

test: .venv/.ready
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

check: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch goes first and by its plain name: a CPU build that pip is set up to find is taken then, and
# nothing installed later can drag another one in.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "antpitta needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)" >&2; \
	  echo "name another one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv: some minutes the first time, most of them for torch"
	@$(PYTHON) -m venv .venv
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv demo build dist src/*.egg-info
	rm -rf .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
