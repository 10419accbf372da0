import warnings

import pytest
import torch

from priorzoo.inference import fit
from priorzoo.inference.training import compiled


@pytest.fixture
def recorded(monkeypatch):
    """``step="compiled"`` but for inductor's machine code, which takes its time to be made.

    Loss and gradients are recorded as one graph all the same, and the graph is run as it is. A
    program that cannot be recorded warns, which is an error here.
    """
    monkeypatch.setattr(compiled, "lower", lambda graph, *_: graph)


@pytest.fixture
def trained_both_ways():
    """Trains what ``make`` makes eagerly and compiled, and compares losses and parameters."""

    def train(make, data, *, objective=None, **settings):
        ends = []
        for step in ("eager", "compiled"):
            torch.manual_seed(0)
            pair = make()
            own = None if objective is None else objective(*pair)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of a step that was eager after all
                history = fit(*pair, data, objective=own, step=step, **settings)
            rows = [[row["elbo"] for row in history], *(module.state_dict() for module in pair)]
            ends.append((rows, pair, history))
        torch.testing.assert_close(ends[1][0], ends[0][0], rtol=1e-3, atol=1e-4)
        return ends[0][1:]

    return train
