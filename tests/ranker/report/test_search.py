import json
from pathlib import Path

import pytest

from ranker.report.search import describe_search, read_search

SEARCH = {
    "encoder": "twin",
    "k": 50,
    "hit_rate": 0.931,
    "interval": [0.92, 0.94],
    "count": 1200,
    "by_length": [{"bucket": "100 to 299", "hit_rate": 0.931, "count": 1200}],
}


def test_every_search_of_an_evaluation(tmp_path: Path) -> None:
    assert read_search(tmp_path) == []
    (tmp_path / "search-a.json").write_text(json.dumps(SEARCH))
    (tmp_path / "search-b.json").write_text(json.dumps(SEARCH | {"encoder": "b", "interval": None}))
    # nothing to find, nothing to tell
    (tmp_path / "search-c.json").write_text(json.dumps(SEARCH | {"hit_rate": None}))
    first, second = read_search(tmp_path)
    assert first == SEARCH
    assert describe_search(first) == (
        "twin finds 93.1% of the 50 behaviours that its attention weighs most "
        "(95% interval 92.0% to 94.0%), on 1,200 rows."
    )
    assert describe_search(second) == (
        "b finds 93.1% of the 50 behaviours that its attention weighs most, on 1,200 rows."
    )


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"encoder": "x"})])
def test_a_file_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(ValueError, match=r"search\.json is no search\.json"):
        read_search(tmp_path)
