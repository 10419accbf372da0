"""The networks of InfoGAN, and its losses.

Chen et al., "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
Adversarial Nets", 2016, with the networks of its table 1 (MNIST) for images of grey pixels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

FLOOR = -2.0  # of log standard deviations, without which a certain recogniser diverges


@dataclass(frozen=True)
class Sizes:
    """Sizes of the networks.

    Args:
        height, width: of an image, multiples of 4.
        channels: of the layer next to the image; the paper has 64. The layer after it has twice
            as many, and the hidden layer 16 times.
        noise, categories, continuous: sizes of the parts of the code.
    """

    height: int = 28
    width: int = 28
    channels: int = 64
    noise: int = 62
    categories: int = 10
    continuous: int = 2

    def __post_init__(self) -> None:
        if self.height % 4 or self.width % 4:
            sides = f"{self.height} x {self.width}"
            raise ValueError(
                f"Expected images with sides that are multiples of 4 but got {sides}; pad them."
            )

    @property
    def hidden(self) -> int:
        """Width of the hidden layer."""
        return 16 * self.channels

    @property
    def smallest(self) -> tuple[int, int, int]:
        """Channels, height and width after two convolutions."""
        return 2 * self.channels, self.height // 4, self.width // 4


class Generator(nn.Module):
    """Images ``(N, P)`` from noise ``(N, R)``, categories ``(N,)`` and continuous codes ``(N, C)``.

    R and C are ``noise`` and ``continuous`` of the sizes.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        flat, hidden = math.prod(sizes.smallest), sizes.hidden
        self.layers = nn.Sequential(
            *_dense(sizes.noise + sizes.categories + sizes.continuous, hidden),
            *_dense(hidden, flat),
            nn.Unflatten(1, sizes.smallest),
            nn.ConvTranspose2d(2 * sizes.channels, sizes.channels, 4, 2, 1, bias=False),
            nn.BatchNorm2d(sizes.channels),
            nn.ReLU(),
            nn.ConvTranspose2d(sizes.channels, 1, 4, 2, 1),
            nn.Flatten(),
            nn.Sigmoid(),
        )

    def forward(self, noise: Tensor, category: Tensor, continuous: Tensor) -> Tensor:
        one_hot = functional.one_hot(category, self.sizes.categories).to(noise)
        return self.layers(torch.cat([noise, one_hot, continuous], -1))


class Discriminator(nn.Module):
    """Of images ``(N, P)``: the logit of being data, and what the recogniser says of their code.

    The recogniser, Q in the paper, shares all layers but the last with the discriminator. Layers
    are normalised by the statistics of their batch, always: averages over the training would mix
    data with generated images, and the recogniser would take classes of data for each other.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        flat, hidden = math.prod(sizes.smallest), sizes.hidden
        self.body = nn.Sequential(
            nn.Unflatten(1, (1, sizes.height, sizes.width)),
            nn.Conv2d(1, sizes.channels, 4, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(sizes.channels, 2 * sizes.channels, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * sizes.channels, track_running_stats=False),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            *_dense(flat, hidden, nn.LeakyReLU(0.1), averaged=False),
        )
        self.real = nn.Linear(hidden, 1)
        said = sizes.categories + 2 * sizes.continuous
        self.recogniser = nn.Sequential(
            *_dense(hidden, 2 * sizes.channels, nn.LeakyReLU(0.1), averaged=False),
            nn.Linear(2 * sizes.channels, said),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits ``(N,)`` of being data, logits ``(N, K)``, mean and log scale, each ``(N, C)``."""
        h = self.body(x)
        parts = [self.sizes.categories, self.sizes.continuous, self.sizes.continuous]
        logits, mean, log_scale = self.recogniser(h).split(parts, -1)
        return self.real(h).squeeze(-1), logits, mean, log_scale.clamp(min=FLOOR)


def discriminator_loss(data: Tensor, drawn: Tensor) -> Tensor:
    """``- E log D(x) - E log(1 - D(G(z)))``, of the logits of D for both."""
    return functional.softplus(-data).mean() + functional.softplus(drawn).mean()


def generator_loss(drawn: Tensor) -> Tensor:
    """``- E log D(G(z))``, which has gradients where D is sure, of the logits of D."""
    return functional.softplus(-drawn).mean()


def category_information(logits: Tensor, category: Tensor) -> Tensor:
    """Lower bound of I(c; G(z, c)) in nats, at most log K: equation 5 for a uniform category.

    Args:
        logits: ``(N, K)`` of Q(c given x).
        category: ``(N,)``, those that the images were drawn from.
    """
    return math.log(logits.shape[-1]) - functional.cross_entropy(logits, category)


def continuous_information(mean: Tensor, log_scale: Tensor, code: Tensor) -> Tensor:
    """The same bound for codes ``(N, C)`` that are uniform on [-1, 1], with a Gaussian Q."""
    q = torch.distributions.Normal(mean, log_scale.exp())
    return code.shape[-1] * math.log(2) + q.log_prob(code).sum(-1).mean()


def _dense(
    inputs: int, outputs: int, activation: nn.Module | None = None, averaged: bool = True
) -> list[nn.Module]:
    normal = nn.BatchNorm1d(outputs, track_running_stats=averaged)
    return [nn.Linear(inputs, outputs, bias=False), normal, activation or nn.ReLU()]
