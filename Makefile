# Everything a newcomer needs: `make demo` shows the package at work, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Fast tests use the cores there are, and no more.
WORKERS ?= auto

LOWEST := .venv-lowest
LOWEST_READY := $(LOWEST)/.ready

.PHONY: help demo test test-all test-lowest check format clean

help:
	@echo "make demo      poses on two photographs: drawn images and a JSON file in demo/"
	@echo "make test      the fast tests, with their own set-up"
	@echo "make test-all  the slow ones too (full-size networks)"
	@echo "make test-lowest  the fast tests with the lowest versions that are allowed (several GB)"
	@echo "make check     lint, format, types, import directions, fast tests"
	@echo "make format    rewrite the files as 'make check' wants them"

# The constraint file keeps every install at the tested versions. `trackers` comes without its dependencies: they are
# there but for opencv-python, which would be a second OpenCV in the place of the first.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps trackers
	touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not network"

test-all: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not network"

# The lowest versions of what vitpose needs and of its extras, in an environment of their own. There is no `detect` among
# them: its transformers wants a newer huggingface-hub, and so the base is shown to do without it; nor `torchao`, which
# wants torch 2.11. On Linux the one build of torch 2.6 in the registry is that with CUDA, about 6 GB installed. Shapes
# are checked by `make test`.
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
	rm -rf $(VENV) $(LOWEST) demo dist
