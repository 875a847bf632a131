"""What is built from the repository installs and works: ``make check-package``.

Everything happens in a temporary folder beside the repository's files. The wheel is installed
without extras into an environment of its own, where the example of the README runs. Each extra gets
a further environment on top of that one: torch and all else that the package needs anyway is
installed once, not six times. Nothing is hidden by this, for what lies below an extra is what it
would bring itself; and no extra sees what another one brings.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STARTED = time.perf_counter()
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|skdeepcluster\.egg-info/.*")

IMPORT_EVERY_MODULE = """
import importlib, pkgutil, skdeepcluster
for module in pkgutil.walk_packages(skdeepcluster.__path__, "skdeepcluster."):
    importlib.import_module(module.name)
"""
DRAW = """
from skdeepcluster.display import ReliabilityDisplay
ReliabilityDisplay.from_predictions([0, 1], [[0.9, 0.1], [0.2, 0.8]])
"""
EXPORT = """
import numpy as np, skdeepcluster
skdeepcluster.to_onnx(skdeepcluster.MiniClustering(2).fit(np.eye(8)), "model.onnx")
"""
# For each extra: whose imports it has to satisfy, and what else has to run with it.
EXTRAS = {
    "display": ([], DRAW),
    "onnx": ([], EXPORT),
    "examples": (["examples"], "import pandas, rich"),  # for set_output and ProgressBar
    "bench": (["benchmarks"], ""),
    "doc": (
        ["doc", "examples"],
        "import myst_parser, numpydoc, pandas, pydata_sphinx_theme, rich, sphinx_gallery\n"
        "from importlib.metadata import version; version('sphinx-mathjax-offline')",
    ),
    "test": (
        ["tests", "examples"],
        "import array_api_strict, importlinter, mypy, onnxscript, polars, pyarrow, rich, xdist",
    ),
}


def announce(step):
    minutes = (time.perf_counter() - STARTED) / 60
    print(f"== {minutes:4.1f} min: {step} ==", flush=True)


def run(*command, cwd=ROOT):
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def packages_of(environment):
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))


def create_environment(folder, below=None):
    """Create an environment, on top of another one if that is given; return its interpreter."""
    run(sys.executable, "-m", "venv", folder, *(["--without-pip"] if below else []))
    if below:
        (packages_of(folder) / "below.pth").write_text(f"{packages_of(below)}\n")
    return folder / "bin" / "python"


def install(python, *requirements):
    # Most of torch is never imported here: what is gets compiled then.
    options = ("--quiet", "--disable-pip-version-check", "--no-compile")
    run(python, "-m", "pip", "install", *options, *requirements)


def tracked_files():
    return set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines())


def build(folder):
    """Build the source distribution and, from it, the wheel."""
    python = create_environment(folder / "build")
    install(python, "build>=1.6")
    # Its list of files would bring back some that are no longer wanted.
    shutil.rmtree(ROOT / "skdeepcluster.egg-info", ignore_errors=True)
    run(python, "-m", "build", "--quiet", "--outdir", folder / "dist", ROOT)
    (source,), (wheel,) = ((folder / "dist").glob(end) for end in ("*.tar.gz", "*.whl"))
    return source, wheel


def compare(packed, wanted, name):
    """End with the differences, if a distribution holds other files than those wanted."""
    differences = [f"lacks {file}" for file in sorted(wanted - packed)]
    differences += [f"should not hold {file}" for file in sorted(packed - wanted)]
    if differences:
        sys.exit(f"{name}: " + "; ".join(differences) + ". MANIFEST.in decides.")


def check_contents(source, wheel):
    with tarfile.open(source) as archive:
        files = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    compare({file for file in files if not GENERATED.fullmatch(file)}, tracked_files(), source.name)
    package = {file for file in tracked_files() if file.startswith("skdeepcluster/")}
    with zipfile.ZipFile(wheel) as archive:
        files = {file for file in archive.namelist() if ".dist-info/" not in file}
    compare(files, package, wheel.name)


def imported_by(folder):
    """Return what the files of a folder import at their head, other files of it apart."""
    files = [ROOT / file for file in tracked_files() if re.fullmatch(rf"{folder}/.*\.py", file)]
    names = set()
    for statement in (line for file in files for line in ast.parse(file.read_text()).body):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            names.add(statement.module)
    own = {folder, *(file.stem for file in files)}
    return {name for name in names if name.partition(".")[0] not in own}


def ten_lines():
    """Return the example of the README."""
    readme = (ROOT / "README.md").read_text()
    return re.search(r"## Ten lines\s+```python\n(.*?)```", readme, re.DOTALL)[1]


def try_extra(extra, python, outside):
    folders, program = EXTRAS[extra]
    imports = sorted(set().union(*map(imported_by, folders)))
    program = "\n".join([*(f"import {name}" for name in imports), program])
    run(python, "-I", "-c", program, cwd=outside)
    run(python, "-m", "pip", "check", "--disable-pip-version-check")


def main():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if strange := project["optional-dependencies"].keys() ^ EXTRAS.keys():
        sys.exit(f"{strange}: every extra of pyproject.toml has to be tried in {__file__}.")
    os.environ["MPLBACKEND"] = "Agg"
    with tempfile.TemporaryDirectory(prefix=".venv-package-", dir=ROOT) as name:
        folder = Path(name)
        outside = folder / "outside"
        outside.mkdir()

        announce("Building the source distribution and the wheel")
        source, wheel = build(folder)
        announce("Comparing what they hold with the files of the repository")
        check_contents(source, wheel)

        announce("Installing the wheel without extras (torch is large: some minutes)")
        plain = folder / "plain"
        python = create_environment(plain)
        install(python, wheel)
        announce("Importing every module, running the example of the README outside the repository")
        run(python, "-I", "-c", IMPORT_EVERY_MODULE, cwd=outside)
        run(python, "-I", "-c", ten_lines(), cwd=outside)

        for extra in EXTRAS:
            announce(f"Installing and trying the extra '{extra}'")
            python = create_environment(folder / extra, below=plain)
            install(python, f"{wheel}[{extra}]")
            try_extra(extra, python, outside)
    announce("The package is as it should be")


if __name__ == "__main__":
    main()
