"""The pages of traces, where the extra `page` is installed."""

import pytest

pytest.importorskip("latex2mathml", reason="the extra page is not installed")
