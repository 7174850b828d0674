"""Histories that samples carry as list columns, turned into events that are stored once.

Input is the relation `inlined`: user, time, and one list column per behaviour field (and
`event_time` if the events have times). Output is the relation `event`.
"""

from collections.abc import Sequence

import duckdb

from ranker_data.preparation.sql import quote


def create_events(
    connection: duckdb.DuckDBPyConnection, behaviors: Sequence[str], *, with_times: bool
) -> None:
    """Creates the relation `event` from `inlined`.

    Raises:
        ValueError: lists of a sample differ in length, show the future, or contradict each other.
    """
    columns = [quote(name) for name in behaviors]
    lists = [*columns, "event_time"] if with_times else columns
    lengths = [f"coalesce(len({name}), 0)" for name in lists]
    differ = " OR ".join(f"{length} <> {lengths[0]}" for length in lengths[1:]) or "false"
    _refuse(
        connection,
        f'SELECT "user", "time" FROM inlined WHERE {differ}',
        "the list columns of history have different lengths; they must be parallel",
    )
    if with_times:
        _create_from_times(connection, columns)
    else:
        _create_from_prefixes(connection, columns, lengths[0])


def _create_from_times(connection: duckdb.DuckDBPyConnection, columns: list[str]) -> None:
    """An event that is in many lists is stored once; as often as any one list has it."""
    _refuse(
        connection,
        'SELECT "user", "time" FROM inlined WHERE list_max(event_time) >= "time"',
        "history shows an event that is not earlier than the sample; remove such events",
    )
    unnested = ", ".join(f"unnest({name}) AS {name}" for name in columns)
    names = ", ".join(columns)
    connection.execute(
        f"""
        CREATE VIEW event AS
        WITH numbered AS (SELECT *, row_number() OVER () AS sample FROM inlined),
        listed AS (SELECT sample, "user", unnest(event_time) AS "time", {unnested} FROM numbered),
        copies AS (
            SELECT *, row_number() OVER (PARTITION BY sample, "time", {names}) AS copy FROM listed
        ),
        once AS (SELECT DISTINCT "user", "time", copy, {names} FROM copies)
        SELECT "user", "time", {names} FROM once
        """
    )


def _create_from_prefixes(
    connection: duckdb.DuckDBPyConnection, columns: list[str], length: str
) -> None:
    """Event j happened just before the first sample whose list has more than j events."""
    packed = ", ".join(f"{name} := {name}" for name in columns)
    connection.execute(
        f"""
        CREATE TABLE longest AS
        SELECT "user", max({length}) AS n, arg_max(struct_pack({packed}), {length}) AS lists
        FROM inlined GROUP BY "user"
        """
    )
    broken = " OR ".join(f"i.{name} <> l.lists.{name}[:{length}]" for name in columns)
    # names of the join, because both sides know them
    broken = broken.replace(f"[:{length}]", f"[:coalesce(len(i.{columns[0]}), 0)]")
    _refuse(
        connection,
        f'SELECT i."user", i."time" FROM inlined i JOIN longest l ON i."user" = l."user" '
        f"WHERE {broken}",
        "the list is not the beginning of the user's longest one; give history.time, or lists that "
        "are not cut off",
    )
    _refuse(
        connection,
        f"""
        SELECT "user", "time" FROM (
            SELECT "user", "time", {length} AS n, max({length}) OVER (
                PARTITION BY "user" ORDER BY "time" RANGE UNBOUNDED PRECEDING
            ) AS longest FROM inlined
        ) WHERE n < longest
        """,
        "an earlier sample of this user, or one at the same time, has a longer list; give "
        "history.time",
    )
    elements = ", ".join(f"l.lists.{name}[g.place + 1] AS {name}" for name in columns)
    connection.execute(
        f"""
        CREATE VIEW event AS
        WITH grown AS (
            SELECT "user", {length} AS n, min("time") AS moment FROM inlined GROUP BY ALL
        ),
        spans AS (
            SELECT *, lag(n, 1, 0) OVER (PARTITION BY "user" ORDER BY n) AS begin FROM grown
        ),
        growth AS (SELECT "user", moment, unnest(range(begin, n)) AS place FROM spans)
        SELECT g."user", g.moment - 1 AS "time", g.place AS "order", {elements}
        FROM growth g JOIN longest l ON g."user" = l."user"
        """
    )


def _refuse(connection: duckdb.DuckDBPyConnection, sql: str, problem: str) -> None:
    """Raises a ValueError if a query has rows, naming the first user and time."""
    rows = connection.execute(
        f'SELECT count(*), min("user"), arg_min("time", "user") FROM ({sql})'
    ).fetchall()
    count, user, time = rows[0]
    if count:
        raise ValueError(
            f"{count} sample(s), such as that of user {user} at time {time}: {problem}"
        )
