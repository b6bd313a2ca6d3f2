# make demo: the shortest way to a real curve.  make test: what every change must pass.
PYTHON ?= python3
BIN := .venv/bin
# Recipes of this file use one environment, made of constraints.txt; its stamp is newer than what it was made from.
READY := .venv/ready
RUN ?= runs/digits
# make lowest has an environment of its own, with the lowest versions that pyproject.toml declares.
LOWEST := .venv-lowest

.PHONY: demo test slow lowest page lint types check docs clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/batchscope run examples/digits.yaml -o $(RUN)

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

slow: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow

lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt .
	.ci/lowest $(LOWEST)/bin/batchscope

# The page in a real browser, which .ci/page installs where it may.
page: $(READY)
	.ci/page $(BIN)/python

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv $(LOWEST) site .mypy_cache .ruff_cache .pytest_cache .hypothesis
