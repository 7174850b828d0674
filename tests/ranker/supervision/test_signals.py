import os
import signal

import pytest

from ranker.supervision import signals
from ranker.supervision.signals import StopSignals, signal_name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.requested == 0
        os.kill(os.getpid(), number)
        assert signal_name(stop.requested) == number.name
        # the same signal again within a moment is the launcher's copy
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == number
    assert signal.getsignal(number) == before


def test_a_later_sigterm_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signals, "_BURST_SECONDS", -1.0)
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    with StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert raised == [signal.SIGTERM]
