# The project's commands; `make help` lists them.

PYTHON  ?= python3
TORCH   ?= torch==2.13.0
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=
N       ?= 10000
REQUESTS ?= 5000
SEED    ?= 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test check bench chaos soak fleet docs screenshots clean FORCE
.SUFFIXES:

help:
	@echo 'make run      install into $(VENV), then serve with the embedded engine; ARGS="--port 8080" adds flags'
	@echo 'make test     install what tests need, then run every check and every test'
	@echo 'make check    style, types, and the rules of the architecture'
	@echo 'make bench    measure what the converter costs (about five minutes); ARGS adds flags'
	@echo 'make chaos    everything goes wrong under load: N=$(N) orders, twice; SEED=$(SEED); ARGS adds flags'
	@echo 'make soak     whether memory stays flat over REQUESTS=$(REQUESTS) outputs of 1 MB; ARGS adds flags'
	@echo 'make fleet    three replicas behind each load balancer, with figures (about twenty minutes)'
	@echo 'make docs     write what is generated in README.md and docs/ anew'
	@echo 'make screenshots  take the pictures of the page in docs/ anew (needs chromium)'
	@echo 'make clean    remove $(VENV), caches and builds'
	@echo
	@echo 'PYTHON=$(PYTHON)  the Python to install with, 3.11 or newer'
	@echo 'TORCH=$(TORCH)  the torch to install, such as the build for your accelerator'
	@echo 'VENV=$(VENV)  where to install    WORKERS=$(WORKERS)  processes that run tests'

run: $(VENV)/.engine
	@echo '==> Starting the converter and its engine (Ctrl-C stops both)'
	@exec $(BIN)/converter serve $(ARGS)

# The tests of one file share what they start, so they stay in one process.
test: check
	@echo '==> Running the tests in $(WORKERS) processes'
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: $(VENV)/.dev
	@echo '==> Checking style'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo '==> Checking types'
	@$(BIN)/mypy --strict
	@echo '==> Checking the architecture'
	@$(BIN)/pytest -q tests/test_architecture.py

bench: $(VENV)/.dev
	@exec $(BIN)/python -m benchmarks.overhead $(ARGS)

chaos: $(VENV)/.dev
	@exec $(BIN)/python -m tests.e2e.chaos --orders $(N) --seed $(SEED) $(ARGS)

soak: $(VENV)/.dev
	@exec $(BIN)/python -m benchmarks.soak --requests $(REQUESTS) $(ARGS)

fleet: $(VENV)/.dev
	@FLEET=full exec $(BIN)/pytest -q -s tests/e2e/test_fleet.py $(ARGS)

docs: $(VENV)/.dev
	@$(BIN)/python -m tests.docs

screenshots: $(VENV)/.dev
	@exec $(BIN)/python -m tests.e2e.screenshots

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find converter engine workflows tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp says that a step of the installation is done; one that is older than what it depends on is done again.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'converter needs Python 3.11 or newer, and $(PYTHON) is not: try make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; \
	  exit 1; }
	@echo '==> Making a virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV) || { \
	  echo 'the venv module of $(PYTHON) is missing or broken (Debian: apt install python3-venv)' >&2; \
	  exit 1; }
	@touch $@

# Holds the name of the torch that is installed, so that another TORCH= is noticed.
$(VENV)/.torch: $(VENV)/.created FORCE
	@test "$$(cat $@ 2>/dev/null)" = '$(TORCH)' || { \
	  echo '==> Installing $(TORCH): hundreds of megabytes, the first time only' && \
	  $(PIP) install '$(TORCH)' && echo '$(TORCH)' >$@; }

$(VENV)/.engine: $(VENV)/.torch pyproject.toml
	@echo '==> Installing the converter and its engine'
	@$(PIP) install -e '.[engine]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo '==> Installing the converter, its engine, and what tests need'
	@$(PIP) install -e '.[engine,dev]'
	@touch $@ $(VENV)/.engine

FORCE:
