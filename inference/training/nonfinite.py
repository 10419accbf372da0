"""What a training does about steps with NaN or infinity: end, skip them, or go back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.training.watch import Trouble

OnNonfinite = Literal["raise", "skip", "rollback"]
SMALLER = 0.5  # factor of the learning rate after going back
LOST = 100  # skipped steps in a row after which a training ends, as it would not recover
SHOWN = 3  # names in a message
ROWS = 10  # rows in a message
RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # of a group of parameters, as schedules keep them
OF_SCHEDULES = ("base_lrs", "max_lrs", "min_lrs")

State = dict[str, Any]
ADVICE = (
    "lower the learning rate, clip the gradient, check whether a variance needs a floor, or choose "
    "on_nonfinite='skip' or 'rollback'"
)


class Place(NamedTuple):
    """Where a step is: its number, its batch in the pass, the pass, and some rows of the batch."""

    step: int
    batch: int
    epoch: int
    rows: list[int]

    def __str__(self) -> str:
        rows = f", rows {_listed(self.rows, ROWS)}" if self.rows else ""
        return f"step {self.step} (batch {self.batch} of pass {self.epoch}{rows})"


class Remedy:
    """The policy of a training for steps with NaN or infinity.

    Args:
        policy: ``raise`` ends the training. ``skip`` leaves parameters, optimiser and buffers as
            they were before such a step, and ends the training after 100 of them in a row.
            ``rollback`` goes back to the last row of the history, or the beginning, and on from
            there with half the learning rate.
        limit: how often ``rollback`` goes back; then it ends the training.

    Raises:
        ValueError: for another policy, or a negative limit.
    """

    def __init__(self, policy: OnNonfinite, limit: int) -> None:
        if policy not in get_args(OnNonfinite):
            raise ValueError(
                f"Expected on_nonfinite among {get_args(OnNonfinite)} but got {policy!r}."
            )
        check_count(limit, "rollbacks", 0)
        self.policy, self.limit = policy, limit
        self.rollbacks, self.lost = 0, 0
        self.good: State | None = None

    def keep(self, state: Callable[[], State]) -> None:
        """Keep a copy of the state after a row of the history, to go back to."""
        if self.policy == "rollback":
            self.good = copied(state())

    def described(self, trouble: Trouble, place: Place) -> str:
        """What was not finite, and where."""
        return f"{_blamed(trouble)} NaN or infinite at {place}"

    def go_back(self, said: str) -> State:
        """A copy of the last good state, to go on from after what is ``said``.

        Raises:
            FloatingPointError: where the policy is to end, or the limit is reached.
        """
        if self.policy == "raise":
            raise FloatingPointError(f"Expected finite terms and gradients but {said}; {ADVICE}.")
        if self.rollbacks >= self.limit:
            raise FloatingPointError(
                f"Expected finite terms and gradients after {self.limit} rollbacks but {said}; "
                "choose a lower learning rate, clip the gradient, or check the rows of this batch."
            )
        assert self.good is not None
        self.rollbacks += 1
        return cast(State, copied(self.good))

    def skipped(self, steps: int, of: int, said: str) -> None:
        """Count steps that were skipped.

        Raises:
            FloatingPointError: if too many in a row were skipped.
        """
        self.lost = self.lost + steps if steps == of else 0
        if self.lost >= LOST:
            raise FloatingPointError(
                f"Expected finite terms and gradients but all of the last {self.lost} steps were "
                f"skipped, the last since {said}; lower the learning rate or clip the gradient."
            )

    def state(self, between: bool) -> State:
        """What a checkpoint needs; between two rows of the history also the state to go back to."""
        own = {"rollbacks": self.rollbacks, "lost": self.lost}
        return own | {"good": self.good if between else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state`."""
        self.rollbacks, self.lost = state["rollbacks"], state["lost"]
        self.good = state["good"] if self.policy == "rollback" else None


def rates_of(optimiser: Optimizer) -> list[float]:
    """The learning rate of each group of parameters."""
    return [float(group["lr"]) for group in optimiser.param_groups]


def scale_rates(
    optimiser: Optimizer, schedule: LRScheduler | None, factors: float | list[float]
) -> None:
    """Multiply the learning rates of the groups, and those that a schedule computes with."""
    groups = optimiser.param_groups
    each = [factors] * len(groups) if isinstance(factors, float) else factors
    for group, factor in zip(groups, each, strict=True):
        for name in RATES:
            if isinstance(group.get(name), Tensor):
                group[name].mul_(factor)
            elif name in group and factor != 1:
                group[name] = group[name] * factor
    for part in [schedule, *getattr(schedule, "_schedulers", [])]:
        for name in OF_SCHEDULES:
            known = getattr(part, name, None)
            if isinstance(known, list) and len(known) == len(each):
                setattr(part, name, [rate * f for rate, f in zip(known, each, strict=True)])


def rescale(
    optimiser: Optimizer, schedule: LRScheduler | None, old: list[float], new: list[float]
) -> None:
    """Change learning rates that began at ``old`` to what they would be had they begun at ``new``.

    Raises:
        ValueError: for a rate of 0, from which nothing follows.
    """
    if old == new or len(old) != len(new):
        return
    if 0 in old:
        raise ValueError(f"Expected learning rates above 0 to change but got {old}; train anew.")
    scale_rates(optimiser, schedule, [b / a for a, b in zip(old, new, strict=True)])


def _blamed(trouble: Trouble) -> str:
    """What is wrong in words.

    >>> _blamed(Trouble(0, ["kl[z]"], ["guide.a", "guide.b"], 1))
    "kl[z] of site 'z', and the gradients of guide.a and guide.b, became"
    >>> _blamed(Trouble(0, [], ["guide.a"], 1))
    'the gradient of guide.a became'
    """
    parts = [f"{name}{_site(name)}" for name in trouble.terms]
    if trouble.parameters:
        several = "s" * (len(trouble.parameters) > 1)
        gradients = f"the gradient{several} of {_listed(trouble.parameters)}"
        parts = [*parts, f"and {gradients}," if parts else gradients]
    return f"{', '.join(parts)} became"


def _site(term: str) -> str:
    if term == "reconstruction":
        return " of site 'x'"
    for begin, end in (("kl[", "]"), ("log p(", ")")):
        if term.startswith(begin) and term.endswith(end):
            return f" of site {term[len(begin) : -1]!r}"
    return ""


def _listed(names: Sequence[object], most: int = SHOWN) -> str:
    """The first names, and how many more.

    >>> _listed(["a"]), _listed(["a", "b"]), _listed([1, 2, 3, 4, 5])
    ('a', 'a and b', '1, 2, 3 and 2 more')
    """
    shown, more = list(map(str, names[:most])), len(names) - most
    *first, last = [*shown, f"{more} more"] if more > 0 else shown
    return f"{', '.join(first)} and {last}" if first else last


def copied(value: Any) -> Any:
    """A copy of nested mappings, sequences and tensors, on the same device."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(part) for part in value]
    return value
