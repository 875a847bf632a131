"""Checkpoints on disk: written whole or not at all, refused when they belong to another fit."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from skdeepcluster._warnings import warn


class CheckpointFolder:
    """The newest checkpoint of one fit and the one before it.

    Parameters
    ----------
    path : path-like
        Folder; made if it does not exist.
    fingerprint : dict of str to str
        What the fit depends on (data, parameters). A checkpoint with another fingerprint is
        refused.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: dict[str, str]) -> None:
        self.folder = Path(path)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.newest = self.folder / "checkpoint.pt"
        self.previous = self.folder / "checkpoint.previous.pt"
        self.fingerprint = fingerprint

    def save(self, state: dict[str, Any]) -> None:
        """Write the state beside the newest checkpoint, flush it to disk, then rename.

        Raises
        ------
        OSError
            If it cannot be written, for example to a full disk. Earlier checkpoints are left.
        """
        temporary = self.folder / f"checkpoint.{os.getpid()}.tmp"
        # Not straight to the file: torch hides what the system says of a failing write.
        content = io.BytesIO()
        torch.save({**state, "fingerprint": self.fingerprint}, content)
        try:
            with open(temporary, "wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if self.newest.exists():
                os.replace(self.newest, self.previous)
            os.replace(temporary, self.newest)
        except OSError as error:
            raise OSError(
                f"The checkpoint could not be written to checkpoint_dir={str(self.folder)!r}: "
                f"{error}. Make room and fit again: it goes on from the last one."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, or None if there is none.

        Raises
        ------
        ValueError
            If the checkpoint belongs to other data or parameters (names the differences), or the
            file is something else altogether.
        """
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # a torn file fails in the unpickler in many ways
                warn(
                    # Not the error's own words, which advise to trust the file.
                    f"The checkpoint {str(path)!r} cannot be read ({type(error).__name__}) and is "
                    "passed over.",
                    RuntimeWarning,
                )
                continue
            if not isinstance(state, dict) or "fingerprint" not in state:
                raise ValueError(
                    f"checkpoint_dir={str(self.folder)!r} holds a file {path.name!r} that no fit "
                    "has written. Use another folder."
                )
            self._refuse_other_fit(state.pop("fingerprint"))
            return state
        return None

    def _refuse_other_fit(self, found: dict[str, str]) -> None:
        names = sorted(found.keys() | self.fingerprint.keys())
        differences = [
            f"{name}: {found.get(name)} in the checkpoint, {self.fingerprint.get(name)} now"
            for name in names
            if found.get(name) != self.fingerprint.get(name)
        ]
        if differences:
            raise ValueError(
                f"checkpoint_dir={str(self.folder)!r} holds a checkpoint of another fit "
                f"({'; '.join(differences)}). Use another folder, or delete this one to start anew."
            )
