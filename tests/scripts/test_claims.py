import numpy as np
import pytest

from ranker_data.simulator.world import WorldConfig
from scripts.claims import CLAIMS, Claim, render_table, soft_auc
from scripts.measured_runs import CONFIGS


def test_soft_auc_is_the_expected_share_of_ordered_pairs() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(30)
    scores = np.round(truth + generator.normal(0, 0.3, 30), 1)  # with ties
    share, total = 0.0, 0.0
    for i in range(30):
        for j in range(30):
            weight = truth[i] * (1 - truth[j])
            share += weight * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
            total += weight
    assert soft_auc(scores, truth) == pytest.approx(share / total)
    assert soft_auc(np.zeros(30), truth) == pytest.approx(0.5)


def test_every_method_is_an_experiment_and_every_experiment_of_a_claim_a_method() -> None:
    methods = {method for claim in CLAIMS.values() for method in claim.methods}
    found = {path.stem for path in (CONFIGS / "experiment" / "claims").glob("*.yaml")}
    assert methods == {name for name in found if name.split("_")[0] in CLAIMS}
    for claim in CLAIMS.values():
        for world in claim.worlds.values():
            WorldConfig(**world)


def test_differences_are_paired_by_seed() -> None:
    claim = Claim(methods=("a", "b"), worlds={"w": {}}, tasks=("ctr",))
    values = {"a": [0.5, 0.6, 0.7], "b": [0.52, 0.62, 0.75]}
    results = {f"{m} w {s}": {"ctr.auc": values[m][s]} for m in values for s in range(3)}
    table = render_table(results, claim, [0, 1, 2], ["w"]).splitlines()
    assert table[2] == "| w | a | ctr.auc | 0.6000 |  |"
    # t with 2 degrees of freedom: 4.3027; standard error of (.02, .02, .05) is .01
    assert table[3] == "| w | b | ctr.auc | 0.6300 | +0.0300 [-0.0130, +0.0730] |"
