"""The preparation as SQL text: one definition for an embedded engine and for a cluster.

The statements use standard SQL only (joins, groupings, window functions; no as-of join, no engine's
own functions) on the relations `raw_events` and `raw_samples`. Only `EXPLODE`, `COLLECT` and
`EMPTY_LIST`, for multi-valued fields, are spelled differently elsewhere.

    users             key, part and split moments of every user that has samples
    vocabulary_<t>    value -> id of table t, by falling count, then value; before validation only
    lists_<r>_<f>     list of values -> list of ids, for multi-valued field f of relation r
    encoded           rows with ids instead of values
    timeline          events and samples of a part in one order, in which events are counted
"""

from ranker_data.preparation.checks import quote
from ranker_data.preparation.plan import LastSplit, Preparation, TimeSplit
from ranker_data.schema import Field

# elements of the lists of a relation `lists`, one a row, and back again (Spark: posexplode, and
# collect_list of sorted structs)
EXPLODE = "SELECT list, unnest(list) AS value, generate_subscripts(list, 1) AS position FROM lists"
COLLECT = "array_agg(id ORDER BY position)"
EMPTY_LIST = "CAST([] AS BIGINT[])"

_NEVER = 9223372036854775807


def cuts_sql(plan: Preparation) -> str:
    """Returns name, valid_from and test_from of every user that has samples."""
    if isinstance(plan.split, TimeSplit):
        return _time_cuts_sql(plan.split)
    return _last_cuts_sql(plan.split)


def _time_cuts_sql(split: TimeSplit) -> str:
    train = 1.0 - split.valid_fraction - split.test_fraction
    return f"""
    WITH moments AS (
        SELECT CAST("time" AS BIGINT) AS moment, count(*) AS n FROM raw_samples GROUP BY 1
    ),
    running AS (
        SELECT moment, sum(n) OVER (ORDER BY moment) - n AS earlier, sum(n) OVER () AS total
        FROM moments
        UNION ALL SELECT {_NEVER} AS moment, sum(n) AS earlier, sum(n) AS total FROM moments
    ),
    ranked AS (
        SELECT
            moment,
            {_nearness_sql(train)} AS nearness_valid,
            {_nearness_sql(1.0 - split.test_fraction)} AS nearness_test
        FROM running
    ),
    cuts AS (
        SELECT
            max(CASE WHEN nearness_valid = 1 THEN moment END) AS valid_from,
            max(CASE WHEN nearness_test = 1 THEN moment END) AS test_from
        FROM ranked
    ),
    names AS (SELECT DISTINCT CAST("user" AS STRING) AS name FROM raw_samples)
    SELECT name, valid_from, test_from FROM names CROSS JOIN cuts
    """


def _nearness_sql(share: float) -> str:
    """Rank of a moment by how close the share of earlier samples is to the one that is wanted."""
    # rounded, because the last digit of a sum of decimals must not decide
    distance = f"round(abs(earlier - total * {round(share, 9)!r}), 6)"
    return f"row_number() OVER (ORDER BY {distance}, moment)"


def _last_cuts_sql(split: LastSplit) -> str:
    held_out = split.valid_samples + split.test_samples
    enough = f"n > {held_out}"
    return f"""
    WITH ranked AS (
        SELECT
            CAST("user" AS STRING) AS name,
            CAST("time" AS BIGINT) AS moment,
            row_number() OVER (PARTITION BY CAST("user" AS STRING) ORDER BY "time" DESC) AS back,
            count(*) OVER (PARTITION BY CAST("user" AS STRING)) AS n
        FROM raw_samples
    )
    SELECT
        name,
        coalesce(max(CASE WHEN {enough} AND back = {held_out} THEN moment END), {_NEVER})
            AS valid_from,
        coalesce(max(CASE WHEN {enough} AND back = {split.test_samples} THEN moment END), {_NEVER})
            AS test_from
    FROM ranked GROUP BY name
    """


def users_sql(plan: Preparation) -> str:
    """Returns the users that have samples: key, part, number of their first sample, split moments.

    Users are dealt to the parts like cards, forth and back, from the one with the most samples to
    the one with the fewest and by hash among equals, so that all parts get nearly the same number
    of samples.
    """
    parts = plan.num_parts
    return f"""
    CREATE TABLE users AS
    WITH cuts AS ({cuts_sql(plan)}),
    sample_counts AS (
        SELECT CAST("user" AS STRING) AS name, count(*) AS n FROM raw_samples GROUP BY 1
    ),
    event_counts AS (
        SELECT CAST("user" AS STRING) AS name, count(*) AS n FROM raw_events GROUP BY 1
    ),
    dealt AS (
        SELECT
            s.name,
            s.n AS num_samples,
            row_number() OVER (ORDER BY s.n DESC, coalesce(e.n, 0) DESC, md5(s.name), s.name) - 1
                AS deal,
            row_number() OVER (ORDER BY s.name) AS user_key,
            sum(s.n) OVER (ORDER BY s.name) - s.n AS first_sample
        FROM sample_counts s LEFT JOIN event_counts e ON s.name = e.name
    )
    SELECT
        d.name,
        CAST(d.user_key AS BIGINT) AS user_key,
        CAST(d.first_sample AS BIGINT) AS first_sample,
        CAST(
            CASE WHEN floor(d.deal / {parts}) % 2 = 0 THEN d.deal % {parts}
                ELSE {parts - 1} - d.deal % {parts} END
            AS BIGINT
        ) AS part,
        c.valid_from,
        c.test_from
    FROM dealt d JOIN cuts c ON d.name = c.name
    """


