"""Compiles the Triton kernels of the searches for a Hopper GPU, on a machine without one.

    python kernels/benchmarks/compile_search.py

Prints one JSON object a kernel, see `hopper.py`. Width 64, 4 heads; codes of one word.
"""

import json

import torch

from benchmarks.hopper import compile_for_hopper
from ranker_kernels.hamming_topk import launch as hamming
from ranker_kernels.hamming_topk import triton_kernels as hamming_kernels
from ranker_kernels.search_topk import launch, triton_kernels

_INT64 = (
    *("windows", "score_starts", "group_begins", "group_ends", "tile_groups", "tile_places"),
    *("row_starts", "lengths", "positions"),
)


def main() -> None:
    """Compiles the scores in both precisions, the selection, and the Hamming distances."""
    for dtype, element in ((torch.bfloat16, "*bf16"), (torch.float32, "*fp32")):
        tiles = launch.choose_tiles(dtype)
        constants = {
            "HEADS": 4,
            "DIM": 64,
            "D": 64,
            "ROWS": tiles.rows,
            "TILE": tiles.keys,
            "HAS_BIAS": True,
            "DOT": triton_kernels.DOT_TYPES[dtype],
        }
        types = dict.fromkeys(_INT64, "*i64") | {"query": element, "keys": element}
        found = compile_for_hopper(
            triton_kernels.score, types=types, constants=constants, warps=launch.WARPS
        )
        print(json.dumps({"dtype": str(dtype), **found}), flush=True)
    found = compile_for_hopper(
        triton_kernels.select,
        types=dict.fromkeys(_INT64, "*i64") | {"k": "i32"},
        constants={"TILE": launch.SELECT_TILE},
        warps=launch.WARPS,
    )
    print(json.dumps({"dtype": "torch.float32", **found}), flush=True)
    found = compile_for_hopper(
        hamming_kernels.closeness,
        types=dict.fromkeys((*_INT64, "query", "keys"), "*i64"),
        constants={"WORDS": 1, "ROWS": hamming.TILES.rows, "TILE": hamming.TILES.keys},
        warps=hamming.WARPS,
    )
    print(json.dumps({"dtype": "torch.int64", **found}), flush=True)


if __name__ == "__main__":
    main()
