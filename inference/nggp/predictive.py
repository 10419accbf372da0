"""The distribution of one more row, given the rows that an NGGP mixture was trained on."""

import math
from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.guides.nggp import CollapsedCode
from priorzoo.inference.randomness import Stream
from priorzoo.models.contract import Beside
from priorzoo.models.nggp.mixture import NGGPMixture
from priorzoo.models.observation import encode, sample_x
from priorzoo.models.plates import data_plate

DRAWS = 1_000  # of v, over which the weights of the clusters are averaged


class NextRow(nn.Module):
    r"""The predictive :math:`p(y \mid y_{1..N})\, p(z \mid y)\, p(x \mid z)` of one more row.

    Rows are independent under it, as those of a mixture with fixed weights: all sites are local.
    The weights are those of :meth:`NGGPMixture.log_predictive`, averaged over v.

    Args:
        model: a trained mixture.
    """

    def __init__(self, model: NGGPMixture) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad(), Stream(0, model.loc.device):
            v = model.law_of_v_and_next().sample(torch.Size([DRAWS]))
            every = model.log_predictive(v).log_softmax(-1)
        self.logits = nn.Buffer(every.logsumexp(0) - math.log(DRAWS), persistent=False)

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        loc, scale = self.model.components()
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.logits))
            z = pyro.sample("z", self.model.kind.component(loc[y], scale[y]))
            return sample_x(x, beside, self.model.likelihood, self.model.decoder, z)


class NextCode(nn.Module):
    r"""The guide :math:`q(y \mid x)\, q(z \mid x)` of :class:`NextRow`.

    Args:
        guide: of the mixture, whose encoder it uses.
        story: the model of the next row.
    """

    def __init__(self, guide: CollapsedCode, story: NextRow) -> None:
        super().__init__()
        self.guide, self.story = guide, story

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        model = self.story.model
        with data_plate(x, size):
            posterior = model.kind.posterior(encode(self.guide.encoder, x, beside))
            fits = model.kind.expected_log(*posterior, *model.components())
            q_y = dist.Categorical(logits=fits + self.story.logits)
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            pyro.sample("z", model.kind.distribution(*posterior))


def next_row(model: nn.Module, guide: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The pair of one more row, of a trained NGGP mixture; other pairs as they are."""
    trained = isinstance(model, NGGPMixture) and int(model.counted) > 0
    if not (trained and isinstance(model, NGGPMixture) and isinstance(guide, CollapsedCode)):
        return model, guide
    story = NextRow(model)
    return story, NextCode(guide, story)
