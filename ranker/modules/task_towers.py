"""The last stage of every multi-task head: a tower per task, and products of their predictions."""

import dataclasses
from collections.abc import Mapping

from torch import Tensor, nn

from ranker.modules.gate_nu import Gates
from ranker.modules.linear import Linear
from ranker.modules.mlp import Activation, build_activation, linear_logit
from ranker.modules.ppnet import PPNet, PPNetOptions
from ranker.modules.product_logit import product_logit
from ranker.slots import FeatureLayout, HeadInputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerOptions:
    """What a head predicts, and the towers that do it.

    Attributes:
        predict: tasks with a tower of their own.
        hidden_units: widths of every tower.
        activation: relu, prelu, dice or sigmoid.
        dropout: share of hidden units dropped in training.
        products: tasks whose probability is a product of others', as task to factors
            (ESMM: ctcvr to [ctr, cvr]); a factor is a task with a tower or an earlier product.
        auxiliary: names of further towers that an objective asks for; they are not evaluated.
    """

    predict: list[str]
    hidden_units: list[int]
    activation: Activation = "relu"
    dropout: float = 0.0
    products: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    auxiliary: list[str] = dataclasses.field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of the towers."""
        return [*self.predict, *self.auxiliary]


class TaskTowers(nn.Module):
    """logit_t = w_t . MLP_t(x_t) + b_t, gated by PPNet if asked; logits of products on top.

    A gate scales a layer's activation before dropout: O^(l) = delta^(l) * H^(l).

    Args:
        input_dim: width of the head's features (PPNet's gates see them).
        tower_dim: width of what enters each tower.
        tasks: tasks of the data set.
        layout: of the shared embedding.
        options: of the towers.
        ppnet: of the gates; None for plain towers.

    Raises:
        ValueError: a name is unknown or there twice, or a product's factors are not predicted.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        tower_dim: int,
        tasks: tuple[str, ...],
        layout: FeatureLayout,
        options: TowerOptions,
        ppnet: PPNetOptions | None,
    ) -> None:
        super().__init__()
        _check_names(options, tasks)
        self.names = options.names
        self.products = {name: list(factors) for name, factors in options.products.items()}
        self.towers = nn.ModuleList(_Tower(tower_dim, options) for _ in self.names)
        self.ppnet = None
        if ppnet is not None:
            self.ppnet = PPNet(
                input_dim=input_dim,
                layout=layout,
                options=ppnet,
                num_towers=len(self.names),
                tower_dim=tower_dim,
                hidden_units=options.hidden_units,
            )

    def forward(self, tower_inputs: list[Tensor], inputs: HeadInputs) -> dict[str, Tensor]:
        """Returns a logit [C] per tower, then per product.

        Args:
            tower_inputs: [C, tower_dim] for each tower, in the order of `names`.
            inputs: of the head.
        """
        no_gates: list[list[Gates | None]] = [[] for _ in self.names]
        gates = no_gates if self.ppnet is None else self.ppnet(inputs)
        logits: dict[str, Tensor] = {
            name: tower(tower_input, tower_gates)
            for name, tower, tower_input, tower_gates in zip(
                self.names, self.towers, tower_inputs, gates, strict=True
            )
        }
        for name, factors in self.products.items():
            logits[name] = product_logit([logits[factor] for factor in factors])
        return logits


class _Tower(nn.Module):
    """Linear, activation, gate and dropout for each layer, then one logit."""

    def __init__(self, input_dim: int, options: TowerOptions) -> None:
        super().__init__()
        self.layers, self.activations = nn.ModuleList(), nn.ModuleList()
        for width in options.hidden_units:
            linear = Linear(input_dim, width)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.layers.append(linear)
            self.activations.append(build_activation(options.activation, width))
            input_dim = width
        self.dropout = nn.Dropout(options.dropout)
        self.logit = linear_logit(input_dim)

    def forward(self, inputs: Tensor, gates: list[Gates | None]) -> Tensor:
        gates = gates or [None] * (len(self.layers) + 1)
        hidden = _scale(inputs, gates[0])
        for layer, activation, gate in zip(self.layers, self.activations, gates[1:], strict=True):
            hidden = self.dropout(_scale(activation(layer(hidden)), gate))
        logit: Tensor = self.logit(hidden).squeeze(-1)
        return logit


def _scale(inputs: Tensor, gates: Gates | None) -> Tensor:
    return inputs if gates is None else gates.scale(inputs)


def _check_names(options: TowerOptions, tasks: tuple[str, ...]) -> None:
    """Raises ValueError for names that the data set or the head does not have."""
    if not options.predict:
        raise ValueError(f"head.towers.predict is empty; the data set has {', '.join(tasks)}")
    for key, names in (("predict", options.predict), ("products", list(options.products))):
        for name in names:
            if name not in tasks:
                raise ValueError(
                    f"head.towers.{key} names the task {name!r}; the data set has the tasks "
                    f"{', '.join(tasks)}"
                )
    for name in options.auxiliary:
        if name in tasks:
            raise ValueError(
                f"head.towers.auxiliary names {name!r}, which is a task; move it to predict"
            )
    known = options.names
    for name, factors in options.products.items():
        missing = [factor for factor in factors if factor not in known]
        if missing or len(factors) < 2:
            raise ValueError(
                f"head.towers.products.{name} is {factors}; it must list two or more of "
                f"{', '.join(known)}"
            )
        known = [*known, name]
    for name in known:
        if known.count(name) > 1:
            raise ValueError(f"head.towers names {name!r} twice")
