"""EB-NeRD's events, samples and past-only statistics as SQL on `behaviors` and `history`."""

WINDOW_HOURS = (1, 6, 24)

# one row for every article shown; reading is known for impressions with one click only
SHOWN_SQL = """
CREATE TABLE shown AS
WITH impressions AS (
    SELECT
        *,
        CAST(floor(epoch(impression_time)) AS BIGINT) AS moment,
        len(article_ids_inview) AS num_shown,
        len(article_ids_clicked) = 1 AS one_click
    FROM behaviors
),
candidates AS (SELECT *, unnest(article_ids_inview) AS article FROM impressions)
SELECT
    impression_id, user_id, moment, article, num_shown,
    device_type, is_sso_user, is_subscriber, gender, age,
    coalesce(list_contains(article_ids_clicked, article), false) AS clicked,
    CASE WHEN one_click THEN next_read_time END AS read_time,
    CASE WHEN one_click THEN next_scroll_percentage END AS scroll
FROM candidates
"""

# history files of several folders overlap
READS_SQL = """
CREATE TABLE reads AS
WITH listed AS (
    SELECT
        user_id,
        unnest(article_id_fixed) AS article,
        CAST(floor(epoch(unnest(impression_time_fixed))) AS BIGINT) AS moment,
        unnest(read_time_fixed) AS read_time,
        unnest(scroll_percentage_fixed) AS scroll
    FROM history
)
SELECT user_id, article, moment, max(read_time) AS read_time, max(scroll) AS scroll
FROM listed GROUP BY user_id, article, moment
"""

# the history of the validation folder has the clicks of the training folder as reads
EVENT_SQL = """
CREATE VIEW event AS
WITH covered AS (SELECT user_id, max(moment) AS last_read FROM reads GROUP BY user_id),
clicks AS (
    SELECT s.user_id, s.article, s.moment, s.read_time, s.scroll
    FROM shown s LEFT JOIN covered c ON s.user_id = c.user_id
    WHERE s.clicked AND s.moment > coalesce(c.last_read, 0)
)
SELECT
    user_id AS "user",
    moment + CAST(ceil(coalesce(read_time, 0)) AS BIGINT) AS "time",
    article AS item_id,
    ln(1 + coalesce(read_time, 0)) AS log_read_seconds,
    coalesce(scroll, 0) / 100 AS scroll_fraction,
    CASE WHEN scroll IS NULL THEN 0 ELSE 1 END AS scroll_known
FROM (
    SELECT user_id, article, moment, read_time, scroll FROM reads
    UNION ALL SELECT user_id, article, moment, read_time, scroll FROM clicks
) both_kinds
"""

# measured over every window
STATISTICS = ("log_clicks", "log_impressions", "click_rate")


def statistics_sql(delay_seconds: int, prior_rate: float, prior_impressions: float) -> str:
    """Returns past-only statistics of every article at every moment at which it was shown."""
    frame = "PARTITION BY article ORDER BY moment RANGE BETWEEN {} PRECEDING AND {} PRECEDING"
    counts, values = [], []
    for hours in WINDOW_HOURS:
        over = frame.format(hours * 3600 + delay_seconds, delay_seconds)
        for name in ("clicks", "impressions"):
            counts.append(f"coalesce(sum({name}) OVER ({over}), 0) AS {name}_{hours}h")
            values.append(f"ln(1 + {name}_{hours}h) AS log_{name}_{hours}h")
        clicks = f"(clicks_{hours}h + {prior_rate * prior_impressions!r})"
        values.append(
            f"{clicks} / (impressions_{hours}h + {prior_impressions!r}) AS click_rate_{hours}h"
        )
    return f"""
    CREATE TABLE statistics AS
    WITH seen AS (
        SELECT article, moment, CASE WHEN clicked THEN 1 ELSE 0 END AS click, 1 AS impression
            FROM shown
        UNION ALL SELECT article, moment, 0 AS click, 0 AS impression FROM reads
    ),
    moments AS (
        SELECT article, moment, sum(click) AS clicks, sum(impression) AS impressions FROM seen
            GROUP BY article, moment
    ),
    counted AS (
        SELECT article, moment, impressions, {", ".join(counts)},
            min(moment) OVER ({frame.format("UNBOUNDED", delay_seconds)}) AS first_seen
        FROM moments
    )
    SELECT
        article, moment, ln(1 + (moment - coalesce(first_seen, moment)) / 3600.0) AS log_age_hours,
        {", ".join(values)}
    FROM counted WHERE impressions > 0
    """


def sample_sql(read_seconds: float, scroll_percentage: float, delay_seconds: int) -> str:
    """Returns the samples with labels and statistics."""
    statistics = [f"t.{name}_{hours}h" for hours in WINDOW_HOURS for name in STATISTICS]
    return f"""
    CREATE VIEW sample AS
    SELECT
        s.user_id AS "user", s.moment AS "time", s.impression_id AS request,
        s.user_id, s.gender, s.age, s.is_sso_user AS sso, s.is_subscriber AS subscriber, s.article
            AS item_id,
        CASE s.device_type WHEN 1 THEN 'desktop' WHEN 2 THEN 'mobile' WHEN 3 THEN 'tablet' END
            AS device,
        CAST(floor(s.moment / 3600) AS BIGINT) % 24 AS hour,
        ln(s.num_shown) AS log_num_shown,
        ln(1 + count(*) OVER (
            PARTITION BY s.user_id, s.article ORDER BY s.moment
            RANGE BETWEEN UNBOUNDED PRECEDING AND {delay_seconds} PRECEDING
        )) AS log_times_shown,
        t.log_age_hours, {", ".join(statistics)},
        CASE WHEN s.clicked THEN 1 ELSE 0 END AS click,
        CASE WHEN NOT s.clicked THEN 0
            WHEN s.read_time >= {read_seconds!r} THEN 1 WHEN s.read_time IS NOT NULL THEN 0 END
                AS read,
        CASE WHEN NOT s.clicked THEN 0
            WHEN s.scroll >= {scroll_percentage!r} THEN 1 WHEN s.scroll IS NOT NULL THEN 0 END
                AS scroll
    FROM shown s JOIN statistics t ON s.article = t.article AND s.moment = t.moment
    """
