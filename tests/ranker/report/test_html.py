import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from ranker.metrics.top_k import Ndcg
from ranker.report.context import ReportContext, TaskContext
from ranker.report.html import render_html
from ranker.report.predictions import Predictions
from ranker.report.report import build_report

Make = Callable[..., Predictions]

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% include 'x' %}",
    "--><iframe src=https://evil.example>",
    "<!--",
    "]]>",
    "&lt;b&gt;&#60;i&#62;",
    "http://evil.example/x.png",
    "$\\alpha$ =1+1 @SUM(A1)",
]


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.comments: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def report_named(make_predictions: Make, name: str) -> dict[str, Any]:
    """A report where every piece of foreign text is `name`."""
    predictions = make_predictions(400)
    predictions = replace(
        predictions,
        tasks={name: predictions.tasks["ctr"]},
        slices={name: predictions.slices["history_length"]},
    )
    context = ReportContext(
        run=name,
        split=name,
        created=name,
        tasks=[TaskContext(name=name, description=name, condition=name)],
        config=name,
        environment={name: name},
        metrics={name: Ndcg(k=5)},
        records=[{"kind": name, "step": step, "loss": 1.0 / step} for step in (1, 2, 3)],
        num_replicates=10,
    )
    return build_report(predictions, context)


@pytest.fixture
def harmless_page(make_predictions: Make) -> Page:
    return Page(render_html(report_named(make_predictions, "x")))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(make_predictions: Make, harmless_page: Page, name: str) -> None:
    page = Page(render_html(report_named(make_predictions, name)))
    assert page.tags == harmless_page.tags
    kinds = [(tag, attribute) for tag, attribute, _ in page.attributes]
    assert kinds == [(tag, attribute) for tag, attribute, _ in harmless_page.attributes]
    assert page.comments == []
    assert page.text.count(name) >= 9


def test_control_and_direction_characters_are_replaced(make_predictions: Make) -> None:
    page = render_html(report_named(make_predictions, "a\x00b\x1b[31mc\u202ed\u200be"))
    assert not re.search("[\x00\x1b\u202e\u200b]", page)
    assert "a\ufffdb\ufffd[31mc\ufffdd\ufffde" in page


def test_one_file_without_script_or_network(make_predictions: Make) -> None:
    source = render_html(report_named(make_predictions, "run"))
    page = Page(source)
    assert not {"script", "iframe", "object", "embed", "link", "img", "form"} & set(page.tags)
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "style", "action", "background")
        assert "//" not in value
        if name == "href":
            assert value.startswith("#")
    assert "@import" not in source
    assert "url(" not in source
    policy = [v for _, name, v in page.attributes if name == "content" and "src" in v]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_links_lead_to_sections(make_predictions: Make) -> None:
    page = Page(render_html(report_named(make_predictions, "run")))
    targets = {value for _, name, value in page.attributes if name == "id"}
    links = [value for _, name, value in page.attributes if name == "href"]
    assert len(links) == 5
    assert {link.removeprefix("#") for link in links} <= targets


def test_a_long_run_with_many_tasks_stays_small(make_predictions: Make) -> None:
    predictions = make_predictions(4000, num_domains=40)
    tasks = {f"task_{index}": predictions.tasks["ctr"] for index in range(6)}
    context = ReportContext(
        run="big",
        split="test",
        tasks=[TaskContext(name=name) for name in tasks],
        config="key: value\n" * 500,
        records=[{"kind": "train", "step": step, "loss": 0.1} for step in range(1, 20_000)],
        num_replicates=10,
    )
    page = render_html(build_report(replace(predictions, tasks=tasks), context))
    assert len(page.encode()) < 2_000_000
    assert len(page.encode()) < 600_000


def test_undefined_numbers_say_why(make_predictions: Make) -> None:
    predictions = make_predictions(400)
    task = predictions.tasks["ctr"]
    none = replace(predictions, tasks={"ctr": replace(task, label=np.zeros_like(task.label))})
    context = ReportContext(
        run="r", split="test", tasks=[TaskContext(name="ctr")], num_replicates=10
    )
    text = Page(render_html(build_report(none, context))).text
    assert "n/a" in text
    assert "no positives in 400 rows" in text
    assert not re.search(r"\b(None|nan|NaN|inf)\b", text)


def test_svg_numbers_are_finite(make_predictions: Make) -> None:
    page = Page(render_html(report_named(make_predictions, "run")))
    drawn = [value for tag, name, value in page.attributes if tag == "path" and name == "d"]
    assert len(drawn) > 20
    for path in drawn:
        assert re.fullmatch(r"M[-\d.,eL]+Z?", path)
