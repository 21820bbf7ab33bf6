# Start with `make demo` to see the package work and `make test` to run its tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Number of pytest processes; default: one per core.
WORKERS ?= auto

DOCS_READY := $(VENV)/.docs-ready
LOWEST := .venv-lowest
LOWEST_READY := $(LOWEST)/.ready

.PHONY: help demo docs test test-all test-lowest check format clean

help:
	@echo "make demo         estimate and draw poses in sample images and a clip; writes them to demo/"
	@echo "make docs         build the documentation site in site/"
	@echo "make test         run the fast tests; sets up its own virtual environment in $(VENV)"
	@echo "make test-all     run the slow tests too (full-size networks)"
	@echo "make test-lowest  run the fast tests with the lowest supported versions, in $(LOWEST) (several GB)"
	@echo "make check        lint, formatting, types, import layers, fast tests"
	@echo "make format       apply automatic fixes and formatting"
	@echo "make clean        delete the virtual environments, demo/, dist/ and site/"

# The constraint file pins the tested versions. `trackers` is installed without its dependencies: all of them are installed
# already except opencv-python, which would overwrite files of opencv-python-headless.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps trackers
	touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# A warning is an error (mkdocs.yml). The variable turns off the theme's announcement about mkdocs 2.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not network"

test-all: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not network"

# The lowest supported versions of the dependencies and extras, in a separate environment. It leaves out `detect`, whose
# transformers requires a newer huggingface-hub (this also tests the package without transformers), and `torchao`, which
# requires torch 2.11. On Linux the only torch 2.6 on PyPI is the CUDA build, about 6 GB installed. Shapes are not
# checked here; `make test` checks them.
$(LOWEST_READY): pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt \
	    --editable '.[evaluate,export,supervision,tables,train,video,deeplabcut,demo]' \
	    hypothesis psutil pytest pytest-xdist
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --no-deps trackers
	touch $@

test-lowest: $(LOWEST_READY)
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not network" \
	    --override-ini addopts="--strict-markers --import-mode=importlib"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) demo dist site
