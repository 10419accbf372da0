"""A trained run: model and guide, with the settings, results and history of their training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import nn

from priorzoo.inference import Stream, predictive
from priorzoo.inference.sites import evaluating, latent_sites

Result = dict[str, Any]  # as JSON writes it


@dataclass(frozen=True)
class Run:
    """A trained pair with what it was trained by and on.

    Args:
        folder: where it is saved.
        model, guide: the pair.
        result: what ``result.json`` holds.
        history: the rows of ``history.jsonl``.
    """

    folder: Path
    model: nn.Module
    guide: nn.Module
    result: Result
    history: list[Result]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved settings of the recipe."""
        return self.result["settings"]

    @property
    def row(self) -> Result:
        """The result as a row of results, without the places of data on this machine."""
        return {name: value for name, value in self.result.items() if name != "sources"}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row as a picture."""
        return tuple(self.result["shape"])

    @property
    def seed(self) -> int:
        """The seed it was trained under."""
        return int(self.result["seed"])

    @property
    def clusters(self) -> int:
        """Number K of clusters that the guide tells apart; 0 without."""
        return int(self.result["metrics"].get("clusters", 0))

    @property
    def site(self) -> str:
        """The discrete site that is shown as clusters: ``y``, or else the model's first one."""
        with torch.no_grad(), evaluating(self.model), Stream(0, self.device):
            sites = latent_sites(poutine.trace(self.model).get_trace(size=1))
        found = [name for name in sites if sites[name]["fn"].has_enumerate_support and name != "x"]
        return "y" if "y" in found or not found else found[0]

    @property
    def story(self) -> nn.Module:
        """What new rows are drawn from: the model, given the posterior of its global variables."""
        return predictive(self.model, self.guide, prune=True)[0]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device
