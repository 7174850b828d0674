import torch

from ranker.heads.independent import Independent
from ranker.modules.task_towers import TowerOptions
from ranker.slots import FeatureLayout, HeadInputs

LAYOUT = FeatureLayout(names=("user_id", "item_id"), widths=(3, 3))


def test_esmm_is_two_towers_on_one_embedding_and_their_product() -> None:
    torch.manual_seed(0)
    head = Independent(
        input_dim=6,
        tasks=("ctr", "cvr", "ctcvr"),
        layout=LAYOUT,
        towers=TowerOptions(
            predict=["ctr", "cvr"], hidden_units=[5], products={"ctcvr": ["ctr", "cvr"]}
        ),
    ).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    features = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    logits = head(HeadInputs(features=features, embedded=features))
    p = {task: torch.sigmoid(logit) for task, logit in logits.items()}
    torch.testing.assert_close(p["ctcvr"], p["ctr"] * p["cvr"])
    # the towers are apart: the ctr tower does not see the cvr tower's weights
    own = torch.autograd.grad(logits["ctr"].sum(), list(head.parameters()), allow_unused=True)
    of_tower = {id(parameter) for parameter in head.towers.towers[0].parameters()}
    for parameter, gradient in zip(head.parameters(), own, strict=True):
        assert (gradient is not None) == (id(parameter) in of_tower)
