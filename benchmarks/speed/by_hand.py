"""What the zoo's speed is measured against: the same mathematics without Pyro.

A hand-written loss, or that of another library, is registered for the class of a model::

    @by_hand.register
    def _(model: MyModel, guide: nn.Module, hidden: Sequence[int]) -> Losses:
        return {HAND: lambda: HandMine(...)} if type(guide) is MyGuide else {}
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial, singledispatch
from importlib.util import find_spec
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from priorzoo.guides import ClusterThenCode, Code
from priorzoo.models import GMVAE, VAE
from priorzoo.models.distributions.gaussian import deviation

HAND = "hand-written"
SHAPE = (28, 28)  # of the pictures
Losses = Mapping[str, Callable[[], nn.Module]]  # by name, each to be built


@singledispatch
def by_hand(model: nn.Module, guide: nn.Module, hidden: Sequence[int]) -> Losses:
    """Losses of the same pair with binary pixels, each mapping rows to nats per datum.

    Args:
        model, guide: the pair; only its classes and sizes matter.
        hidden: sizes of the hidden layers of encoder and decoder.
    """
    return {}


@by_hand.register
def _(model: VAE, guide: nn.Module, hidden: Sequence[int]) -> Losses:
    if type(guide) is not Code:
        return {}
    kinds = {HAND: HandVAE} | ({"pythae": PythaeVAE} if find_spec("pythae") else {})
    return {name: partial(kind, prod(SHAPE), model.code, hidden) for name, kind in kinds.items()}


@by_hand.register
def _(model: GMVAE, guide: nn.Module, hidden: Sequence[int]) -> Losses:
    if type(guide) is not ClusterThenCode:
        return {}
    clusters, code = model.loc.shape
    return {HAND: partial(HandGMVAE, prod(SHAPE), code, clusters, hidden)}


class HandVAE(nn.Module):
    """Loss of the VAE with binary pixels, in nats per datum.

    Args:
        pixels, code: P and D.
        hidden: sizes of the hidden layers of both networks.
    """

    def __init__(self, pixels: int, code: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.encoder = layers([pixels, *hidden, 2 * code])
        self.decoder = layers([code, *hidden[::-1], pixels])

    def forward(self, x: Tensor) -> Tensor:
        loc, raw = self.encoder(x).chunk(2, -1)
        scale = deviation(raw)
        noise = torch.randn_like(loc)
        z = loc + scale * noise
        kl = (0.5 * (z**2 - noise**2) - scale.log()).sum(-1)
        pixels = functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none")
        return (pixels.sum(-1) + kl).mean()


class HandGMVAE(nn.Module):
    """Loss of the Gaussian-mixture VAE with binary pixels and its cluster summed out.

    As in the zoo, what the conditional encoder makes of x is computed once for all clusters.

    Args:
        pixels, code, clusters: P, D and K.
        hidden: sizes of the hidden layers of the three networks.
    """

    def __init__(self, pixels: int, code: int, clusters: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.classifier = layers([pixels, *hidden, clusters])
        self.first = nn.Linear(pixels, hidden[0])
        self.shift = nn.Parameter(0.1 * torch.randn(clusters, 1, hidden[0]))
        self.rest = nn.Sequential(nn.ReLU(), *layers([*hidden, 2 * code]))
        self.decoder = layers([code, *hidden[::-1], pixels])
        self.loc = nn.Parameter(torch.randn(clusters, 1, code))
        self.raw = nn.Parameter(torch.zeros(clusters, 1, code))

    def forward(self, x: Tensor) -> Tensor:
        log_q = functional.log_softmax(self.classifier(x), -1).t()  # (K, B)
        loc, raw = self.rest(self.first(x) + self.shift).chunk(2, -1)
        scale, spread = deviation(raw), deviation(self.raw)
        noise = torch.randn_like(loc)
        z = loc + scale * noise
        kl = 0.5 * (((z - self.loc) / spread) ** 2 - noise**2) + spread.log() - scale.log()
        logits = self.decoder(z)
        target = x.expand(*logits.shape)
        pixels = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        cost = pixels.sum(-1) + kl.sum(-1) + log_q
        return (log_q.exp() * cost).sum(0).mean() + log_q.new_tensor(float(len(log_q))).log()


class PythaeVAE(HandVAE):
    """Loss of Pythae's VAE with the same networks and likelihood; needs that library.

    Args:
        pixels, code, hidden: as in :class:`HandVAE`.
    """

    def __init__(self, pixels: int, code: int, hidden: Sequence[int]) -> None:
        super().__init__(pixels, code, hidden)
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder

        encoder, decoder = self.encoder, self.decoder

        class Encoder(BaseEncoder):
            def forward(self, x: Tensor) -> object:
                loc, log_variance = encoder(x.flatten(1)).chunk(2, -1)
                return ModelOutput(embedding=loc, log_covariance=log_variance)

        class Decoder(BaseDecoder):
            def forward(self, z: Tensor) -> object:
                return ModelOutput(reconstruction=decoder(z).sigmoid())

        settings = VAEConfig(input_dim=(pixels,), latent_dim=code, reconstruction_loss="bce")
        self.model = VAE(settings, Encoder(), Decoder())

    def forward(self, x: Tensor) -> Tensor:
        return self.model({"data": x}).loss


def layers(sizes: Sequence[int]) -> nn.Sequential:
    """Linear maps of these sizes with ReLUs between them."""
    pairs = [(nn.Linear(*ends), nn.ReLU()) for ends in itertools.pairwise(sizes)]
    return nn.Sequential(*[part for pair in pairs for part in pair][:-1])
