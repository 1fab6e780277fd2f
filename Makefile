# Two commands do all the set-up: `make lab` and `make test`. `make` alone lists the rest.
# pip reads its own settings as ever; the variables below can be given on the command line.

# Which Python .venv is made from.
PYTHON ?= python3
# The versions CI runs. Empty (`make lab CONSTRAINTS=`) takes the newest that pyproject.toml allows.
CONSTRAINTS ?= -c constraints.txt
# Test processes; each is held to one thread, so that they do not crowd each other out.
JOBS ?= 2
# More arguments for the program a target runs: `make test ARGS="-k ssd"`, `make lab ARGS=--no-browser`.
ARGS ?=
# Where published weights are: a folder of one, or a folder of such folders, named like their repositories.
WEIGHTS ?=
# The browser of the browser tests. The redirection makes every version of make ask the shell.
CHROMIUM ?= $(shell command -v chromium 2>/dev/null)
export CHROMIUM

VENV := .venv
RUN := $(VENV)/bin/python -m
# Touched when an install succeeded; older than pyproject.toml or constraints.txt means install again.
LAB_STAMP := $(VENV)/.lab-installed
TEST_STAMP := $(VENV)/.test-installed

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help lab lint test test-browser test-long test-mutants test-neighbours test-weights bench constraints clean .venv

help:
	@echo "make lab           build .venv if needed (about a minute) and open JupyterLab on the first notebook"
	@echo "make test          add what tests need and run every test, notebooks included"
	@echo "make lint          lint, layout and types, as CI checks them"
	@echo "make test-browser  only the tests that drive JupyterLab in Chromium"
	@echo "make test-long     the kernels under sanitizers and for other processors; 20,000 mutated checkpoints, processes in one folder (minutes)"
	@echo "make test-mutants  break the lens in one place at a time: does a test notice? (1,200 places, an hour or more; ARGS='--sample 6': minutes)"
	@echo "make test-neighbours install nnsight and TransformerLens into .venv, and test that models and matrices go together"
	@echo "make test-weights  hold published weights to published numbers: make test-weights WEIGHTS=<folder of them>"
	@echo "make bench         run the benchmarks"
	@echo "make .venv         build .venv and stop there"
	@echo "make constraints   rewrite constraints.txt with the newest versions that pyproject.toml allows"
	@echo "make clean         remove caches and build leftovers (.venv stays; remove it with rm -r .venv)"

# Compiling all that is installed takes as long as installing it. What is imported is compiled then, once: so
# a setting that forbids keeping the result is not handed on.
unexport PYTHONDONTWRITEBYTECODE

# Make .venv unless it is there and works, from a Python that can; then install $(1) into it.
define install
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { \
	  command -v $(PYTHON) >/dev/null 2>&1 || { \
	    echo "There is no $(PYTHON) here. Install Python 3.11 or newer, or name one: make lab PYTHON=python3.12" >&2; \
	    exit 1; }; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "zamba_lab needs Python 3.11 or newer and $(PYTHON) is `$(PYTHON) -V 2>&1`." \
	         "Name a newer one: make lab PYTHON=python3.12" >&2; exit 1; }; \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: its venv module is missing." \
	         "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	  echo "Making $(VENV) and installing into it: about a minute."; \
	  $(PYTHON) -m venv --clear $(VENV); }
	$(RUN) pip install --no-compile $(CONSTRAINTS) -e '$(1)'
endef

$(LAB_STAMP): pyproject.toml constraints.txt
	$(call install,.)
	@touch $@

# Whoever has the test set has the light set.
$(TEST_STAMP): pyproject.toml constraints.txt
	$(call install,.[test])
	@touch $(LAB_STAMP) $@

.venv: $(LAB_STAMP)

# JupyterLab refuses to start as root unless told.
lab: $(LAB_STAMP)
	$(RUN) jupyterlab --ip=127.0.0.1 --ServerApp.root_dir='$(CURDIR)' \
	  --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

# The browser tests go first and by themselves: they wait for a page to draw, and a busy machine draws late.
# Without Chromium they stay in the main run, which skips them and says so.
test: $(TEST_STAMP)
	@status=0; \
	if [ -n "$(CHROMIUM)" ]; then $(MAKE) --no-print-directory test-browser ARGS= || status=1; fi; \
	OMP_NUM_THREADS=1 $(RUN) pytest -n $(JOBS) --dist loadfile $(if $(CHROMIUM),-m "not browser") \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=300 $(ARGS) tests notebooks || exit 1; \
	[ $$status = 0 ] || echo "These passed, but the browser tests before them failed: see above." >&2; \
	exit $$status

lint: $(TEST_STAMP)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(VENV)/bin/pyrefly check --python-interpreter-path $(VENV)/bin/python

test-browser: $(TEST_STAMP)
	@[ -n "$(CHROMIUM)" ] || { echo "The browser tests need Chromium." \
	  "On Debian: apt-get install chromium. Elsewhere: make test-browser CHROMIUM=/path/to/chromium" >&2; exit 1; }
	OMP_NUM_THREADS=1 $(RUN) pytest -m browser $(ARGS) tests/browser

test-long: $(TEST_STAMP)
	$(VENV)/bin/python tests/long/sanitize.py
	$(VENV)/bin/python tests/long/cross.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/long/fuzz.py $(ARGS)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/long/fuzz_tokenizers.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/long/kill_corpus.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/long/kill_train.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/long/kill_study.py
	ZAMBA_LAB_LONG=1 OMP_NUM_THREADS=1 $(RUN) pytest tests/train/test_kill.py tests/ablate/test_kill.py tests/recipes/test_positive_control.py

test-mutants: $(TEST_STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/long/mutate_lens.py $(ARGS)

test-neighbours: $(TEST_STAMP)
	$(RUN) pip install --no-compile $(CONSTRAINTS) -e '.[test,neighbours]'
	OMP_NUM_THREADS=1 $(RUN) pytest $(ARGS) tests/lens/test_neighbours.py

# Without WEIGHTS it says what it needs, and passes.
test-weights: $(TEST_STAMP)
	$(VENV)/bin/python tests/weights/golden.py $(ARGS) $(if $(WEIGHTS),'$(WEIGHTS)')

bench: $(LAB_STAMP)
	$(RUN) zamba_lab bench $(ARGS)

# Installed apart, so that neither .venv nor the present constraints decide. Platform builds ("+cpu") and the
# packages of one platform's accelerator are left out: torch itself asks for the right ones.
constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --no-compile '.[all]'
	@{ echo "# The exact versions CI runs; make passes this file to pip. Rewrite it with: make constraints"; \
	  build/constraints/bin/python -m pip freeze --all --exclude pip --exclude zamba-lab \
	    | sed -e 's/+[^ ]*$$//' -e '/^nvidia-/d' -e '/^cuda-/d' -e '/^triton==/d'; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf build/constraints

clean:
	rm -rf build dist *.egg-info .pytest_cache .hypothesis
	find zamba_lab tests benchmarks notebooks -depth \( -name __pycache__ -o -name .ipynb_checkpoints \) \
	  -exec rm -rf {} + 2>/dev/null || true
