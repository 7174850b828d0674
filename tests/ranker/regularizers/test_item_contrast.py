from typing import Any

import pytest
import torch

from ranker.regularizers.item_contrast import ItemContrast
from ranker.slots import FeatureLayout, RegularizerInputs
from ranker_data.schema import Schema

ITEMS = FeatureLayout(names=("item_id", "category", "tags", "price"), widths=(3, 2, 2, 1))
NOTHING = torch.zeros(0)


def build(schema: Schema, **options: Any) -> ItemContrast:
    torch.manual_seed(0)
    values = {"weight": 0.5, "temperature": 0.2, "hidden_units": [6, 5], "max_items": 100}
    return ItemContrast(schema=schema, items=ITEMS, **{**values, **options})


def inputs_of(ids: list[int], seed: int = 0) -> RegularizerInputs:
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(seed))
    index = torch.tensor(ids)
    return RegularizerInputs(
        ids={},
        vectors={},
        items=features[index],
        item_ids=torch.stack([index, index * 0], dim=1),
        weights=NOTHING,
        user_of=NOTHING,
        windows=NOTHING,
        bag_lengths={},
    )


def test_it_is_info_nce_of_complementary_views(tiny_schema: Schema) -> None:
    term = build(tiny_schema)
    inputs = inputs_of([4, 9, 4, 7, 9, 4, 1])
    masks = []
    for step in range(3):
        found = term(inputs)
        mask = term._split(step)
        masks.append(tuple(mask.tolist()))
        # two of the four features, whole
        assert sum(bool(mask[ITEMS.columns(name)].all()) for name in ITEMS.names) == 2
        assert sum(bool(mask[ITEMS.columns(name)].any()) for name in ITEMS.names) == 2
        # items 4, 9, 7 and 1 count once each
        items = inputs.items[[0, 1, 3, 6]]
        left = term.encoder(torch.where(mask, term.masked, items))
        right = term.encoder(torch.where(mask, items, term.masked))
        loss = torch.zeros(())
        for i in range(4):
            scores = torch.stack(
                [torch.cosine_similarity(left[i], right[k], dim=0) / 0.2 for k in range(4)]
            )
            loss = loss - scores.log_softmax(0)[i] / 4
        torch.testing.assert_close(found, 0.5 * loss)
    assert len(set(masks)) > 1


def test_draws_are_of_items_not_of_rows(tiny_schema: Schema) -> None:
    term = build(tiny_schema, max_items=2)
    drawn = [0, 0, 0, 0]
    ids = torch.tensor([0] * 97 + [1, 2, 3])
    for call in range(400):
        rows, chosen = term._draw(ids, call)
        assert len(rows) == 2
        assert torch.equal(ids[rows], chosen)
        for value in chosen.tolist():
            drawn[value] += 1
        # what is drawn from a whole is drawn from its parts
        parts = torch.cat([term._draw(part, call)[1] for part in (ids[:98], ids[98:])])
        assert torch.equal(term._draw(parts, call)[1], chosen)
    assert all(150 < count < 250 for count in drawn)


def test_it_learns_to_tell_items_apart(tiny_schema: Schema) -> None:
    term = build(tiny_schema, hidden_units=[64, 16])
    optimizer = torch.optim.Adam(term.parameters(), lr=0.01)
    losses = []
    for _ in range(150):
        loss = term(inputs_of(list(range(20))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight is 0.0; must be positive"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"max_items": 1}, "max_items is 1"),
        ({"hidden_units": []}, r"hidden_units \[\]"),
        ({"item": "age"}, "item is 'age'; must be one of item_id, category"),
    ],
)
def test_bad_options_are_refused(
    tiny_schema: Schema, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(tiny_schema, **options)


def test_one_feature_cannot_be_split(tiny_schema: Schema) -> None:
    one = FeatureLayout(names=("item_id",), widths=(3,))
    with pytest.raises(ValueError, match="splits the item's features into two views"):
        ItemContrast(
            schema=tiny_schema, items=one, weight=1, temperature=1, hidden_units=[2], max_items=9
        )
