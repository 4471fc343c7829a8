# Needs Python >= 3.11 and make; everything else is set up by the first target that wants it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

.PHONY: quickstart test test-all lint types bench setup clean

quickstart: $(READY)
	$(BIN)/danskin train digits

test: $(READY) lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

test-all: $(READY) lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m ""

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python bench/attacks.py

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "danskin needs Python >= 3.11; say which: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all]" --group dev
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
