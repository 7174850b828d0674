"""The preparation as SQL text: one definition for an embedded engine and for a cluster.

The statements use standard SQL only (joins, groupings, window functions; no as-of join, no engine's
own functions) on the relations `raw_events` and `raw_samples`. Only lists are spelled differently
by every engine; `sql.Dialect` has those words. Null and ties are ordered explicitly.

    users             key, part and split moments of every user that has samples (`users.py`)
    vocabulary_<t>    value -> id of table t, by falling count, then value; before validation only
    lists_<r>_<f>     list of values -> list of ids, for multi-valued field f of relation r
    encoded_<r>       rows with ids instead of values
    timeline          events and samples of a part in one order, in which events are counted
"""

from ranker_data.layout import field_columns, weights_column
from ranker_data.preparation.plan import OWN_NULL, Preparation
from ranker_data.preparation.sql import LARGEST_FLOAT, Dialect, quote
from ranker_data.schema import Field

EVENTS_WITHOUT_SAMPLES = """
SELECT count(*) FROM raw_events e
LEFT JOIN users u ON CAST(e."user" AS STRING) = u.name WHERE u.name IS NULL
"""


def vocabulary_sql(plan: Preparation, table: str, dialect: Dialect) -> str:
    """Returns the vocabulary of one table: value, id >= 1 and count."""
    relations = (("events", plan.behaviors), ("samples", plan.fields))
    seen = [
        _values_sql(plan, name, field, dialect)
        for name, fields in relations
        for field in fields
        if field.table == table
    ]
    union = "\n        UNION ALL ".join(seen)
    return f"""
    WITH seen AS (
        {union}
    ),
    counted AS (
        SELECT value, count(*) AS n FROM seen WHERE value IS NOT NULL
        GROUP BY value HAVING count(*) >= {plan.min_count.get(table, 1)}
    )
    SELECT
        value,
        CAST(row_number() OVER (ORDER BY n DESC, value) AS BIGINT) AS id,
        CAST(n AS BIGINT) AS n
    FROM counted
    """


def _value_sql(plan: Preparation, field: Field) -> str:
    """The text of an id field's value."""
    text = f"CAST(r.{quote(field.name)} AS STRING)"
    return f"coalesce({text}, '{OWN_NULL}')" if plan.nulls.get(field.name) == "own" else text


def _hashed_sql(size: int | None, value: str, dialect: Dialect) -> str:
    """The hash of a value, at least 1; 0 for null."""
    number = dialect.hash.format(value)
    within = number if size is None else f"{number} % {size - 1}"
    return f"coalesce(1 + {within}, 0)"


def _values_sql(plan: Preparation, relation: str, field: Field, dialect: Dialect) -> str:
    column = quote(field.name)
    rows = (
        f'raw_{relation} r JOIN users u ON CAST(r."user" AS STRING) = u.name '
        'WHERE r."time" < u.valid_from'
    )
    if field.kind == "id":
        return f"SELECT {_value_sql(plan, field)} AS value FROM {rows}"
    lists = f"SELECT r.{column} AS list FROM {rows} AND r.{column} IS NOT NULL"
    elements = dialect.explode.replace("FROM lists", f"FROM ({lists})")
    return f"SELECT CAST(value AS STRING) AS value FROM ({elements})"


def lists_sql(plan: Preparation, relation: str, field: Field, dialect: Dialect) -> str:
    """Returns the ids of every distinct list of a multi-valued field."""
    column = quote(field.name)
    text = "CAST(e.value AS STRING)"
    if field.table is not None and field.table in plan.hashed:
        id_sql, join = _hashed_sql(plan.hashed[field.table], text, dialect), ""
    else:
        id_sql = "coalesce(v.id, 0)"
        join = f"LEFT JOIN {quote(f'vocabulary_{field.table}')} v ON {text} = v.value"
    return f"""
    WITH lists AS (SELECT DISTINCT {column} AS list FROM raw_{relation} WHERE {column} IS NOT NULL),
    elements AS ({dialect.explode}),
    known AS (
        SELECT e.list, e.position, {id_sql} AS id FROM elements e {join}
    )
    SELECT list, {dialect.collect} AS ids FROM known GROUP BY list
    """


def encoded_events_sql(plan: Preparation, columns: set[str], dialect: Dialect) -> str:
    """Returns the events with ids, part and whether they may be used for statistics (`fit`)."""
    values, joins = _encode(plan, "events", plan.behaviors, dialect)
    order = 'CAST(r."order" AS BIGINT)' if "order" in columns else "0"
    return f"""
    SELECT
        u.part AS part,
        u.user_key AS "user",
        CAST(r."time" AS BIGINT) AS "time",
        {order} AS "order",
        r."time" < u.valid_from AS fit{"".join(f", {value}" for value in values)}
    FROM raw_events r JOIN users u ON CAST(r."user" AS STRING) = u.name {" ".join(joins)}
    """


