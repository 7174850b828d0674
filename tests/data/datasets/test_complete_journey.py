import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker_data.datasets.complete_journey import CompleteJourneyConverter
from ranker_data.layout import SPLITS

T0 = 1_483_300_000


def write_files(folder: Path) -> None:
    """Ten products are bought in weeks 1 and 2 by household 1; household 2 buys two of them."""
    lines = []
    for week in (1, 2, 3):
        for place in range(10):
            product = 100 + (place if week < 3 else 9 - place)
            household = 1 if week < 3 else 2
            lines.append((household, 7, 1000 * week + place // 2, product, 1, week, place))
    lines.append((2, 7, 3001, 105, 0, 3, 4))
    header = (
        "household_id,store_id,basket_id,product_id,quantity,sales_value,retail_disc,coupon_disc,"
        "coupon_match_disc,week,transaction_timestamp"
    )
    rows = [
        f"{h},{s},{b},{p},{q},2.5,{p % 2},0,0,{w},2017-01-{w * 7:02d} 10:00:{place // 2:02d}"
        for h, s, b, p, q, w, place in lines
    ]
    (folder / "transactions.csv").write_text("\n".join([header, *rows]) + "\n")
    products = [
        f"{100 + n},3,{'DELI' if n % 2 else 'MEAT'},National,c{n},t{n},NA" for n in range(9)
    ]
    (folder / "products.csv").write_text(
        "product_id,manufacturer_id,department,brand,product_category,product_type,package_size\n"
        + "\n".join(products)
        + "\n"
    )
    (folder / "demographics.csv").write_text(
        "household_id,age,income,home_ownership,marital_status,household_size,household_comp,"
        "kids_count\n1,65+,35-49K,Homeowner,NA,2,2 Adults No Kids,0\n"
    )


def read(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def samples_of(out: Path) -> list[dict[str, Any]]:
    rows = [row for split in SPLITS for row in read(out / "samples" / split)]
    return sorted(rows, key=lambda row: row["sample_id"])


def values_of(out: Path, table: str) -> dict[int, str]:
    rows = pq.read_table(out / "vocabulary" / f"{table}.parquet").to_pylist()
    return {0: "?"} | {row["id"]: row["value"] for row in rows}


def convert(source: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    options = {"num_parts": 1, "first_week": 2, "negatives": 2} | options
    options |= {"valid_fraction": 0.0, "test_fraction": 0.0}
    CompleteJourneyConverter(**options).prepare(source, out)
    return samples_of(out)


def test_purchases_histories_and_negatives(tmp_path: Path) -> None:
    write_files(tmp_path)
    out = tmp_path / "out"
    rows = convert(tmp_path, out)
    items, departments = values_of(out, "item"), values_of(out, "department")
    bought = [row for row in rows if row["purchase"] == 1]
    # baskets of two at one second: the other product of the basket is no history
    assert [(row["user"], row["history_end"]) for row in bought] == [
        *((1, 10 + 2 * (n // 2)) for n in range(10)),
        *((2, 2 * (n // 2)) for n in range(10)),
    ]
    baskets: dict[tuple[int, int], set[str]] = {}
    for row in bought:
        baskets.setdefault((row["user"], row["time"]), set()).add(items[row["item_id"]])
    negatives = [row for row in rows if row["purchase"] == 0]
    assert len(negatives) == 40
    for row in negatives:
        assert items[row["item_id"]] not in baskets[row["user"], row["time"]]
    # one product has no row
    by_product = {items[row["item_id"]]: departments[row["department"]] for row in rows}
    assert (by_product["100"], by_product["101"], by_product["109"]) == ("MEAT", "DELI", "?")
    assert {row["marital_status"] for row in rows} == {0}
    raw = json.loads((out / "stats.json").read_text())["raw"]
    assert raw["lines_without_quantity"] == 1
    assert raw["negatives_that_could_not_be_drawn"] == 0
    events = read(out / "behaviors")
    assert len(events) == 30
    values = values_of(out, "discounted")
    assert sorted(values[event["discounted"]] for event in events) == ["0"] * 15 + ["1"] * 15


def test_negatives_are_seeded_and_of_the_past(tmp_path: Path) -> None:
    write_files(tmp_path)
    drawn = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        rows = convert(tmp_path, tmp_path / name, first_week=1, seed=seed)
        items = values_of(tmp_path / name, "item")
        drawn[name] = [(r["time"], items[r["item_id"]]) for r in rows if r["purchase"] == 0]
    assert drawn["one"] == drawn["same"] != drawn["other"]
    # in the first week products are bought in the order of their numbers
    first = min(time for time, _ in drawn["one"]) - 1
    for time, item in drawn["one"]:
        if time < first + 5:
            assert int(item) < 100 + 2 * (time - first)


def test_store_as_domain_and_bad_settings(tmp_path: Path) -> None:
    write_files(tmp_path)
    schema = CompleteJourneyConverter(
        num_parts=1, first_week=1, domain="store", valid_fraction=0.0, test_fraction=0.0
    ).prepare(tmp_path, tmp_path / "out")
    assert schema.domain_names == ("unknown", "7")
    with pytest.raises(ValueError, match="domain is 'shop', must be one of"):
        CompleteJourneyConverter(domain="shop")
    with pytest.raises(ValueError, match=r"negatives \(0\) must be at least 1"):
        CompleteJourneyConverter(negatives=0)
    (tmp_path / "products.csv").unlink()
    with pytest.raises(ValueError, match=r"none of the original files products\.csv"):
        CompleteJourneyConverter().prepare(tmp_path, tmp_path / "other")


def test_real_data(real_data: Path, tmp_path: Path) -> None:
    # a tenth of the households, for the sake of time
    folder = real_data / "completejourney"
    lines = pq.read_table(folder / "transactions.parquet", filters=[("household_id", "<", 250)])
    pq.write_table(lines, tmp_path / "transactions.parquet")
    for name in ("products", "demographics"):
        (tmp_path / f"{name}.parquet").symlink_to(folder / f"{name}.parquet")
    CompleteJourneyConverter(num_parts=2, first_week=50).prepare(tmp_path, tmp_path / "out")
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    raw = stats["raw"]
    assert raw["events"] == lines.num_rows - raw["lines_without_quantity"] > 100_000
    assert raw["negatives_that_could_not_be_drawn"] == 0
    rows = sum(split["num_rows"] for split in stats["samples"].values())
    positive = sum(split["labels"]["purchase"]["positive"] for split in stats["samples"].values())
    assert rows == 5 * positive
    assert stats["samples"]["test"]["history_length"]["p50"] > 400
