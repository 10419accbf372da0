"""Steps of common optimisers as tensor operations, for a graph of the whole training step.

Torch's own code for a step reads the step count on the host, so that it cannot be recorded. Here
the numbers that depend on it are computed on the host before each step, and given to the graph.
Rates, and whatever else a schedule changes, are such numbers too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from priorzoo.inference.training.kinds import KINDS, SQUARES, Group, Kind
from priorzoo.inference.training.optimisers import Together


@dataclass
class Member:
    """Parameters of one group, with what their steps read and change as tensors.

    Args:
        kind, group: those of the optimiser.
        parameters: the parameters by name.
        moments: what the optimiser keeps for each parameter, by its name for that.
        counts: steps that each parameter has taken; the optimiser's state has views of it.
        rows: for each parameter its row of ``numbers``, the same for equal counts.
        numbers: what a step reads, ``(R, ...)``.
    """

    kind: Kind
    group: Group
    parameters: dict[str, Tensor]
    moments: list[dict[str, Tensor]]
    counts: Tensor
    rows: list[int]
    numbers: Tensor

    def __post_init__(self) -> None:
        self.of_rows = [self.rows.index(row) for row in range(len(self.numbers))]
        self.counted, self.written = self.counts.numpy(), self.numbers.numpy()
        self.decays = bool(self.group.get("weight_decay"))

    @property
    def tensors(self) -> list[Tensor]:
        """The numbers and the moments, inputs of a graph."""
        return [self.numbers, *(tensor for kept in self.moments for tensor in kept.values())]

    @property
    def trial(self) -> list[Tensor]:
        """Inputs on which two computations of a step can be compared.

        With squares and a rate of 1, changes are smooth functions of the gradients. At Adam's first
        step, by contrast, the rounding error of a gradient of zero would decide about a sign.
        """
        values = list(self.kind.numbers({**self.group, "lr": 1.0}, 1.0).values())
        found = [torch.tensor([values] * len(self.numbers), dtype=self.numbers.dtype)]
        for kept in self.moments:
            found += [torch.ones_like(t) if name in SQUARES else t for name, t in kept.items()]
        return found

    def apply(
        self,
        inputs: Iterator[Tensor],
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
    ) -> None:
        """Record a step of the parameters that have gradients, with the next of the inputs."""
        numbers, sign = next(inputs), -1 if self.group.get("maximize") else 1
        keys = list(self.kind.numbers(self.group, 1.0))
        for name, row, kept in zip(self.parameters, self.rows, self.moments, strict=True):
            state = {moment: next(inputs) for moment in kept}
            if name in gradients:
                p = parameters[name]
                values = {key: numbers[row, i].to(p.dtype) for i, key in enumerate(keys)}
                self.kind.update(self.group, p, sign * gradients[name], state, values)


class Updates:
    """The steps of an optimiser, whose state is an input of a graph that changes it in place.

    The state remains that of the optimiser: its own steps, ``state_dict`` and ``load_state_dict``
    work as ever.

    Args:
        optimiser: one that :func:`can_record` accepts.
        parameters: those that each step changes, by name.
    """

    def __init__(self, optimiser: Optimizer, parameters: Mapping[str, Tensor]) -> None:
        self.optimiser = optimiser
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.members: list[Member] = []
        self.bind()

    def bind(self) -> None:
        """Take the optimiser's state as inputs, and create what is missing as torch does."""
        self.members.clear()
        for kind, part, group in _groups(self.optimiser):
            own = {self.names[id(p)]: p for p in group["params"] if id(p) in self.names}
            if kind is not None and own:
                self.members.append(_member(kind, part, group, own))
        self._state, self._groups = self.optimiser.state, self.optimiser.param_groups
        self._states = len(self._state)
        # Schedules warn before an optimiser's first step, which they would otherwise not see.
        vars(self.optimiser)["_opt_called"] = True

    @property
    def is_bound(self) -> bool:
        """Whether the optimiser still has the state that the inputs are."""
        own = self.optimiser
        return (
            own.state is self._state
            and len(own.state) == self._states
            and own.param_groups is self._groups
            and all(bool(m.group.get("weight_decay")) == m.decays for m in self.members)
        )

    @property
    def plan(self) -> list[object]:
        """What a recorded graph is specific to."""
        flags = ("amsgrad", "nesterov", "centered", "maximize", "decoupled_weight_decay")
        return [
            [list(m.parameters), m.rows, m.decays, *map(list, m.moments), *map(m.group.get, flags)]
            for m in self.members
        ]

    @property
    def tensors(self) -> list[Tensor]:
        """All inputs of the graph."""
        return [tensor for member in self.members for tensor in member.tensors]

    @property
    def trial(self) -> list[Tensor]:
        """Inputs of the same shapes, see :attr:`Member.trial`."""
        return [tensor for member in self.members for tensor in member.trial]

    def apply(
        self,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
    ) -> None:
        """Record one step of the parameters that have gradients; the inputs are ``tensors``."""
        given = iter(inputs)
        for member in self.members:
            member.apply(given, parameters, gradients)

    def prepare(self) -> None:
        """Write the numbers of the next step."""
        for member in self.members:
            for row, place in enumerate(member.of_rows):
                step = float(member.counted[place]) + 1
                member.written[row] = tuple(member.kind.numbers(member.group, step).values())

    def tables(self, steps: int) -> dict[int, Tensor]:
        """The numbers of the next steps, ``(steps, R, ...)``, by their place in ``tensors``."""
        found, place = {}, 0
        for member in self.members:
            table = torch.empty(steps, *member.numbers.shape, dtype=member.numbers.dtype)
            written = table.numpy()
            for row, first in enumerate(member.of_rows):
                done = float(member.counted[first])
                for step in range(steps):
                    numbers = member.kind.numbers(member.group, done + step + 1)
                    written[step, row] = tuple(numbers.values())
            found[place] = table
            place += len(member.tensors)
        return found

    def advance(self, steps: int = 1) -> None:
        """Count steps."""
        for member in self.members:
            member.counted += steps


