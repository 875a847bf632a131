"""Changes of saved files, and programs that load them."""

import hashlib
import json
import subprocess
import sys
import textwrap

from safetensors.torch import load_file, save_file

from tests.persistence.cases import FILES

HEAD = "networks.model.head.weight"


def run(program):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def change(folder, text=None, tensors=None):
    """Change the fields, the tensors, or both, so that the checksum is right."""
    content = json.loads((folder / FILES[0]).read_text())
    if tensors is not None:
        state = load_file(folder / FILES[1])
        tensors(state)
        save_file(state, folder / FILES[1])
        content["sha256_of_tensors"] = digest(folder)
    if text is not None:
        text(content)
    (folder / FILES[0]).write_text(json.dumps(content))


def digest(folder):
    return hashlib.sha256((folder / FILES[1]).read_bytes()).hexdigest()


def setting(*path):
    """Return what sets the field at the path that all but the last name, to the last."""
    *names, last, value = path

    def change_text(content):
        for name in names:
            content = content[name]
        content[last] = value

    return change_text


class Harmful:
    def __reduce__(self):
        return (eval, ("__import__('os').mkdir(__import__('os').environ['HARM'])",))
