"""K_h W^h of every id, with the weights of now: what is put into a search's cache.

The cache is a file for evaluations (`ranker.projections`), or buffers of an encoder that a training
refreshes now and then (`CachingEncoder`).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from ranker.embedding import EmbeddingTables
from ranker_data.batch_keys import BEHAVIOR_PREFIX, batch_keys
from ranker_data.schema import Schema

_IDS_AT_ONCE = 1 << 16


def field_sizes(schema: Schema, names: list[str]) -> dict[str, int]:
    """Returns the number of ids of every inherent field, in the order of K_h.

    Args:
        schema: of the data set.
        names: the blocks of K_h.

    Raises:
        ValueError: a field has more than one id a behaviour, or ids without a vocabulary.
    """
    fields = {field.name: field for field in schema.inherent_behaviors}
    sizes = {}
    for name in names:
        field = fields[name]
        size = schema.table(field.table).num_embeddings if field.table else None
        if field.kind != "id" or size is None:
            raise ValueError(
                f"behavior field {name!r} cannot be projected beforehand: it must have one id a "
                "behavior and a table of known size"
            )
        sizes[name] = size
    return sizes


@torch.no_grad()
def project_ids(
    tables: EmbeddingTables,
    schema: Schema,
    weights: Mapping[str, Tensor],
    sizes: Mapping[str, int],
) -> Iterator[tuple[str, int, Tensor]]:
    """Projects all ids, some at a time; every rank goes through all of them.

    Args:
        tables: of the model, sharded.
        schema: of the data set.
        weights: the rows of W^h that belong to each field, [H, D_f, d].
        sizes: number of ids of each field.

    Yields:
        Field, first id, and projections [ids, H d] of the ids from there, heads side by side.
    """
    # sharded tables take the keys of their first lookup for those of all, order included
    keys = [key.name for key in batch_keys(schema)]
    for field, size in sizes.items():
        weight = weights[field]
        for begin in range(0, size, _IDS_AT_ONCE):
            ids = torch.arange(begin, min(begin + _IDS_AT_ONCE, size), device=weight.device)
            vectors = _look_up(tables, keys, BEHAVIOR_PREFIX + field, ids)
            yield field, begin, torch.einsum("vd,hde->vhe", vectors, weight).flatten(1).float()


def weights_by_field(key_weight: Tensor, blocks: list[tuple[str, int]]) -> dict[str, Tensor]:
    """Returns the rows of W^h [H, D, d] that belong to each block of K_h, by its name and width."""
    names, widths = zip(*blocks, strict=True)
    return dict(zip(names, torch.split(key_weight.detach(), list(widths), dim=1), strict=True))


def _look_up(tables: EmbeddingTables, keys: list[str], key: str, ids: Tensor) -> Tensor:
    """Returns the vectors [ids, D_f] of one of the keys."""
    lengths = [len(ids) if other == key else 0 for other in keys]
    jagged = KeyedJaggedTensor(
        keys=keys, values=ids, lengths=torch.tensor(lengths, device=ids.device)
    )
    return tables.sources[key].take(tables(jagged))
