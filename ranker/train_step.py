"""One training step: forward, backward and the optimizers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ranker.checkpoint import Trainable
from ranker.distributed import mean_over_ranks
from ranker.metrics.streaming import StreamedMetrics, read_all
from ranker.optimizers.look_ahead import MetaOptions, look_ahead
from ranker.optimizers.schedule import ScheduledRates
from ranker.slots import AdaptiveObjective, FeatureObjective
from ranker.train_module import loss_module, ranking_model
from ranker_data.batch import RankingBatch

Precision = Literal["fp32", "bf16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a step computes.

    Attributes:
        precision: "bf16" runs matrix products in bfloat16; weights, tables and losses stay fp32.
        max_grad_norm: the gradient of what is clipped is scaled down to this norm; None never is.
        meta: trains selectors by a trial step of everything else; None trains all together.
    """

    precision: Precision = "fp32"
    max_grad_norm: float | None = None
    meta: MetaOptions | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be fp32 or bf16, got {self.precision!r}")


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a step reports.

    Attributes:
        loss: scalar, detached; this rank's share of the global mean (`distributed.weighted_mean`).
        parts: its named summands, detached likewise.
    """

    loss: Tensor
    parts: dict[str, Tensor]


class TrainStep:
    """Takes one step on a global batch, whole or in micro-batches.

    A global batch of k micro-batches takes the loss of all its rows together, whatever the
    objective is: a first pass without gradient gives all logits, the objective their gradients, and
    a second pass carries these back, one micro-batch after the other. The gradient of everything
    but fused tables is that of the whole batch. A fused table moves in the backward of each
    micro-batch: k smaller updates instead of one, and later micro-batches see the earlier updates.
    Losses of the model's own (regularizers) are means over the micro-batches.

    Args:
        trainable: the sharded model and its optimizers.
        rates: the schedules of the learning rates.
        options: how it computes.
        clipped: parameters whose gradient is scaled down together.
        seed: of the run.
        rank: of this process.
    """

    def __init__(
        self,
        trainable: Trainable,
        *,
        rates: ScheduledRates,
        options: StepOptions,
        clipped: Sequence[Tensor],
        seed: int,
        rank: int,
    ) -> None:
        self.trainable, self.rates, self.options = trainable, rates, options
        self.seed, self.rank = seed, rank
        self.loss = loss_module(trainable.model)
        objective = self.loss.objective
        self.adaptive = objective if isinstance(objective, AdaptiveObjective) else None
        self._clipped = list(clipped)
        self._grad_norm: Tensor | None = None
        # of each task, the rows since the last report
        self._seen: dict[str, StreamedMetrics] = {}

    def report(self) -> dict[str, float]:
        """Returns what the training record should show, by name; every rank calls it.

        Of the last step, and AUC and PCOC of the rows since the last report.
        """
        values = {} if self.adaptive is None else self.adaptive.report()
        if self._grad_norm is not None:
            values["grad_norm"] = float(self._grad_norm)
        return values | self.rates.report() | read_all(self._seen)

    def __call__(self, batch: RankingBatch | Sequence[RankingBatch], step: int) -> StepResult:
        """Moves the weights along the gradient of the loss on a batch.

        Args:
            batch: this rank's share of the global batch, or of each of its micro-batches, on the
                model's device.
            step: steps taken before. Dropout draws depend on it, so that a resumed run draws like
                an uninterrupted one.
        """
        trainable = self.trainable
        # asked first, because telling all modules takes a while
        if not trainable.model.training:
            trainable.model.train()
        ranking_model(trainable.model).search.refresh(step)
        # a fused optimizer takes a new rate at zero_grad
        self.rates.apply(step)
        trainable.optimizer.zero_grad()
        if isinstance(batch, RankingBatch):
            result = self._backward(batch, step, 0)
        elif len(batch) == 1:
            result = self._backward(batch[0], step, 0)
        elif self.options.meta is not None:
            result = self._meta(batch, step, self.options.meta)
        else:
            result = self._accumulate(batch, step)
        if self.options.max_grad_norm is not None:
            # gradients are averaged already, so every rank finds the same norm
            self._grad_norm = nn.utils.clip_grad_norm_(self._clipped, self.options.max_grad_norm)
        trainable.optimizer.step()
        if self.adaptive is not None:
            self.adaptive.after_step()
        return result

    def _backward(self, batch: RankingBatch, step: int, part: int) -> StepResult:
        loss, parts, logits = self._forward(batch, step, part)
        self._watch(batch, logits)
        loss.backward()  # type: ignore[no-untyped-call]
        return StepResult(loss.detach(), {name: value.detach() for name, value in parts.items()})

    def _watch(self, batch: RankingBatch, logits: Mapping[str, Tensor]) -> None:
        for task, target in self.loss.targets(batch).items():
            # neither tasks without a tower nor auxiliary towers have anything to watch
            if task not in logits:
                continue
            values = logits[task]
            if task not in self._seen:
                self._seen[task] = StreamedMetrics(device=values.device)
            self._seen[task].add(values, target.labels, target.weights)

    def _forward(
        self, batch: RankingBatch, step: int, part: int
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        device = batch.weights.device.type
        _seed(hash((self.seed, step, self.rank, part)) % 2**63, device)
        with torch.autocast(device, torch.bfloat16, enabled=self.options.precision == "bf16"):
            outputs: tuple[Tensor, dict[str, Tensor], dict[str, Tensor]] = self.trainable.model(
                batch
            )
        return outputs

    def _meta(self, batches: Sequence[RankingBatch], step: int, options: MetaOptions) -> StepResult:
        """Takes the gradient of the second half of the batch where the first half leads to.

        Selectors phi and everything else theta: with theta' = theta - rate * grad L_1(theta, phi),
        the gradient is that of L_2(theta', phi) in both (Meta-Wrapper, 2206.14647, without second
        derivatives). Fused tables learn from both halves.
        """
        if len(batches) != 2:
            raise ValueError(
                f"trainer.meta needs two halves of a batch, but this one came in {len(batches)} "
                "micro-batches; raise the memory that it may take, or lower loader.batch_size"
            )
        dense = self.trainable.dense
        rest = [
            parameter
            for name, parameter in dense.params.items()
            if not any(f".encoders.{encoder}." in f".{name}" for encoder in options.encoders)
        ]
        if len(rest) == len(dense.params):
            raise ValueError(
                f"trainer.meta.encoders is {options.encoders}; the model has no such encoder with "
                "parameters"
            )
        self._backward(batches[0], step, 0)
        with look_ahead(rest, rate=options.rate):
            dense.zero_grad()
            return self._backward(batches[1], step, 1)

    def _accumulate(self, batches: Sequence[RankingBatch], step: int) -> StepResult:
        if isinstance(self.loss.objective, FeatureObjective):
            raise ValueError(
                f"the objective {type(self.loss.objective).__name__} looks at gradients of the "
                f"whole batch, but this one came in {len(batches)} micro-batches; set "
                "trainer.accumulate_steps=1 and leave loader.max_behaviors null"
            )
        logits = self._all_logits(batches, step)
        sizes = [batch.num_candidates for batch in batches]
        loss, parts = self.loss.objective(logits, self.loss.targets_of_parts(batches))
        names, values = list(logits), list(logits.values())
        learned = [p for p in self.loss.parameters() if p.requires_grad]
        found = torch.autograd.grad(loss, [*values, *learned], allow_unused=True)
        gradients = [
            torch.zeros_like(value) if gradient is None else gradient
            for value, gradient in zip([*values, *learned], found, strict=True)
        ]
        pieces = [torch.split(gradient, sizes) for gradient in gradients[: len(values)]]
        total, own = loss.detach(), {name: value.detach() for name, value in parts.items()}
        try:
            for part, batch in enumerate(batches):
                self.loss.carried = {
                    name: piece[part] for name, piece in zip(names, pieces, strict=True)
                }
                self.loss.share = 1 / len(batches)
                # gradients are averaged over the ranks each time; those that were already are equal
                # on all of them, and stay what they are
                result = self._backward(batch, step, part)
                for name, value in result.parts.items():
                    own[name] = own.get(name, torch.zeros_like(value)) + value
                    total = total + value
        finally:
            self.loss.carried = None
        # the second passes do not ask the objective: its own parameters learn from the first
        for parameter, gradient in zip(learned, gradients[len(values) :], strict=True):
            parameter.grad = mean_over_ranks(gradient)
        return StepResult(total, own)

    def _all_logits(self, batches: Sequence[RankingBatch], step: int) -> dict[str, Tensor]:
        """Logits [C] of the whole batch, as leaves of a graph that begins at them."""
        buffers = [(buffer, buffer.clone()) for buffer in self.trainable.model.buffers()]
        outputs = []
        self.loss.carried = {}
        try:
            with torch.no_grad():
                for part, batch in enumerate(batches):
                    outputs.append(self._forward(batch, step, part)[2])
        finally:
            self.loss.carried = None
        # moving averages move once, in the second pass
        for buffer, value in buffers:
            buffer.copy_(value)
        return {
            name: torch.cat([output[name] for output in outputs]).requires_grad_()
            for name in outputs[0]
        }


def _seed(seed: int, device: str) -> None:
    """Seeds the generators that a step draws from.

    `torch.manual_seed` seeds those of every kind of device; where there is none it keeps the call,
    with a traceback, for the day that there is one: time and memory at every step.
    """
    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed(seed)
