"""Where a system was published."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Paper"]


@dataclass(frozen=True)
class Paper:
    """Where a system was published.

    Attributes
    ----------
    title, authors, venue : str
    year : int
    url : str
        Where the text can be read.
    """

    title: str
    authors: str
    venue: str
    year: int
    url: str

    def __str__(self) -> str:
        return f"{self.authors}: {self.title}. {self.venue} {self.year}"

    @property
    def first_author(self) -> str:
        """The first author, with "et al." for the others."""
        first, *others = self.authors.split(", ")
        return f"{first}{' et al.' if others else ''}"

    @property
    def citation(self) -> str:
        """The short form: first author, venue and year."""
        return f"{self.first_author}, {self.venue} {self.year}"
