"""Numbers and foreign text as a report prints them."""

import unicodedata

from ranker.report.encoding import Json

MISSING = "n/a"


def decimal(value: float | None, digits: int = 4) -> str:
    """A number with fixed decimals, so that columns line up; small ones with three digits."""
    if value is None:
        return MISSING
    if 0 < abs(value) < 10 ** (1 - digits):
        return f"{value:.3g}"
    # adding zero: -0.0000 is not a finding
    return f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign."""
    return MISSING if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return MISSING if value is None else f"{value:.{digits}%}"


def count(value: int) -> str:
    """A count with thousands separators."""
    return f"{value:,}"


def between(interval: Json | None, digits: int = 4) -> str:
    """An interval as `low to high`, or why there is none; empty if the metric has no interval."""
    if interval is None:
        return ""
    if interval["low"] is None:
        return f"no interval: {interval['reason']}"
    return f"{decimal(interval['low'], digits)} to {decimal(interval['high'], digits)}"


def p_value(value: float | None) -> str:
    """A p-value, not below what its replicates or the print can tell apart."""
    if value is None:
        return MISSING
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def harmless(text: str) -> str:
    """Foreign text without control and direction-changing characters, which could disguise it."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")
        and character not in "\n\t"
        else character
        for character in text
    )
