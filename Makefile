# make demo and make test are all that a newcomer needs. Both create the environment .venv if it is
# not there, install what they need into it, and can be run again at any time. The documentation has
# an environment of its own, and make check-package makes several: so nothing that the tests bring can
# hide that something else lacks it.
PYTHON ?= python3
BIN := .venv/bin
# Two processes with one thread each: threads inside small operations only get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-all mutants gallery doc check-package lint clean

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

doc: .venv-doc/installed-doc
	@echo "== Building the documentation, the examples included (some minutes) =="
	OMP_NUM_THREADS=1 .venv-doc/bin/python -m sphinx -W --keep-going -b html doc doc/_build/html
	@echo "== Open doc/_build/html/index.html =="

check-package:
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) tests/check_package.py

lint: .venv/installed-test
	@echo "== Checking style, layers and types =="
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.venv/installed-%: pyproject.toml | .venv/bin/python
	$(INSTALL)

.venv-doc/installed-%: pyproject.toml | .venv-doc/bin/python
	$(INSTALL)

define INSTALL
@echo "== Installing skdeepcluster and what '$*' needs into $(@D) (torch is large: some minutes) =="
$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
@touch $@
endef

.venv/bin/python .venv-doc/bin/python: %/bin/python:
	@$(PYTHON_IS_NEW_ENOUGH)
	@echo "== Creating the environment $* =="
	$(PYTHON) -m venv $*

PYTHON_IS_NEW_ENOUGH = $(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and \
	'skdeepcluster needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)')"

clean:
	rm -rf doc/_build doc/auto_examples doc/generated doc/api doc/api.rst doc/sg_execution_times.rst
	rm -rf .venv .venv-* output build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
