"""Taobao UserBehavior (Zhu et al. 2018; Tianchi 649): page views, carts, favourites and purchases.

The log has what users looked at, not what they were shown. A page view is a clicked sample, and
items drawn from earlier page views of everybody stand in for what was shown and not clicked.
"""

from pathlib import Path

import duckdb

from ranker_data.datasets.conversion import RawRelations, convert, count_rows
from ranker_data.datasets.negatives import negatives_sql
from ranker_data.datasets.original_files import (
    TEXT_SUFFIXES,
    check_has_columns,
    find_file,
    table_sql,
)
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.schema import Field, Label, Schema, Task

COLUMNS = ("user_id", "item_id", "category_id", "behavior", "timestamp")
# the nine days of the log, 2017-11-25 to 2017-12-03 in Beijing; the file has a few stray times
_FIRST, _END = 1_511_539_200, 1_512_316_800
_KINDS = ("buy", "cart", "fav")


class TaobaoConverter:
    """Converts `UserBehavior.csv`, which has no header, or a file of its rows with named columns.

    labels
        click           the user viewed the item (1) or it was drawn (0)
        buy, cart, fav  a clicked item was bought, ... by this user within `label_hours`
    events
        all rows of the log, with the kind of behaviour as a cross feature
    """

    def __init__(
        self,
        *,
        label_hours: int = 24,
        negatives: int = 4,
        seed: int = 2026,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_item_count: int = 1,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            label_hours: how long after a page view a purchase counts. Views in the last hours of
                the log, whose outcome is not known, are events but no samples.
            negatives: drawn items per page view; 0 for the click -> buy task alone.
            seed: of the draws.
            valid_fraction: share of the samples for validation.
            test_fraction: share of the samples for testing, the last ones.
            min_item_count: items seen less often than this before validation get id 0.
            num_parts: number of co-partitioned files.
        """
        if label_hours < 1 or negatives < 0:
            raise ValueError(
                f"dataset.converter.label_hours ({label_hours}) must be at least 1 and negatives "
                f"({negatives}) not negative"
            )
        self._label_seconds = label_hours * 3600
        self._negatives = negatives
        self._seed = seed
        self._plan = _plan(
            TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction),
            min_item_count,
            num_parts,
        )

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the file in `source`, or the file `source`."""
        path = find_file(source, ["UserBehavior"], TEXT_SUFFIXES)

        def build(connection: duckdb.DuckDBPyConnection) -> RawRelations:
            relation = table_sql(path, names=COLUMNS)
            check_has_columns(connection, path, relation, COLUMNS)
            return self._build(connection, relation)

        settings = {
            "converter": "taobao",
            "label_seconds": self._label_seconds,
            "negatives": self._negatives,
            "seed": self._seed,
            "plan": self._plan.digest(),
        }
        return convert(build, out=out, settings=settings, engine=engine)

    def _build(self, connection: duckdb.DuckDBPyConnection, relation: str) -> RawRelations:
        connection.execute(
            f"""
            CREATE TABLE log AS
            SELECT CAST(user_id AS BIGINT) AS user_id, CAST(item_id AS BIGINT) AS item_id,
                CAST(category_id AS BIGINT) AS category, behavior,
                CAST("timestamp" AS BIGINT) AS "time"
            FROM {relation}
            """
        )
        num_rows = count_rows(connection, "log")
        # a repeated row is the same event logged twice
        connection.execute(
            f"""
            CREATE TABLE known AS
            SELECT DISTINCT * FROM log WHERE "time" >= {_FIRST} AND "time" < {_END}
            """
        )
        connection.execute('CREATE VIEW event AS SELECT user_id AS "user", * FROM known')
        connection.execute(_VIEWS_SQL)
        connection.execute(_views_in_time_sql(_END - self._label_seconds))
        connection.execute(_samples_sql(self._negatives, self._seed, self._label_seconds))
        outside = count_rows(connection, "log", f'"time" < {_FIRST} OR "time" >= {_END}')
        return RawRelations(
            plan=self._plan,
            counts={
                "rows_outside_the_nine_days": outside,
                "repeated_rows": num_rows - outside - count_rows(connection, "known"),
                "page_views_with_unknown_outcome": count_rows(connection, "views")
                - count_rows(connection, "positive"),
            },
        )


_VIEWS_SQL = """
CREATE TABLE views AS
SELECT *, row_number() OVER (ORDER BY "time", user_id, item_id) - 1 AS place,
    rank() OVER (ORDER BY "time") - 1 AS available
FROM known WHERE behavior = 'pv'
"""


def _views_in_time_sql(end: int) -> str:
    """The page views whose outcome is known; the key names the view in any engine."""
    return f"""
    CREATE TABLE positive AS
    SELECT *, concat_ws('|', user_id, "time", item_id) AS key, user_id AS scope
    FROM views WHERE "time" < {end}
    """


def _samples_sql(negatives: int, seed: int, label_seconds: int) -> str:
    drawn = negatives_sql(
        positives="positive",
        pool="views",
        refused="(SELECT DISTINCT user_id AS scope, item_id FROM known)",
        count=negatives,
        seed=seed,
    )
    outcomes = ", ".join(
        f"coalesce(max(CASE WHEN k.behavior = '{kind}' THEN 1 ELSE 0 END), 0) AS {kind}"
        for kind in _KINDS
    )
    zeros = ", ".join(f"0 AS {kind}" for kind in _KINDS)
    return f"""
    CREATE VIEW sample AS
    WITH drawn AS ({drawn}),
    category AS (SELECT item_id, min(category) AS category FROM known GROUP BY item_id),
    viewed AS (
        SELECT p.key, p.user_id, p."time", p.item_id, any_value(p.category) AS category,
            1 AS click, {outcomes}
        FROM positive p LEFT JOIN known k ON p.user_id = k.user_id AND p.item_id = k.item_id
            AND k."time" >= p."time" AND k."time" <= p."time" + {label_seconds}
        GROUP BY p.key, p.user_id, p."time", p.item_id
    ),
    unseen AS (
        SELECT p.key, p.user_id, p."time", d.item_id, c.category, 0 AS click, {zeros}
        FROM drawn d JOIN positive p ON d.key = p.key JOIN category c ON d.item_id = c.item_id
    ),
    together AS (SELECT * FROM viewed UNION ALL SELECT * FROM unseen)
    SELECT *, user_id AS "user", key AS request,
        CAST(("time" + 28800) // 3600 % 24 AS BIGINT) AS hour
    FROM together
    """


def _plan(split: TimeSplit, min_item_count: int, num_parts: int) -> Preparation:
    return Preparation(
        name="taobao",
        time_unit="s",
        fields=(
            Field(name="user_id", kind="id", side="user", table="user"),
            Field(name="item_id", kind="id", table="item"),
            Field(name="category", kind="id", table="category"),
            Field(name="hour", kind="id", side="context", table="hour"),
        ),
        behaviors=(
            Field(name="item_id", kind="id", table="item"),
            Field(name="category", kind="id", table="category"),
            Field(name="behavior", kind="id", table="behavior"),
        ),
        labels=(
            Label(name="click"),
            Label(name="buy", requires="click"),
            Label(name="cart", requires="click"),
            Label(name="fav", requires="click"),
        ),
        tasks=(
            Task(name="ctr", label="click"),
            Task(name="cvr", label="buy", condition="click"),
            Task(name="ctcvr", label="buy"),
            Task(name="cart", label="cart", condition="click"),
            Task(name="fav", label="fav", condition="click"),
        ),
        group="user",
        split=split,
        min_count={"item": min_item_count},
        num_parts=num_parts,
    )
