"""The Complete Journey (84.51): a year of grocery baskets of 2,469 households, with long histories.

A bought product is a positive sample; products that any household bought earlier are drawn as its
negatives, in proportion to how often they were bought.
"""

from collections.abc import Mapping
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

_FILES = {
    "transactions": (
        "household_id",
        "store_id",
        "basket_id",
        "product_id",
        "quantity",
        "sales_value",
        "retail_disc",
        "coupon_disc",
        "coupon_match_disc",
        "week",
        "transaction_timestamp",
    ),
    "products": (
        "product_id",
        "manufacturer_id",
        "department",
        "brand",
        "product_category",
        "product_type",
    ),
    "demographics": (
        "household_id",
        "age",
        "income",
        "home_ownership",
        "marital_status",
        "household_size",
        "kids_count",
    ),
}
_PROFILE = _FILES["demographics"][1:]
_DOMAINS = ("department", "store")


class CompleteJourneyConverter:
    """Converts `transactions`, `products` and `demographics`, as Parquet or CSV.

    label
        purchase    the household bought the product (1) or it was drawn (0)
    events
        all bought products, with quantity, value and discount as cross features
    """

    def __init__(
        self,
        *,
        first_week: int = 40,
        negatives: int = 4,
        seed: int = 2026,
        domain: str = "department",
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_item_count: int = 1,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            first_week: first week (1 to 53) whose purchases are samples; those before are history.
            negatives: drawn products per purchase.
            seed: of the draws.
            domain: "department" of the product or "store" of the basket.
            valid_fraction: share of the samples for validation.
            test_fraction: share of the samples for testing, the last ones.
            min_item_count: products seen less often than this before validation get id 0.
            num_parts: number of co-partitioned files.
        """
        if domain not in _DOMAINS:
            raise ValueError(f"dataset.converter.domain is {domain!r}, must be one of {_DOMAINS}")
        if negatives < 1 or not 1 <= first_week <= 53:
            raise ValueError(
                f"dataset.converter.negatives ({negatives}) must be at least 1 and first_week "
                f"({first_week}) in [1, 53]"
            )
        self._first_week = first_week
        self._negatives = negatives
        self._seed = seed
        self._plan = _plan(
            TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction),
            domain,
            min_item_count,
            num_parts,
        )

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the files in `source`."""
        paths = {name: find_file(source, [name], TEXT_SUFFIXES) for name in _FILES}

        def build(connection: duckdb.DuckDBPyConnection) -> RawRelations:
            return self._build(connection, paths)

        settings = {
            "converter": "complete_journey",
            "first_week": self._first_week,
            "negatives": self._negatives,
            "seed": self._seed,
            "plan": self._plan.digest(),
        }
        return convert(build, out=out, settings=settings, engine=engine)

    def _build(
        self, connection: duckdb.DuckDBPyConnection, paths: Mapping[str, Path]
    ) -> RawRelations:
        for name, columns in _FILES.items():
            relation = table_sql(paths[name], null_texts=("", "NA"))
            check_has_columns(connection, paths[name], relation, columns)
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {relation}")
        connection.execute(_LINES_SQL)
        connection.execute(_EVENTS_SQL)
        connection.execute(
            f"""
            CREATE TABLE positive AS
            SELECT *, concat_ws('|', basket_id, item_id) AS key, basket_id AS scope
            FROM lines WHERE week >= {self._first_week}
            """
        )
        drawn = negatives_sql(
            positives="positive",
            pool="lines",
            refused="(SELECT basket_id AS scope, item_id FROM lines)",
            count=self._negatives,
            seed=self._seed,
        )
        connection.execute(f"CREATE TABLE drawn AS {drawn}")
        connection.execute(_SAMPLES_SQL)
        num_positives = count_rows(connection, "positive")
        return RawRelations(
            plan=self._plan,
            counts={
                "lines_without_quantity": count_rows(
                    connection, "transactions", "CAST(quantity AS BIGINT) <= 0"
                ),
                "lines_without_product_row": count_rows(
                    connection, "lines l ANTI JOIN product p ON l.item_id = p.item_id"
                ),
                "negatives_that_could_not_be_drawn": num_positives * self._negatives
                - count_rows(connection, "drawn"),
            },
        )


# lines of quantity 0 are coupons and corrections, not purchases; `available` counts the lines that
# are strictly earlier, from which negatives may be drawn
_LINES_SQL = """
CREATE TABLE lines AS
WITH bought AS (
    SELECT CAST(household_id AS BIGINT) AS household_id, CAST(store_id AS BIGINT) AS store,
        CAST(basket_id AS BIGINT) AS basket_id, CAST(product_id AS BIGINT) AS item_id,
        CAST(week AS BIGINT) AS week, CAST(quantity AS DOUBLE) AS quantity,
        CAST(sales_value AS DOUBLE) AS sales_value,
        CAST(retail_disc AS DOUBLE) + CAST(coupon_disc AS DOUBLE) AS discount,
        epoch_us(CAST(transaction_timestamp AS TIMESTAMP)) // 1000000 AS "time"
    FROM transactions WHERE CAST(quantity AS BIGINT) > 0
)
SELECT *, row_number() OVER (ORDER BY "time", basket_id, item_id) - 1 AS place,
    rank() OVER (ORDER BY "time") - 1 AS available
FROM bought
"""

_EVENTS_SQL = """
CREATE TABLE product AS
SELECT CAST(product_id AS BIGINT) AS item_id, CAST(manufacturer_id AS BIGINT) AS manufacturer,
    department, brand, product_category AS category, product_type
FROM products;
CREATE VIEW event AS
SELECT l.household_id AS "user", l."time", l.item_id, p.department, p.category, p.product_type,
    ln(1 + l.quantity) AS log_quantity, ln(1 + l.sales_value) AS log_value,
    CASE WHEN l.discount > 0 THEN 1 ELSE 0 END AS discounted
FROM lines l LEFT JOIN product p ON l.item_id = p.item_id
"""

_SAMPLES_SQL = f"""
CREATE VIEW sample AS
WITH together AS (
    SELECT key, household_id, "time", store, item_id, 1 AS purchase FROM positive
    UNION ALL
    SELECT p.key, p.household_id, p."time", p.store, d.item_id, 0 AS purchase
    FROM drawn d JOIN positive p ON d.key = p.key
)
SELECT t.household_id AS "user", t."time", t.key AS request, t.household_id,
    {", ".join(f"h.{name}" for name in _PROFILE)}, t.item_id, p.manufacturer, p.department, p.brand,
    p.category, p.product_type, t.store, CAST(t."time" // 3600 % 24 AS BIGINT) AS hour,
    CAST(t."time" // 86400 % 7 AS BIGINT) AS weekday, t.purchase
FROM together t LEFT JOIN product p ON t.item_id = p.item_id
    LEFT JOIN demographics h ON t.household_id = CAST(h.household_id AS BIGINT)
"""


def _plan(split: TimeSplit, domain: str, min_item_count: int, num_parts: int) -> Preparation:
    return Preparation(
        name="complete_journey",
        time_unit="s",
        fields=(
            Field(name="household_id", kind="id", side="user", table="household"),
            *(Field(name=name, kind="id", side="user", table=name) for name in _PROFILE),
            Field(name="item_id", kind="id", table="item"),
            Field(name="department", kind="id", table="department"),
            Field(name="category", kind="id", table="category"),
            Field(name="product_type", kind="id", table="product_type"),
            Field(name="brand", kind="id", table="brand"),
            Field(name="manufacturer", kind="id", table="manufacturer"),
            Field(name="store", kind="id", side="context", table="store"),
            Field(name="hour", kind="id", side="context", table="hour"),
            Field(name="weekday", kind="id", side="context", table="weekday"),
        ),
        behaviors=(
            Field(name="item_id", kind="id", table="item"),
            Field(name="department", kind="id", table="department"),
            Field(name="category", kind="id", table="category"),
            Field(name="product_type", kind="id", table="product_type"),
            Field(name="log_quantity", kind="dense"),
            Field(name="log_value", kind="dense"),
            Field(name="discounted", kind="id", table="discounted"),
        ),
        labels=(Label(name="purchase"),),
        tasks=(Task(name="purchase", label="purchase"),),
        group="user",
        domain=domain,
        split=split,
        min_count={"item": min_item_count},
        num_parts=num_parts,
    )
