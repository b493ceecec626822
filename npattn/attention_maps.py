"""Attention maps that are made when they are asked for: they take time, or rows of them alone can be kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from npattn.array_checks import check_positions
from npattn.module import Module
from npattn.typing import Array, Params

__all__ = ["MapByRows", "MapsOnDemand"]


class MapByRows(Module):
    """Base of systems in which queries weigh keys: their passes have no attention map, `attention_map` makes it.

    A subclass says how the weights are made (`map_rows`) and, where not every position has a query, how many there are
    (`query_size`).
    """

    def attention_map(
        self, params: Params, x: Array, rows: Sequence[int] | None = None, *, others: Sequence[Array] = ()
    ) -> Array:
        """Make the attention map, or some rows of it: where queries look.

        Parameters
        ----------
        params : mapping of str to array
        x : array, (B, C, H, W)
        rows : sequence of int, optional
            Queries, counted row by row from 0 on: where every position has one, that of row r and column c of the map
            is r W + c. By default all, which takes memory for as many numbers as there are pairs of queries and keys.
        others : sequence of array, default ()
            The inputs behind ``x``, where there are any.

        Returns
        -------
        array, (B, N, M) or (B, len(rows), M), with an axis of the heads behind the first where there are several
            Row j holds the weights of the M keys for query j. The notes of the class say what they add up to.

        Raises
        ------
        TypeError
            If an argument is refused by a call, or `rows` is no sequence of integers.
        ValueError
            If an argument is refused by a call, or a row is none of the queries.

        Examples
        --------
        >>> import numpy as np
        >>> from npattn import PositionAttention
        >>> module = PositionAttention(channels=16)
        >>> module.attention_map(module.init(seed=0), np.ones((2, 16, 7, 5)), rows=[0, 34]).shape
        (2, 2, 35)
        """
        self.check(params, x, *others)
        chosen: slice | list[int] = slice(None)
        if rows is not None:
            chosen = check_positions(f"{self}.attention_map", rows, self.query_size(*x.shape[2:]))
        return self.map_rows(params, chosen, x, *others)

    @abstractmethod
    def map_rows(self, params: Params, rows: slice | list[int], x: Array, *others: Array) -> Array:
        """Make the weights of all keys for some queries, on checked arguments; a slice stands for all queries."""

    def query_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of queries on a map of that size: unless a system says otherwise, those of the map."""
        return height, width


class MapsOnDemand(Mapping[str, Array]):
    """Attention maps by name, of which each is made when it is asked for, and kept from then on.

    They join others as dicts do, by ``|``, and are all made then.

    Parameters
    ----------
    **makers : callable
        Functions without arguments that return the maps.

    Examples
    --------
    >>> import numpy as np
    >>> maps = MapsOnDemand(gate=lambda: np.array([0.5, 1.0]))
    >>> maps["gate"]
    array([0.5, 1. ])
    """

    def __init__(self, **makers: Callable[[], Array]) -> None:
        self.makers, self.made = makers, dict[str, Array]()

    def __getitem__(self, name: str) -> Array:
        if name not in self.made:
            self.made[name] = self.makers[name]()
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)

    def __or__(self, other: Mapping[str, Array]) -> dict[str, Array]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Array]) -> dict[str, Array]:
        return {**other, **self}

    def __repr__(self) -> str:
        return repr(dict(self))
