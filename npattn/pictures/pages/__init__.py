"""The pictures of the pages in ``derivations/``: ``python -m npattn.pictures.pages NAME`` draws one."""

from npattn.pictures.pages.catalogue import PICTURES, write_picture

__all__ = ["PICTURES", "write_picture"]
