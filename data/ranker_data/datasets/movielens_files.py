"""The file formats of MovieLens, and their files as SQL relations with common names.

ratings   user_id, item_id, rating, time
movies    item_id, genres (a list of strings)
users     user_id and any of gender, age, occupation
"""

import dataclasses
import difflib
from pathlib import Path
from typing import Literal

import duckdb

from ranker_data.preparation.sql import quote, quote_text

_PROFILE = ("gender", "age", "occupation")
_DAT_COLUMNS = {
    "ratings": ("user_id", "item_id", "rating", "time"),
    "movies": ("item_id", "title", "genres"),
    "users": ("user_id", "gender", "age", "occupation", "zip"),
}
_GENRE_COLUMNS = ("genre", "genres", "class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovielensFiles:
    """Files of one folder; movies and users may be missing."""

    kind: Literal["dat", "csv", "atomic"]
    ratings: Path
    movies: Path | None
    users: Path | None


def find_format(source: Path) -> MovielensFiles:
    """Returns the MovieLens files of a folder.

    Raises:
        ValueError: there are none, or more than one data set.
    """
    for kind in ("dat", "csv"):
        if (source / f"ratings.{kind}").is_file():
            return MovielensFiles(
                kind="dat" if kind == "dat" else "csv",
                ratings=source / f"ratings.{kind}",
                movies=_if_file(source / f"movies.{kind}"),
                users=_if_file(source / f"users.{kind}"),
            )
    if (source / "inter.parquet").is_file():
        return MovielensFiles(
            kind="atomic",
            ratings=source / "inter.parquet",
            movies=_if_file(source / "item.parquet"),
            users=_if_file(source / "user.parquet"),
        )
    found = sorted(source.glob("*.inter"))
    if len(found) > 1:
        raise ValueError(
            f"{source} holds several data sets ({', '.join(p.name for p in found)}); keep one"
        )
    if not found:
        raise ValueError(
            f"{source} holds no MovieLens files; expected ratings.dat, ratings.csv, inter.parquet "
            "or <name>.inter"
        )
    return MovielensFiles(
        kind="atomic",
        ratings=found[0],
        movies=_if_file(found[0].with_suffix(".item")),
        users=_if_file(found[0].with_suffix(".user")),
    )


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def create_relations(
    connection: duckdb.DuckDBPyConnection, files: MovielensFiles
) -> tuple[str, ...]:
    """Creates the relations `ratings`, `movies` and `users`; returns the users' profile columns.

    Raises:
        ValueError: a file cannot be parsed or lacks a column.
    """
    create = {"dat": _create_from_dat, "csv": _create_from_csv, "atomic": _create_from_atomic}
    return create[files.kind](connection, files)


def _create_from_dat(
    connection: duckdb.DuckDBPyConnection, files: MovielensFiles
) -> tuple[str, ...]:
    ratings = _dat_sql("ratings", files.ratings)
    connection.execute(
        f"CREATE TABLE ratings AS SELECT user_id, item_id, CAST(rating AS DOUBLE) AS rating, "
        f'CAST("time" AS BIGINT) AS "time" FROM {ratings}'
    )
    _create_movies(connection, _dat_sql("movies", files.movies) if files.movies else None, "|")
    if files.users is None:
        return ()
    connection.execute(f"CREATE TABLE users AS SELECT * FROM {_dat_sql('users', files.users)}")
    return _PROFILE


def _dat_sql(name: str, path: Path) -> str:
    columns = ", ".join(f"'{column}': 'VARCHAR'" for column in _DAT_COLUMNS[name])
    return (
        f"read_csv({quote_text(str(path))}, delim = '::', header = false, columns = "
        f"{{{columns}}}, quote = '', "
        "escape = '', encoding = 'latin-1', auto_detect = false)"
    )


def _create_from_csv(
    connection: duckdb.DuckDBPyConnection, files: MovielensFiles
) -> tuple[str, ...]:
    names = _columns(connection, files.ratings, ("userId", "movieId", "rating", "timestamp"))
    connection.execute(
        f"CREATE TABLE ratings AS SELECT {quote(names[0])} AS user_id, {quote(names[1])} AS "
        "item_id, "
        f'CAST({quote(names[2])} AS DOUBLE) AS rating, CAST({quote(names[3])} AS BIGINT) AS "time" '
        f"FROM {_text_sql(files.ratings)}"
    )
    movies = None
    if files.movies is not None:
        _columns(connection, files.movies, ("movieId", "genres"))
        movies = f"(SELECT movieId AS item_id, genres FROM {_text_sql(files.movies)})"
    _create_movies(connection, movies, "|")
    return ()


def _create_from_atomic(
    connection: duckdb.DuckDBPyConnection, files: MovielensFiles
) -> tuple[str, ...]:
    expected = ("user_id", "item_id", "rating", "timestamp")
    user, item, rating, time = _columns(connection, files.ratings, expected)
    connection.execute(
        f"CREATE TABLE ratings AS SELECT CAST({quote(user)} AS STRING) AS user_id, "
        f"CAST({quote(item)} AS STRING) AS item_id, CAST({quote(rating)} AS DOUBLE) AS rating, "
        f'CAST(CAST({quote(time)} AS DOUBLE) AS BIGINT) AS "time" FROM {_text_sql(files.ratings)}'
    )
    movies = None
    if files.movies is not None:
        names = _plain_names(connection, files.movies)
        genre = next((name for name in _GENRE_COLUMNS if name in names), None)
        (item,) = _columns(connection, files.movies, ("item_id",))
        genres = f"CAST({quote(names[genre])} AS STRING)" if genre else "CAST(NULL AS STRING)"
        movies = (
            f"(SELECT CAST({quote(item)} AS STRING) AS item_id, {genres} AS genres "
            f"FROM {_text_sql(files.movies)})"
        )
    _create_movies(connection, movies, " ")
    if files.users is None:
        return ()
    names = _plain_names(connection, files.users)
    (user,) = _columns(connection, files.users, ("user_id",))
    profile = tuple(name for name in _PROFILE if name in names)
    columns = "".join(f", {quote(names[name])} AS {name}" for name in profile)
    connection.execute(
        f"CREATE TABLE users AS SELECT CAST({quote(user)} AS STRING) AS user_id{columns} "
        f"FROM {_text_sql(files.users)}"
    )
    return profile


def _create_movies(
    connection: duckdb.DuckDBPyConnection, relation: str | None, separator: str
) -> None:
    if relation is None:
        connection.execute("CREATE TABLE movies (item_id VARCHAR, genres VARCHAR[])")
        return
    none = "'', '(no genres listed)'"
    connection.execute(
        f"CREATE TABLE movies AS SELECT item_id, CASE WHEN genres IN ({none}) THEN CAST([] AS "
        "VARCHAR[]) "
        f"ELSE string_split(genres, '{separator}') END AS genres FROM {relation}"
    )


def _text_sql(path: Path) -> str:
    """A Parquet file, or a text file with a header, read as strings."""
    if path.suffix == ".parquet":
        return f"read_parquet({quote_text(str(path))})"
    delimiter = "," if path.suffix == ".csv" else "\\t"
    quotes = "'\"'" if path.suffix == ".csv" else "''"
    return (
        f"read_csv({quote_text(str(path))}, delim = '{delimiter}', header = true, all_varchar = "
        "true, "
        f"quote = {quotes}, escape = {quotes})"
    )


def _plain_names(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    """Returns the full column name by the name without its type: {"user_id": "user_id:token"}."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {_text_sql(path)}").fetchall()
    return {row[0].split(":")[0]: row[0] for row in rows}


def _columns(
    connection: duckdb.DuckDBPyConnection, path: Path, expected: tuple[str, ...]
) -> list[str]:
    """Returns the full names of expected columns."""
    names = _plain_names(connection, path)
    problems = []
    for name in expected:
        if name not in names:
            close = difflib.get_close_matches(name, list(names), n=1)
            problems.append(
                f"column {name!r} is missing" + (f"; did you mean {close[0]!r}?" if close else "")
            )
    if problems:
        raise ValueError(f"{path}: {', '.join(problems)}")
    return [names[name] for name in expected]
