"""Set up before anything is imported."""

import os

# scikit-learn skips its array API check unless SciPy was imported with this.
os.environ["SCIPY_ARRAY_API"] = "1"
# No test may reach a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
