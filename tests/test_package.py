"""``import skdeepcluster`` gives the public names and nothing else, each when it is asked for."""

import ast
import importlib
import inspect
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import skdeepcluster
from tests.instances import EVERYONE

PUBLIC_MODULES = {name for name in dir(skdeepcluster) if name not in skdeepcluster.__all__}
# None of these is needed before something is fitted, saved or drawn.
HEAVY = {"PIL", "huggingface_hub", "lightning_fabric", "matplotlib", "onnx", "onnxscript"}
HEAVY |= {"safetensors", "timm", "torchvision"}
# The votes and heads of calibration, and who is in a cluster.
FOR_OTHER_ROOMS = {
    "calibration": set(skdeepcluster.calibration.__all__) - {"RegionCalibrator"},
    "report": {"last_step", "list_of_names", "members_of", "nearest_to_mean"},
}


def imported_by(program):
    """Return which libraries a fresh interpreter has imported after a program."""
    program += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_package_itself_imports_nothing():
    assert not imported_by("import skdeepcluster") & {*HEAVY, "numpy", "sklearn", "torch"}


def test_scores_pictures_and_data_need_no_torch():
    program = "import skdeepcluster as s; s.datasets, s.display, s.exceptions, s.metrics, s.report"
    imported = imported_by(program)
    assert "sklearn" in imported
    assert not imported & {*HEAVY, "torch"}


def test_looking_at_everything_imports_no_heavy_library():
    program = "import skdeepcluster as s; [getattr(s, name) for name in dir(s)]"
    imported = imported_by(program)
    assert "torch" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("name", dir(skdeepcluster))
def test_every_name_is_there_and_has_a_description(name):
    value = getattr(skdeepcluster, name)
    assert inspect.ismodule(value) == (name in PUBLIC_MODULES)
    assert value.__doc__


@pytest.mark.parametrize("name", sorted(PUBLIC_MODULES))
def test_a_public_module_shows_what_is_public(name):
    module = importlib.import_module(f"skdeepcluster.{name}")
    assert dir(module) == sorted(set(module.__all__) - FOR_OTHER_ROOMS.get(name, set()))
    assert all(hasattr(module, public) for public in module.__all__)


def test_checkers_and_editors_see_the_same_names():
    tree = ast.parse(Path(skdeepcluster.__file__).read_text())
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    seen = {name.name for node in imports for name in node.names}
    assert seen - {"TYPE_CHECKING", "import_module"} == set(dir(skdeepcluster)) - {"__version__"}


@pytest.mark.parametrize("name", ["MiniClusterin", "kmeans", "_private"])
def test_an_unknown_name_is_an_error(name):
    with pytest.raises(AttributeError, match=f"module 'skdeepcluster' has no attribute '{name}'"):
        getattr(skdeepcluster, name)


@EVERYONE
def test_no_attribute_of_a_class_becomes_a_method(estimator):
    """What Python 3.14 does to a partial function that a class has."""
    attributes = {name: value for cls in estimator.__mro__ for name, value in vars(cls).items()}
    assert not [name for name, value in attributes.items() if isinstance(value, partial)]
