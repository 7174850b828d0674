"""The raw events and samples that a preparation reads: Parquet files or an Arrow table."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from ranker_data.reader import DataError

_THREADS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedFiles:
    """Parquet files whose columns have other names.

    Attributes:
        paths: of the files.
        columns: our name -> the files' name, where they differ; two of ours may be one of theirs.
    """

    paths: Sequence[Path]
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)


RawData: TypeAlias = pa.Table | Path | Sequence[Path] | NamedFiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A raw relation.

    Attributes:
        name: "events" or "samples"; the SQL relation is called `raw_events` or `raw_samples`.
        schema: names and types of the columns.
        located: a FROM clause whose rows also have `_file` and `_row`, to name a bad value's place.
        num_rows: number of rows.
    """

    name: str
    schema: pa.Schema
    located: str
    num_rows: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawFiles:
    """The Parquet files of a raw relation.

    Attributes:
        paths: of the files.
        schema: columns that are read under our names, with a type that holds the values of every
            file.
        originals: our name -> the files' name.
        num_rows: of all files.
    """

    paths: tuple[Path, ...]
    schema: pa.Schema
    originals: Mapping[str, str]
    num_rows: int


FileData: TypeAlias = Path | Sequence[Path] | NamedFiles


def list_files(name: str, data: FileData, wanted: Collection[str]) -> RawFiles:
    """Finds the files of a raw relation and compares their columns.

    Files may have their columns in any order, and further columns, which are not read. Integers of
    different width, and floats, are widened.

    Args:
        name: "events" or "samples".
        data: a Parquet file, a folder of Parquet files, or a list of Parquet files.
        wanted: columns, under our names, that are read if the first file has them.

    Raises:
        DataError: there are no files, some cannot be read, or their columns do not fit together;
            every problem of every file is listed.
    """
    paths = _find_files(name, data)
    problems: list[str] = []
    columns = data.columns if isinstance(data, NamedFiles) else {}
    originals = {ours: columns.get(ours, ours) for ours in sorted(wanted)}
    read = set(originals.values())
    num_rows, types = 0, dict[str, pa.DataType]()
    first: Path | None = None
    # reading a footer is waiting, so that threads help
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        for path, found in zip(paths, pool.map(_read_footer, paths), strict=True):
            if isinstance(found, str):
                problems.append(found)
                continue
            schema, rows = found
            num_rows += rows
            if first is None:
                first = path
                # a name that is there twice is a problem, which one type does not hide
                types = {
                    n: schema.field(schema.names.index(n)).type for n in schema.names if n in read
                }
            problems += _widen(types, path, schema, first)
    if not problems and not types:
        problems.append(f"{paths[0]} has none of the columns {', '.join(sorted(read))}")
    if problems:
        listed = "\n  ".join(problems)
        raise DataError(f"{len(problems)} problem(s) in {len(paths)} files of {name}:\n  {listed}")
    originals = {ours: theirs for ours, theirs in originals.items() if theirs in types}
    return RawFiles(
        paths=tuple(paths),
        schema=pa.schema([(ours, types[theirs]) for ours, theirs in originals.items()]),
        originals=originals,
        num_rows=num_rows,
    )


def leave_out_bad_files(name: str, data: FileData, share: float) -> tuple[NamedFiles, list[str]]:
    """Returns the readable files of a relation, and the others, if they are not too many.

    Raises:
        DataError: more than the given share of the files cannot be read; all of them are listed.
    """
    paths = _find_files(name, data)
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        footers = list(pool.map(_read_footer, paths))
    problems = [found for found in footers if isinstance(found, str)]
    if len(problems) > share * len(paths):
        listed = "\n  ".join(problems)
        raise DataError(
            f"{len(problems)} of {len(paths)} files of {name} cannot be read (bad_file_share "
            f"allows {share:.1%}):\n  {listed}"
        )
    bad = [str(p) for p, found in zip(paths, footers, strict=True) if isinstance(found, str)]
    good = [path for path in paths if str(path) not in bad]
    columns = data.columns if isinstance(data, NamedFiles) else {}
    return NamedFiles(paths=good, columns=columns), bad


def _find_files(name: str, data: FileData) -> list[Path]:
    if isinstance(data, NamedFiles):
        paths = list(data.paths)
    elif not isinstance(data, Path):
        paths = list(data)
    elif data.is_dir():
        paths = sorted(data.glob("*.parquet"))
    else:
        paths = [data]
    if not paths:
        raise DataError(f"{name}: {data} has no *.parquet files")
    return paths


def _read_footer(path: Path) -> tuple[pa.Schema, int] | str:
    """Returns columns and row count of a file, or what is wrong with it."""
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except (OSError, pa.ArrowInvalid) as error:
        return f"{path} is not a readable Parquet file ({error})"


def _widen(types: dict[str, pa.DataType], path: Path, schema: pa.Schema, first: Path) -> list[str]:
    """Widens the types to hold those of one more file; returns what does not fit."""
    problems = []
    for name, kind in types.items():
        twins = [n for n in schema.names if n.casefold() == name.casefold() and n != name]
        if schema.names.count(name) > 1:
            problems.append(f"{path}: column {name!r} is there twice")
        elif twins:
            problems.append(
                f"{path}: column {name!r} is also there as {twins[0]!r}; names must differ in more "
                "than case"
            )
        elif name not in schema.names:
            close = difflib.get_close_matches(name, schema.names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            problems.append(f"{path}: column {name!r}, which {first} has, is missing{hint}")
        else:
            wider = _wider(kind, schema.field(name).type)
            if wider is None:
                problems.append(
                    f"{path}: column {name!r} has type {schema.field(name).type}, but {kind} in "
                    f"{first}; cast it"
                )
            else:
                types[name] = wider
    return problems


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Returns a type that holds the values of both without loss, or None."""
    if one == other:
        return one
    if pa.types.is_list(one) and pa.types.is_list(other):
        element = _wider(one.value_type, other.value_type)
        return None if element is None else pa.list_(element)
    if pa.uint64() not in (one, other) and all(map(pa.types.is_integer, (one, other))):
        return pa.int64()
    return pa.float64() if {one, other} == {pa.float32(), pa.float64()} else None


def check_file_columns(paths: Sequence[Path], expected: Sequence[str]) -> None:
    """Checks that Parquet files can be read and have the columns that a converter needs.

    Raises:
        DataError: lists every bad file and every missing column with the nearest name.
    """
    problems = []
    for path in paths:
        try:
            found = pq.read_schema(path).names
        except (OSError, pa.ArrowInvalid) as error:
            problems.append(f"{path} is not a readable Parquet file ({error})")
            continue
        for name in expected:
            if name not in found:
                close = difflib.get_close_matches(name, found, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                problems.append(f"{path}: column {name!r} is missing{hint}")
    if problems:
        raise DataError(f"{len(problems)} problem(s):\n  " + "\n  ".join(problems))
