"""Moves are judged where they touch as a computation on all rows and components judges them."""

import pytest
import torch

from priorzoo.inference.nggp.collapsed_bound import Codes, CollapsedBound, Mixture
from priorzoo.inference.nggp.growth import MOVES, Standing
from priorzoo.inference.nggp.trials import Trial, tried
from priorzoo.models.nggp.code_families import FAMILIES
from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.occupancy import Occupancy, expected_log_prior, log_prior

pytestmark = pytest.mark.usefixtures("double")
D, DATA = 3, 3_000


def clustered(family, clusters, rows, apart=4.0, room=12):
    """A bound, a mixture at the centres of clusters, and two draws of codes from these."""
    centres = apart * torch.randn(clusters, D)

    def drawn():
        z = centres[torch.arange(rows) % clusters] + 0.5 * torch.randn(rows, D)
        if family == "dirichlet":
            share = (z / 2).softmax(-1).clamp(min=1e-4)
            return Codes(share / share.sum(-1, keepdim=True), torch.full_like(z, 0.1))
        return Codes(z, torch.full_like(z, 0.1))

    kind = FAMILIES[family]
    codes, held = drawn(), drawn()
    weight = torch.zeros(rows, room)
    weight[torch.arange(rows), torch.arange(rows) % clusters] = 1
    loc, scale = kind.match(*codes, weight[:, :clusters])
    fill = torch.arange(room).clamp(max=clusters - 1)
    mixture = Mixture(loc[fill], scale[fill], torch.arange(room) < clusters)
    return CollapsedBound(NGGP(1.0, 0.25), 1.0, DATA, 0.1, kind), mixture, codes, held


def plain_fits(bound, mixture, codes):
    """Under the active components and the base, from the densities' own formulas."""
    base = bound.kind.base(mixture.loc, mixture.scale, bound.breadth)
    loc, scale = (
        torch.cat([part[mixture.active], last])
        for part, last in zip(mixture[:2], base, strict=True)
    )
    return bound.kind.expected_log(*codes, loc, scale)


def plain_assign(bound, fits, rounds, v=None):
    """q(y) of all rows, ``(M, C + 1)``."""
    q, factor = fits.softmax(-1), DATA / len(fits)
    for turn in range(rounds):
        sizes, alone = Occupancy.of(q[:, :-1]).sum().times(factor), q[:, -1].sum() * factor
        if v is None and turn % 4 == 0:
            mean = bound.law.law_of_v(float(DATA), sizes.occupied.sum() + alone).mean
        else:
            mean = mean if v is None else v
        q = (fits + log_prior(bound.law, sizes.times((DATA - 1) / DATA), mean)).softmax(-1)
    return q


def plain_value(bound, fits, q):
    """The collapsed bound in nats per datum."""
    factor = DATA / len(q)
    sizes, alone = Occupancy.of(q[:, :-1]).sum().times(factor), q[:, -1].sum() * factor
    prior = expected_log_prior(bound.law, sizes, alone, float(DATA)) / DATA
    return (plain_rows(fits, q).mean() + prior).item()


def plain_rows(fits, q):
    """The part of each row."""
    return (q * (fits - q.clamp(min=1e-300).log())).sum(-1)


def plain_refit(bound, mixture, codes, rounds, v=None):
    """Expectation maximisation of every component on every row."""
    for _ in range(rounds):
        q = plain_assign(bound, plain_fits(bound, mixture, codes), 2, v)
        loc, scale = mixture.loc.clone(), mixture.scale.clone()
        places = mixture.active.nonzero().flatten()
        held = q[:, :-1].sum(0) > 1
        loc[places[held]], scale[places[held]] = bound.kind.match(*codes, q[:, :-1][:, held])
        mixture = mixture._replace(loc=loc, scale=scale)
    return mixture


def plain_judgement(bound, old, new, held):
    """Gain and whether it pays, of mixtures that are fitted already."""
    fits = [plain_fits(bound, mixture, held) for mixture in (old, new)]
    q = [plain_assign(bound, part, 8) for part in fits]
    gain = plain_value(bound, fits[1], q[1]) - plain_value(bound, fits[0], q[0])
    full = []
    for mixture, part in zip((old, new), q, strict=True):
        everywhere = part.new_zeros(len(part), len(mixture.active) + 1)
        everywhere[:, :-1][:, mixture.active] = part[:, :-1]
        everywhere[:, -1] = part[:, -1]
        full.append(everywhere)
    moved = (full[1] - full[0]).abs().sum(-1).mean().item() / 2
    each = plain_rows(fits[1], q[1]) - plain_rows(fits[0], q[0])
    error = each.std(correction=0).item() / len(each) ** 0.5
    threshold = bound.margin * moved + 1 / DATA
    if new.active.sum() > old.active.sum():
        return gain, gain > threshold, gain > 2 * error
    return gain, gain > -threshold, True


