# make            create or update the environment .venv
# make demo       run a real ResNet50 sweep, one worker per GPU or core; table and figures go to demo/
# make paper      run the poster's sweep, as large as the device allows; table, figures and page go to docs/results/
# make test       run the tests, two at a time; JOBS=0: one after another, TESTS=tests/test_x.py: only these
# make test-long  run the tests, including the long variants that `make test` skips, and more random inputs
# make lint       run ruff, mypy --strict and the test of the layers
# make gallery    draw the pictures of docs/figures.md
# make jobscripts rewrite the ready-made job scripts, after a change of the generator or of a site
# make reference  rewrite the generated blocks and pictures of docs/ and the JSON schema, after a change of their sources
# make docs       build the documentation as a site in site/, which opens without a server; warnings are errors
# make bench      run the benchmarks; the first installs other tools in an environment of their own, PEERS=build/peers
# make storm      kill and stop processes at random during sweeps, then check the results; STRIKES=200
# make mutants    remove one mechanism at a time and check that its tests fail; SHARE=1/4, ONLY=NAME, WITHIN=seconds
# make clean      remove build and test output, except .venv
#
# VENV=path       use another environment
# VENV=none       use the active environment, e.g. on a supercomputer where torch and MPI come from modules
# PYTHON=path     Python interpreter that creates the environment

VENV   ?= .venv
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(shell $(name) -c 'import sys, venv; print(sys.version_info >= (3, 11) and sys.executable or "")' 2>/dev/null)))

# Use the machine's MPI if there is one; otherwise install Open MPI as a wheel.
comma     := ,
EXTRAS     = test,lint,docs$(if $(shell command -v mpirun 2>/dev/null),,$(comma)mpi)

ifeq ($(VENV),none)
BIN   :=
READY :=
PY    := python3
# Works without an installed mpisweep.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
else
BIN   := $(VENV)/bin/
READY := $(VENV)/.ready
PY    := $(VENV)/bin/python
endif

# Two tests at a time: most of them wait for processes.
JOBS   ?= 2
STRIKES ?= 200
PEERS   ?= build/peers
SHARE  ?= 1/1
FIGURES := loss_vs_batch_size total_time timeline

.PHONY: all docs demo paper test test-long lint jobscripts reference gallery bench storm mutants clean help
all: $(READY)

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

# The stamp is written last, so that an incomplete environment is made again.
$(VENV)/.ready: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python of 3.11 or newer with its venv module was found; install one (Debian: python3-venv), or set PYTHON=path" >&2; exit 1; }
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip setuptools wheel
	PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet --no-build-isolation --editable '.[$(EXTRAS)]'
	touch $@

demo: $(READY)
	mkdir -p demo
	$(PY) -m mpisweep run examples/demo.toml -o demo/digits.h5
	$(PY) analysis/top_configs.py demo/digits.h5
	@for name in $(FIGURES); do $(PY) analysis/$$name.py demo/digits.h5 -o demo/$$name.png || exit 1; done
	$(PY) analysis/learning_curves.py demo/digits.h5 --smooth 5 -o demo/learning_curves.png

paper: $(READY)
	$(PY) paper/run.py $(if $(WITHIN),--within $(WITHIN))

# Hundreds of processes import mpisweep; with PYTHONDONTWRITEBYTECODE each would compile it again.
COMPILED = $(PY) -m compileall -q mpisweep

# Two tests at a time, each with all cores for its matrices, take longer than with one core each.
ONE_CORE = OPENBLAS_NUM_THREADS=1

test: $(READY)
	$(COMPILED)
	$(ONE_CORE) $(PY) -m pytest -n $(JOBS) -m 'not long' $(TESTS)

test-long: $(READY)
	$(COMPILED)
	MPISWEEP_FUZZ_ANEW=1 $(ONE_CORE) $(PY) -m pytest -n $(JOBS) $(TESTS)

lint: $(READY)
	$(BIN)ruff check .
	$(BIN)ruff format --check --quiet .
	$(BIN)mypy
	$(PY) -m pytest -q tests/test_layers.py

jobscripts: $(READY)
	$(PY) jobscripts/write_all.py

reference: $(READY)
	$(PY) docs/write_reference.py
	$(PY) docs/write_architecture.py

gallery: $(READY)
	$(PY) docs/draw_gallery.py

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "open site/index.html"

bench: $(READY)
	$(PY) benchmarks/peers.py --quick --environment $(PEERS)
	$(PY) benchmarks/throughput.py
	$(PY) benchmarks/events.py
	$(PY) benchmarks/simulate.py
	$(PY) benchmarks/memory.py
	$(PY) benchmarks/trial.py
	$(PY) benchmarks/search_cost.py --samplers tpe,cmaes,nsga2
	nice -n 5 $(PY) benchmarks/search.py

storm: $(READY)
	$(COMPILED)
	$(PY) tests/storm.py --strikes $(STRIKES)

# JOBS=0: one after another, as for the tests.
mutants: $(READY)
	$(PY) tests/mutation.py --jobs $(if $(filter-out 0,$(JOBS)),$(JOBS),1) $(if $(ONLY),--only $(ONLY),--share $(SHARE)) $(if $(WITHIN),--within $(WITHIN))

clean:
	rm -rf demo site build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
