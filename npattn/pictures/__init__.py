"""Pictures of what a system attends to on the photograph, and of what it changes there (extra ``plot``)."""

from npattn.pictures.figure import SUFFIXES, draw

__all__ = ["SUFFIXES", "draw"]