def vocabulary_sql(plan: Preparation, table: str) -> str:
    """Returns the vocabulary of one table: value, id >= 1 and count."""
    relations = (("events", plan.behaviors), ("samples", plan.fields))
    seen = [_values_sql(name, f) for name, fields in relations for f in fields if f.table == table]
    union = "\n        UNION ALL ".join(seen)
    return f"""
    CREATE TABLE {quote("vocabulary_" + table)} AS
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


def _values_sql(relation: str, field: Field) -> str:
    column = quote(field.name)
    rows = (
        f'raw_{relation} r JOIN users u ON CAST(r."user" AS STRING) = u.name '
        'WHERE r."time" < u.valid_from'
    )
    if field.kind == "id":
        return f"SELECT CAST(r.{column} AS STRING) AS value FROM {rows}"
    lists = f"SELECT r.{column} AS list FROM {rows} AND r.{column} IS NOT NULL"
    elements = EXPLODE.replace("FROM lists", f"FROM ({lists})")
    return f"SELECT CAST(value AS STRING) AS value FROM ({elements})"


def lists_sql(relation: str, field: Field) -> str:
    """Returns the ids of every distinct list of a multi-valued field."""
    column = quote(field.name)
    return f"""
    CREATE TABLE {quote(f"lists_{relation}_{field.name}")} AS
    WITH lists AS (SELECT DISTINCT {column} AS list FROM raw_{relation} WHERE {column} IS NOT NULL),
    elements AS ({EXPLODE}),
    known AS (
        SELECT e.list, e.position, coalesce(v.id, 0) AS id
        FROM elements e
        LEFT JOIN {quote(f"vocabulary_{field.table}")} v ON CAST(e.value AS STRING) = v.value
    )
    SELECT list, {COLLECT} AS ids FROM known GROUP BY list
    """


def encoded_events_sql(plan: Preparation, columns: set[str]) -> str:
    """Returns the events with ids, part and whether they may be used for statistics (`fit`)."""
    values, joins = _encode("events", plan.behaviors)
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


def encoded_samples_sql(plan: Preparation, columns: set[str], truths: tuple[str, ...]) -> str:
    """Returns the samples with ids, part and split."""
    values, joins = _encode("samples", plan.fields)
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


def _encode(relation: str, fields: tuple[Field, ...]) -> tuple[list[str], list[str]]:
    values, joins = [], []
    for index, field in enumerate(fields):
        column = quote(field.name)
        if field.kind == "dense":
            values.append(f"CAST(r.{column} AS FLOAT) AS {column}")
        elif field.kind == "id":
            values.append(f"coalesce(t{index}.id, 0) AS {column}")
            vocabulary = quote(f"vocabulary_{field.table}")
            joins.append(
                f"LEFT JOIN {vocabulary} t{index} ON CAST(r.{column} AS STRING) = t{index}.value"
            )
        else:
            values.append(f"coalesce(t{index}.ids, {EMPTY_LIST}) AS {column}")
            lists = quote(f"lists_{relation}_{field.name}")
            joins.append(f"LEFT JOIN {lists} t{index} ON r.{column} = t{index}.list")
    return values, joins


def part_events_sql(plan: Preparation, relation: str) -> str:
    """Returns the events of one part in their final order."""
    names = ['"user"', '"time"', *(quote(field.name) for field in plan.behaviors)]
    order = ", ".join(['"user"', '"time"', '"order"', *names[2:]])
    return f"SELECT {', '.join(names)} FROM {relation} ORDER BY {order}"


def part_samples_sql(plan: Preparation, samples: str, events: str, truths: tuple[str, ...]) -> str:
    """Returns the samples of one part in their final order, with the number of earlier events.

    The as-of join is a running count over events and samples in one order. At equal times samples
    come before events, so that only strictly earlier events are counted.
    """
    fields = [quote(field.name) for field in plan.fields]
    rest = [quote(label.name) for label in plan.labels] + [
        '"weight"',
        *(quote(name) for name in truths),
    ]
    return f"""
    WITH numbered AS (
        SELECT *, first_sample + row_number() OVER (
            PARTITION BY "user" ORDER BY "time", "order", {", ".join(['"request"', *fields, *rest])}
        ) - 1 AS sample_id
        FROM {samples}
    ),
    timeline AS (
        SELECT "user", "time", 0 AS is_event, sample_id FROM numbered
        UNION ALL SELECT "user", "time", 1 AS is_event, CAST(NULL AS BIGINT) AS sample_id
            FROM {events}
    ),
    counted AS (
        SELECT sample_id, is_event, sum(is_event) OVER (
            PARTITION BY "user" ORDER BY "time", is_event
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS history_end
        FROM timeline
    )
    SELECT
        n.split, n.sample_id, n."user", n."time",
        CASE WHEN n."request" IS NULL THEN n.sample_id
            ELSE min(n.sample_id) OVER (PARTITION BY n."user", n."request") END AS "request",
        CAST(c.history_end AS BIGINT) AS history_end,
        {", ".join(f"n.{name}" for name in [*fields, *rest])}
    FROM numbered n JOIN counted c ON n.sample_id = c.sample_id AND c.is_event = 0
    ORDER BY n.sample_id
    """


def moments_sql(relation: str, fields: tuple[Field, ...], condition: str) -> str:
    """Returns mean and standard deviation of dense fields over the rows that meet a condition."""
    values = []
    for field in fields:
        column = f"CAST({quote(field.name)} AS DOUBLE)"
        values += [f"avg({column})", f"stddev_pop({column})"]
    return f"SELECT {', '.join(values)} FROM {relation} WHERE {condition}"
