"""The pages of traces are tested where the extra `page` is installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("latex2mathml") else ["test_*.py"]
