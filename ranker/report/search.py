"""The quality of a search over the history: how much of the exact top k it finds.

An evaluation of a run whose encoders search leaves `search.json`, or `search-<encoder>.json` each.
"""

import json
from pathlib import Path

from ranker.report.encoding import Json


def read_search(folder: Path) -> list[Json]:
    """What the files of an evaluation folder say, in the order of their names.

    Returns:
        {"encoder", "k", "count" rows, "hit_rate", "interval" [low, high] or None, "by_length":
        [{"bucket", "hit_rate", "count"}]} of each search that had something to find.

    Raises:
        ValueError: a file is not what an evaluation writes.
    """
    found = []
    for path in sorted(folder.glob("search*.json")):
        try:
            search = json.loads(path.read_text(encoding="utf-8"))
            known = {
                "encoder": str(search["encoder"]),
                "k": int(search["k"]),
                "count": int(search["count"]),
                "hit_rate": search["hit_rate"],
                "interval": search["interval"],
                "by_length": [
                    {name: bucket[name] for name in ("bucket", "hit_rate", "count")}
                    for bucket in search["by_length"]
                ],
            }
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no search.json ({error!r}); evaluate again") from error
        if known["hit_rate"] is not None:
            found.append(known)
    return found


def describe_search(search: Json) -> str:
    """A search in a plain sentence."""
    text = (
        f"{search['encoder']} finds {search['hit_rate']:.1%} of the {search['k']} behaviours that "
        f"its attention weighs most"
    )
    if search["interval"]:
        low, high = search["interval"]
        text += f" (95% interval {low:.1%} to {high:.1%})"
    return f"{text}, on {search['count']:,} rows."
