"""``python -m npattn.pictures.pages``: draw one picture of a page, or all of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from npattn.files import whole_file
from npattn.pictures.pages.catalogue import PICTURES, write_picture


def main() -> None:
    """Write what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m npattn.pictures.pages", description=__doc__)
    parser.add_argument("name", choices=[*PICTURES, "all"], metavar="NAME", help=f"all, or {', '.join(PICTURES)}")
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help="file, or folder of all (default: NAME.png)")
    parser.add_argument("--force", action="store_true", help="replace files")
    arguments = parser.parse_args()
    if arguments.name == "all":
        folder = arguments.output or Path()
        chosen = {name: folder / f"{name}.png" for name in PICTURES}
    else:
        chosen = {arguments.name: arguments.output or Path(f"{arguments.name}.png")}
    for name, path in chosen.items():
        try:
            with whole_file(path, force=arguments.force) as temporary:
                write_picture(name, temporary)
        except OSError as error:
            parser.error(str(error))
        print(path)


if __name__ == "__main__":
    main()
