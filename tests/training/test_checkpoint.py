"""Checkpoints are written whole or not at all, and read only by the fit that wrote them."""

import os

import numpy as np
import pytest
import torch

from skdeepcluster.training import CheckpointFolder

FINGERPRINT = {"n_clusters": "3", "shape of X": "(10, 2)"}


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "deep" / "er", FINGERPRINT)


def names(folder):
    return sorted(path.name for path in folder.folder.iterdir())


def test_an_empty_folder_holds_nothing(folder):
    assert folder.load() is None
    assert names(folder) == []


def test_what_was_saved_is_loaded(folder):
    state = {"step": 3, "tensors": {"a": torch.arange(4.0)}, "history": [{"loss": 0.5, "n": "x"}]}
    folder.save(state)
    loaded = CheckpointFolder(str(folder.folder), dict(FINGERPRINT)).load()
    assert loaded.keys() == state.keys()
    assert loaded["history"] == state["history"]
    assert torch.equal(loaded["tensors"]["a"], state["tensors"]["a"])
    assert "fingerprint" not in state


def test_the_newest_and_the_one_before_are_kept(folder):
    for step in range(4):
        folder.save({"step": step})
    assert names(folder) == ["checkpoint.previous.pt", "checkpoint.pt"]
    assert folder.load()["step"] == 3
    assert torch.load(folder.previous)["step"] == 2


@pytest.mark.parametrize("stage", ["save", "fsync", "replace"])
def test_a_failing_save_leaves_the_old_checkpoint(folder, monkeypatch, stage):
    folder.save({"step": 1})

    def torn(state, file):
        file.write(b"half of a checkp")
        raise OSError("disk full")

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(*((torch, "save", torn) if stage == "save" else (os, stage, fail)))
        with pytest.raises(OSError, match="disk full"):
            folder.save({"step": 2})
    assert names(folder) == ["checkpoint.pt"]
    assert folder.load()["step"] == 1


def test_killed_between_the_two_renames(folder):
    folder.save({"step": 1})
    os.replace(folder.newest, folder.previous)
    assert folder.load()["step"] == 1
    folder.save({"step": 2})
    assert folder.load()["step"] == 2


@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_a_torn_file_is_passed_over(folder, kept):
    folder.save({"step": 1})
    folder.save({"step": 2})
    whole = folder.newest.read_bytes()
    folder.newest.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.warns(RuntimeWarning, match=r"checkpoint\.pt' cannot be read"):
        assert folder.load()["step"] == 1
    folder.previous.write_bytes(b"")
    with pytest.warns(RuntimeWarning) as caught:
        assert folder.load() is None
    assert len(caught) == 2
    folder.save({"step": 3})
    assert folder.load()["step"] == 3


@pytest.mark.parametrize(
    ("fingerprint", "difference"),
    [
        ({**FINGERPRINT, "n_clusters": "4"}, "n_clusters: 3 in the checkpoint, 4 now"),
        ({"n_clusters": "3"}, r"shape of X: \(10, 2\) in the checkpoint, None now"),
        ({**FINGERPRINT, "new": "1"}, "new: None in the checkpoint, 1 now"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused(folder, fingerprint, difference):
    folder.save({"step": 1})
    other = CheckpointFolder(folder.folder, fingerprint)
    with pytest.raises(ValueError, match=rf"checkpoint_dir=.*\({difference}\).*Use another folder"):
        other.load()
    assert folder.load()["step"] == 1


@pytest.mark.parametrize("content", [[1, 2], {"weights": torch.ones(2)}])
def test_a_file_that_no_fit_has_written_is_refused(folder, content):
    torch.save(content, folder.newest)
    with pytest.raises(ValueError, match=r"'checkpoint\.pt' that no fit has written"):
        folder.load()


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_loading_runs_no_code(folder, tmp_path):
    torch.save({"fingerprint": FINGERPRINT, "x": Malicious(tmp_path / "ran")}, folder.newest)
    with pytest.warns(RuntimeWarning, match="passed over"):
        assert folder.load() is None
    assert not (tmp_path / "ran").exists()


def test_random_states_survive(folder):
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    folder.save({"generator": generator.get_state()})
    expected = torch.rand(5, generator=generator)
    other = torch.Generator()
    other.set_state(folder.load()["generator"])
    np.testing.assert_array_equal(torch.rand(5, generator=other), expected)
