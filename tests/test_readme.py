"""The example of the README runs as it is written there."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_and_beats_kmeans(capsys):
    example = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    exec(compile(example, str(README), "exec"), {})
    printed = capsys.readouterr().out
    kmeans, ours = (
        float(re.search(rf"{n} +([.0-9]+)", printed)[1]) for n in ("KMeans", "Mini\\w+")
    )
    assert ours > kmeans


def test_every_promise_of_a_file_is_kept():
    for path in re.findall(r"\]\(([^):]+)\)", README.read_text()):
        assert (README.parent / path).exists(), path


def test_the_table_has_no_gaps():
    assert "@@" not in README.read_text()
