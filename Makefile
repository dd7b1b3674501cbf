# Two commands: `make book` and `make test`. Each makes the virtual environment it needs, once.
PYTHON ?= python3
BIN := .venv/bin
# A batch that was killed leaves a lock and half-made pages behind; the next one goes on all the same.
SNAKE = $(BIN)/snakemake --cores all --quiet rules host --nolock --rerun-incomplete
# Python compiles what is imported, once; to compile every module of every package takes a minute.
PIP = --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
export PYTHONUNBUFFERED := 1

.PHONY: book test gpu-book oracle benchmark clean

book: .venv/installed
	$(SNAKE)
	@echo "The book is at $(CURDIR)/_build/html/index.html"

test: .venv/installed
	$(BIN)/ruff check && $(BIN)/ruff format --check
	$(SNAKE) --config profile=smoke
	$(BIN)/pytest -n 2 --dist loadgroup

gpu-book: .venv/installed
	$(SNAKE) --config profile=gpu
	@echo "The book is at $(CURDIR)/_build/gpu/html/index.html"

# Adapters against AdapterHub's, and head gates against an older head mask, on the same weights.
oracle: .venv/installed .venv-oracle/installed
	$(BIN)/python tests/oracle/cases.py write _build/oracle
	.venv-oracle/bin/python tests/oracle/adapterhub.py _build/oracle
	$(BIN)/python tests/oracle/cases.py compare _build/oracle

# Is a cut model faster in proportion to what was cut? Minutes, and nothing else should run.
benchmark: .venv/installed
	$(BIN)/python benchmarks/cut_speed.py

clean:
	rm -rf _build .venv .venv-oracle

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP) --editable '.[test]' --constraint constraints.txt
	@touch $@

.venv-oracle/installed: tests/oracle/requirements.txt
	$(PYTHON) -m venv .venv-oracle
	.venv-oracle/bin/python -m pip install $(PIP) --requirement $<
	@touch $@
