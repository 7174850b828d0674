import logging
from collections.abc import Iterator

import pytest

from ranker.command import run_command


@pytest.fixture
def loggers() -> Iterator[list[logging.Logger]]:
    found = [logging.getLogger(name) for name in ("", "ranker_data", "ranker_kernels")]
    levels = [logger.level for logger in found]
    yield found
    for logger, level in zip(found, levels, strict=True):
        logger.setLevel(level)


def test_our_own_warnings_are_shown_although_hydra_lets_errors_through_only(
    loggers: list[logging.Logger], caplog: pytest.LogCaptureFixture
) -> None:
    # what `hydra/job_logging: disabled` does
    loggers[0].setLevel(logging.ERROR)

    def warn() -> None:
        for name in ("ranker_data.cache", "ranker_kernels.native", "another"):
            logging.getLogger(name).warning("from %s", name)

    assert run_command(warn) == 0
    assert caplog.messages == ["from ranker_data.cache", "from ranker_kernels.native"]
