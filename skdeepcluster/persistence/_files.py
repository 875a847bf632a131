"""The two files of a model: written whole, read with suspicion, and replaced together."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from skdeepcluster.persistence._checks import blaming, check_names

TEXT_FILE = "model.json"
TENSOR_FILE = "tensors.safetensors"
# The tensors of an earlier model, until the text of the new one is there.
PREVIOUS_FILE = TENSOR_FILE + ".previous"
FORMAT = "skdeepcluster model"
# To be raised when what a file holds changes, be it by a new parameter of an estimator; what older
# files lack is then filled in before they are checked.
FORMAT_VERSION = 6
# A larger text is refused unread: what there is much of lies among the tensors.
MOST_TEXT_BYTES = 2**26


@dataclass(frozen=True)
class Text:
    """The fields of ``model.json``."""

    format: str
    format_version: int
    saved_with: dict[str, str]
    estimator: str
    parameters: dict[str, Any]
    backbone: dict[str, Any] | None
    fitted: dict[str, Any]
    sha256_of_tensors: str = ""


def refuse_other_files(folder: Path) -> None:
    """Raise ValueError if there is something that was not written by save."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"path={str(folder)!r} is a file. Name a folder.")
    for name in os.listdir(folder) if folder.exists() else []:
        if not re.fullmatch(rf"({TEXT_FILE}|{TENSOR_FILE})(\.\d+\.tmp|\.previous)?", name):
            raise ValueError(f"path={str(folder)!r} holds {name!r}. Name a folder of its own.")
        if name == TEXT_FILE:
            with blaming(f"path={str(folder)!r} holds another model. Name another folder"):
                _parse_text(folder / TEXT_FILE)


@contextmanager
def new_files(folder: Path) -> Iterator[list[Path]]:
    """Give names for two files in a folder, and leave nothing there that was not renamed."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{os.getpid()}.tmp" for name in (TEXT_FILE, TENSOR_FILE)]
    try:
        yield files
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        if is_new and not os.listdir(folder):
            folder.rmdir()


def replace_files(folder: Path, text_file: Path, tensor_file: Path) -> None:
    """Put new files in the place of old ones; cut short, it leaves one of both models."""
    text, tensors, previous = (folder / name for name in (TEXT_FILE, TENSOR_FILE, PREVIOUS_FILE))
    # Unless we were cut short before, and the tensors in use have that name already.
    if text.exists() and _belongs(tensors, _parse_text(text).get("sha256_of_tensors")):
        os.replace(tensors, previous)
    os.replace(tensor_file, tensors)
    os.replace(text_file, text)
    previous.unlink(missing_ok=True)


def write_files(text: Text, tensors: dict[str, Tensor], text_file: Path, tensor_file: Path) -> None:
    """Write both files, down to the disk.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, tensor_file)
        text = replace(text, sha256_of_tensors=_sha256(tensor_file))
        content = json.dumps(asdict(text), indent=1).encode()
        if len(content) > MOST_TEXT_BYTES:
            raise ValueError(f"{TEXT_FILE} would have {len(content)} bytes, more than load reads.")
        text_file.write_bytes(content)
        shutil.copymode(text_file, tensor_file)  # which safetensors let nobody else read
        for file in (text_file, tensor_file):
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"The model could not be written to path={str(text_file.parent)!r}: {error}. What was "
            "there before is left."
        ) from error


def _parse_text(file: Path) -> dict[str, Any]:
    """Return the fields of what save has written, of whatever version."""
    _check_file(file)
    size = file.stat().st_size
    if size > MOST_TEXT_BYTES:
        raise ValueError(f"{TEXT_FILE} has {size} bytes, more than {MOST_TEXT_BYTES}.")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{TEXT_FILE} is no JSON text: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{TEXT_FILE} was not written by save of an estimator.")
    return content


def read_text(file: Path) -> Text:
    content = _parse_text(file)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{TEXT_FILE} has format_version={version!r}, but this version of skdeepcluster reads "
            f"{FORMAT_VERSION}. It was saved with {str(content.get('saved_with'))[:200]}: load it "
            "there, or fit and save it anew."
        )
    check_names(TEXT_FILE, content, [field.name for field in fields(Text)])
    return Text(**content)


def read_tensors(files: Sequence[Path], sha256: Any) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    file = next((file for file in files if _belongs(file, sha256)), None)
    if file is None:
        raise ValueError(
            f"{TENSOR_FILE} is damaged or belongs to another {TEXT_FILE}: its sha256 is not "
            "sha256_of_tensors."
        )
    try:
        return load_file(file)
    except Exception as error:  # of what others have written, and of torch for unusual types
        raise ValueError(f"{TENSOR_FILE} is no file of safetensors: {error}") from error


def _check_file(file: Path) -> None:
    """Refuse links, which lead out of the folder, and what is no file at all."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise ValueError(f"{file.name} is a link or no file. Copy the file itself to the folder.")


def _belongs(file: Path, sha256: Any) -> bool:
    """Whether a file is there and has this content."""
    if not os.path.lexists(file):
        return False
    _check_file(file)
    return bool(_sha256(file) == sha256)


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
