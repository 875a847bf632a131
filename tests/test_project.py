"""What stands in several files of the project says the same in all of them."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import skdeepcluster

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
pytestmark = pytest.mark.skipif(
    not (ROOT / ".github").exists(), reason="the tests stand outside of the repository"
)


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def minor_versions():
    """Return the versions of Python that the classifiers name."""
    found = re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))
    return [f"3.{minor}" for minor in found]


def test_the_version_is_cited_as_it_is():
    assert PROJECT["dynamic"] == ["version"]
    citation = read("CITATION.cff")
    assert citation["version"] == skdeepcluster.__version__
    assert citation["license"] == PROJECT["license"]


def test_every_version_of_python_that_is_promised_is_tested():
    assert PROJECT["requires-python"] == f">={minor_versions()[0]}"
    jobs = read(".github/workflows/tests.yml")["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == minor_versions()


def test_ruff_is_the_same_before_a_commit():
    (hooks,) = read(".pre-commit-config.yaml")["repos"]
    assert f"ruff=={hooks['rev'].removeprefix('v')}" in PROJECT["optional-dependencies"]["test"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_read_alone_and_make_what_there_is(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    targets = set(re.findall(r"^make ([\w-]+)", commands, re.MULTILINE))
    assert targets
    assert targets <= set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))


def test_the_pages_are_built_as_make_builds_them():
    assert "make doc" in read(".readthedocs.yaml")["build"]["jobs"]["build"]["html"]
