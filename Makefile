# `make help` lists the targets. Each makes what it needs in .venv first, with
# the versions pinned in constraints.txt (Python 3.11) or constraints-3.12.txt
# (newer ones); after that it starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The same pins hold for the packages that are installed and for the ones that
# build them (pip of before and after 25.3 ask for them by different names).
PIP_INSTALL := pins=$$($(BIN)/python -c "$$PINS") && \
  PIP_CONSTRAINT=$$pins PIP_BUILD_CONSTRAINT=$$pins $(BIN)/python -m pip install --quiet --disable-pip-version-check

# A worker per core. A file stays with one worker, which makes its fixtures and
# compiles its programs once.
PARALLEL := --numprocesses=logical --dist=loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all lint constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.test  ## prompt-tune a frozen T5 on the CPU and show what came of it
	@$(BIN)/prompt-tuning demo

test: $(VENV)/.test  ## pass the tests, on all cores (minutes)
	@$(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/.test  ## and the studies whose results ship, run again
	@$(BIN)/python -m pytest $(PARALLEL) -m ""

lint: $(VENV)/.lint  ## check the style, the formatting and the types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright

constraints:  ## resolve the newest versions and pin them (PYTHON: 3.11 or 3.12)
	@$(PYTHON) -c "$$CHECK_OLDEST"
	@set -e; pins=$$($(PYTHON) -c "$$PINS"); \
	new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	echo "Resolving the newest versions in a new environment (about 3 minutes) ..."; \
	$(PYTHON) -m venv "$$new"; \
	"$$new/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[serve,test,dev]'; \
	"$$new/bin/python" -m pip freeze --quiet --all --exclude-editable > "$$new/freeze"; \
	sed -n '/^#/p' $$pins > "$$new/pins"; \
	sed -e '/^pip==/d' -e 's/+[^;]*//' "$$new/freeze" >> "$$new/pins"; \
	cp "$$new/pins" $$pins; echo "Pinned in $$pins."

clean:  ## remove all that make has made; the folders of runs stay
	rm -rf $(VENV) build dist *.egg-info .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last: an install that fails or is interrupted leaves none.
$(VENV)/.test: setup.py pyproject.toml constraints.txt constraints-3.12.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c "$$CHECK_PYTHON" && $(PYTHON) -m venv --clear $(VENV); }
	@echo "Setting up $(VENV) with pinned packages (once: 0.8 GB to fetch, 2 to 5 minutes) ..."
	@$(PIP_INSTALL) -e '.[serve,test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@echo "Adding the tools of lint to $(VENV) (once: under a minute) ..."
	@$(PIP_INSTALL) -e '.[serve,test,dev]'
	@touch $@

define CHECK_PYTHON
import shutil, sys
version = sys.version_info[:2]
found = '$(PYTHON) is Python %d.%d, ' % version
other = 'name another one, for example: make test PYTHON=python3.12'
if not (3, 11) <= version <= (3, 13):
  sys.exit(found + 'and Python 3.11, 3.12 or 3.13 is needed: ' + other)
if version == (3, 13) and not shutil.which('c++'):
  sys.exit(found + 'for which editdistance (needed by seqio) has no wheel: '
           'install a C++ compiler, or ' + other)
endef
export CHECK_PYTHON

define PINS
import sys
older = sys.version_info < (3, 12)  # JAX 0.10.2 and Flax 0.12.8 are its last
print('constraints.txt' if older else 'constraints-3.12.txt')
endef
export PINS

define CHECK_OLDEST
import sys
version = sys.version_info[:2]
if version not in ((3, 11), (3, 12)):
  sys.exit('$(PYTHON) is Python %d.%d. The pins are resolved with the oldest '
           'Python that they serve, 3.11 for constraints.txt and 3.12 for '
           'constraints-3.12.txt: make constraints PYTHON=python3.12' % version)
endef
export CHECK_OLDEST
