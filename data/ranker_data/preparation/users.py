"""The users as SQL text: their keys, their parts, and the moments that split their samples."""

from ranker_data.preparation.plan import LastSplit, Preparation, TimeSplit

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
