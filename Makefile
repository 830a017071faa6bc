# Everything runs inside .venv, which `setup` makes. Nothing is needed beforehand but Python 3.11+, a C++ compiler,
# cmake and make. Choose the interpreter with `make PYTHON=python3.12 ...`; a second environment beside the first
# with `make VENV=.venv312 PYTHON=python3.12 ...`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(CURDIR)/$(VENV)/bin
SHARDS := shards/solar

# horovodrun starts its ranks as `python ...`: that must be the environment's own interpreter.
export PATH := $(BIN):$(PATH)

.PHONY: setup run test bench lint soak lock clean help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

setup: $(VENV)/horovod.stamp  ## make .venv with the locked packages and the Horovod wheel (instant when done)

$(VENV)/created.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { echo "error: $$($(PYTHON) --version 2> /dev/null || echo $(PYTHON), which is not here,) will not do: Slimheads needs Python 3.11 or newer. Name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || { echo "error: this Python lacks its venv module: install python3-venv (Debian, Ubuntu)" >&2; exit 2; }
	@$(PYTHON) -m launch.horovod_build --check-tools
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/packages.stamp: requirements.lock $(VENV)/created.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@

$(VENV)/horovod.stamp: launch/horovod_build.py launch/horovod/patches.py $(VENV)/packages.stamp
	$(BIN)/python -m launch.horovod_build
	@touch $@

run: setup  ## real photos -> shards -> two Horovod workers -> a table of results, in a fresh run folder
	$(BIN)/python -m data.build --source elpv: --out $(SHARDS) --holdout 0.2 --resize 128
	horovodrun -np 2 python train/main.py --config train/configs/solar/quickstart.yaml run.dir=runs/solar-$$(date +%Y%m%d-%H%M%S)

test: setup  ## all tests
	$(BIN)/python -m pytest $(ARGS)

bench: setup  ## speed and memory against stock pipelines; ONLY=loader runs one part
	$(BIN)/python -m tests.benchmarks $(ONLY)

lint: setup  ## ruff, format check, mypy
	ruff check .
	ruff format --check .
	mypy $(wildcard data models prune train launch)

soak: setup  ## the long stress runs that `test` leaves out
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

lock: setup  ## resolve setup.py's ranges anew into requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --upgrade --all-extras --custom-compile-command "make lock" --output-file requirements.lock setup.py
	rm -rf slimheads.egg-info

clean:  ## remove .venv and caches; runs and shards stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
