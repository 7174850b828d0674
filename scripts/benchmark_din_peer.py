"""Trains a peer's DIN for one epoch on the arrays of scripts/benchmark_din.py, which runs this.

<python of an environment with the peer> scripts/benchmark_din_peer.py deepctr-torch <arrays.npz>
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

DIM, MAX_LENGTH, BATCH_SIZE = 16, 50, 1024


def padded(arrays: Any, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the histories as [rows, 50], ids first, zeros behind: what both peers read."""
    lengths = arrays["length"]
    mask = np.arange(MAX_LENGTH) < lengths[:, None]
    result = np.zeros(mask.shape, np.int64)
    result[mask] = arrays[name]
    return result


def build_deepctr(arrays: Any) -> Callable[[], None]:
    """Returns one epoch of deepctr-torch's own trainer."""
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import DIN

    sizes = {name: int(arrays[f"num_{name}s"]) for name in ("user", "item", "category")}
    columns: list[Any] = [SparseFeat(name, size, DIM) for name, size in sizes.items()]
    columns += [
        VarLenSparseFeat(
            SparseFeat(f"hist_{name}", sizes[name], DIM, embedding_name=name),
            MAX_LENGTH,
            length_name="length",
        )
        for name in ("item", "category")
    ]
    model = DIN(
        columns,
        ["item", "category"],
        dnn_hidden_units=(200, 80),
        att_hidden_size=(80, 40),
        att_activation="sigmoid",
        att_weight_normalization=True,
        l2_reg_embedding=0.0,
        device="cpu",
    )
    model.compile(torch.optim.Adam(model.parameters(), lr=1e-3), "binary_crossentropy")
    inputs = {name: arrays[name] for name in ("user", "item", "category", "length")}
    inputs |= {name: padded(arrays, name) for name in ("hist_item", "hist_category")}
    labels = arrays["label"]
    return lambda: model.fit(inputs, labels, batch_size=BATCH_SIZE, epochs=1, verbose=0)


def build_rechub(arrays: Any) -> Callable[[], None]:
    """Returns one epoch of torch-rechub's own trainer."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.ranking import DIN
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    sizes = {name: int(arrays[f"num_{name}s"]) for name in ("user", "item", "category")}
    features = {name: SparseFeature(name, size, embed_dim=DIM) for name, size in sizes.items()}
    history = [
        SequenceFeature(
            f"hist_{name}", sizes[name], embed_dim=DIM, pooling="concat", shared_with=name
        )
        for name in ("item", "category")
    ]
    model = DIN(
        features=[features["user"]],
        history_features=history,
        target_features=[features["item"], features["category"]],
        mlp_params={"dims": [200, 80]},
        attention_mlp_params={"dims": [80, 40], "activation": "sigmoid", "use_softmax": True},
    )
    inputs = {name: arrays[name] for name in ("user", "item", "category")}
    inputs |= {name: padded(arrays, name) for name in ("hist_item", "hist_category")}
    loader, _, _ = DataGenerator(inputs, arrays["label"]).generate_dataloader(
        x_val=inputs,
        y_val=arrays["label"],
        x_test=inputs,
        y_test=arrays["label"],
        batch_size=BATCH_SIZE,
    )
    trainer = CTRTrainer(
        model, optimizer_params={"lr": 1e-3, "weight_decay": 0.0}, n_epoch=1, device="cpu"
    )
    return lambda: trainer.train_one_epoch(loader, log_interval=10**9)


def main() -> None:
    """Prints rows, CPU seconds and wall seconds of one epoch as JSON."""
    library, path = sys.argv[1:]
    torch.manual_seed(0)
    arrays = dict(np.load(path))
    build = {"deepctr-torch": build_deepctr, "torch-rechub": build_rechub}[library]
    epoch = build(arrays)
    cpu, wall = time.process_time(), time.perf_counter()
    epoch()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    result = {"rows": len(arrays["label"]), "cpu_seconds": cpu, "wall_seconds": wall}
    print(json.dumps({**result, "optimizers": "Adam on everything, dense table gradients"}))


if __name__ == "__main__":
    main()
