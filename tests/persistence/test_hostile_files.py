"""Nothing in a file can do harm: nothing is executed, no other file opened, no memory taken."""

import os
import pickle
import sys
from pathlib import Path

import pytest

from skdeepcluster import save
from tests.instances import LOST_CLUSTERS
from tests.persistence.cases import FILES, fitted
from tests.persistence.file_helpers import Harmful, change, run, setting

# The fits are too brief to keep all clusters.
pytestmark = LOST_CLUSTERS


def test_a_pickle_can_do_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    pickle.loads(pickle.dumps(Harmful()))
    assert os.listdir(tmp_path) == ["harm"]


FORMS = ["../secret", {"$path": "../secret"}, {"$path": "hf-hub:x"}]


def test_nothing_is_opened_but_the_two_files_and_nothing_executed(tmp_path):
    model, _ = fitted("default")
    (tmp_path / "secret").write_text("secret")
    names = [
        (name, form) for name in ("backbone", "pretrained", "checkpoint_dir") for form in FORMS
    ]
    for place, (name, form) in enumerate(names):
        save(model, tmp_path / str(place))
        change(tmp_path / str(place), text=setting("parameters", name, form))
    program = f"""
        import os, sys
        import skdeepcluster

        WATCHED = {{"open", "import", "exec", "compile", "os", "subprocess", "socket"}}
        seen, watching = set(), False

        def watch(event, arguments):
            if watching and event.split(".")[0] in WATCHED:
                seen.add((event, str(arguments[0])))

        sys.addaudithook(watch)
        os.chdir({str(tmp_path)!r})
        skdeepcluster.load("8")  # imports what is needed
        watching = True
        models = [skdeepcluster.load(str(place)) for place in range({len(names)})]
        watching = False
        print(*[getattr(m, name) for m, (name, _) in zip(models, {names!r})], sep="\\n")
        print("events", *sorted(seen), sep="\\n")
    """
    values, events = run(program).split("events\n")
    assert values.split() == [form["$path"] if type(form) is dict else form for _, form in names]
    opened = {str(Path(str(place)) / file) for place in range(len(names)) for file in FILES}
    assert set(events.splitlines()) == {str(("open", file)) for file in opened}


LARGE = {"image_shape_": {"$tuple": [3, 10**5, 10**5]}, "n_features_in_": 3 * 10**10}
GREEDY = [
    ("default", setting("parameters", "n_clusters", 10**8)),
    ("default", setting("parameters", "n_clusters", 10**30)),
    ("default", setting("parameters", "n_mini_clusters", 10**8)),
    ("default", setting("fitted", "n_features_in_", 10**8)),
    ("few samples", setting("fitted", "_n_sized", 10**9)),
    ("other pretraining", setting("parameters", "n_regions", 10**8)),
    ("several numbers", setting("parameters", "over_clusterings", [10**8])),
    ("several numbers", setting("parameters", "n_clusters", list(range(2, 10**5)))),
    ("images, one stage", setting("backbone", "name", "vit_giant_patch14_224")),
    ("images, one stage", setting("backbone", "width", 10**9)),
    ("images, BYOL", setting("parameters", "hidden_dim", 10**8)),
    ("images, BYOL", setting("parameters", "embedding_dim", 10**30)),
    ("proximity", setting("parameters", "n_clusters", 10**8)),
    ("proximity", setting("fitted", "n_features_in_", 10**8)),
    ("images, proximity", lambda text: text["fitted"].update(LARGE)),  # its decoder knows
    ("generative", setting("parameters", "n_clusters", 10**8)),
    ("generative", setting("fitted", "n_features_in_", 10**8)),
    ("nothing generated", setting("parameters", "generated_ratio", 1.0)),
]


@pytest.mark.skipif(sys.platform == "win32", reason="nothing tells how much memory was taken")
def test_a_number_in_a_small_file_takes_no_memory(tmp_path):
    # How large images are is in no tensor: it is not refused, and matters when there are images.
    sized = [("images, one stage", lambda text: text["fitted"].update(LARGE))]
    for place, (name, text) in enumerate(GREEDY + sized):
        save(fitted(name)[0], tmp_path / str(place))
        change(tmp_path / str(place), text=text)
    program = f"""
        import resource
        import skdeepcluster

        def load(place):
            try:
                skdeepcluster.load({str(tmp_path)!r} + f"/{{place}}")
                return "loaded"
            except ValueError:
                return "refused"

        load(8)  # imports what is needed
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(*[load(place) for place in range({len(GREEDY) + 1})])
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    outcomes, megabytes = run(program).splitlines()
    assert outcomes.split() == ["refused"] * len(GREEDY) + ["loaded"]
    assert int(megabytes) < 150
