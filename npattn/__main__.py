"""The command where its script is not on the path: ``python -m npattn``."""

import sys

from npattn.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m npattn"))
