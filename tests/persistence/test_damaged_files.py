"""Files that are cut, mixed up or no files of ours are refused."""

import json
import os
import pickle

import pytest
import torch

import skdeepcluster
from skdeepcluster import MiniClustering, save
from skdeepcluster.persistence import _files
from tests.instances import LOST_CLUSTERS
from tests.persistence.cases import FILES, assert_same, assert_same_answers, fitted
from tests.persistence.file_helpers import HEAD, Harmful, change, digest, setting
from tests.samples import NOISE

# The fits are too brief to keep all clusters.
pytestmark = LOST_CLUSTERS


# --- tensors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("right_checksum", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x00" * 100,
        b"\xff" * 100,
        (10**6).to_bytes(8, "little") + b"{",
        pickle.dumps(Harmful()),
        "torch",
    ],
)
def test_what_is_no_safetensors_file_is_refused(content, right_checksum, tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    folder = tmp_path / "model"
    save(fitted("default")[0], folder)
    if content == "torch":
        torch.save({HEAD: Harmful()}, folder / FILES[1])
    else:
        (folder / FILES[1]).write_bytes(content)
    if right_checksum:
        change(folder, text=setting("sha256_of_tensors", digest(folder)))
    message = "no file of safetensors" if right_checksum else "damaged or belongs to another"
    with pytest.raises(ValueError, match=rf"tensors\.safetensors is {message}"):
        skdeepcluster.load(folder)
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("right_checksum", [True, False])
def test_a_cut_file_is_refused(place, right_checksum, tmp_path):
    save(fitted("default")[0], tmp_path)
    content = (tmp_path / FILES[1]).read_bytes()
    (tmp_path / FILES[1]).write_bytes(content[: int(place * len(content))])
    if right_checksum:
        change(tmp_path, text=setting("sha256_of_tensors", digest(tmp_path)))
    with pytest.raises(ValueError, match=r"tensors\.safetensors is"):
        skdeepcluster.load(tmp_path)


def test_one_wrong_bit_is_noticed(tmp_path):
    save(fitted("default")[0], tmp_path)
    content = bytearray((tmp_path / FILES[1]).read_bytes())
    content[-100] ^= 1
    (tmp_path / FILES[1]).write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        skdeepcluster.load(tmp_path)


def test_a_loaded_model_does_not_need_its_file(tmp_path):
    model, data = fitted("default")
    save(model, tmp_path)
    again = skdeepcluster.load(tmp_path)
    with open(tmp_path / FILES[1], "r+b") as file:
        file.write(b"\xff" * (tmp_path / FILES[1]).stat().st_size)
    assert_same_answers(again, model, data)
    assert_same(again.labels_, model.labels_)
    assert_same(again.cluster_centers_, model.cluster_centers_)


def test_files_of_two_models_are_not_mixed(tmp_path):
    for name in ("a", "b"):
        model = MiniClustering(3, random_state=ord(name), max_epochs=1).fit(NOISE)
        save(model, tmp_path / name)
    (tmp_path / "a" / FILES[0]).replace(tmp_path / "b" / FILES[0])
    with pytest.raises(ValueError, match="belongs to another"):
        skdeepcluster.load(tmp_path / "b")


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 10**6, b'{"format": "skdeepcluster model"'],
    ids=["empty", "cut", "a list", "a number", "no text", "too deep", "no end"],
)
def test_what_is_no_json_text_is_refused(content, tmp_path):
    save(fitted("default")[0], tmp_path)
    (tmp_path / FILES[0]).write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.json (is no JSON|was not written)"):
        skdeepcluster.load(tmp_path)


def test_values_that_are_too_deep_are_refused(tmp_path):
    save(fitted("default")[0], tmp_path)
    content = (tmp_path / FILES[0]).read_text()
    deep = '{"$tuple": [' * 900 + "]}" * 900
    (tmp_path / FILES[0]).write_text(content.replace('"verbose": 0', f'"verbose": {deep}'))
    with pytest.raises(ValueError, match="recursion"):
        skdeepcluster.load(tmp_path)
    deep = "[" * 900 + "]" * 900
    (tmp_path / FILES[0]).write_text(content.replace('"history_": [', f'"history_": [{deep},'))
    with pytest.raises(ValueError, match="recursion"):
        skdeepcluster.load(tmp_path)


def test_a_large_text_is_refused_unread(tmp_path, monkeypatch):
    save(fitted("default")[0], tmp_path)
    size = (tmp_path / FILES[0]).stat().st_size
    monkeypatch.setattr(_files, "MOST_TEXT_BYTES", size - 1)
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(ValueError, match=rf"model\.json has {size} bytes, more than {size - 1}"):
        skdeepcluster.load(tmp_path)
