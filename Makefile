# make demo and make test are all that a newcomer needs. Both create the environment .venv if it is
# not there, install what they need into it, and can be run again at any time.
PYTHON ?= python3
BIN := .venv/bin
# Two processes with one thread each: threads inside small operations only get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-all mutants gallery doc lint clean

demo: .venv/installed-examples
	@echo "== Clustering scikit-learn's digits: features, images, and a long-tailed version =="
	$(BIN)/python examples/demo_digits.py --output output

test: .venv/installed-test lint
	@echo "== Running the tests =="
	$(PYTEST)

test-all: .venv/installed-test
	@echo "== Running all tests, the long ones too =="
	$(PYTEST) -m "slow or not slow"

# Minutes: for whoever changes an objective or a test of one.
mutants: .venv/installed-test
	@echo "== Planting faults, one at a time: the tests have to notice each =="
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

gallery: .venv/installed-test
	@echo "== Running the examples of the gallery =="
	$(PYTEST) -m gallery

doc: .venv/installed-doc
	@echo "== Building the documentation, the examples included =="
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -b html doc doc/_build/html
	@echo "== Open doc/_build/html/index.html =="

lint: .venv/installed-test
	@echo "== Checking style, layers and types =="
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.venv/installed-%: pyproject.toml | .venv/bin/python
	@echo "== Installing skdeepcluster and what '$*' needs (torch is large: some minutes) =="
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and \
	'skdeepcluster needs Python 3.11 or newer; name one with: make PYTHON=python3.12 demo')"
	@echo "== Creating the environment .venv =="
	$(PYTHON) -m venv .venv

clean:
	rm -rf doc/_build doc/auto_examples doc/generated doc/api.rst doc/sg_execution_times.rst
	rm -rf .venv output build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
