# Needs git, make and Python 3.11 or newer: make test PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
FLOORS := models guides inference benchmarks

.PHONY: demo docs docs-test test slow fuzz hostile package lint types clean

demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/priorzoo demo

# Two processes of one thread each; with two each, on two cores, they wait for each other.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

# The tests that take most of a minute each.
slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --slow

# 10,000 random calls of the library and 2,000 of the command line; `make test` makes 150.
fuzz: $(READY)
	FUZZ=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_fuzz.py

# 1,000 hostile run folders, checkpoints, rows, memories and settings; `make test` makes 40.
hostile: $(READY)
	HOSTILE=1000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests/hostile

# The wheel, built by way of the sdist, in an environment of its own: it trains, and mypy reads its types.
package: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --slow tests/test_package.py

# The site, in docs/_build/html/index.html; a warning ends the build. Its gallery takes minutes; with
# PRIORZOO_DOCS=quick it trains for a few steps only, to see that everything runs.
docs: $(READY)
	$(BIN)/python -c "import sphinx_gallery, furo, myst_parser, sphinx_copybutton" \
		2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

# Links, pages in a browser, and commands on pages; with NEEDS_BROWSER=1 nothing is skipped.
docs-test: docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --docs tests/docs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The floors stand at the top of the repository and are imported below priorzoo. Python learns that
# from the editable install, whose import hook a type checker cannot follow; it follows the links.
types: $(READY)
	mkdir -p .types/priorzoo
	for floor in $(FLOORS); do ln -sfn ../../$$floor .types/priorzoo/$$floor || exit 1; done
	for part in priorzoo/*; do ln -sfn ../../$$part .types/$$part || exit 1; done
	MYPYPATH=.types $(BIN)/mypy -p priorzoo

# Leaves runs/, which may have taken days, and .venv/, which takes minutes.
clean:
	rm -rf .types build dist docs/_build docs/built *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find $(FLOORS) priorzoo tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
