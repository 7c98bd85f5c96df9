# Every target does its own set-up: it needs Python 3.11+ and make, and writes to .venv beside this file.
#
#   PYTHON=python3.12     the Python that .venv is made with
#   ARGS="train.seed=1"   more words for the command or for pytest: make train-quick ARGS="train.seed=1"
#   TORCH_INDEX=<url>     take torch, and nothing else, from this package index. On Linux the default index
#                         gives the CUDA build of several GB; PyTorch's CPU index gives one of 200 MB.
#                         It counts when .venv is first filled: to change it later, delete .venv.
#   PIPFLAGS=             let pip say what it downloads
#
# Works with GNU Make 3.81 (macOS) and later. On Windows use pip as the README shows.

PYTHON ?= python3
ARGS ?=
TORCH_INDEX ?=
PIPFLAGS ?= --quiet

override VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install $(PIPFLAGS) -c constraints.txt
COMMA := ,
PYTEST := $(BIN)/python -m pytest
# One thread a test process: xdist already fills the cores.
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) --numprocesses logical --maxprocesses 8

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install test test-all check format coverage train train-quick generate bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/.installed-core ## put Pellucid and its libraries into .venv
	@echo "Ready: $(BIN)/pellucid --help"

# Running it -------------------------------------------------------------------------------------------

train-quick: $(VENV)/.installed-core ## train the small mode: about 3 minutes on two cores
	$(BIN)/pellucid train quick $(ARGS)

train: $(VENV)/.installed-core ## train the full mode: 124M parameters, 100,000 steps
	$(BIN)/pellucid train sota-125m $(ARGS)

generate: $(VENV)/.installed-core ## write with the newest run, interactively
	$(BIN)/pellucid generate $(ARGS)

bench: $(VENV)/.installed-test ## measure: every question in benchmarks/
	@set -e; for question in benchmarks/*.py; do echo "$$question"; $(BIN)/python "$$question" $(ARGS); done

# Proving it -------------------------------------------------------------------------------------------

test: $(VENV)/.installed-test ## the default tests: 3 to 4 minutes on two cores
	$(PARALLEL) -m "not slow" $(ARGS)

# The slow tests time things and use every core, so they run one after another.
test-all: test ## `make test`, then the slow tests
	$(PYTEST) -m slow $(ARGS)

check: $(VENV)/.installed-check ## format, lint, types, import line
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m ruff check
	$(BIN)/python -m pyright
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-check ## lay the code out and mend what ruff can mend
	$(BIN)/python -m ruff format
	$(BIN)/python -m ruff check --fix

coverage: $(VENV)/.installed-test ## the default tests with coverage, as text and in htmlcov/
	$(PARALLEL) -m "not slow" --cov=pellucid --cov-report=term-missing:skip-covered --cov-report=html $(ARGS)

clean: ## remove what the tools left behind; keeps .venv, runs/ and data/
	rm -rf build dist htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache .grimp_cache
	find src tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

# Set-up -----------------------------------------------------------------------------------------------

# Says in one line what is wrong with the Python, before anything is written.
define CHECK_PYTHON
import platform, sys
name, version = sys.argv[1], platform.python_version()
if sys.version_info < (3, 11):
    sys.exit("pellucid needs Python 3.11 or newer, but %s is %s: make PYTHON=python3.12 ..." % (name, version))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s (Python %s) cannot make a virtual environment: apt install python3-venv (or python%d.%d-venv) "
             "on Debian and Ubuntu, or use uv (README.md)" % ((name, version) + tuple(sys.version_info[:2])))
endef
export CHECK_PYTHON

# .unfinished stands in .venv while it is being filled: a .venv that was cut off there is made anew, and so
# is one whose Python has gone. A .venv that somebody made by hand is used as it is.
define MAKE_VENV
@if [ -e $(VENV)/.unfinished ] || ! $(BIN)/python -c "" 2>/dev/null; then \
	command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer, or name yours: make PYTHON=..." >&2; exit 1; }; \
	$(PYTHON) -c "$$CHECK_PYTHON" "$(PYTHON)" || exit 1; \
	rm -rf $(VENV) && mkdir $(VENV) && touch $(VENV)/.unfinished && $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
fi
@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null 2>&1 || \
	{ echo "$(VENV) has no pip: delete it and call make again, or fill it with uv (README.md)" >&2; exit 1; }
endef

# Before torch is there: what the default index would bring to a Linux machine without an NVIDIA GPU.
define HINT
@[ -n "$(TORCH_INDEX)" ] || [ "`uname -s`" != Linux ] || command -v nvidia-smi >/dev/null || ls $(VENV)/lib/*/site-packages/torch >/dev/null 2>&1 || \
	echo "No NVIDIA GPU here, yet torch may bring gigabytes of CUDA libraries; README.md names the CPU build."
endef

TORCH_FIRST := $(if $(TORCH_INDEX),$(PIP) --no-deps --index-url "$(TORCH_INDEX)" torch &&)

# $(call INSTALL,requirement,stamps): pip itself mends what it could not finish, so only a kill leaves the mark.
define INSTALL
$(MAKE_VENV)
$(HINT)
@echo "Installing '$(1)' into $(VENV). The first time takes minutes (torch is a large download), then seconds."
@touch $(VENV)/.unfinished
@$(TORCH_FIRST) $(PIP) -e "$(1)" || { rm $(VENV)/.unfinished; exit 1; }
@touch $(addprefix $(VENV)/.installed-,$(2)) && rm $(VENV)/.unfinished
endef

# Stamps count only while the Python that .venv was made with is there (an upgrade may take it away).
ifneq ($(shell test -x $(BIN)/python && echo there),there)
.PHONY: $(VENV)/.installed-core $(VENV)/.installed-test $(VENV)/.installed-check
endif

$(VENV)/.installed-core: pyproject.toml constraints.txt
	$(call INSTALL,.,core)

$(VENV)/.installed-test: pyproject.toml constraints.txt
	$(call INSTALL,.[test],core test)

$(VENV)/.installed-check: pyproject.toml constraints.txt
	$(call INSTALL,.[test$(COMMA)check],core test check)
