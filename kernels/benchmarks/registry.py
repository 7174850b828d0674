"""The ops that `run.py` knows, and the workloads that have a goal on a GPU."""

from collections.abc import Callable, Iterator

from benchmarks import din_attention, linear, pooling, searches, target_attention, twin
from benchmarks.workload import Workload

Build = Callable[[str], Iterator[Workload]]

# from the device to its workloads
OPS: dict[str, Build] = {
    "din_attention": din_attention.build_workloads,
    "gated_scale": pooling.build_gated_scale,
    "linear": linear.build_workloads,
    "searches": searches.build_workloads,
    "segment_sum": pooling.build_segment_sum,
    "signature_sums": pooling.build_signature_sums,
    "target_attention": target_attention.build_workloads,
    "twin": twin.build_workloads,
}
GOALS: dict[str, Build] = {
    "din_attention": din_attention.build_goals,
    "searches": searches.build_goals,
    "target_attention": target_attention.build_goals,
}
