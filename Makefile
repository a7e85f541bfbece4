# Everything runs in an environment of its own; PYTHON and VENV choose which.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A change of any of these means that the package must be installed again.
SOURCES := pyproject.toml README.md LICENSE NOTICE $(shell find src -type f \
    -not -path '*/__pycache__/*' -not -path '*.egg-info/*' -not -name '*.c' -not -name '*.so')
WORKERS ?= 2

.PHONY: help demo test engine lint style types imports evidence docs clean

help:  ## say what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Fleetcast needs Python 3.11 or later; $(PYTHON) is older." \
	         "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# build/ is removed first: setuptools would otherwise install modules that no longer exist.
$(VENV)/installed: $(BIN)/python $(SOURCES)
	rm -rf build
	$(PIP) .
	@touch $@

# The requirements of an extra, without building the package once more for each of them.
$(VENV)/%-extras: $(BIN)/python pyproject.toml
	@$(BIN)/python -c 'import sys, tomllib; \
	    extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	    print(*extras[sys.argv[1]], sep="\n")' $* > $(VENV)/$*-requirements.txt
	$(PIP) -r $(VENV)/$*-requirements.txt
	@touch $@

demo: $(VENV)/installed  ## install, plan the embedded example, write report.html
	$(BIN)/fleetcast plan examples/quickstart.toml --report report.html

test: $(VENV)/installed $(VENV)/test-extras  ## install the test extras and run the suite
	$(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS)

# The files with tests that skip where torch, what the server needs, or a solver is not installed.
ENGINE = $(shell grep -rlE 'importorskip."(torch|tokenizers|aiohttp|openai|ortools|gymnasium|kubernetes)' tests)

engine: $(VENV)/installed $(VENV)/test-extras $(VENV)/serve-extras $(VENV)/engine-test-extras $(VENV)/solve-extras $(VENV)/learn-extras $(VENV)/kubernetes-extras  ## install torch (CPU or CUDA), a solver, and run the tests that need them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) $(ENGINE) $(PYTEST_ARGS)

lint: style types imports  ## style, strict types, import rules

style: $(VENV)/lint-extras
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check .

types: $(VENV)/installed $(VENV)/lint-extras
	$(BIN)/mypy --strict

imports: $(VENV)/installed $(VENV)/lint-extras
	PYTHONPATH=src $(BIN)/lint-imports

evidence: $(VENV)/installed $(VENV)/bench-extras  ## run every benchmark, render the figures in the docs
	$(BIN)/python -m benchmarks.evidence $(EVIDENCE_ARGS)
	$(BIN)/python -m benchmarks.pages --runs

docs: $(VENV)/installed $(VENV)/docs-extras  ## build the documentation into site/
	$(BIN)/zensical build --clean --strict

clean:  ## remove what was made
	rm -rf $(VENV) build site report.html out
	find src -name '*.c' -delete
