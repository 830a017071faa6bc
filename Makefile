# Everything runs inside .venv: `setup` makes it with what running needs (requirements.lock), and `dev` adds what tests,
# linters and benchmarks need (requirements-dev.lock). The other targets call them. Nothing is needed beforehand but
# Python 3.11+, a C++ compiler, cmake and make. Choose the interpreter with `make PYTHON=python3.12 ...`; a second
# environment beside the first with `make VENV=.venv312 PYTHON=python3.12 ...`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(CURDIR)/$(VENV)/bin
SHARDS := shards/solar
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --upgrade --custom-compile-command "make lock"
RUN_EXTRAS := horovod quickstart s3 wandb export

# horovodrun starts its ranks as `python ...`: that must be the environment's own interpreter.
export PATH := $(BIN):$(PATH)

.PHONY: setup dev run demo test bench lint soak docs lock clean help
.NOTPARALLEL:

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

setup: $(VENV)/horovod.stamp  ## make .venv with the packages that running needs and the Horovod wheel (instant when done)

dev: $(VENV)/dev.stamp  ## add tests, linters and benchmarks to it

$(VENV)/created.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { echo "error: $$($(PYTHON) --version 2> /dev/null || echo $(PYTHON), which is not here,) will not do: Slimheads needs Python 3.11 or newer. Name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || { echo "error: this Python lacks its venv module: install python3-venv (Debian, Ubuntu)" >&2; exit 2; }
	@$(PYTHON) -m launch.horovod_build --check-tools
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/packages.stamp: requirements.lock $(VENV)/created.stamp
	$(PIP_INSTALL) requirements.lock
	@touch $@

# Without Horovod, whose build takes minutes: linters do not need it.
$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/packages.stamp
	$(PIP_INSTALL) requirements-dev.lock
	@touch $@

$(VENV)/horovod.stamp: launch/horovod_build.py launch/horovod/patches.py $(VENV)/packages.stamp
	$(BIN)/python -m launch.horovod_build
	@touch $@

run: setup  ## real photos -> shards -> two Horovod workers -> a table of results, in a fresh run folder
	$(BIN)/python -m data.build --source elpv: --out $(SHARDS) --holdout 0.2 --resize 128
	horovodrun -np 2 python train/main.py --config train/configs/solar/quickstart.yaml run.dir=runs/solar-$$(date +%Y%m%d-%H%M%S)

demo: setup  ## photos of solar cells -> a network for a phone and a report page, in one command
	$(BIN)/python -m train.pipeline elpv: --out runs/demo --hours 0.1 --max-bytes 1M

test: setup dev  ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: setup dev  ## speed and memory against stock pipelines; ONLY=loader runs one part
	$(BIN)/python -m tests.benchmarks $(ONLY)

lint: dev  ## ruff, format check, mypy
	ruff check .
	ruff format --check .
	mypy $(wildcard data models prune train launch slimheads.py)

soak: setup dev  ## the long stress runs that `test` leaves out
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

docs: setup  ## write docs/CONFIG.md anew from train/config
	$(BIN)/python -m train.config.reference > docs/CONFIG.md

lock: dev  ## resolve setup.py's ranges anew into both locks
	$(UV_COMPILE) $(addprefix --extra ,$(RUN_EXTRAS)) --output-file requirements.lock setup.py
	$(UV_COMPILE) $(addprefix --extra ,$(RUN_EXTRAS) dev) --constraint requirements.lock --output-file requirements-dev.lock setup.py
	rm -rf slimheads.egg-info

clean:  ## remove .venv and caches; runs and shards stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
