"""Original files as SQL: where they are, and what their columns are called."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import duckdb

from ranker_data.preparation.sql import quote_text

TEXT_SUFFIXES = (".csv", ".csv.gz", ".parquet")


def find_file(source: Path | None, stems: Sequence[str], suffixes: Sequence[str]) -> Path:
    """Returns the first file `<stem><suffix>` of a folder; a file is its own answer.

    Raises:
        ValueError: there is no such file.
    """
    if source is None:
        names = ", ".join(f"{stem}{suffixes[0]}" for stem in stems)
        raise ValueError(f"source is missing; give the folder with the original files ({names})")
    if source.is_file():
        return source
    found = find_optional_file(source, stems, suffixes)
    if found is None:
        names = ", ".join(f"{stem}{suffix}" for stem in stems for suffix in suffixes)
        raise ValueError(f"{source} has none of the original files {names}; check source")
    return found


def find_optional_file(source: Path, stems: Sequence[str], suffixes: Sequence[str]) -> Path | None:
    """Returns the first file `<stem><suffix>` of a folder, or None."""
    candidates = (source / f"{stem}{suffix}" for stem in stems for suffix in suffixes)
    return next((path for path in candidates if path.is_file()), None)


def table_sql(
    path: Path,
    *,
    names: Sequence[str] | None = None,
    delimiter: str = ",",
    null_texts: Sequence[str] = ("",),
    quoted: bool = True,
) -> str:
    """Returns a relation with the rows of a Parquet or text file; text columns are strings.

    Args:
        path: the file; a text file may be compressed.
        names: columns of a text file without header; None if its first line names them.
        delimiter: between the columns of a text file.
        null_texts: what stands for null in a text file.
        quoted: whether values of a text file may be in double quotes.
    """
    if path.suffix == ".parquet":
        return f"read_parquet({quote_text(str(path))})"
    nulls = ", ".join(quote_text(text) for text in null_texts)
    mark = "'\"'" if quoted else "''"
    options = [
        f"delim = {quote_text(delimiter)}",
        f"nullstr = [{nulls}]",
        f"quote = {mark}",
        f"escape = {mark}",
        "auto_detect = false" if names is not None else "all_varchar = true",
    ]
    if names is None:
        options.append("header = true")
    else:
        columns = ", ".join(f"{quote_text(name)}: 'VARCHAR'" for name in names)
        options += ["header = false", f"columns = {{{columns}}}"]
    return f"read_csv({quote_text(str(path))}, {', '.join(options)})"


def column_types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Returns the SQL type of every column."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1] for row in rows}


def check_has_columns(
    connection: duckdb.DuckDBPyConnection, path: Path, relation: str, expected: Sequence[str]
) -> None:
    """Checks that a file has the columns that a converter needs.

    Raises:
        ValueError: lists every missing column with the nearest name.
    """
    found = list(column_types(connection, relation))
    problems = []
    for name in expected:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            problems.append(f"column {name!r} is missing{hint}")
    if problems:
        raise ValueError(f"{path}: {', '.join(problems)}")
