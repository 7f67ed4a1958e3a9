"""MovieLens 100K (`u.data`, `u.item`), 1M and 10M (`*.dat`), 20M and later (`*.csv`).

https://grouplens.org/datasets/movielens. The value of an interaction is the rating.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys import schema
from recsys.data.importers.fields import Field, identifier, number, of_expr, seconds, text
from recsys.data.importers.files import pick
from recsys.data.importers.records import Layout, read_delimited
from recsys.data.importers.tables import RawTables

GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller"),
    *("War", "Western"),
)
"""The genre flags of `u.item`, after one for "unknown"."""
_U_ITEM = ("movieId", "title", "released", "video", "url", "unknown", *GENRES)
_MOVIE = ("movieId", "title", "genres")
_RATING = ("userId", "movieId", "rating", "timestamp")
_NO_GENRES = "(no genres listed)"
# 1M is in Latin-1 and 10M in UTF-8, under the same names: each line takes the one that fits.
_OLD = ("utf-8", "latin-1")
_TABS = Layout("\t", quoted=False)
_PIPES = Layout("|", quoted=False, encodings=_OLD)
_COLONS = Layout("::", quoted=False, encodings=_OLD)
# File name, layout, and the columns where no header names them.
_MOVIE_FILES = (
    (r"u\.item", _PIPES, _U_ITEM),
    (r"movies\.dat", _COLONS, _MOVIE),
    (r"movies\.csv(\.gz)?", Layout(), None),
)
_RATING_FILES = (
    (r"u\.data", _TABS, _RATING),
    (r"ratings\.dat", _COLONS, _RATING),
    (r"ratings\.csv(\.gz)?", Layout(), None),
)


def import_movielens(files: Sequence[Path], tables: RawTables) -> None:
    """Read ratings and movies of any of the sets; other files of the sets are left alone."""
    for pattern, layout, columns in _MOVIE_FILES:
        movie = _movie(_flagged_genres() if columns is _U_ITEM else _listed_genres())
        for path in pick(files, pattern):
            for batch in read_delimited(path, layout, columns, needed=columns or _MOVIE):
                tables.add("items", batch, movie)
    for pattern, layout, columns in _RATING_FILES:
        for path in pick(files, pattern):
            for batch in read_delimited(path, layout, columns, needed=_RATING):
                tables.add("interactions", batch, _rating())


def _movie(genres: pl.Expr) -> dict[str, Field]:
    return {
        schema.ITEM_ID: identifier("movieId"),
        "title": text("title"),
        "category": of_expr(pl.when(genres != "").then(genres)),
    }


def _listed_genres() -> pl.Expr:
    return pl.col("genres").replace(_NO_GENRES, None).str.replace_all("|", ", ", literal=True)


def _flagged_genres() -> pl.Expr:
    named = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES]
    return pl.concat_str(named, separator=", ", ignore_nulls=True)


def _rating() -> dict[str, Field]:
    return {
        schema.USER_ID: identifier("userId"),
        schema.ITEM_ID: identifier("movieId"),
        schema.TIMESTAMP: seconds("timestamp", "s"),
        schema.VALUE: number("rating"),
    }
