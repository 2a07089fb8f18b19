# Everything that is needed beside this file: Python 3.11 with venv, and make.

PYTHON ?= python3
VENV ?= .venv
# Where tests run side by side.
JOBS ?= 2

BIN = $(VENV)/bin
READY = $(VENV)/.ready

# Benchmarks: which rows, separated by commas (all of them), and how often each.
ROWS ?=
RUNS ?=

.PHONY: run test lint types bench bench-peers venv clean

## A complete server on loopback, data in ./mailplat-data
run: venv
	$(BIN)/twistd -n --pidfile= mailplat

test: venv
	$(BIN)/python -m pytest -n $(JOBS) tests

lint: venv
	$(BIN)/ruff check .

types: venv
	$(BIN)/mypy mailplat

## How fast it is, alone: a minute or two
bench: venv
	$(BIN)/python -m benchmarks $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS))

## The same beside Postfix, Dovecot and others, as root: up to an hour
bench-peers: venv
	$(BIN)/python -m benchmarks.compare $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS))

venv: $(READY)

$(READY): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-ci build dist *.egg-info
