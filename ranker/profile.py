"""Records a few training steps: a trace for tools, and a summary for people."""

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

# steps of a launch that are left out, because they allocate and warm up, and that are recorded
_SKIPPED, _WARM_UP, _RECORDED = 8, 2, 5
_NUM_OPS = 7


class StepProfiler:
    """Profiles some steps of this launch on rank 0.

    Args:
        folder: for `trace.json.gz` (chrome://tracing, Perfetto) and `summary.txt`.
        enabled: False does nothing.
    """

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        self.folder = folder
        self.summary: str | None = None
        self._profile: Any = None
        if enabled:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(
                activities=activities,
                schedule=schedule(wait=_SKIPPED, warmup=_WARM_UP, active=_RECORDED, repeat=1),
                on_trace_ready=self._write,
                profile_memory=True,
            )
            self._profile.start()

    def step(self) -> str | None:
        """Marks the end of a step; returns the summary once, when it is written."""
        if self._profile is None:
            return None
        self._profile.step()
        if self.summary is not None:
            self.close()
        return self.summary

    def close(self) -> None:
        """Stops; a launch that was too short leaves no trace."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self, recorded: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(self.folder / "trace.json.gz"))
        self.summary = summarize(recorded.key_averages(), _RECORDED)
        (self.folder / "summary.txt").write_text(self.summary + "\n")


def summarize(events: Any, steps: int) -> str:
    """Returns ten lines: what a step costs, and the operators that take most of it."""
    on_gpu = any(event.self_device_time_total for event in events)
    ops = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event)
        for event in events
        if not event.key.startswith("ProfilerStep")
    ]
    total = sum(time for time, _ in ops) or 1
    ops.sort(key=lambda pair: -pair[0])
    where = "GPU" if on_gpu else "CPU"
    lines = [
        f"{steps} steps, {total / steps / 1000:.1f} ms of {where} time a step, "
        f"{sum(event.count for _, event in ops) / steps:,.0f} operator calls a step",
        f"{'operator':<58} {'share':>6} {'ms/step':>8} {'calls':>7}",
    ]
    for time, event in ops[:_NUM_OPS]:
        lines.append(
            f"{event.key[:58]:<58} {time / total:>6.1%} {time / steps / 1000:>8.2f} "
            f"{event.count / steps:>7.0f}"
        )
    rest = sum(time for time, _ in ops[_NUM_OPS:])
    lines.append(f"{'everything else':<58} {rest / total:>6.1%} {rest / steps / 1000:>8.2f}")
    return "\n".join(lines)
