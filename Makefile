# make setup | test | test-fast | test-launch | fuzz | lint | docs | demo | locked | sbom | clean
# Needs Python 3.11-3.13 with venv, a C++ compiler and make. ROS 2 comes from PyPI into .venv; on a
# robot with ROS from apt use colcon instead (see README.md).
SHELL := /bin/bash
PYTHON ?= python3
ARGS ?=
MINUTES ?= 60
# Processes that test: one more than the cores, as live tests wait most of the time.
JOBS ?= 3
# Sources of the ROS packages that PyPI lacks (launch, ros2cli, tf2_ros), and their installer.
ROS_SOURCES ?= ../shared/ros

VENV := .venv
INSTALLED := $(VENV)/.installed
OVERLAY := build/ros/.built
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt
ROS_ENV := . tools/ros_env.sh

# HASHED=1: each installed file must match a hash in tools/locked.txt, except torch and its CUDA
# packages: torch has several builds under one version, so only its version is pinned.
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

# Python edits need no rebuild, because the sources come first on the path. Messages and installed
# files do.
$(OVERLAY): CMakeLists.txt package.xml $(wildcard msg/* srv/*) launch config constraints.txt \
    tools/build_overlay.sh tools/patch_ros_wheels.py tools/ros-requirements.txt | $(INSTALLED)
	@tools/build_overlay.sh
	@touch $@

# In parallel: mypy uses one process, which would leave the other cores idle.
test: setup
	@$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: setup
	@$(ROS_ENV) && python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-fast: setup
	@$(ROS_ENV) && python -m pytest -m 'not slow' -n $(JOBS) --dist loadfile $(ARGS)

# With the real launch, tf2_ros and tf_transformations, if their sources are there. The other tests
# run without them, like the wheels.
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
	@echo "no sources of ROS launch in $(ROS_SOURCES): skipping its tests"
endif

# Tests every boundary with hostile input for MINUTES: docs/lab/robustness.md
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

# Writes tools/locked.txt for `make setup HASHED=1`: the versions of constraints.txt and their
# dependencies, with the hashes of all their files on PyPI. Run it after a change of pins.
locked: $(UV)
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
	  --python-version 3.11.5 --config-file tools/uv.toml --constraint constraints.txt \
	  --no-emit-package torch --output-file tools/locked.txt \
	  --extra dev pyproject.toml tools/ros-requirements.txt

# Lists what is installed, with versions and licences, for vulnerability scanners (CycloneDX).
sbom: setup $(CYCLONEDX)
	@$(CYCLONEDX) environment --pyproject pyproject.toml --output-format JSON \
	  --output-file build/sbom.json $(VENV)/bin/python && echo "see build/sbom.json"

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
