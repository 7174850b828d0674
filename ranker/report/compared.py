"""The metrics that runs are compared by."""

# metric -> whether more is better
COMPARED = {
    "auc": True,
    "gauc": True,
    "normalized_entropy": False,
    "logloss": False,
    "brier": False,
}
