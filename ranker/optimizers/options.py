"""What a user chooses about optimizers."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from ranker.optimizers.schedule import ScheduleOptions
from ranker.table_names import check_patterns, option_of

TableOptimizerName = Literal["rowwise_adagrad", "adagrad", "sgd", "adam", "partial_rowwise_adam"]
DenseOptimizerName = Literal["adamw", "adam", "sgd", "adagrad"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptimizer:
    """The optimizer of one table.

    Attributes:
        name: which.
        lr: learning rate.
        eps: added to the root of the accumulator; unused by sgd.
        weight_decay: factor of the squared norm's gradient.
    """

    name: TableOptimizerName
    lr: float
    eps: float
    weight_decay: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptimizerOptions:
    """What differs for some tables; null keeps the value of all tables.

    Attributes:
        optimizer: which.
        lr: learning rate.
        eps: added to the root of the accumulator.
        weight_decay: factor of the squared norm's gradient.
    """

    optimizer: TableOptimizerName | None = None
    lr: float | None = None
    eps: float | None = None
    weight_decay: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Optimizers of the two halves.

    Attributes:
        sparse: of the tables; fused into the backward of the lookup where tables are sharded.
        sparse_lr: its learning rate.
        sparse_eps: added to the root of the accumulator; unused by sgd.
        sparse_weight_decay: L2 of the tables.
        sparse_schedule: of the tables' learning rates.
        tables: what differs for some tables, by table name or pattern.
        dense: of everything else.
        dense_lr: its learning rate.
        dense_weight_decay: decoupled for adamw, L2 for the others.
        dense_betas: of adamw and adam.
        dense_eps: of adamw, adam and adagrad; null is torch's default.
        dense_momentum: of sgd.
        schedule: of the dense learning rate.
        max_grad_norm: the gradient of the networks is scaled down to this global norm, the same on
            all ranks; null never does.
        clip_tables: whether the tables' gradients belong to it too; they must be data-parallel.
    """

    sparse: TableOptimizerName
    sparse_lr: float
    sparse_eps: float
    dense: DenseOptimizerName
    dense_lr: float
    dense_weight_decay: float
    sparse_weight_decay: float = 0.0
    sparse_schedule: ScheduleOptions = dataclasses.field(default_factory=ScheduleOptions)
    tables: Mapping[str, TableOptimizerOptions] = dataclasses.field(default_factory=dict)
    dense_betas: list[float] = dataclasses.field(default_factory=lambda: [0.9, 0.999])
    dense_eps: float | None = None
    dense_momentum: float = 0.0
    schedule: ScheduleOptions = dataclasses.field(default_factory=ScheduleOptions)
    max_grad_norm: float | None = None
    clip_tables: bool = False

    def __post_init__(self) -> None:
        _check_choice("sparse", self.sparse, TableOptimizerName)
        _check_choice("dense", self.dense, DenseOptimizerName)
        for pattern, options in self.tables.items():
            if options.optimizer is not None:
                _check_choice(f"tables.{pattern}.optimizer", options.optimizer, TableOptimizerName)
        if len(self.dense_betas) != 2 or not all(0 <= beta < 1 for beta in self.dense_betas):
            raise ValueError(f"dense_betas must be two numbers in [0, 1), got {self.dense_betas}")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be positive or null, got {self.max_grad_norm}")
        if self.dense_momentum and self.dense != "sgd":
            raise ValueError(
                f"dense_momentum is {self.dense_momentum} and dense is {self.dense!r}; only sgd "
                "has a momentum"
            )

    def of_table(self, table: str) -> TableOptimizer:
        """Returns the optimizer of a table."""
        own = option_of(self.tables, table) or TableOptimizerOptions()
        return TableOptimizer(
            name=self.sparse if own.optimizer is None else own.optimizer,
            lr=self.sparse_lr if own.lr is None else own.lr,
            eps=self.sparse_eps if own.eps is None else own.eps,
            weight_decay=(
                self.sparse_weight_decay if own.weight_decay is None else own.weight_decay
            ),
        )

    def check_tables(self, tables: Iterable[str]) -> None:
        """Checks that the names and patterns of `tables` match.

        Raises:
            ValueError: one matches no table of the model.
        """
        check_patterns("optimizer.tables", self.tables, tables)


def _check_choice(key: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{key} is {value!r}; must be one of {', '.join(get_args(choices))}")