def can_record(optimiser: Optimizer) -> bool:
    """Whether steps of an optimiser are of a known kind, on the CPU, and call no hooks."""
    own = vars(optimiser)
    hooked = own.get("_optimizer_step_pre_hooks") or own.get("_optimizer_step_post_hooks")
    return not hooked and all(
        kind is not None
        and not kind.refused(group)
        and all(p.device.type == "cpu" and p.is_floating_point() for p in group["params"])
        for kind, _, group in _groups(optimiser)
    )


def _groups(optimiser: Optimizer) -> Iterator[tuple[Kind | None, Optimizer, Group]]:
    """The groups of an optimiser, and of those that it consists of."""
    if isinstance(optimiser, Together):
        for part in optimiser.parts:
            yield from _groups(part)
    else:
        for group in optimiser.param_groups:
            yield KINDS.get(type(optimiser)), optimiser, group


def _member(kind: Kind, part: Optimizer, group: Group, own: dict[str, Tensor]) -> Member:
    names, wide = kind.moments(group), any(p.dtype == torch.float64 for p in own.values())
    exact = torch.float64 if wide else torch.float32
    counts = torch.zeros(len(own), dtype=torch.float32 if kind.counter == "step" else exact)
    moments = []
    for place, p in enumerate(own.values()):
        kept = part.state[p] if names or kind.counter else {}
        if kind.counter:
            counts[place] = kept.get(kind.counter, 0)
            kept[kind.counter] = counts[place]
        for name in names:
            if kept.get(name) is None:
                kept[name] = torch.zeros_like(p, memory_format=torch.preserve_format).detach()
        moments.append({name: kept[name] for name in names})
    distinct = sorted(set(counts.tolist()))
    rows = [distinct.index(count) for count in counts.tolist()]
    numbers = torch.zeros(len(distinct), len(kind.numbers(group, 1.0)), dtype=exact)
    return Member(kind, group, own, moments, counts, rows, numbers)
