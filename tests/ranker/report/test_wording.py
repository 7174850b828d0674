import pytest

from ranker.report.wording import between, count, decimal, harmless, p_value, percent, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.75, "0.7500"),
        (None, "n/a"),
        (-1e-12, "-1e-12"),
        (0.0, "0.0000"),
        (-0.0, "0.0000"),
        (0.00123456, "0.0012"),
        (0.000123456, "0.000123"),
        (12.3456789, "12.3457"),
    ],
)
def test_decimal(value: float | None, text: str) -> None:
    assert decimal(value) == text


def test_signed_percent_count() -> None:
    assert signed(0.00123) == "+0.0012"
    assert signed(-0.00001) == "+0.0000"
    assert signed(None) == "n/a"
    assert percent(0.1234) == "12.3%"
    assert percent(None) == "n/a"
    assert count(1234567) == "1,234,567"


def test_between() -> None:
    assert between(None) == ""
    assert between({"low": 0.1, "high": 0.25, "reason": None}) == "0.1000 to 0.2500"
    assert between({"low": None, "high": None, "reason": "few"}) == "no interval: few"


def test_p_value() -> None:
    assert [p_value(value) for value in (None, 0.5, 0.00099)] == ["n/a", "0.500", "< 0.001"]


def test_harmless_keeps_words_of_any_language() -> None:
    assert harmless("点击率 тест\n\tclick") == "点击率 тест\n\tclick"
    assert harmless("a\u202eb\x07\ud800") == "a\ufffdb\ufffd\ufffd"
