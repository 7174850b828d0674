import json
from pathlib import Path

import pytest

from ranker.report.feature_report import RankJob, rank_features
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.simulator.world import WorldConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "data"
    SyntheticConverter(world=WorldConfig(num_users=300), num_parts=2).prepare(None, out)
    return out


def test_the_ranking_is_a_table_a_page_and_json(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rank_features(RankJob(data=data, out=tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "features.json").read_text())
    assert [label["name"] for label in report["labels"]] == [
        "click",
        "conversion",
        "like",
        "long_view",
    ]
    fields = {field["field"]: field for field in report["labels"][0]["fields"]}
    # the simulator draws positions at random, and makes items differ
    assert fields["item_id"]["share"] > 10 * abs(fields["position"]["share"])
    page = (tmp_path / "out" / "features.html").read_text()
    assert page.count("<section>") == 4
    assert "default-src 'none'" in page
    assert "item_id" in capsys.readouterr().out


def test_an_unwritable_folder_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written .*set out="):
        rank_features(RankJob(data=data, out=tmp_path / "file" / "out", max_rows=1))


def test_settings_are_checked(data: Path) -> None:
    with pytest.raises(ValueError, match="split is 'training', must be one of train, valid, test"):
        RankJob(data=data, split="training")
    with pytest.raises(ValueError, match=r"max_rows \(0\) must be at least 1"):
        RankJob(data=data, max_rows=0)
