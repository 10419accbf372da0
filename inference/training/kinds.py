"""What a step of each common optimiser reads and changes, as tensor operations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from priorzoo.inference.training.optimisers import RobbinsMonro

Group = Mapping[str, Any]
State = Mapping[str, Tensor]
Numbers = Mapping[str, Tensor]


class Kind(NamedTuple):
    """How an optimiser of one class steps.

    Args:
        refused: whether the options of a group are such that its steps cannot be recorded.
        moments: the tensors that it keeps for a parameter, beside the step count.
        numbers: what a step reads, from a group and the count of steps including this one.
        update: changes a parameter and its state in place, given its gradient and the numbers.
        counter: the name of the step count in a parameter's state; empty if it counts none.
    """

    refused: Callable[[Group], bool]
    moments: Callable[[Group], Sequence[str]]
    numbers: Callable[[Group, float], dict[str, float]]
    update: Callable[[Group, Tensor, Tensor, State, Numbers], None]
    counter: str = "step"


def _adam_numbers(group: Group, step: float) -> dict[str, float]:
    beta1, beta2 = map(float, group["betas"])
    return {
        "beta1": beta1,
        "beta2": beta2,
        "size": float(group["lr"]) / (1 - beta1**step),
        "root": (1 - beta2**step) ** -0.5,
        "eps": float(group["eps"]),
        "decay": float(group["weight_decay"]),
        "shrink": 1 - float(group["lr"]) * float(group["weight_decay"]),
    }


def _adam(group: Group, p: Tensor, g: Tensor, state: State, n: Numbers) -> None:
    decoupled = group.get("decoupled_weight_decay", False)
    if group["weight_decay"] and not decoupled:
        g = g + n["decay"] * p
    first, second = state["exp_avg"], state["exp_avg_sq"]
    first.copy_(first + (1 - n["beta1"]) * (g - first))
    second.copy_(n["beta2"] * second + (1 - n["beta2"]) * (g * g))
    if group["amsgrad"]:
        second = state["max_exp_avg_sq"].copy_(torch.maximum(state["max_exp_avg_sq"], second))
    change = n["size"] * (first / (second.sqrt() * n["root"] + n["eps"]))
    p.copy_((n["shrink"] * p if group["weight_decay"] and decoupled else p) - change)


def _adamw(group: Group, p: Tensor, g: Tensor, state: State, n: Numbers) -> None:
    _adam({**group, "decoupled_weight_decay": True}, p, g, state, n)


def _sgd_numbers(group: Group, step: float) -> dict[str, float]:
    names = {"lr": "lr", "momentum": "momentum", "decay": "weight_decay"}
    return {ours: float(group[theirs]) for ours, theirs in names.items()}


def _sgd(group: Group, p: Tensor, g: Tensor, state: State, n: Numbers) -> None:
    if group["weight_decay"]:
        g = g + n["decay"] * p
    if group["momentum"]:
        buffer = state["momentum_buffer"].copy_(n["momentum"] * state["momentum_buffer"] + g)
        g = g + n["momentum"] * buffer if group["nesterov"] else buffer
    p.sub_(n["lr"] * g)


def _rmsprop_numbers(group: Group, step: float) -> dict[str, float]:
    names = ("lr", "alpha", "eps", "momentum")
    return {name: float(group[name]) for name in names} | {"decay": float(group["weight_decay"])}


def _rmsprop(group: Group, p: Tensor, g: Tensor, state: State, n: Numbers) -> None:
    if group["weight_decay"]:
        g = g + n["decay"] * p
    square, rest = state["square_avg"], 1 - n["alpha"]
    square.copy_(n["alpha"] * square + rest * (g * g))
    spread = square
    if group["centered"]:
        mean = state["grad_avg"]
        mean.copy_(mean + rest * (g - mean))
        spread = square - mean * mean
    change = g / (spread.sqrt() + n["eps"])
    if group["momentum"]:
        change = state["momentum_buffer"].copy_(n["momentum"] * state["momentum_buffer"] + change)
    p.sub_(n["lr"] * change)


def _robbins_monro_numbers(group: Group, step: float) -> dict[str, float]:
    passed = (step - 1) / group["delay"]
    return {"rate": float(group["lr"]) * (1 + passed) ** -group["forgetting"]}


def _robbins_monro(group: Group, p: Tensor, g: Tensor, state: State, n: Numbers) -> None:
    p.sub_(n["rate"] * g)


def _special(group: Group) -> bool:
    return bool(group.get("differentiable"))


_ADAM = Kind(
    _special,
    lambda group: ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"][: 2 + bool(group["amsgrad"])],
    _adam_numbers,
    _adam,
)
KINDS: Mapping[type[Optimizer], Kind] = {
    Adam: _ADAM,
    AdamW: _ADAM._replace(update=_adamw),
    SGD: Kind(
        # The first step does not use the dampening, and so differs from all others.
        lambda group: _special(group) or group["dampening"] != 0,
        lambda group: ["momentum_buffer"] if group["momentum"] else [],
        _sgd_numbers,
        _sgd,
        counter="",
    ),
    RMSprop: Kind(
        _special,
        lambda group: (
            ["square_avg"]
            + ["momentum_buffer"] * (group["momentum"] > 0)
            + ["grad_avg"] * bool(group["centered"])
        ),
        _rmsprop_numbers,
        _rmsprop,
    ),
    RobbinsMonro: Kind(
        lambda _: False, lambda _: [], _robbins_monro_numbers, _robbins_monro, counter="passed"
    ),
}
SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")  # means of squares of gradients
