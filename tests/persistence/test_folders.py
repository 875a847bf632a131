"""A model is replaced as a whole or not at all, and nothing else is touched."""

import os
import pickle
import sys
from pathlib import Path

import pytest

import skdeepcluster
from skdeepcluster import save
from tests.instances import LOST_CLUSTERS
from tests.persistence.cases import FILES, assert_same_answers, fitted, save_and_load
from tests.persistence.file_helpers import run

# The fits are too brief to keep all clusters.
pytestmark = LOST_CLUSTERS


def test_an_earlier_model_is_replaced(tmp_path):
    save(fitted("several numbers")[0], tmp_path)
    model, data = fitted("default")
    assert_same_answers(save_and_load(model, str(tmp_path)), model, data)
    assert sorted(os.listdir(tmp_path)) == FILES


@pytest.mark.parametrize("name", ["notes.txt", "tensors.safetensors.old", ".hidden"])
def test_a_folder_with_other_files_is_left_alone(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds '{name}'. Name a folder of its own"):
        save(fitted("default")[0], tmp_path)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("content", ["{}", "mine", '{"format": "xgboost"}'])
def test_a_model_of_another_kind_is_left_alone(content, tmp_path):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ValueError, match="holds another model"):
        save(fitted("default")[0], tmp_path)
    assert (tmp_path / "model.json").read_text() == content


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"is a file. Name a folder"):
        save(fitted("default")[0], tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.json"):
        skdeepcluster.load(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.json"):
        skdeepcluster.load(tmp_path / "nowhere")


# --- saves that are cut short --------------------------------------------------------------------


class CutShort(BaseException): ...


def save_and_die(model, folder, monkeypatch, n_steps):
    """Save, but die before the step of this number among those that change the folder.

    Returns whether the text of the new model was in its place by then.
    """
    replace, unlink, done = os.replace, Path.unlink, []

    def cut(step):
        def do_or_die(*args, **kwargs):
            if len(done) == n_steps:
                raise CutShort
            step(*args, **kwargs)
            done.append(Path(args[-1]).name)

        return do_or_die

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut(replace))
        patch.setattr(Path, "unlink", cut(unlink))
        with pytest.raises(CutShort):
            save(model, folder)
    return FILES[0] in done


@pytest.mark.parametrize("n_steps", range(4))
@pytest.mark.parametrize("n_steps_before", [None, *range(4)])
def test_a_model_is_replaced_as_a_whole_or_not_at_all(
    n_steps, n_steps_before, tmp_path, monkeypatch
):
    old, data = fitted("two heads, no votes")
    models = [fitted(name)[0] for name in ("default", "several numbers")]
    save(old, tmp_path)
    steps = [n_steps] if n_steps_before is None else [n_steps_before, n_steps]
    for model, n in zip(models, steps, strict=False):
        old = model if save_and_die(model, tmp_path, monkeypatch, n) else old
        assert_same_answers(skdeepcluster.load(tmp_path), old, data)
    assert_same_answers(save_and_load(models[0], tmp_path), models[0], data)
    assert sorted(os.listdir(tmp_path)) == FILES


def test_a_folder_without_its_tensors_is_named(tmp_path):
    save(fitted("default")[0], tmp_path)
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no tensors\.safetensors\. Give the folder"):
        skdeepcluster.load(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_a_full_disk_is_named_and_the_earlier_model_left(tmp_path):
    model, data = fitted("default")
    save(model, tmp_path / "model")
    with open(tmp_path / "model.pickle", "wb") as file:
        pickle.dump(model, file)
    program = f"""
        import pickle, resource, skdeepcluster
        model = pickle.load(open({str(tmp_path / "model.pickle")!r}, "rb"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        try:
            skdeepcluster.save(model, {str(tmp_path / "model")!r})
        except OSError as error:
            print(error)
    """
    assert "could not be written to path=" in run(program)
    assert sorted(os.listdir(tmp_path / "model")) == FILES
    assert_same_answers(skdeepcluster.load(tmp_path / "model"), model, data)


# --- modes and links -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes")
def test_others_may_read_both_files_or_none(tmp_path):
    old = os.umask(0o027)
    try:
        save(fitted("default")[0], tmp_path / "model")
    finally:
        os.umask(old)
    assert {oct((tmp_path / "model" / f).stat().st_mode & 0o777) for f in FILES} == {"0o640"}


@pytest.mark.parametrize("file", FILES)
def test_links_out_of_the_folder_are_refused(file, tmp_path):
    save(fitted("default")[0], tmp_path / "model")
    link, target = tmp_path / "model" / file, tmp_path / "elsewhere"
    link.rename(target)
    link.symlink_to(target)
    with pytest.raises(ValueError, match=f"{file} is a link or no file"):
        skdeepcluster.load(tmp_path / "model")
    link.unlink()
    link.mkdir()
    with pytest.raises(ValueError, match=f"{file} is a link or no file"):
        skdeepcluster.load(tmp_path / "model")


def test_a_link_to_the_folder_itself_is_followed(tmp_path):
    model, data = fitted("default")
    save(model, tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    assert_same_answers(skdeepcluster.load(tmp_path / "link"), model, data)
