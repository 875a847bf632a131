"""The documentation names what there is, and every example of the gallery runs."""

import contextlib
import importlib
import io
import json
import re
import runpy
import sys
import textwrap
import types
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import skdeepcluster
from skdeepcluster.pretraining import SimCLR

DOC = Path(__file__).parents[1] / "doc"
PAGES = [DOC / "start.md", DOC / "adding_a_method.md", *sorted((DOC / "guide").glob("[!i]*.md"))]
BLOCK = re.compile(r"^( *)```(python|text)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
EXAMPLES = sorted((DOC.parent / "examples").glob("*/plot_*.py"))
PUBLIC = ["", "calibration", "callbacks", "datasets", "display", "exceptions", "metrics"]
PUBLIC += ["pretraining", "report"]
# Exported for other rooms of the package, or too small for a page.
BESIDE = {
    "skdeepcluster.__version__",
    "skdeepcluster.calibration.FAMILIAR_ROWS",
    "skdeepcluster.calibration.MOST_ROWS",
    "skdeepcluster.calibration.ConfidenceHead",
    "skdeepcluster.calibration.NearestMean",
    "skdeepcluster.calibration.accuracy_interval",
    "skdeepcluster.calibration.collect_votes",
    "skdeepcluster.calibration.confident_in",
    "skdeepcluster.calibration.fit_confidence",
    "skdeepcluster.calibration.learn_familiar",
    "skdeepcluster.calibration.mean_confidence",
    "skdeepcluster.calibration.n_epochs",
    "skdeepcluster.calibration.outlier_ranks",
    "skdeepcluster.calibration.overruled",
    "skdeepcluster.calibration.vote_loss",
    "skdeepcluster.datasets.IMAGE_EXTENSIONS",
    "skdeepcluster.report.last_step",
    "skdeepcluster.report.list_of_names",
    "skdeepcluster.report.members_of",
    "skdeepcluster.report.nearest_to_mean",
}


def test_the_reference_has_every_public_name():
    reference = runpy.run_path(str(DOC / "api_reference.py"))["API_REFERENCE"]
    documented = [f"{module}.{name}" for module, names in reference.values() for name in names]
    exported = set()
    for name in PUBLIC:
        module = importlib.import_module(f"skdeepcluster.{name}".rstrip("."))
        exported |= {f"{module.__name__}.{public}" for public in module.__all__}
    assert len(documented) == len(set(documented))
    assert set(documented) == exported - BESIDE
    assert exported >= BESIDE


def test_every_section_of_the_reference_leads_to_pages_that_exist():
    reference = runpy.run_path(str(DOC / "api_reference.py"))
    assert reference["ABOUT"].keys() == reference["API_REFERENCE"].keys()
    for pages in reference["guides"]().values():
        assert pages
        for page in pages:
            assert (DOC / f"{page.lstrip('/')}.md").exists(), page


@pytest.mark.parametrize("page", sorted(DOC.glob("**/*.md")), ids=lambda path: path.stem)
def test_code_is_no_wider_than_its_column(page):
    for _, kind, text in BLOCK.findall(page.read_text()):
        if kind == "python":
            assert max(map(len, text.splitlines())) <= 79


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_no_wider_than_their_column(example):
    code = re.sub(r'^""".*?^"""', "", example.read_text(), count=1, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in code.splitlines() if not line.startswith("#")]
    assert max(map(len, lines)) <= 79


def test_every_estimator_links_to_its_page():
    reference = runpy.run_path(str(DOC / "api_reference.py"))["API_REFERENCE"]
    for section in ("Clusterers", "Pretraining"):
        module, names = reference[section]
        for name in names:
            link = getattr(importlib.import_module(module), name)()._get_doc_link()
            assert link.endswith(f"/generated/{module}.{name}.html")


def test_the_page_on_saving_names_the_version_that_save_writes(tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 2))
    skdeepcluster.save(SimCLR(max_epochs=0).fit(X), tmp_path / "model")
    version = json.loads((tmp_path / "model" / "model.json").read_text())["format_version"]
    assert f"reads format version {version}" in (DOC / "guide" / "saving.md").read_text()


def test_the_gallery_shows_every_example():
    settings = (DOC / "conf.py").read_text()
    assert EXAMPLES
    for example in EXAMPLES:
        assert f'"{example.name}"' in settings


@pytest.mark.gallery
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(example, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # an example leaves nothing behind in the project
    monkeypatch.setattr(sys, "argv", [str(example)])
    plt.close("all")
    try:
        runpy.run_path(str(example), run_name="__main__")
        assert plt.get_fignums()
    finally:
        plt.close("all")
    assert list(tmp_path.iterdir()) == []


def shape_of(printed):
    """Return what was printed, whatever the numbers and truth values are."""
    return re.sub(r"[-\d.]+|True|False|\s+", " ", printed).split()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_code_of_the_page_prints_what_it_says(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = [(kind, textwrap.dedent(text)) for _, kind, text in BLOCK.findall(page.read_text())]
    assert blocks
    module = types.ModuleType(f"page_{page.stem}")  # pickle looks up the classes of a page in it
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for (kind, text), (following, expected) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some pages show what warns
            exec(compile(text, str(page), "exec"), module.__dict__)
        if following == "text":
            assert shape_of(printed.getvalue()) == shape_of(expected)
