"""Sampled negatives for logs that only know what users took, seeded and free of the future."""

# draws per wanted negative, and in addition: what is refused is replaced by a later draw
_DRAWS = 4


def negatives_sql(*, positives: str, pool: str, refused: str, count: int, seed: int) -> str:
    """Returns `count` different negatives of every positive: key, item_id.

    A draw is a function of seed, key and number alone, so that it does not depend on threads.
    Positives whose pool is too small get fewer.

    Args:
        positives: relation with `key` (unique string), `scope` and `available`: only the first
            `available` rows of the pool can be drawn.
        pool: relation with `place` (0, 1, ...) and `item_id`; an item that is there more often is
            drawn more often.
        refused: relation with `scope` and `item_id`: items that are no negatives in this scope.
        count: negatives per positive.
        seed: of the draws.
    """
    return f"""
    WITH draw AS (
        SELECT p.key, p.scope, d.draw, CAST(
            md5_number_lower('{seed}|' || p.key || '|' || d.draw) % p.available AS BIGINT
        ) AS place
        FROM {positives} p CROSS JOIN (SELECT unnest(range({count * _DRAWS + _DRAWS})) AS draw) d
        WHERE p.available > 0
    ),
    allowed AS (
        SELECT d.key, o.item_id, min(d.draw) AS draw
        FROM draw d JOIN {pool} o ON d.place = o.place
        ANTI JOIN {refused} r ON d.scope = r.scope AND o.item_id = r.item_id
        GROUP BY d.key, o.item_id
    ),
    ranked AS (
        SELECT key, item_id, row_number() OVER (PARTITION BY key ORDER BY draw) AS place
        FROM allowed
    )
    SELECT key, item_id FROM ranked WHERE place <= {count}
    """
