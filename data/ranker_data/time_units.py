"""Which unit a moment is in, told from its size."""

import datetime

from ranker_data.schema import TimeUnit

TICKS: dict[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
FIRST_YEAR, LAST_YEAR = 1990, 2100


def time_range(unit: str) -> tuple[int, int]:
    """Returns the first moment of the years that are plausible, and the one behind the last."""
    first, last = (
        int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()) * TICKS[unit]
        for year in (FIRST_YEAR, LAST_YEAR)
    )
    return first, last


def guess_time_unit(moment: int) -> str | None:
    """Returns the unit in which a moment is of plausible years; they do not overlap."""
    fitting = (name for name in TICKS if time_range(name)[0] <= moment < time_range(name)[1])
    return next(fitting, None)


def describe_time_unit(moment: int, unit: TimeUnit) -> str | None:
    """Returns what is wrong with a moment, and the unit that it seems to be in; None if nothing."""
    first, last = time_range(unit)
    if first <= moment < last:
        return None
    guess = guess_time_unit(moment)
    hint = f"; it looks like {guess!r}" if guess else ""
    return (
        f"time {moment} is not in the years {FIRST_YEAR} to {LAST_YEAR} in unit {unit!r}{hint}; "
        "give the right time_unit, or convert it"
    )
