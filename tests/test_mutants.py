"""The table of ``make mutants`` is current; running it takes minutes, and is not done here."""

import ast

import pytest

from tests.mutants import MUTANTS, PACKAGE, ROOT, Mutant, wires


def test_every_fault_can_be_planted():
    sources = {mutant.file: (PACKAGE / mutant.file).read_text() for mutant in MUTANTS}
    for mutant in MUTANTS:
        planted = mutant.planted(sources[mutant.file])
        assert planted != sources[mutant.file], mutant
        ast.parse(planted, str(mutant))


def test_the_tests_that_should_notice_are_there():
    for mutant in MUTANTS:
        for word in mutant.tests.split():
            assert not word.endswith(".py") or (ROOT / "tests" / word).is_file(), mutant


def test_no_fault_is_planted_twice():
    assert len(set(MUTANTS)) == len(MUTANTS)


def test_each_file_of_objectives_and_each_estimator_has_faults():
    files = {mutant.file for mutant in MUTANTS}
    for room in ("objectives", "numerics"):
        for path in (PACKAGE / room).glob("_[a-z]*.py"):
            assert f"{room}/{path.name}" in files | {"numerics/_linear.py"}  # it only pads


@pytest.mark.parametrize(
    ("source", "position", "expected"),
    [
        ("a + b", None, "a - b"),
        ("a + b + c", (1, 5), "a + b - c"),
        ("a + b\na + b", (2, 1), "a + b\na - b"),
    ],
)
def test_planting(source, position, expected):
    assert Mutant("", " + ", " - ", "", position).planted(source) == expected


@pytest.mark.parametrize(
    ("source", "position"), [("a", None), ("a + b + c", None), ("a + b", (1, 2))]
)
def test_what_is_not_there_once_is_refused(source, position):
    with pytest.raises(LookupError, match=r"occurs \d times, not once|does not stand there"):
        Mutant("", " + ", " - ", "", position).planted(source)


def test_defaults_take_the_place_of_arguments():
    found = {(wire.file, wire.before, wire.after) for wire in wires()}
    for expected in [
        ("estimators/_mini.py", "self.mini_weight", "1.0"),
        ("estimators/_mini.py", "self.alignment_weight", "'auto'"),
        ("estimators/_discrimination.py", "self.n_clusters", "8"),
        ("pretraining/_moco.py", "self.queue_size", "32768"),
        ("base/_estimator.py", "self.batch_size", "'auto'"),
        ("base/_two_stage.py", "self.fine_tune", "'auto'"),
    ]:
        assert expected in found
    assert not any(wire.before == "self.device" for wire in wires())
