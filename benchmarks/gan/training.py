"""Training of InfoGAN, which can be continued from its checkpoint to the bit."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from priorzoo.benchmarks.gan.networks import (
    Discriminator,
    Generator,
    Sizes,
    category_information,
    continuous_information,
    discriminator_loss,
    generator_loss,
)
from priorzoo.inference.randomness import Stream
from priorzoo.inference.training.checkpoints import load_state, save_state

RATES = {"discriminator": 2e-4, "generator": 1e-3}  # of Adam, as in the paper
BETAS = (0.5, 0.999)
WEIGHTS = (1.0, 0.1)  # lambda of the category and of the continuous codes


class InfoGAN:
    """A generator and a discriminator that train each other.

    Args:
        sizes: of the networks.
        batch: N, rows of a step; the paper has 128.
        seed: of everything random.
    """

    def __init__(self, sizes: Sizes, batch: int = 64, seed: int = 0) -> None:
        self.sizes, self.batch, self.step = sizes, batch, 0
        with Stream(seed):
            self.generator, self.discriminator = Generator(sizes), Discriminator(sizes)
        self.random = torch.Generator().manual_seed(seed)
        self.optimisers = {
            name: torch.optim.Adam(getattr(self, name).parameters(), rate, BETAS)
            for name, rate in RATES.items()
        }

    def codes(self, size: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noise ``(N, R)``, categories ``(N,)`` and continuous codes ``(N, C)`` of the prior.

        Args:
            size: N.
            random: where the random numbers come from.
        """
        noise = torch.randn(size, self.sizes.noise, generator=random)
        category = torch.randint(self.sizes.categories, (size,), generator=random)
        continuous = 2 * torch.rand(size, self.sizes.continuous, generator=random) - 1
        return noise, category, continuous

    def take_step(self, x: Tensor) -> dict[str, float]:
        """A step of the discriminator, and then one of the generator, with rows ``(N, P)``.

        Returns:
            Both losses, and the bounds of the information in nats.
        """
        noise, category, continuous = self.codes(len(x), self.random)
        drawn = self.generator(noise, category, continuous)
        data, (fake, *said) = self.discriminator(x)[0], self.discriminator(drawn.detach())
        loss = discriminator_loss(data, fake) - self._information(said, category, continuous)[0]
        self._descend("discriminator", loss)
        fake, *said = self.discriminator(drawn)
        information, parts = self._information(said, category, continuous)
        against = generator_loss(fake)
        self._descend("generator", against - information)
        self.step += 1
        values = {"discriminator": loss, "generator": against, **parts}
        return {name: value.item() for name, value in values.items()}

    def train(
        self, x: Tensor, steps: int, checkpoint: Path | None = None, every: int = 500
    ) -> None:
        """Train on rows ``(N, P)`` in [0, 1] until so many steps are taken.

        Args:
            checkpoint: file that the state is written to, every so many steps and at the end.

        Raises:
            FloatingPointError: for a loss that is not finite.
        """
        while self.step < steps:
            rows = torch.randint(len(x), (self.batch,), generator=self.random)
            terms = self.take_step(x[rows])
            if not all(map(math.isfinite, terms.values())):
                raise FloatingPointError(f"Expected finite losses but got {terms}.")
            if self.step % every == 0 or self.step == steps:
                said = ", ".join(f"{name} {value:.3f}" for name, value in terms.items())
                print(f"step {self.step:,}: {said}", flush=True)
                if checkpoint is not None:
                    save_state(checkpoint, self.state())

    def recognised(self, x: Tensor) -> Tensor:
        """Q(c given x) ``(N, K)`` of rows ``(N, P)``.

        Batches of 1,000 rows are normalised by their own statistics.
        """
        with torch.no_grad():
            return torch.cat([self.discriminator(rows)[1].softmax(-1) for rows in x.split(1_000)])

    def samples(self, each: int, seed: int = 0) -> Tensor:
        """``(K, each, P)``: images of each category."""
        categories = self.sizes.categories
        noise, _, continuous = self.codes(categories * each, torch.Generator().manual_seed(seed))
        category = torch.arange(categories).repeat_interleave(each)
        self.generator.eval()
        with torch.no_grad():
            found = self.generator(noise, category, continuous)
        self.generator.train()
        return found.unflatten(0, (categories, each))

    def state(self) -> dict[str, Any]:
        """What a training can be continued from: weights, optimisers, steps and random state."""
        return {
            "sizes": asdict(self.sizes),
            "batch": self.batch,
            "step": self.step,
            "random": self.random.get_state(),
            "generator": dict(self.generator.state_dict()),
            "discriminator": dict(self.discriminator.state_dict()),
            "optimisers": {name: each.state_dict() for name, each in self.optimisers.items()},
        }

    def load(self, file: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: for one of other sizes.
        """
        state = load_state(file)
        mine, theirs = ((s["sizes"], s["batch"]) for s in (self.state(), state))
        if mine != theirs:
            raise ValueError(
                f"Expected a checkpoint of {mine} but {file} has {theirs}; choose another folder."
            )
        self.step = state["step"]
        self.random.set_state(state["random"])
        for name, optimiser in self.optimisers.items():
            getattr(self, name).load_state_dict(state[name])
            optimiser.load_state_dict(state["optimisers"][name])

    def _information(
        self, said: list[Tensor], category: Tensor, continuous: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits, mean, log_scale = said
        parts = {
            "category": category_information(logits, category),
            "continuous": continuous_information(mean, log_scale, continuous),
        }
        of_category, of_code = WEIGHTS
        return of_category * parts["category"] + of_code * parts["continuous"], parts

    def _descend(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
