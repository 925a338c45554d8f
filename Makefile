# Everything a newcomer or a developer needs. As root, or with sudo rights.
#   make demo    one simulated day on a site of 40 hosts and 400 VMs
#   make test    every test, the real lab included where it can run
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
SEEDS ?= 7000-7999
BENCH ?=
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PRIVILEGED := $(shell if [ "$$(id -u)" = 0 ] || command -v sudo >/dev/null; then echo yes; fi)
SYSTEM_PACKAGES := gcc git groff-base libvirt-dev pkg-config python3-dev python3-venv

.PHONY: help venv lint demo test lab lab-down bench soak guards clean

help:
	@echo "make venv | lint | demo | test | lab | lab-down | bench | soak | guards | clean"

venv: $(VENV)/.ready

# The stamp is newer than pyproject.toml once everything in it is installed.
$(VENV)/.ready: pyproject.toml
	@if command -v dpkg-query >/dev/null; then \
	  missing=$$(for package in $(SYSTEM_PACKAGES); do \
	    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
	  if [ -n "$$missing" ]; then \
	    echo "Installing system packages:" $$missing; \
	    $(SUDO) apt-get update -qq; \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  fi; \
	fi
	@echo "Making the virtual environment $(VENV) (libvirt-python is compiled, about 10 s)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

lint: venv
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@found=$$($(BIN)/lint-imports --no-logo) || { echo "$$found"; exit 1; }

demo: venv
	@$(BIN)/balancerctl demo

# Without root there is no lab; its tests are then skipped, with the reason. The lab has the machine
# to itself, for its guests' loads are real: its tests mostly wait, so three files run side by side,
# each with hosts of its own, and what failed in company is judged once more, alone. Of the rest, what
# takes longest begins first.
PYTEST = $(BIN)/pytest -q --dist loadfile --no-loadscope-reorder
test: venv lint
	@$(if $(PRIVILEGED),$(SUDO) tests/lab/rig/install,echo "neither root nor sudo: no lab")
	@$(if $(PRIVILEGED),$(SUDO)) $(PYTEST) -n 3 tests/lab || { [ $$? = 1 ] && $(SUDO) $(PYTEST) -n 0 --last-failed tests/lab; }
	@$(PYTEST) -n 2 tests/sim tests/property tests/unit

# Inputs are not part of the project; benchmarks/README.md says where they come from. BENCH="classic
# scale" runs some of them, QUICK=1 the small inputs only.
bench: venv
	@$(BIN)/python benchmarks/run.py $(BENCH)

# Lives of a simulated site, other than those that `make test` runs.
soak: venv
	@$(BIN)/python -m tests.sim.seeds $(SEEDS)

# Takes away each guard in a copy of the code; every one of them must be missed by some test.
guards: venv
	@$(BIN)/python -m tests.mutants --guards

lab: venv
	@$(SUDO) tests/lab/rig/install
	@$(SUDO) $(BIN)/python -m tests.lab.rig up

lab-down: venv
	@$(SUDO) $(BIN)/python -m tests.lab.rig down

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
