"""The report in a few plain sentences."""

from ranker.report.encoding import Json


def summarize_task(task: Json) -> str:
    """What a person should know of a task who reads nothing else."""
    auc, pcoc = task["metrics"]["auc"], task["metrics"]["pcoc"]
    if auc["value"] is None:
        return f"No AUC: {auc['reason']}."
    text = (
        f"A positive row outranks a negative one {auc['value']:.1%} of the time "
        f"(AUC {auc['value']:.4f}{_between(auc['interval'])})"
    )
    gauc = task["metrics"]["gauc"]["value"]
    if gauc is not None:
        text += f", {gauc:.1%} within a group"
    if pcoc["value"] is not None:
        text += f"; predictions add up to {pcoc['value']:.2f} times the observed positives"
    gap = task["bayes"] and task["bayes"]["auc"]["gap"]
    if gap:
        text += f"; the true probabilities would reach {task['bayes']['auc']['value']:.4f}"
    return text + "."


def _between(interval: Json | None) -> str:
    if interval is None or interval["low"] is None:
        return ""
    return f", {interval['level']:.0%} interval {interval['low']:.4f} to {interval['high']:.4f}"
