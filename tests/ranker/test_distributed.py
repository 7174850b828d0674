"""Which errors mean that another rank is gone, and which GPU is whose."""

from itertools import pairwise

import pytest

from ranker.distributed import is_peer_failure, process_group


def chain(*errors: Exception) -> Exception:
    """Returns the last error, each as if raised while the one before was handled."""
    for earlier, error in pairwise(errors):
        error.__context__ = earlier
    return errors[-1]


@pytest.mark.parametrize(
    "text",
    [
        "[pair.cc:538] Connection closed by peer [10.0.0.1]:1",
        "[third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out",
    ],
)
def test_a_broken_collective_is_a_peer_failure_whatever_was_raised_after(text: str) -> None:
    assert is_peer_failure(RuntimeError(text))
    assert is_peer_failure(chain(RuntimeError(text), ValueError("in a finally")))


def test_another_broken_socket_is_none() -> None:
    reset = ConnectionResetError(104, "Connection reset by peer")
    assert not is_peer_failure(reset)
    assert not is_peer_failure(chain(reset, EOFError(), RuntimeError("a worker died")))


def test_a_context_that_was_suppressed_does_not_count() -> None:
    error = chain(RuntimeError("Connection reset by peer"), ValueError("the cause"))
    assert is_peer_failure(error)
    error.__suppress_context__ = True
    assert not is_peer_failure(error)


def test_a_process_without_a_gpu_is_told_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"torch sees 2.*--nproc-per-node=2"), process_group():
        pass
