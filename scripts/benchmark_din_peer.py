"""Trains a peer's DIN for one epoch on the arrays of scripts/benchmark_din.py, which runs this.

<python of an environment with the peer> scripts/benchmark_din_peer.py deepctr-torch <arrays> <seed>
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

DIM, MAX_LENGTH, BATCH_SIZE = 16, 50, 1024


def padded(arrays: Any, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the histories as [rows, 50], ids first, zeros behind: what both peers read."""
    lengths = arrays["length"]
    mask = np.arange(MAX_LENGTH) < lengths[:, None]
    result = np.zeros(mask.shape, np.int64)
    result[mask] = arrays[name]
    return result


Scores = Callable[[], Any]


def split(arrays: Any, *, is_test: bool) -> dict[str, Any]:
    """Returns the inputs and labels of the rows to train on, or of the others."""
    rows = arrays["is_test"] == is_test
    inputs = {name: arrays[name] for name in ("user", "item", "category", "length")}
    inputs |= {name: padded(arrays, name) for name in ("hist_item", "hist_category")}
    return {name: value[rows] for name, value in {**inputs, "label": arrays["label"]}.items()}


def build_deepctr(arrays: Any, seed: int) -> tuple[Callable[[], None], Scores]:
    """Returns one epoch of deepctr-torch's own trainer, and its scores of the test rows."""
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
        seed=seed,
        device="cpu",
    )
    model.compile(torch.optim.Adam(model.parameters(), lr=1e-3), "binary_crossentropy")
    train, test = split(arrays, is_test=False), split(arrays, is_test=True)
    labels = train["label"]

    def epoch() -> None:
        model.fit(train, labels, batch_size=BATCH_SIZE, epochs=1, verbose=0)

    return epoch, lambda: model.predict(test, BATCH_SIZE)


def build_rechub(arrays: Any, seed: int) -> tuple[Callable[[], None], Scores]:
    """Returns one epoch of torch-rechub's own trainer, and its scores of the test rows."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.ranking import DIN
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    torch.manual_seed(seed)
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
    train, test = split(arrays, is_test=False), split(arrays, is_test=True)
    labels, test_labels = train.pop("label"), test.pop("label")
    del train["length"], test["length"]
    loader, _, test_loader = DataGenerator(train, labels).generate_dataloader(
        x_val=test, y_val=test_labels, x_test=test, y_test=test_labels, batch_size=BATCH_SIZE
    )
    trainer = CTRTrainer(
        model, optimizer_params={"lr": 1e-3, "weight_decay": 0.0}, n_epoch=1, device="cpu"
    )

    def epoch() -> None:
        trainer.train_one_epoch(loader, log_interval=10**9)

    return epoch, lambda: trainer.predict(trainer.model, test_loader)


def main() -> None:
    """Prints rows, CPU seconds and wall seconds of one epoch, and the AUC, as JSON."""
    library, path, seed = sys.argv[1:]
    arrays = dict(np.load(path))
    build = {"deepctr-torch": build_deepctr, "torch-rechub": build_rechub}[library]
    epoch, scores = build(arrays, int(seed))
    cpu, wall = time.process_time(), time.perf_counter()
    epoch()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    labels = arrays["label"][arrays["is_test"]]
    result = {
        "rows": int((~arrays["is_test"]).sum()),
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "auc": float(roc_auc_score(labels, np.ravel(scores()))),
    }
    print(json.dumps({**result, "optimizers": "Adam on everything, dense table gradients"}))


if __name__ == "__main__":
    main()
