"""Settings of all tests."""

import os

from hypothesis import settings

# The arrays are small: threads of OpenMP, which PyTorch works with, would wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Timings vary between machines, so no example is judged by its; in CI every run draws the same examples.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
