"""What tests of cases share."""

import numpy as np
import pytest

from npattn.oracle import measurement
from npattn.oracle.budgets import Budget


@pytest.fixture
def without_budgets(monkeypatch):
    """Let budgets, which take most of the time to make, be 1 where they are not the matter."""

    def unit(observed, *_, **__):
        return {name: Budget(np.ones(y.shape), 1.0) for name, y in observed.expected.items()}

    monkeypatch.setattr(measurement, "measure_budgets", unit)
