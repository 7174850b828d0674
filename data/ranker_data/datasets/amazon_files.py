"""The file formats of the Amazon reviews of 2014, 2018 and 2023, as SQL relations.

reviews    user_id, item_id, rating, time (seconds)
items      item_id, category (the finest one)
"""

import ast
import dataclasses
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ranker_data.datasets.original_files import check_has_columns, column_types, table_sql
from ranker_data.preparation.sql import quote_text

_JSON_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_CSV_SUFFIXES = (".csv", ".csv.gz")
# names of user, item, rating and time in the JSON lines of 2014 and 2018, and of 2023
_JSON_NAMES = (
    ("reviewerID", "asin", "overall", "unixReviewTime"),
    ("user_id", "parent_asin", "rating", "timestamp"),
)
_HEADER = "user_id"
_ITEM_LENGTH = 10
_ITEMS_PER_BATCH = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmazonFiles:
    """The reviews of one folder, and the items' descriptions if they are there."""

    reviews: Path
    items: Path | None


def find_files(source: Path | None) -> AmazonFiles:
    """Returns the files of one category.

    Raises:
        ValueError: there are no reviews, or those of several categories.
    """
    if source is None:
        raise ValueError(
            "source is missing; give the folder with the reviews of one category (JSON lines or "
            "CSV) and their meta_*.json"
        )
    if source.is_file():
        return AmazonFiles(reviews=source, items=None)
    known = sorted(p for p in source.iterdir() if p.name.endswith(_JSON_SUFFIXES + _CSV_SUFFIXES))
    items = [path for path in known if path.name.startswith("meta_")]
    reviews = [path for path in known if path not in items]
    for name, paths in (("reviews", reviews), ("meta_ files", items)):
        if len(paths) > 1:
            listed = ", ".join(path.name for path in paths)
            raise ValueError(f"{source} has {name} of several categories ({listed}); keep one")
    if not reviews:
        raise ValueError(
            f"{source} has no reviews; expected <reviews>.json, .jsonl or .csv, perhaps .gz"
        )
    return AmazonFiles(reviews=reviews[0], items=items[0] if items else None)


def create_relations(connection: duckdb.DuckDBPyConnection, files: AmazonFiles) -> None:
    """Creates the tables `reviews` and `items`; `line` is the place in the file.

    Raises:
        ValueError: a file has other columns, or a line of the descriptions cannot be parsed.
    """
    if files.reviews.name.endswith(_CSV_SUFFIXES):
        selected = _csv_sql(connection, files.reviews)
    else:
        selected = _json_sql(connection, files.reviews)
    connection.execute(
        f"""
        CREATE TABLE reviews AS
        SELECT user_id, item_id, CAST(rating AS DOUBLE) AS rating,
            CASE WHEN CAST("time" AS BIGINT) >= 100000000000 THEN CAST("time" AS BIGINT) // 1000
                ELSE CAST("time" AS BIGINT) END AS "time", row_number() OVER () AS line
        FROM ({selected})
        """
    )
    connection.execute("CREATE TABLE items (item_id VARCHAR, category VARCHAR)")
    if files.items is not None:
        for batch in _read_items(files.items):
            connection.register("batch", batch)
            connection.execute("INSERT INTO items SELECT * FROM batch")
            connection.unregister("batch")


def _json_sql(connection: duckdb.DuckDBPyConnection, path: Path) -> str:
    relation = f"read_json({quote_text(str(path))}, format = 'newline_delimited')"
    found = column_types(connection, relation)
    names = next((names for names in _JSON_NAMES if names[0] in found), _JSON_NAMES[0])
    check_has_columns(connection, path, relation, names)
    user, item, rating, time = names
    return (
        f'SELECT {user} AS user_id, {item} AS item_id, {rating} AS rating, "{time}" AS "time" '
        f"FROM {relation}"
    )


def _csv_sql(connection: duckdb.DuckDBPyConnection, path: Path) -> str:
    names = ("a", "b", "rating", "time")
    headed = table_sql(path)
    if _HEADER in column_types(connection, headed):
        check_has_columns(connection, path, headed, _JSON_NAMES[1])
        return (
            f'SELECT user_id, parent_asin AS item_id, rating, "timestamp" AS "time" FROM {headed}'
        )
    # without a header: users come first in 2014, items in 2018; an item has ten characters
    relation = table_sql(path, names=names)
    rows = connection.execute(
        f"SELECT bool_and(len(a) = {_ITEM_LENGTH}), bool_and(len(b) = {_ITEM_LENGTH}) "
        f"FROM (SELECT * FROM {relation} LIMIT 10000)"
    ).fetchall()
    first_is_item, second_is_item = rows[0]
    if first_is_item == second_is_item:
        raise ValueError(
            f"{path}: exactly one of the first two columns must hold items (ten characters); give "
            "the file a header: user_id,parent_asin,rating,timestamp"
        )
    user, item = ("b", "a") if first_is_item else ("a", "b")
    return f'SELECT {user} AS user_id, {item} AS item_id, rating, "time" FROM {relation}'


def _read_items(path: Path) -> Iterator[pa.Table]:
    """Reads JSON lines, or lines that are Python literals, as the descriptions of 2014 are."""
    schema = pa.schema([("item_id", pa.string()), ("category", pa.string())])
    rows: list[dict[str, str | None]] = []
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            rows.append(_item_of(line, f"{path}, line {number}"))
            if len(rows) == _ITEMS_PER_BATCH:
                yield pa.Table.from_pylist(rows, schema=schema)
                rows.clear()
    yield pa.Table.from_pylist(rows, schema=schema)


def _item_of(line: str, where: str) -> dict[str, str | None]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        try:
            value = ast.literal_eval(line)
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"{where} is neither JSON nor a Python literal: {error}") from error
    key = value.get("parent_asin") or value.get("asin")
    if key is None:
        raise ValueError(f"{where} has neither 'asin' nor 'parent_asin'")
    return {"item_id": str(key), "category": _finest(value)}


def _finest(value: dict[str, Any]) -> str | None:
    """The last category of the first path, as DIN's authors take it from the 2014 files."""
    # 2014: categories is a list of paths; 2018: category is a path; 2023: categories is a path
    path = value.get("categories") or value.get("category") or []
    if path and isinstance(path[0], list):
        path = path[0]
    return str(path[-1]) if path else None
