# make demo: the whole chain on this machine.   make test: the tests.   make docs: the documentation, into site/.
# make schemas: docs/schemas, the JSON schemas of what the commands print.
# make resolve: checks that the packages of all extras exist together for the other Python versions.
# All of them set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process a core, one thread each: more would wait for each other.
PYTEST_ARGS ?= -n auto --dist loadfile --no-loadscope-reorder -q

# Packages that have no wheels; their source archives contain only Python code.
SOURCE_ONLY := fvcore iopath antlr4-python3-runtime

.PHONY: demo test docs check lint types schemas resolve clean

demo: $(VENV)/.demo
	$(BIN)/dmask demo -o runs

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

check: lint types docs test

schemas: $(VENV)/.dev
	$(BIN)/python -m dmask_mobile.cli.json_schemas docs/schemas

resolve: $(VENV)/.dev
	for version in 3.12 3.13; do \
	  $(BIN)/uv pip install --dry-run -q --target build/resolve --python-version $$version \
	    --python-platform x86_64-unknown-linux-gnu --only-binary :all: $(SOURCE_ONLY:%=--no-binary %) \
	    -r pyproject.toml --extra all || exit 1; \
	done

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

$(VENV)/.python:
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), f"dmask-mobile needs Python 3.11 to 3.13, {sys.executable} is {sys.version.split()[0]}; give PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25'  # Python 3.11's own resolves the optional runtimes for minutes
	touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/.docs: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install -e '.[docs]'
	touch $@ $(VENV)/.demo

$(VENV)/.dev: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install -e '.[all,dev]'
	touch $@ $(VENV)/.demo $(VENV)/.docs

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
