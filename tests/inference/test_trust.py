"""What a run folder of others may do: nothing but construct the modules whose numbers it holds."""

import json
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from priorzoo.cli import main as cli
from priorzoo.guides import Code
from priorzoo.inference import load, save
from priorzoo.models import MLP, VAE

P, D = 6, 2
CANARY = "from pathlib import Path\nPath('executed').touch()\n"
CLASS = f"""{CANARY}
from torch import nn
class Net(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.inputs, self.outputs = inputs, outputs
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a saved pair, in a working folder with a module that tells if it is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "canary.py").write_text(CLASS)
    save(tmp_path / "run", VAE(MLP(D, P, (3,)), code=D), Code(MLP(P, 2 * D, (3,))))
    return tmp_path / "run"


def change(run, place, value):
    """Set an entry of the configuration, such as ``model.init_args.code``."""
    file = run / "config.json"
    config = json.loads(file.read_text())
    *path, last = place.split(".")
    inside = config
    for key in path:
        inside = inside[key]
    inside[last] = value
    file.write_text(json.dumps(config))


def refused(run, message, **how):
    with pytest.raises(ValueError, match=message) as caught:
        load(run, **how)
    assert "\n" not in str(caught.value)
    assert not (run.parent / "executed").exists()


@pytest.mark.parametrize("place", ["model", "guide", "model.init_args.decoder"])
def test_a_module_of_the_working_folder_is_not_imported(run, place):
    change(run, f"{place}.class_path", "canary.Net")
    refused(run, r"got canary\.Net; .* add --trust canary, in Python trust=\['canary'\]")
    refused(run, "--trust canary", trust=["can", "canary.below", "other"])


def test_a_module_that_is_trusted_is_imported(run):
    net = {"class_path": "canary.Net", "init_args": {"inputs": P, "outputs": 2 * D}}
    change(run, "guide.init_args.encoder", net)
    numbers = load_file(run / "model.safetensors")
    kept = {name: tensor for name, tensor in numbers.items() if "encoder" not in name}
    kept |= {"guide.encoder.weight": torch.ones(2 * D, P), "guide.encoder.bias": torch.ones(2 * D)}
    save_file(kept, run / "model.safetensors")
    refused(run, "--trust canary")
    _, guide = load(run, trust=["canary"])
    assert type(guide.encoder).__name__ == "Net"
    assert (run.parent / "executed").exists()
    with pytest.raises(ValueError, match="list of modules"):
        load(run, trust="canary")


@pytest.mark.parametrize(
    "path",
    [
        "priorzoo.__main__.main",
        "priorzoo.cli.main.main",
        "priorzoo.inference.saving.replace_file",
        "priorzoo.inference.saving.Path",
        "priorzoo.inference.saving.nn.Linear",
        "priorzoo.benchmarks.rows.files.append_row",
        "torch.nn.utils.parametrize.ParametrizationList",
        "torch.nn.parallel.DataParallel",
        "torch.nn.functional.relu",
        "torch.hub.load",
        "canary;.Net",
        "canary.sub\x00.Net",
        "..canary.Net",
        3,
        ["canary.Net"],
    ],
)
def test_what_is_no_module_class_of_the_zoo_is_refused(run, path):
    change(run, "model.init_args.decoder", {"class_path": path, "init_args": {}})
    refused(run, "Expected")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model.init_args.decoder.init_args.hidden", [10**12]),
        ("model.init_args.decoder.init_args.hidden", [10**6, 10**6]),
        ("model.init_args.code", 10**9),
        ("model.init_args.code", "2"),
        ("model.init_args.code", -1),
        ("model.init_args.likelihood", 7),
        ("guide.init_args.encoder.init_args.clusters", 2**60),
        ("guide.init_args.encoder.init_args.hidden", [1] * 5_000),
        (
            "guide.init_args.encoder",
            {"class_path": "torch.nn.RNN", "init_args": {"input_size": P, "hidden_size": 1}},
        ),
    ],
)
def test_sizes_are_compared_with_the_file_before_memory_is_taken(run, place, value):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    change(run, place, value)
    refused(run, "Expected")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000  # KiB


@pytest.mark.parametrize("depth", [200, 100_000])
def test_deep_nesting_is_refused(run, depth):
    part = '{"class_path": "torch.nn.modules.container.Sequential", "children": ['
    text = (run / "config.json").read_text()
    deep = part * depth + "]}" * depth
    config = json.loads(text)
    config["guide"]["init_args"]["encoder"] = "DEEP"
    (run / "config.json").write_text(json.dumps(config).replace('"DEEP"', deep))
    refused(run, "nested")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(run, value):
    numbers = load_file(run / "model.safetensors")
    numbers["guide.encoder.layers.0.weight"][1, 2] = value
    save_file(numbers, run / "model.safetensors")
    refused(run, r"finite values in guide\.encoder\.layers\.0\.weight .* 1 of 18 are NaN")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_numbers_of_another_kind_are_refused(run, dtype):
    numbers = load_file(run / "model.safetensors")
    name = "guide.encoder.layers.0.bias"
    save_file(numbers | {name: numbers[name].to(dtype)}, run / "model.safetensors")
    refused(run, r"fit its classes but got guide\.encoder\.layers\.0\.bias as")


def test_buffers_that_hold_infinities_by_construction_are_read(tmp_path):
    class_path = f"{__name__}.Masked"
    save(tmp_path, VAE(Masked(D, P), code=D), Code(MLP(P, 2 * D, (3,))))
    assert class_path in (tmp_path / "config.json").read_text()
    model, _ = load(tmp_path, trust=[__name__])
    assert model.decoder.mask[0] == -float("inf")


class Masked(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.inputs, self.outputs = inputs, outputs
        self.mask = nn.Buffer(torch.tensor([-float("inf"), 0.0]))


# The command line


def error_of(capsys, *words):
    code = cli.main(list(map(str, words)))
    text = capsys.readouterr().err
    assert code == 2, text
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("evaluate", []),
        ("plot", []),
        ("sample", []),
        ("describe", []),
        ("predict", ["some.csv"]),
        ("export", ["some.pt2"]),
    ],
)
def test_commands_say_which_module_to_trust(run, capsys, command, more):
    change(run, "model.init_args.decoder.class_path", "canary.Net")
    assert "add --trust canary," in error_of(capsys, command, run, *more)
    assert not (run.parent / "executed").exists()
    error = error_of(capsys, command, run, *more, "--trust", "other", "--trust=canary")
    assert "add --trust" not in error


@pytest.mark.parametrize(
    "settings",
    [
        "model: canary.Net",
        "guide: {class_path: canary.Net}",
        "decoder.class_path: canary.Net",
        "optimiser: canary.Net",
        "penalties: {one: canary.Net}",
        "moves: {one: canary.move}",
        "stages: [{name: one, begin: canary.begin}]",
        "model.decoder: canary.Net",
        "guide: {class_path: ClusterThenCode, init_args: {classifier: {class_path: canary.Net}}}",
    ],
)
def test_a_settings_file_imports_no_module_of_the_working_folder(run, capsys, settings):
    (run.parent / "settings.yaml").write_text(settings)
    words = ["train", "digits-gmvae", "--config", "settings.yaml", "--steps", "1"]
    assert "add --trust canary," in error_of(capsys, *words)
    assert not (run.parent / "executed").exists()
    assert "add --trust" not in error_of(capsys, *words, "--trust", "canary", "--seed", "x")


@pytest.mark.parametrize(
    "path",
    ["priorzoo.inference.saving.save", "priorzoo.inference.saving.replace_file", "torch.nn.Linear"],
)
def test_a_settings_file_calls_no_function_but_those_of_pair_rows_and_seed(run, capsys, path):
    (run.parent / "settings.yaml").write_text(f"moves: {{one: {path}}}")
    words = ["train", "digits-gmvae", "--config", "settings.yaml", "--steps", "1"]
    assert "Expected a function of" in error_of(capsys, *words)


def test_a_settings_file_that_repeats_itself_without_end_is_refused(run, capsys):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(12)]
    (run.parent / "settings.yaml").write_text("\n".join(lines))
    assert "Expected plain values" in error_of(
        capsys, "train", "digits-gmvae", "--config", "settings.yaml"
    )
