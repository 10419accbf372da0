"""Several trainings in one: each what it would be alone."""

import pytest
import torch

from priorzoo.inference import ELBO, fit
from priorzoo.inference.training.replicas import Replicas


def pairs(entry, count):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(entry.pair())
    return made


def numbers(pair):
    return torch.cat([p.detach().flatten() for module in pair for p in module.parameters()])


@pytest.mark.parametrize("name", ["vae", "gmvae-conv", "m2-relu-flow", "dilokthanakul"])
def test_on_common_draws_each_is_its_own_training(zoo, name):
    """Three replicas and three trainings of one seed, with a smaller last batch in each pass."""
    x = zoo[name].rows(10)
    together, alone = pairs(zoo[name], 3), pairs(zoo[name], 3)
    replicas = Replicas([ELBO(*p) for p in together], x, batch_size=4, seed=6, common=True)
    histories = [*zip(replicas.run(2), replicas.run(4), strict=True)]
    for mine, single, history in zip(together, alone, histories, strict=True):
        rows = fit(*single, x, steps=6, batch_size=4, seed=6)
        torch.testing.assert_close(numbers(mine), numbers(single), rtol=1e-4, atol=1e-6)
        assert history[1][-1]["elbo"] == pytest.approx(rows[-1]["elbo"], rel=1e-4)
    assert not torch.equal(numbers(together[0]), numbers(together[1]))


def test_draws_of_their_own_have_the_distribution_of_one(zoo):
    """400 replicas of the same parameters: the bound's mean and spread are those of 400 draws."""
    x = zoo["gmvae"].rows(5)
    torch.manual_seed(0)
    model, guide = zoo["gmvae"].pair()
    objective = ELBO(model, guide)
    with torch.no_grad():
        alone = torch.stack([objective(x)[1]["elbo"].mean() for _ in range(400)])
    copies = [ELBO(model, guide) for _ in range(400)]
    history = Replicas(copies, x, seed=1).run(1)
    found = torch.tensor([rows[0]["elbo"] for rows in history])
    assert len(found.unique()) == 400
    error = (alone.var() / 400 + found.var() / 400).sqrt()
    assert (found.mean() - alone.mean()).abs() < 4 * error
    assert found.std() == pytest.approx(alone.std().item(), rel=0.25)


def test_replicas_of_other_sizes_are_refused(zoo):
    objectives = [ELBO(*zoo[name].pair()) for name in ("vae", "gmvae")]
    with pytest.raises(ValueError, match="one recipe"):
        Replicas(objectives, zoo["vae"].rows(10))
