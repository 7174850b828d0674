import json
from collections.abc import Callable
from pathlib import Path

from ranker.report.context import ReportContext, TaskContext
from ranker.report.predictions import Predictions
from ranker.report.report import build_report
from ranker.report.run_cards import (
    ASK,
    read_stats,
    render_data_card,
    render_model_card,
    write_cards,
)
from ranker_data.schema import Field, Label, Schema, Table, Task

SCHEMA = Schema(
    name="shop|data",
    time_unit="s",
    tables=(Table(name="item", num_embeddings=1000),),
    fields=(Field(name="item_id", kind="id", table="item"), Field(name="price", kind="dense")),
    behaviors=(Field(name="item_id", kind="id", table="item"),),
    labels=(Label(name="click"),),
    tasks=(Task(name="ctr", label="click"),),
)
STATS = {
    "behaviors": {"num_rows": 12345},
    "samples": {
        "test": {
            "num_rows": 100,
            "labels": {"click": {"defined": 100, "positive": 20, "rate": 0.2}},
        }
    },
}
CONTEXT = ReportContext(
    run="my run",
    split="test",
    tasks=[TaskContext(name="ctr")],
    environment={"git_commit": "abc"},
    num_replicates=10,
)


def test_model_card(make_predictions: Callable[..., Predictions]) -> None:
    report = build_report(make_predictions(), CONTEXT)
    card = render_model_card(report, SCHEMA)
    assert card.startswith("# Model card: my run\n")
    assert "| git\\_commit | abc |" in card
    assert "| ctr | click | all 3,000 rows |" in card
    assert "| item | item\\_id, price |" in card
    assert "(AUC 0." in card.replace("\\", "")
    # what a program cannot know is asked, not invented
    assert card.count(ASK) == 3


def test_data_card() -> None:
    card = render_data_card(SCHEMA, STATS)
    assert card.startswith("# Data card: shop\\|data\n")
    assert "| item\\_id | item | id | item | 1,000 |" in card
    assert "| num\\_rows | 12,345 |" in card
    assert "| click | 100 | 20 | 20.00% |" in card


def test_cards_are_written_with_or_without_stats(
    make_predictions: Callable[..., Predictions], tmp_path: Path
) -> None:
    assert read_stats(tmp_path) == {}
    (tmp_path / "stats.json").write_text(json.dumps(STATS))
    assert read_stats(tmp_path) == STATS
    report = build_report(make_predictions(500), CONTEXT)
    paths = write_cards(tmp_path, report, SCHEMA, {})
    assert [path.name for path in paths] == ["model_card.md", "data_card.md"]
    assert "Samples of split" not in paths[1].read_text()
