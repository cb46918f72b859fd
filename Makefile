# Two commands are enough: `make course` runs the whole course, `make test` proves it. `make lab` opens it.
# Each may be run first, again, or after an interrupted one: the set-up writes its stamp last, and a set-up whose stamp
# is missing, or older than pyproject.toml and constraints.txt, is repeated.

VENV   ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
            $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
PY      = $(VENV)/bin/python
XLA_VENV  ?= .venv-xla
XLA_TORCH ?= 2.9.0
XLA_STAMP  = $(XLA_VENV)/.fluidlab-set-up
WORKERS ?= 2
STAMP   = $(VENV)/.fluidlab-set-up
OFFLINE = HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false

define WANTED
import hashlib, pathlib
print(hashlib.sha256(b"".join(pathlib.Path(p).read_bytes() for p in ("pyproject.toml", "constraints.txt"))).hexdigest())
endef
define HEALTHY
import importlib.util, pathlib, pip, sys
found = {name: importlib.util.find_spec(name) for name in ("fluidlab", "torch", "diffusers", "nbclient", "pytest")}
here = all(found.values()) and pathlib.Path(found["fluidlab"].origin).parent.parent == pathlib.Path.cwd().resolve()
sys.exit(not here or not (3, 11) <= sys.version_info[:2] < (3, 14))
endef
export WANTED HEALTHY

.DEFAULT_GOAL := help
.PHONY: help set-up course test test-xla soak lab notebooks lint constraints clean

help:
	@echo "make course     set up, run every notebook in order, write build/notebooks and build/html"
	@echo "make test       set up, run every test"
	@echo "make test-xla   the XLA engine on XLA's own CPU devices, in an environment of its own (7 GB)"
	@echo "make soak       an hour of the studio and fifty kills of a training; SOAK_MINUTES=5 for less"
	@echo "make lab        set up, open JupyterLab on notebooks/"
	@echo "make notebooks  rebuild notebooks/*.ipynb from notebooks/masters/*.py"
	@echo "make lint       ruff over everything"
	@echo "make clean      remove build/ and caches; $(VENV) and runs/ stay"

set-up:
	@if [ -z "$(PYTHON)" ]; then echo "set-up: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python"; exit 1; fi
	@wanted=$$($(PYTHON) -c "$$WANTED") || exit 1; \
	if [ "$$(cat $(STAMP) 2>/dev/null)" = "$$wanted" ] && $(PY) -P -c "$$HEALTHY" 2>/dev/null; then exit 0; fi; \
	rm -f $(STAMP); \
	if ! $(PY) -c 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	  echo "set-up 1/3: a new environment in $(VENV) with $$($(PYTHON) --version)"; \
	  rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || exit 1; \
	else echo "set-up 1/3: the environment in $(VENV) is used again"; fi; \
	echo "set-up 2/3: installing the pinned packages (1 to 10 minutes; downloads up to 1 GB the first time)"; \
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' || exit 1; \
	$(PY) -P -c "$$HEALTHY" || { echo "set-up: the installation is incomplete; remove $(VENV) and try again"; exit 1; }; \
	echo "$$wanted" > $(STAMP); \
	echo "set-up 3/3: done"

course: set-up
	@$(OFFLINE) $(PY) notebooks/build.py run

test: set-up
	@$(OFFLINE) $(PY) -m pytest -q -n $(WORKERS) --dist loadfile

# torch_xla fits one version of torch, with its CUDA libraries: 7 GB, so it has an environment of its own.
test-xla:
	@if [ -z "$(PYTHON)" ]; then echo "test-xla: no Python 3.11, 3.12 or 3.13 found; name it: make test-xla PYTHON=/path/to/python"; exit 1; fi
	@wanted="$(XLA_TORCH) $$($(PYTHON) -c "$$WANTED")" || exit 1; \
	if [ "$$(cat $(XLA_STAMP) 2>/dev/null)" = "$$wanted" ]; then exit 0; fi; \
	rm -f $(XLA_STAMP); \
	if ! $(XLA_VENV)/bin/python -c 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	  rm -rf $(XLA_VENV); $(PYTHON) -m venv $(XLA_VENV) || exit 1; fi; \
	echo "test-xla: torch $(XLA_TORCH) and torch_xla into $(XLA_VENV) (5 to 40 minutes and 7 GB the first time, Linux only)"; \
	sed '/^torch==/d' constraints.txt > $(XLA_VENV)/constraints.txt; \
	$(XLA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(XLA_VENV)/constraints.txt \
	  torch==$(XLA_TORCH) torch_xla==$(XLA_TORCH) pytest -e . || exit 1; \
	echo "$$wanted" > $(XLA_STAMP)
	@$(OFFLINE) $(XLA_VENV)/bin/python -m pytest -q tests/xla

# What only time shows: does anything grow? SOAK_MINUTES is how long the studio is used.
soak: set-up
	@$(OFFLINE) $(PY) -m pytest -q -s tests/soak

lab: set-up
	@$(PY) -m jupyter lab notebooks

notebooks: set-up
	@$(PY) notebooks/build.py build

lint: set-up
	@$(PY) -m ruff check .

# Pins what is installed now, apart from this project itself; the lines for other systems are kept by hand.
constraints: set-up
	@{ sed '/^# --- pinned/q' constraints.txt; \
	   $(PY) -m pip freeze --all --exclude-editable --exclude pip --exclude fluidlab | sed 's/+cpu$$//' | LC_ALL=C sort -f; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf build .pytest_cache .ruff_cache .hypothesis dist *.egg-info
