"""Changes of recipes: what they do, what they are between two recipes, and what is refused."""

import json
from dataclasses import replace

import pytest

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.changes import apply, differences, resolved, written
from priorzoo.inference import KL, Linear

RAMP = {"start": 0.0, "end": 1.0, "fraction": 0.5}
CHANGES = [
    ("gmvae", {"model.clusters": 16}),
    ("gmvae", {"guide": "ClusterThenFlow"}),
    ("gmvae", {"epochs": 3.0}),
    ("vade", {"steps": 300}),
    ("gmvae", {"data": "digits"}),
    ("gmvae", {"data": "digits", "train": 55_000}),
    ("gmvae", {"encoder": "ConvEncoder", "encoder.channels": [4]}),
    ("gmvae", {"optimiser": "SGD", "optimiser.lr": 0.1}),
    ("gmvae", {"schedule": "StepLR", "schedule.step_size": 3}),
    ("modified-m2", {"kl.z.analytic": True}),
    ("gmvae", {"kl.y.weight": RAMP}),
    ("pinwheel", {"penalties.consistency.weight": 2.0}),
    ("digits-nonparametric", {"model.plane": 3}),
]


def changeable(recipe):
    """The settings of a recipe but for its prose."""
    return written(replace(recipe, summary="", paper="", published={}))


@pytest.mark.parametrize(("name", "changes"), CHANGES)
def test_the_differences_after_changes_are_the_changes(name, changes):
    changed = apply(RECIPES[name], changes)
    assert changed != RECIPES[name]
    assert differences(RECIPES[name], changed) == changes
    assert json.loads(json.dumps(changes)) == changes


def test_what_a_recipe_says_itself_is_no_difference():
    for recipe in RECIPES.values():
        assert differences(recipe, resolved(recipe)) == {}
        kept = {name: value for name, value in written(recipe).items() if name == "stages"}
        assert differences(recipe, apply(recipe, kept)) == {}


def test_any_recipe_can_be_made_from_any_other():
    names = ("vade", "pinwheel", "factorial-faces")
    for first in names:
        for second in names:
            base, wanted = RECIPES[first], RECIPES[second]
            made = apply(base, differences(base, wanted))
            assert changeable(made) == changeable(wanted)


def test_values_become_what_the_fields_hold():
    kl = {"y": {"weight": RAMP, "floor": 0.5}}
    stages = [{"name": "first", "epochs": 2, "objective": "Autoencoder", "kl": kl}]
    recipe = apply(RECIPES["gmvae"], {"kl": kl, "stages": stages, "model": {"clusters": 4}})
    policy = KL(Linear(0, 1, fraction=0.5), floor=0.5)
    assert recipe.kl == recipe.stages[0].kl == {"y": policy}
    assert recipe.stages[0].objective.class_path.endswith(".Autoencoder")
    assert recipe.model.init_args == {"code": 64, "clusters": 4, "offset": True}


def test_a_new_class_keeps_the_arguments_that_it_has_too():
    model = apply(RECIPES["gmvae"], {"model": "priorzoo.models.M2"}).model
    assert (model.class_path, model.init_args) == (
        "priorzoo.models.m2.M2",
        {"code": 64, "clusters": 10},
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": 3}, "'--batchsize'; did you mean '--batch-size'?"),
        ({"model.clustrs": 3}, "argument of GMVAE 'clustrs'; did you mean 'clusters'?"),
        ({"kl.z.analytik": True}, "did you mean '--kl.z.analytic'?"),
        ({"kl": {"z": {"flor": 1}}}, "option '--kl.z.flor'; did you mean '--kl.z.floor'?"),
        ({"stages": [{"nam": "a"}]}, "'--stages.0.nam'; did you mean '--stages.0.name'?"),
        ({"stages": [{"steps": 3}]}, "Stage at --stages.0 cannot be built"),
        ({"guide": "ClusterThenFlo"}, "class for --guide 'ClusterThenFlo'; did you mean"),
        ({"guide": "torch.Tensor"}, "Expected a Module at 'torch.Tensor'"),
        ({"model.clusters": "ten"}, "Expected int for --model.clusters but got 'ten'"),
        ({"model.offset": 3}, "Expected bool for --model.offset but got 3"),
        ({"steps": 2.5}, "Expected int or None for --steps but got 2.5"),
        ({"binarise": "sometimes"}, "Expected one of 'none', 'static', 'dynamic'"),
        ({"steps": 3, "epochs": 2}, "Expected --steps or --epochs but got both, 3 and 2"),
        ({"penalties.x.weight": 1}, "give --penalties.x first"),
        ({"guide.classifier": "MLP"}, "Expected no --guide.classifier, which is filled in"),
        ({"encoder.inputs": 3}, "Expected no --encoder.inputs, which is filled in"),
        ({"summary": "mine"}, "Unknown option '--summary'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=r"\w") as refusal:
        apply(RECIPES["gmvae"], changes)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
