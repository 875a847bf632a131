"""Build the documentation: ``make doc``. Needs no network."""

import os
import re
import runpy
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sphinx_gallery.sorting import ExplicitOrder

HERE = Path(__file__).parent

project = "skdeepcluster"
author = "The skdeepcluster developers"
copyright = f"2026, {author}"
version = release = installed_version(project)

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
if os.environ.get(
    "DOC_INTERSPHINX"
):  # links to other projects, where there is a network
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
}

exclude_patterns = ["_build", "**.ipynb"]
# What builds have left that had a gallery without sections.
exclude_patterns += ["auto_examples/plot_*", "sg_execution_times.rst"]
templates_path = ["_templates"]
root_doc = "index"
default_role = "literal"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc shows them
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

toc_object_entries_show_parents = "hide"
html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options: dict[str, Any] = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
without_sections = (
    "start",
    "comparison",
    "costs",
    "glossary",
    "citing",
    "changelog",
    "adding_a_method",
)
html_sidebars = {page: [] for page in without_sections}

# The gallery, section by section: the folders of examples/, and the files in them.
SECTIONS = {
    "first_steps": ["plot_digits.py", "plot_cluster_report.py"],
    "arrays": [
        "plot_embeddings_pipeline.py",
        "plot_long_tails.py",
        "plot_memmap.py",
    ],
    "images": ["plot_image_folder.py", "plot_views.py", "plot_images_byol.py"],
    "judging": [
        "plot_confidence.py",
        "plot_merge_tree.py",
        "plot_number_of_clusters.py",
        "plot_compare_methods.py",
        "plot_toy_data.py",
    ],
    "training": ["plot_callbacks.py", "plot_generated_samples.py"],
}
sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "auto_examples",
    # Running all examples takes minutes, too long while one works on the text: GALLERY=none runs
    # none of them, GALLERY=plot_digits this one alone. The others are shown without their output.
    "filename_pattern": os.environ.get("GALLERY", "/plot_"),
    "ignore_pattern": r"demo_|__init__",
    "subsection_order": ExplicitOrder(
        [f"../examples/{folder}" for folder in SECTIONS]
    ),
    "within_subsection_order": ExplicitOrder(
        [name for names in SECTIONS.values() for name in names]
    ),
    "image_srcset": [
        "2x"
    ],  # figures have 100 dots per inch, for screens with finer dots 200
    "doc_module": (project,),
    "backreferences_dir": "generated/backreferences",
    "reference_url": {project: None},
    "abort_on_example_error": True,
    "write_computation_times": False,
    "parallel": 2,  # as make test: two processes with one thread each
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
}

reference = runpy.run_path(str(HERE / "api_reference.py"))
reference["write_pages"](HERE)
autosummary_context = {"guides": reference["guides"]()}


def unlink_inherited(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Take references to scikit-learn's own pages out of methods that come from there."""
    if getattr(obj, "__module__", "").startswith("sklearn"):
        text = re.sub(
            r":(?:ref|term):`([^<`]*?)\s*(?:<[^>`]*>)?`",
            r"\1",
            "\n".join(lines),
        )
        lines[:] = text.split("\n")


def describe_thumbnails(app: Any, doctree: Any) -> None:
    """Say of the picture of an example, to those who do not see it, whose it is."""
    for image in doctree.findall(lambda node: node.tagname == "image"):
        example = re.search(r"sphx_glr_plot_(\w+)_thumb", image["uri"])
        if example and not image.get("alt"):
            image["alt"] = (
                f"Picture of the example {example[1].replace('_', ' ')}"
            )


def setup(app: Any) -> None:
    """Connect what is ours."""
    app.connect("doctree-read", describe_thumbnails)
    app.connect("autodoc-process-docstring", unlink_inherited, priority=1)