def proposals(bound, now):
    return [(name, new) for name, move in MOVES.items() for new in move(bound, now)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bound_and_the_refit_of_all_are_those_of_the_densities(family):
    bound, mixture, codes, _ = clustered(family, 4, 200, apart=1.0)
    fits = plain_fits(bound, mixture, codes)
    now = bound.assigned(mixture, codes)
    used = torch.cat([mixture.active, torch.tensor([True])])
    torch.testing.assert_close(now.fits[:, used], fits, rtol=1e-9, atol=1e-9)
    q = plain_assign(bound, fits, 8)
    torch.testing.assert_close(now.q[:, used], q, rtol=1e-7, atol=1e-9)
    assert (now.q[:, ~used] == 0).all()
    assert bound.value(mixture, codes) == pytest.approx(plain_value(bound, fits, q), abs=1e-9)
    found, expected = bound.refit(mixture, codes, 3), plain_refit(bound, mixture, codes, 3)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("apart", [1.0, 4.0])
def test_a_trial_s_gain_is_the_difference_of_two_bounds_of_all_rows(family, apart):
    """With the rows' new q(y) put among the old ones of all other rows."""
    bound, mixture, codes, held = clustered(family, 5, 300, apart)
    now, judge = (bound.assigned(mixture, part) for part in (codes, held))
    level, rows = bound.log_prior(judge.tally, len(judge.q)), torch.arange(300)
    for name, new in proposals(bound, now):
        trial = tried(bound, now, new).on(judge)
        q = judge.q.clone()
        q[trial.rows.unsqueeze(-1), trial.columns] = trial.assign()
        gone = mixture.active & ~new.active
        q[:, :-1][:, gone] = 0
        there = torch.cat([trial.mixture.active, torch.tensor([True])])
        old = plain_fits(bound, mixture, held)
        was = torch.cat([mixture.active, torch.tensor([True])])
        fits = plain_fits(bound, trial.mixture, held)
        expected = plain_value(bound, fits, q[:, there])
        expected -= plain_value(bound, old, judge.q[:, was])
        each = plain_rows(fits, q[:, there]) - plain_rows(old, judge.q[:, was])
        gain, error, moved = trial.gain(level)
        stays = rows[~torch.isin(rows, trial.rows)]
        # What the rows that stay hold of the touched components is left out.
        left = judge.q[stays][:, [*trial.which, *gone.nonzero().flatten()]]
        slack = 1e-9 + left.sum().item() * 50 / 300
        assert gain.item() == pytest.approx(expected, abs=slack), name
        spread = each.std(correction=0).item() / 300**0.5
        assert error.item() == pytest.approx(spread, abs=slack), name
        assert moved.item() == pytest.approx((q - judge.q).abs().sum().item() / 600, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trial_that_touches_all_is_expectation_maximisation_of_all(family):
    bound, mixture, codes, _ = clustered(family, 3, 200, apart=0.5)
    now = bound.assigned(mixture, codes)
    found = Trial.of(bound, now, mixture, mixture.active).refit(4)
    assert len(found.rows) == 200
    expected = plain_refit(bound, mixture, codes, 4, now.v)
    torch.testing.assert_close(found.mixture, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("clusters", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_proposals_are_accepted_that_a_refit_of_all_on_all_accepts(family, clusters):
    """From mixtures that lack a cluster, have one too many, or are right; most are not refitted."""
    bound, right, codes, held = clustered(family, clusters, 400)
    right = plain_refit(bound, right, codes, 40)
    lacking = plain_refit(bound, right.without(0), codes, 40)
    loc = right.loc.clone()
    loc[clusters] = loc[0]
    double = right._replace(loc=loc, active=torch.arange(12) < clusters + 1)
    double = plain_refit(bound, double, codes, 40)
    verdicts, refitted = [], 0
    for start, names in ((right, MOVES), (double, MOVES), (lacking, ("births", "splits"))):
        now, judge = (bound.assigned(start, part) for part in (codes, held))
        stand = Standing.of(bound, now, judge)
        for new in (new for name in names for new in MOVES[name](bound, now)):
            whole = plain_refit(bound, new, codes, 5)
            gain, pays, certain = plain_judgement(bound, start, whole, held)
            _, also, _ = plain_judgement(bound, start, whole, codes)
            verdict = pays and certain and (also or new.active.sum() < start.active.sum())
            found = stand.after(bound, new)
            assert (found is not None) == verdict, gain
            if found is not None:
                torch.testing.assert_close(found.now.mixture, whole, rtol=1e-6, atol=1e-6)
            verdicts.append(verdict)
            refitted += tried(bound, now, new).on(judge).may_pass(*stand[2:])
    assert 0 < sum(verdicts) <= refitted < len(verdicts)


def test_the_rows_that_splits_touch_do_not_grow_with_the_number_of_clusters():
    for clusters in (4, 10):
        bound, mixture, codes, _ = clustered("full", clusters, 1_000, apart=8.0)
        now = bound.assigned(mixture, codes)
        trials = [tried(bound, now, new) for new in MOVES["splits"](bound, now)]
        assert len(trials) == clusters
        assert sum(len(trial.rows) for trial in trials) < 1_200
        assert all(len(trial.which) == 2 for trial in trials)
