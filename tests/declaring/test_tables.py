"""Tables: missing cells, covariates and exposure in training, evaluation and prediction."""

import pytest
import torch
from pyro import poutine
from torch.utils.data import DataLoader

from priorzoo.benchmarks.recipes import building
from priorzoo.benchmarks.recipes.recipe import Recipe, part
from priorzoo.guides import ClusterThenCode, Code, cluster_posterior
from priorzoo.inference import (
    cluster_probabilities,
    codes,
    component_means,
    draw,
    evaluate,
    fit,
    load,
    reconstructions,
    save,
)
from priorzoo.models import (
    GMVAE,
    MLP,
    VAE,
    Categorical,
    Columns,
    ConvDecoder,
    ConvEncoder,
    LogNormal,
    NegativeBinomial,
    SetEncoder,
    StudentT,
)

N, P, D, K, C = 40, 5, 2, 3, 2
COLUMNS = [0, 1, 2, 3, 1]


def likelihood():
    return Columns([StudentT(), NegativeBinomial(), Categorical(3), LogNormal()], COLUMNS)


def pair():
    settings = {"covariates": C, "masked": True, "features": likelihood().features}
    decoder = MLP(D, likelihood().outputs, (6,), covariates=C)
    classifier, encoder = (
        MLP(P, K, (5,), **settings),
        MLP(P, 2 * D, (5,), clusters=K, **settings),
    )
    model = GMVAE(decoder, likelihood(), D, K)
    return model, ClusterThenCode(classifier, encoder)


@pytest.fixture
def x():
    rows = torch.randn(N, P)
    rows[:, [1, 4]] = torch.poisson(torch.full((N, 2), 3.0))
    rows[:, 2] = torch.randint(3, (N,)).float()
    rows[:, 3] = rows[:, 3].exp()
    return rows.masked_fill(torch.rand(N, P) < 0.3, torch.nan)


@pytest.fixture
def beside(x):
    exposure, covariates = torch.rand(N) + 0.5, torch.randn(N, C)
    return {"observed": ~x.isnan(), "exposure": exposure, "covariates": covariates}


@pytest.mark.usefixtures("recorded")
def test_compiled_steps_are_eager_ones(x, beside, trained_both_ways):
    torch.manual_seed(1)
    trained_both_ways(pair, x, epochs=1, batch_size=20, context=beside)


def test_what_missing_cells_hold_does_not_matter(x, beside, tmp_path):
    """To the last bit, in all that a trained pair is asked, also when it is saved and loaded."""
    ends = []
    for hole in (torch.nan, -7.0):
        torch.manual_seed(0)
        two = pair()
        rows = x.where(beside["observed"], hole)
        some = {name: value[:9] for name, value in beside.items()}
        told = {"context": beside, "validation": rows[:9], "validation_context": some}
        history = fit(*two, rows, epochs=2, batch_size=15, **told)
        found = [[row["elbo"] for row in history], evaluate(*two, rows, context=beside)]
        found += [f(*two, rows, context=beside) for f in (cluster_probabilities, codes)]
        found += [reconstructions(*two, rows, 7, context=beside)]
        save(tmp_path, *two)
        again = load(tmp_path)
        assert evaluate(*again, rows, context=beside) == found[1]
        ends.append(found)
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    assert set(ends[0][-1][:, 2].unique().tolist()) <= {0.0, 1.0, 2.0}


@pytest.mark.usefixtures("recorded")
def test_a_loader_brings_them(x, beside):
    items = [{"x": x[i]} | {name: value[i] for name, value in beside.items()} for i in range(N)]
    torch.manual_seed(0)
    one = pair()
    torch.manual_seed(0)
    other = pair()
    fit(*one, DataLoader(items, 10), size=N, epochs=2)
    fit(*other, DataLoader(items, 10), size=N, epochs=2, step="compiled")
    torch.testing.assert_close(one[0].state_dict(), other[0].state_dict(), rtol=1e-3, atol=1e-4)


def test_rows_are_drawn_at_a_covariate_and_an_exposure(beside):
    """Means of counts are in proportion to the exposure, at the same codes."""
    model, _ = pair()
    covariates = torch.ones(6, C)
    found = []
    for exposure in (1.0, 3.0):
        torch.manual_seed(0)
        told = {"covariates": covariates, "exposure": torch.full((6,), exposure)}
        found.append(draw(model, 6, context=told))
    once, thrice = found
    torch.testing.assert_close(thrice[:, [1, 4]], 3 * once[:, [1, 4]])
    torch.testing.assert_close(thrice[:, [0, 2, 3]], once[:, [0, 2, 3]])


def test_a_wrong_cell_is_named_with_the_values_of_its_column(x, beside):
    rows = x.clone()
    rows[3, 2], seen = 5.0, beside["observed"].clone()
    seen[3, 2] = True
    with pytest.raises(ValueError, match=r"from 0 to 5;.*value, 5, is in row 3, column 2"):
        fit(*pair(), rows, steps=1, context=beside | {"observed": seen})


