"""Avazu mobile ads (Kaggle 2014): ten days of impressions with categories only.

Times are whole hours. The second within the hour is a function of the row's id, so that rows of one
hour can be told apart; it means nothing.
"""

from pathlib import Path

from ranker_data.datasets.conversion import RawTable, convert_table
from ranker_data.datasets.original_files import (
    TEXT_SUFFIXES,
    find_file,
    table_sql,
)
from ranker_data.preparation.engine import Engine
from ranker_data.preparation.plan import Preparation, TimeSplit
from ranker_data.schema import Field, Label, Schema, Side, Task

_SIDES: dict[str, Side] = {
    "C1": "context",
    "banner_pos": "context",
    "site_id": "context",
    "site_domain": "context",
    "site_category": "context",
    "app_id": "context",
    "app_domain": "context",
    "app_category": "context",
    "device_id": "context",
    "device_ip": "context",
    "device_model": "context",
    "device_type": "context",
    "device_conn_type": "context",
    **{f"C{number}": "item" for number in range(14, 22)},
}
COLUMNS = ("id", "click", "hour", *_SIDES)
# the device_id of all devices that have none
_NO_DEVICE = "a99f214a"


class AvazuConverter:
    """Converts `train.csv` (or `.gz`, or Parquet).

    A user is a device, or an address and a model where the device has no id.

    label
        click    as in the file
    """

    def __init__(
        self,
        *,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_count: int = 2,
        num_parts: int = 16,
    ):
        """Sets the definitions.

        Args:
            valid_fraction: share of the rows for validation.
            test_fraction: share of the rows for testing, the last ones.
            min_count: values seen less often than this before validation get id 0.
            num_parts: number of co-partitioned files.
        """
        self._plan = _plan(
            TimeSplit(valid_fraction=valid_fraction, test_fraction=test_fraction),
            min_count,
            num_parts,
        )

    def prepare(self, source: Path | None, out: Path, engine: Engine | None = None) -> Schema:
        """Converts the file in `source`, or the file `source`."""
        path = find_file(source, ["train"], TEXT_SUFFIXES)
        relation = table_sql(path)
        table = RawTable(
            path=path,
            relation=relation,
            columns=COLUMNS,
            sample_sql=_sample_sql(relation),
            counted={"rows_without_device_id": f"device_id = '{_NO_DEVICE}'"},
        )
        return convert_table(table, self._plan, out=out, engine=engine)


def _sample_sql(relation: str) -> str:
    # 14102123 is 23:00 on 21 October 2014
    start = "epoch_us(strptime('20' || CAST(hour AS VARCHAR), '%Y%m%d%H')) // 1000000"
    user = (
        f"CASE WHEN device_id = '{_NO_DEVICE}' THEN device_ip || '|' || device_model "
        "ELSE device_id END"
    )
    return f"""
    SELECT {user} AS "user", CAST(
            {start} + md5_number_lower(CAST(id AS VARCHAR)) % 3600 AS BIGINT
        ) AS "time",
        CAST(click AS BIGINT) AS click, CAST(hour AS BIGINT) % 100 AS hour_of_day,
        dayofweek(strptime('20' || CAST(hour AS VARCHAR), '%Y%m%d%H')) AS weekday,
        {", ".join(_SIDES)}
    FROM {relation}
    """


def _plan(split: TimeSplit, min_count: int, num_parts: int) -> Preparation:
    return Preparation(
        name="avazu",
        time_unit="s",
        fields=(
            *(Field(name=name, kind="id", side=side, table=name) for name, side in _SIDES.items()),
            Field(name="hour_of_day", kind="id", side="context", table="hour_of_day"),
            Field(name="weekday", kind="id", side="context", table="weekday"),
        ),
        behaviors=(),
        labels=(Label(name="click"),),
        tasks=(Task(name="ctr", label="click"),),
        group="user",
        split=split,
        min_count=dict.fromkeys(_SIDES, min_count),
        num_parts=num_parts,
    )
