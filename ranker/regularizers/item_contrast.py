"""Self-supervised learning of item features (Yao et al., CIKM 2021; 2007.12865)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.modules.gather_rows import gather_rows
from ranker.modules.id_hash import hash_ids
from ranker.modules.mlp import MLP
from ranker.slots import FeatureLayout, RegularizerInputs
from ranker_data.schema import Schema


class ItemContrast(nn.Module):
    """weight * InfoNCE between two views of an item, each with the other's features masked.

    A step splits the item's features at random into two halves. In a view the features of one half
    are replaced by learned vectors; both views go through one MLP, and

        L = - mean_i ln( exp(cos(z_i, z'_i) / t) / sum_k exp(cos(z_i, z'_k) / t) )   (equation 2)

    over distinct items of the global batch, so that popular items do not count more often than
    others (the paper samples items uniformly, from all of them). The masks are complementary
    (section 3.3); the paper chooses features of high mutual information together, here all splits
    are equally likely. Features reach the views through the tables that they share with the
    ranking model.

    Args:
        schema: of the data set.
        items: layout of the item features.
        weight: of the term in the loss.
        temperature: t.
        hidden_units: widths of the MLP; the last is that of z.
        max_items: distinct items of a batch that take part, drawn anew each step; the work grows
            with its square.
        item: item field that tells items apart; null is the first single-valued one.

    Raises:
        ValueError: there are too few item features to split, or an option is out of range.
    """

    calls: Tensor

    def __init__(
        self,
        *,
        schema: Schema,
        items: FeatureLayout,
        weight: float,
        temperature: float,
        hidden_units: list[int],
        max_items: int,
        item: str | None = None,
    ) -> None:
        super().__init__()
        names = [field.name for field in schema.fields_of("item", "id")]
        if len(items.names) < 2 or not names:
            raise ValueError(
                "regularizer.item_contrast splits the item's features into two views; "
                f"{schema.name!r} has {', '.join(items.names) or 'none'}"
            )
        item = names[0] if item is None else item
        if item not in names:
            raise ValueError(
                f"regularizer.item_contrast.item is {item!r}; must be one of {', '.join(names)}"
            )
        for name, value in (("weight", weight), ("temperature", temperature)):
            if value <= 0:
                raise ValueError(f"regularizer.item_contrast.{name} is {value}; must be positive")
        if max_items < 2 or not hidden_units:
            raise ValueError(
                f"regularizer.item_contrast.max_items is {max_items} and hidden_units "
                f"{hidden_units}; there must be two items and one layer at least"
            )
        self.items, self.weight, self.temperature = items, weight, temperature
        self.max_items, self.item_column = max_items, names.index(item)
        self.masked = nn.Parameter(torch.zeros(items.dim))
        nn.init.normal_(self.masked, std=0.01)
        self.encoder = MLP(
            input_dim=items.dim, hidden_units=hidden_units, activation="relu", dropout=0.0
        )
        # steps taken: splits and draws are a function of it, alike on all ranks and after a resume
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """Returns the weighted loss, the same on all ranks."""
        call = int(self.calls)
        self.calls += 1
        rows, ids = self._draw(inputs.item_ids[:, self.item_column], call)
        features = inputs.items[rows]
        first = self._split(call).to(features.device)
        views = torch.cat([torch.where(mask, self.masked, features) for mask in (first, ~first)])
        left, right = F.normalize(self.encoder(views), dim=1).chunk(2)
        # an item may be drawn on several ranks; the smallest rank's counts
        everywhere = gather_rows(torch.cat([left, right], dim=1))
        chosen, _ = self._draw(gather_rows(ids.unsqueeze(1))[:, 0], call)
        left, right = everywhere[chosen].chunk(2, dim=1)
        scores = left @ right.T / self.temperature
        target = torch.arange(len(scores), device=scores.device)
        return self.weight * F.cross_entropy(scores, target)

    def _draw(self, ids: Tensor, call: int) -> tuple[Tensor, Tensor]:
        """Returns the first row of each of up to max_items distinct ids, and these ids.

        The draw is by a hash of the id: what is drawn from the batch of all ranks is drawn on the
        ranks that have it.
        """
        distinct, place = ids.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        rows = torch.full_like(distinct, len(ids)).scatter_reduce(
            0, place, torch.arange(len(ids), device=ids.device), "amin"
        )
        order = hash_ids(distinct, salt=call, num_rows=2**62).argsort()[: self.max_items]
        return rows[order], distinct[order]

    def _split(self, call: int) -> Tensor:
        """Returns the columns [D] that the first view masks; the second masks the others."""
        generator = torch.Generator().manual_seed(call)
        order = torch.randperm(len(self.items.names), generator=generator).tolist()
        mask = torch.zeros(self.items.dim, dtype=torch.bool)
        for index in order[: len(order) // 2]:
            mask[self.items.columns(self.items.names[index])] = True
        return mask