def test_a_recipe_builds_networks_in_the_sizes_of_the_columns():
    chosen = Recipe(
        "a table",
        model=part(GMVAE, code=D, clusters=K),
        guide=part(ClusterThenCode),
        likelihood=part(
            Columns,
            likelihoods=[part(StudentT), part(NegativeBinomial), part(Categorical, categories=3)],
            columns=[0, 1, 2, 1, 1],
        ),
    )
    model, guide = building.build_pair(chosen, (P,))
    assert model.decoder.outputs == 1 + 3 + 3
    assert guide.classifier.inlet.width == P - 1 + 3
    assert guide.classifier.features == ["number", "log", 3, "log", "log"]


def test_a_set_encoder_sees_only_observed_cells_in_no_order(x, beside):
    features = likelihood().features
    network = SetEncoder(P, 4, (5,), width=7, features=features, covariates=C)
    observed, covariates = beside["observed"], beside["covariates"]
    told = {"observed": observed, "covariates": covariates}
    found = network(x.where(observed, 0.0), **told)
    torch.testing.assert_close(network(x.where(observed, 9.0), **told), found)
    plain = SetEncoder(3, 4, (5,), width=7)
    turned = SetEncoder(3, 4, (5,), width=7)
    turned.load_state_dict(plain.state_dict())
    order = torch.tensor([2, 0, 1])
    turned.slope.data, turned.offset.data = plain.slope.data[order], plain.offset.data[order]
    rows, seen = torch.randn(6, 3), torch.rand(6, 3) < 0.5
    expected = plain(rows, observed=seen)
    torch.testing.assert_close(turned(rows[:, order], observed=seen[:, order]), expected)
    one = torch.zeros(1, 3, dtype=torch.bool)
    one[0, 1] = True
    read = (rows[:1, 1:2] * plain.slope[1] + plain.offset[1]).relu()
    torch.testing.assert_close(plain(rows[:1], observed=one), plain.head(read))
    vae = VAE(MLP(D, likelihood().outputs, (6,), covariates=C), likelihood(), D)
    guide = Code(SetEncoder(P, 2 * D, (5,), features=features))
    fit(vae, guide, x, steps=2, context=beside)


def test_images_have_masks_as_channels_and_covariates_after_the_convolutions():
    shape, settings = (4, 3), {"channels": (2,), "hidden": (5,), "covariates": C}
    encoder = ConvEncoder(12, 2 * D, shape, **settings, masked=True)
    decoder = ConvDecoder(D, 12, shape, **settings)
    images, seen = torch.rand(6, 12), torch.rand(6, 12) < 0.7
    told = {"observed": seen, "covariates": torch.randn(6, C)}
    found = encoder(images, **told)
    assert (found != encoder(images, **told | {"observed": ~seen})).any()
    assert (found != encoder(images, **told | {"covariates": torch.zeros(6, C)})).any()
    model, guide = VAE(decoder, code=D), Code(encoder)
    rows = images.round().masked_fill(~seen, torch.nan)
    holed = rows.reshape(6, *shape)
    fit(model, guide, holed, steps=2, context={**told, "observed": ~holed.isnan()})
    with pytest.raises(ValueError, match="without a mask"):
        ConvDecoder(D, 12, shape, masked=True)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", [VAE, GMVAE])
def test_the_prior_is_shifted_by_covariates(kind):
    """By the linear map, whatever the cluster; its exact cluster posterior moves with it."""
    model = kind(MLP(D, P, (6,), covariates=C), code=D, prior_covariates=C)
    model.shift.weight.data.normal_()
    covariates = torch.randn(6, C)
    told = poutine.trace(model).get_trace(size=6, covariates=covariates)
    loc = told.nodes["z"]["fn"].mean - covariates @ model.shift.weight
    if kind is GMVAE:
        expected = model.components()[0][told.nodes["y"]["value"]]
        codes_at = {"z": torch.randn(6, D)}
        moved = {"z": codes_at["z"] + covariates @ model.shift.weight}
        found = cluster_posterior(model, moved, context={"covariates": covariates}).probs
        still = cluster_posterior(model, codes_at, context={"covariates": 0 * covariates}).probs
        torch.testing.assert_close(found, still)
        held = component_means(model, context={"covariates": covariates[:1]})
        means = model.components()[0] + covariates[:1] @ model.shift.weight
        logits = model.decoder(means, covariates=covariates[:1].expand(len(means), C))
        torch.testing.assert_close(held, logits.sigmoid())
    else:
        expected = torch.zeros(6, D)
    torch.testing.assert_close(loc, expected)
    with pytest.raises(ValueError, match="context covariates"):
        draw(model, 3)
