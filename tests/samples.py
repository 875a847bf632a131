"""Small arrays that tests of several rooms share. No test may change them."""

import numpy as np
from sklearn.datasets import make_blobs

X, Y = make_blobs(n_samples=90, centers=3, n_features=5, random_state=0)
X = X.astype(np.float32)
NOISE = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)  # without clusters
IMAGES = np.random.default_rng(0).integers(0, 128, size=(24, 3, 8, 8), dtype=np.uint8)
IMAGES[::2, :, :4] += 127  # two kinds: the upper or the lower half is bright
IMAGES[1::2, :, 4:] += 127
