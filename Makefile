# Every command that people and CI use. Each makes what it needs; `make demo` and `make test` start from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadgroup

.PHONY: help demo test test-all coverage faults check docs bench soak fuzz build clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): setup.cfg pyproject.toml dpp/_version.py $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -c 'import sys; sys.exit("dpp needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.11") if not (3, 11) <= sys.version_info < (3, 14) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]' $(foreach plugin,$(wildcard plugins/*/),--editable $(plugin))
	touch $(STAMP)

demo: $(STAMP) ## Run a batch of real files served on loopback, and show the results.
	$(BIN)/python examples/demo.py

test: $(STAMP) ## Run the quick tests; install the servers that they start (TESTS="-k manifest").
	scripts/install-system-packages
	$(PYTEST) -m 'not slow' $(TESTS)

test-all: $(STAMP) ## Run all tests, the slow ones too: sweeps, soaks, wheels, browsers, the commands of the pages.
	scripts/install-system-packages
	$(PYTEST) $(TESTS)

coverage: $(STAMP) ## Run all tests and measure branch coverage, in child processes too.
	scripts/install-system-packages
	$(PYTEST) --cov --cov-report=term --timeout 180 $(TESTS)

faults: $(STAMP) ## Run the tests of every fault in docs/faults.md, and print the table with the results.
	scripts/install-system-packages
	$(PYTEST) --quiet -m fault --faults

check: $(STAMP) ## Check style, types, layers and workflows.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

docs: $(STAMP) ## Build the documentation's site into docs/_build/html; a warning fails it.
	$(BIN)/sphinx-build -c docs --fail-on-warning --keep-going --nitpicky --quiet -d docs/_build/doctrees . docs/_build/html

bench: $(STAMP) ## Measure dpp against other downloaders, from an nginx of its own on loopback (BENCH="--cases small,resume --scale 0.1").
	$(BIN)/python benchmarks/bench.py $(BENCH)

soak: $(STAMP) ## Run batches in a loop with a server that fails, and see whether anything grows (SOAK="--minutes 20").
	$(BIN)/python scripts/soak.py $(SOAK)

fuzz: $(STAMP) ## Fuzz the readers of manifests, ledgers, HTTP responses, sidecars, archives, SFTP and OpenPGP packets (FUZZ="--seconds 60 --target zip_archive").
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python fuzz/run.py $(FUZZ)

build: $(STAMP) ## Build the wheels and source archives of dpp and its plugins into dist/, and check them.
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	for plugin in plugins/*/; do $(BIN)/python -m build --outdir dist "$$plugin" || exit 1; done
	$(BIN)/twine check --strict dist/*

clean: ## Remove what the commands above made.
	rm -rf $(VENV) build dist docs/_build demo-workspace .coverage* *.egg-info