def encoded_samples_sql(
    plan: Preparation, columns: set[str], truths: tuple[str, ...], dialect: Dialect
) -> str:
    """Returns the samples with ids, part and split."""
    values, joins = _encode(plan, "samples", plan.fields, dialect)
    values += [
        f"CAST(r.{quote(label.name)} AS FLOAT) AS {quote(label.name)}" for label in plan.labels
    ]
    values += [f"CAST(r.{quote(name)} AS DOUBLE) AS {quote(name)}" for name in truths]
    order = 'CAST(r."order" AS BIGINT)' if "order" in columns else "0"
    request = 'CAST(r."request" AS STRING)' if "request" in columns else "CAST(NULL AS STRING)"
    weight = 'CAST(r."weight" AS FLOAT)' if "weight" in columns else "CAST(1 AS FLOAT)"
    return f"""
    SELECT
        u.part AS part,
        u.user_key AS "user",
        u.first_sample AS first_sample,
        CAST(r."time" AS BIGINT) AS "time",
        {order} AS "order",
        {request} AS "request",
        {weight} AS "weight",
        CASE WHEN r."time" < u.valid_from THEN 'train'
            WHEN r."time" < u.test_from THEN 'valid'
            ELSE 'test' END AS split{"".join(f", {value}" for value in values)}
    FROM raw_samples r JOIN users u ON CAST(r."user" AS STRING) = u.name {" ".join(joins)}
    """


def _encode(
    plan: Preparation, relation: str, fields: tuple[Field, ...], dialect: Dialect
) -> tuple[list[str], list[str]]:
    values, joins = [], []
    for index, field in enumerate(fields):
        column = quote(field.name)
        if field.kind == "dense":
            value = f"r.{column}"
            if field.name in plan.nulls:
                # a null compares as null, so it is not kept either
                kept = f"abs(CAST({value} AS DOUBLE)) <= {LARGEST_FLOAT}"
                value = f"CASE WHEN {kept} THEN {value} ELSE {plan.nulls[field.name]} END"
            values.append(f"CAST({value} AS FLOAT) AS {column}")
        elif field.kind == "id" and field.table is not None and field.table in plan.hashed:
            hashed = _hashed_sql(plan.hashed[field.table], _value_sql(plan, field), dialect)
            values.append(f"{hashed} AS {column}")
        elif field.kind == "id":
            values.append(f"coalesce(t{index}.id, 0) AS {column}")
            vocabulary = quote(f"vocabulary_{field.table}")
            joins.append(
                f"LEFT JOIN {vocabulary} t{index} ON {_value_sql(plan, field)} = t{index}.value"
            )
        else:
            values.append(f"coalesce(t{index}.ids, {dialect.empty_list('BIGINT')}) AS {column}")
            if field.weighted:
                weights = quote(weights_column(field))
                kind = dialect.list_type.format("FLOAT")
                values.append(
                    f"coalesce(CAST(r.{weights} AS {kind}), {dialect.empty_list('FLOAT')}) "
                    f"AS {weights}"
                )
            lists = quote(f"lists_{relation}_{field.name}")
            joins.append(f"LEFT JOIN {lists} t{index} ON r.{column} = t{index}.list")
    return values, joins


def part_events_sql(plan: Preparation) -> str:
    """Returns the events of `encoded_events`, whose order is `events_order`."""
    names = [
        '"user"',
        '"time"',
        '"order"',
        *(quote(name) for name in field_columns(plan.behaviors)),
    ]
    return f"SELECT part, {', '.join(names)} FROM encoded_events"


def events_order(plan: Preparation) -> tuple[str, ...]:
    """Returns the order of the events of a part: all columns, so that it leaves nothing open."""
    return ('"user"', '"time"', '"order"', *(quote(name) for name in field_columns(plan.behaviors)))


def part_samples_sql(plan: Preparation, truths: tuple[str, ...]) -> str:
    """Returns the samples of `encoded_samples` with the number of earlier `encoded_events`.

    The as-of join is a running count over events and samples in one order. At equal times samples
    come before events, so that only strictly earlier events are counted. Samples are in order if
    they are ordered by `sample_id`.
    """
    fields = [quote(name) for name in field_columns(plan.fields)]
    rest = [quote(label.name) for label in plan.labels] + [
        '"weight"',
        *(quote(name) for name in truths),
    ]
    ties = ", ".join(f"{name} NULLS FIRST" for name in ['"request"', *fields, *rest])
    return f"""
    WITH numbered AS (
        SELECT *, first_sample + row_number() OVER (
            PARTITION BY "user" ORDER BY "time", "order", {ties}
        ) - 1 AS sample_id
        FROM encoded_samples
    ),
    timeline AS (
        SELECT "user", "time", 0 AS is_event, sample_id FROM numbered
        UNION ALL SELECT "user", "time", 1 AS is_event, CAST(NULL AS BIGINT) AS sample_id
            FROM encoded_events
    ),
    counted AS (
        SELECT sample_id, is_event, sum(is_event) OVER (
            PARTITION BY "user" ORDER BY "time", is_event
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS history_end
        FROM timeline
    )
    SELECT
        n.part, n.split, n.sample_id, n."user", n."time",
        CASE WHEN n."request" IS NULL THEN n.sample_id
            ELSE min(n.sample_id) OVER (PARTITION BY n."user", n."request") END AS "request",
        CAST(c.history_end AS BIGINT) AS history_end,
        {", ".join(f"n.{name}" for name in [*fields, *rest])}
    FROM numbered n JOIN counted c ON n.sample_id = c.sample_id AND c.is_event = 0
    """


def moments_sql(relation: str, fields: tuple[Field, ...], condition: str) -> str:
    """Returns mean and standard deviation of dense fields over the rows that meet a condition."""
    values = []
    for field in fields:
        column = f"CAST({quote(field.name)} AS DOUBLE)"
        values += [f"avg({column})", f"stddev_pop({column})"]
    return f"SELECT {', '.join(values)} FROM {relation} WHERE {condition}"
