"""
Fit from a memory map
=====================

An array of embeddings can be larger than what the computer has left. This example writes one to
disk in parts, fits :class:`~skdeepcluster.MiniClustering` on the memory map, and watches how much
memory that takes.
"""

# %%
# A large file
# ------------
#
# The rows stand for embeddings: 256 numbers each, stored as float32, from eight clusters of unequal
# size that overlap a little. They are written in parts, so that the whole is never in memory here.
# The true clusters ``y`` are kept for judging alone.

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import adjusted_rand_score

n_samples, n_features, n_clusters = 350_000, 256, 8
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "X.npy"
mebibyte = 2**20

rng = np.random.default_rng(0)
directions = rng.normal(size=(16, n_features)).astype(np.float32)
centers = rng.normal(size=(n_clusters, 16)).astype(np.float32)
y = rng.choice(
    n_clusters, size=n_samples, p=rng.dirichlet(np.full(n_clusters, 3))
)

X = np.lib.format.open_memmap(path, "w+", np.float32, (n_samples, n_features))
for part in np.array_split(np.arange(n_samples), 35):
    topics = centers[y[part]] + rng.standard_normal(
        (len(part), 16), dtype=np.float32
    )
    noise = rng.standard_normal((len(part), n_features), dtype=np.float32)
    X[part] = topics @ directions + 2 * noise
X.flush()
del X

file_size = path.stat().st_size / mebibyte
print(f"the file: {file_size:.0f} MiB")

# %%
# The fit
# -------
#
# All it takes is ``np.load(path, mmap_mode="r")``. The rest of this program watches: it runs in a
# process of its own, so that nothing else is counted, and asks the system twenty times a second how
# much memory the process has, less what it had before. On Linux that is the memory that belongs to
# it alone. Pages of the file that the system keeps because there is room are left out: it takes
# them back when the room is needed. On macOS it is the peak so far, those pages included.

program = """
import json, sys, threading, time
import numpy as np
from skdeepcluster import MiniClustering

def memory():
    try:
        with open("/proc/self/status") as lines:
            private = next(line for line in lines if "RssAnon" in line)
            return int(private.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def watch():
    while not finished.wait(0.05):
        log.append((time.perf_counter(), memory()))

path, n_clusters = sys.argv[1], int(sys.argv[2])
X = np.load(path, mmap_mode="r")
# What is loaded for any fit is not counted.
MiniClustering(2, random_state=0).fit(X[:50])

finished, log = threading.Event(), [(time.perf_counter(), memory())]
watcher = threading.Thread(target=watch)
watcher.start()
model = MiniClustering(n_clusters, random_state=0).fit(X)
finished.set()
watcher.join()
np.save(path + ".labels.npy", model.labels_)
print(json.dumps(log))
"""
command = [sys.executable, "-c", program, str(path), str(n_clusters)]
finished = subprocess.run(
    command, stdout=subprocess.PIPE, check=True, text=True
)

seconds, memory = np.array(json.loads(finished.stdout)).T
seconds, memory = seconds - seconds[0], (memory - memory[0]) / mebibyte
labels = np.load(f"{path}.labels.npy")
folder.cleanup()
print(f"{seconds[-1]:.0f} s, {memory.max():.0f} MiB more memory at the peak")
print(f"adjusted Rand index: {adjusted_rand_score(y, labels):.2f}")

# %%
# Where the memory goes
# ---------------------
#
# The array is never in memory as a whole. What is needed first is for the neighbours, which are
# searched for in blocks, among at most 32,768 random rows, however many there are. Training on
# their pairs takes next to nothing. At the end all rows are read once more, a batch at a time, to
# be labelled. What stays of each is its embedding, 64 numbers, however long the rows are. So the
# peak is well below the size of the file, and further below it the longer the rows are.

figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
axis.fill_between(seconds, memory, color="tab:blue", alpha=0.3)
axis.plot(seconds, memory, color="tab:blue", label="taken by the fit")
axis.axhline(file_size, color="tab:orange", label="the file")
axis.set(
    xlabel="seconds", ylabel="MiB", title="Memory of a fit from a memory map"
)
axis.set(xlim=(0, seconds[-1]), ylim=(0, 1.1 * max(file_size, memory.max())))
axis.legend(loc="upper center", bbox_to_anchor=(0.55, 0.9))
plt.show()

# %%
# Most of the time goes into the search for neighbours and the training, which do not grow with more
# rows than these. If even reading is too slow, fit on a random sample and predict the rest:
# ``MiniClustering(8).fit(X[rows]).predict(X)``.
#
# What to read next
# -----------------
#
# * :doc:`/guide/big_data` lists what is kept in memory, and has an example of the sample.
# * :doc:`/costs`: how long fits take.
# * :class:`~skdeepcluster.MiniClustering`; memory maps may be passed to every estimator.
# * :ref:`sphx_glr_auto_examples_images_plot_image_folder.py`: images that stay on disk.
