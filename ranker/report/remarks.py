"""What a careful reader would notice first, said in words."""

import numpy as np

from ranker.metrics.evaluation import EvaluationRows
from ranker.report.encoding import Json

# an AUC this high on click data has nearly always been a leaked label
SUSPICIOUS_AUC = 0.98
# GAUC that speaks for less than half of the rows should say so
MANY_SKIPPED_FRACTION = 0.5


def find_remarks(rows: EvaluationRows, metrics: Json) -> list[str]:
    """Warnings about one task, most serious first."""
    if rows.count == 0:
        return ["No row has a label for this task, so nothing could be measured."]
    remarks = []
    if np.all(rows.logits == rows.logits[0]):
        remarks.append(
            f"Collapse: the predictions have 1 distinct value in {rows.count:,} rows. "
            "The model ranks nothing."
        )
    auc, entropy, gauc = (metrics[name] for name in ("auc", "normalized_entropy", "gauc"))
    if auc["value"] is not None and auc["value"] > SUSPICIOUS_AUC:
        remarks.append(
            f"An AUC above {SUSPICIOUS_AUC} is rarely earned. Look for a feature that contains "
            "the label or knows the future."
        )
    high = auc["interval"] and auc["interval"]["high"]
    if high is not None and high < 0.5:
        remarks.append("The order is reversed: the whole interval of the AUC lies below 0.5.")
    if entropy["value"] is not None and entropy["value"] >= 1:
        remarks.append(
            "Normalised entropy is not below 1: these probabilities are no better than "
            "predicting the mean rate for every row."
        )
    skipped = gauc["skipped_rows_fraction"]
    if gauc["value"] is not None and skipped > MANY_SKIPPED_FRACTION:
        remarks.append(
            f"GAUC speaks for {1 - skipped:.1%} of the rows only: the others are in groups with "
            "one class."
        )
    return remarks
