# Every target sets up what it needs: python3.11 and make are enough.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
DATA_DIR ?= .mlhf

PYTEST = $(BIN)/python -m pytest
# One test at a time: the longest, which come first (tests/conftest.py), are not dealt to one
# process. Three processes on two cores, since many tests wait for processes of their own: 8 min
# 26 s where nothing else ran.
SPREAD := --numprocesses 3 --dist load --maxschedchunk 1

.PHONY: demo serve faults fuzz test test-long test-quick test-bare coverage lint format docs clean

# The service alone.
$(VENV)/.installed: pyproject.toml
	@echo "Setting up $(VENV) (once; a few minutes on a slow line) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[service]'
	@touch $@

# With what tests and lint need.
$(VENV)/.installed-dev: pyproject.toml
	@echo "Setting up $(VENV) with the development tools (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

# With what builds the documentation.
$(VENV)/.installed-docs: pyproject.toml
	@echo "Setting up $(VENV) with the documentation's tools (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs,service]'
	@touch $@

# Compiled once; where there is no compiler, that is said, and all goes on without.
OPERATORS = engine/mlhf/optimizers/mlhf/kernels
$(VENV)/.operators: pyproject.toml $(wildcard $(OPERATORS)/*.h $(OPERATORS)/*.cpp) $(OPERATORS)/build.py
	@$(BIN)/python -m mlhf.optimizers.mlhf.kernels >$@.log
	@mv $@.log $@

demo: $(VENV)/.installed $(VENV)/.operators  ## Compare optimizers through a service of its own.
	@$(BIN)/mlhf demo --data-dir $(DATA_DIR)/demo

serve: $(VENV)/.installed $(VENV)/.operators  ## Keep the service running on PORT, its state in DATA_DIR.
	@$(BIN)/mlhf serve --port $(PORT) --data-dir $(DATA_DIR)

test: $(VENV)/.installed-dev $(VENV)/.operators  ## Run the tests, but for the longest: under ten minutes on two cores.
	@$(PYTEST) $(SPREAD) -m 'not long'

test-long: $(VENV)/.installed-dev $(VENV)/.operators  ## Run those: a two-hundredth of the tests, a third of the time.
	@$(PYTEST) $(SPREAD) -m long

test-quick: $(VENV)/.installed-dev $(VENV)/.operators  ## Run the tests that need neither much time nor a service.
	@$(PYTEST) $(SPREAD) -m 'not slow and not long and not services'

# As on a machine without data sets, servers, a browser, and packages that only tests need: all
# that is missing must be skipped.
test-bare: $(VENV)/.installed-dev  ## Run the tests of real data sets where there are none.
	@MLHF_TEST_BARE=1 $(PYTEST) -p no:hypothesispytest -p no:schemathesis -m data

# KILLS of each kind of process at random, after one of each single fault. A second call goes on
# where the first one was out of time.
KILLS ?= 200
MINUTES ?= 60
SEED ?= 0
JOURNAL ?= faults-$(SEED).jsonl
CASES ?= 10000
UPLOADS ?= 10000
WALKS ?= 200
faults: $(VENV)/.installed-dev $(VENV)/.operators  ## Kill and stop every process of the service; count what was lost.
	@$(BIN)/python -m bench.faults --kills $(KILLS) --minutes $(MINUTES) --seed $(SEED) --journal $(JOURNAL)

fuzz: $(VENV)/.installed-dev $(VENV)/.operators  ## Send 10,000 cases and 10,000 damaged uploads to the whole API.
	@$(BIN)/python -m bench.fuzz --cases $(CASES) --uploads $(UPLOADS) --walks $(WALKS) --seed $(SEED)

coverage: $(VENV)/.installed-dev $(VENV)/.operators  ## Run all tests, and print how much of the code they run.
	@$(PYTEST) $(SPREAD) --cov

lint: $(VENV)/.installed-dev  ## Check format, lint and types.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Format the code and fix what lint can fix.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.installed-docs  ## Build the documentation into site/.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

clean:  ## Remove the virtual environment and caches (never the data).
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
