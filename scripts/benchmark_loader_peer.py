"""Reads arrays through a peer's own loader for one epoch; scripts/benchmark_loader.py runs this.

<python of an environment with the peer> scripts/benchmark_loader_peer.py deepctr-torch <arrays.npz>
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

MAX_LENGTH, BATCH_SIZE = 50, 1024


def padded(arrays: Any, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the histories as [rows, 50], ids first, zeros behind: what both peers read."""
    mask = np.arange(MAX_LENGTH) < arrays["length"][:, None]
    result = np.zeros(mask.shape, np.int64)
    result[mask] = arrays[name]
    return result


def build_deepctr(arrays: Any) -> Callable[[], int]:
    """Returns an epoch over what `BaseModel.fit` of deepctr-torch builds and iterates over."""
    from torch.utils.data import DataLoader, TensorDataset

    columns = [arrays[name][:, None] for name in ("user", "item", "category")]
    columns += [padded(arrays, name) for name in ("hist_item", "hist_category")]
    columns.append(arrays["length"][:, None])
    inputs = torch.from_numpy(np.concatenate(columns, axis=-1))
    data = TensorDataset(inputs, torch.from_numpy(arrays["label"]))
    loader = DataLoader(dataset=data, shuffle=True, batch_size=BATCH_SIZE)

    def epoch() -> int:
        return sum(len(x.to("cpu").float()) + 0 * len(y.to("cpu").float()) for x, y in loader)

    return epoch


def build_rechub(arrays: Any) -> Callable[[], int]:
    """Returns an epoch over the loader of torch-rechub."""
    from torch_rechub.utils.data import DataGenerator

    inputs = {name: arrays[name] for name in ("user", "item", "category")}
    inputs |= {name: padded(arrays, name) for name in ("hist_item", "hist_category")}
    validation = {"x_val": inputs, "y_val": arrays["label"]}
    test = {"x_test": inputs, "y_test": arrays["label"]}
    generator = DataGenerator(inputs, arrays["label"])
    loader, _, _ = generator.generate_dataloader(**validation, **test, batch_size=BATCH_SIZE)
    return lambda: sum(len(y) for _, y in loader)


def main() -> None:
    """Prints rows and the CPU seconds of this thread as JSON."""
    library, path = sys.argv[1:]
    torch.set_num_threads(1)
    build = {"deepctr-torch": build_deepctr, "torch-rechub": build_rechub}[library]
    epoch = build(dict(np.load(path)))
    begin = time.thread_time()
    rows = epoch()
    print(json.dumps({"rows": rows, "cpu_seconds": time.thread_time() - begin}))


if __name__ == "__main__":
    main()
