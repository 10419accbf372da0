"""Mutations of good files: of their bytes, their values and their tensors, and of what they are."""

import copy
import json
import os
import warnings

import torch
from safetensors.torch import load_file, save_file

from priorzoo.inference.training.checkpoints import load_state, save_state

CLASSES = ["canary.Net", "os.system", "subprocess.Popen", "builtins.eval", "torch.hub.load", "..x"]
CLASSES += [
    "priorzoo.cli.main.main",
    "priorzoo.__main__.main",
    "torch.nn.functional.relu",
    "canary;.N",
]
CLASSES += ["priorzoo.inference.saving.save", "torch.nn.modules.rnn.RNN", "torch.nn.Module", "a.b"]
NUMBERS = [-1, 0, 1, 3, 2**31, 2**63, 10**12, 10**30, -(10**9), 0.5, 1e308, float("nan")]
NUMBERS += [float("inf"), -float("inf"), 10**400]
TEXTS = ["", "x", "x" * 200_000, "\ud800", "\0", "../../victim", "/dev/zero", "/etc/passwd", "=1+1"]
TEXTS += ["<script>alert(1)</script>", "$\\frac{", "way/out.png", "fifo.npz", "zero.npz", *CLASSES]
PLACES = [[], {}, [[]], [0] * 50_000, {"a": {"b": [1]}}, None, True, False, [None], [-1, "x"]]


def deep(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


def value(chance):
    """A value that may stand anywhere."""
    kind = chance.randrange(6)
    if kind == 0:
        return {"class_path": chance.choice(CLASSES), "init_args": {"args": ["touch executed"]}}
    if kind == 1:
        return deep(chance.choice([5, 70, 300]))
    return copy.deepcopy(chance.choice([NUMBERS, TEXTS, PLACES][kind % 3]))


# Mutations of values


def places(found, path=()):
    """The paths of all entries of nested lists and dictionaries."""
    items = found.items() if isinstance(found, dict) else enumerate(found)
    for key, inner in items if isinstance(found, (dict, list)) else ():
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def mutate(found, chance):
    """A nested value with one to three entries changed, removed, exchanged or added."""
    found = copy.deepcopy(found)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        if not (paths := list(places(found))):
            return value(chance)
        *path, last = chance.choice(paths)
        home = found
        for key in path:
            home = home[key]
        kind = chance.randrange(8)
        if kind == 0:
            del home[last]
        elif kind == 1 and isinstance(home, dict):
            home[chance.choice(["class_path", "same_as", "x", "step", ""])] = home.pop(last)
        elif kind == 2:
            home[last] = [home[last]]
        elif kind == 3 and isinstance(home[last], (int, float)):
            home[last] = chance.choice([-home[last], home[last] * 10**9, str(home[last])])
        else:
            home[last] = (
                tensor(home[last], chance) if torch.is_tensor(home[last]) else value(chance)
            )
    return found


def tensor(found, chance):
    """A tensor of another shape or type, or with other values."""
    changes = [
        lambda x: x.double(),
        lambda x: x.to(torch.int64),
        lambda x: x.bool(),
        lambda x: x.bfloat16(),
        lambda x: x.flatten(),
        lambda x: x[None],
        lambda x: x.new_empty(0),
        lambda x: x.new_zeros(*x.shape, 3),
        lambda x: torch.full_like(x.double(), float("nan")).to(x.dtype),
        lambda x: torch.full_like(x.double(), float("inf")).to(x.dtype),
        lambda x: torch.full_like(x, 1) * 100,
        lambda x: torch.zeros_like(x),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NaN as an integer
        return chance.choice(changes)(found.detach().clone()).contiguous()


# Mutations of files


def flip(path, chance):
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 4, 30]) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path, chance):
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def stretch(path, chance):
    os.truncate(path, chance.choice([2**20, 2**32, 2**41]))  # sparse


def double(path, chance):
    path.write_bytes(path.read_bytes() * 2)


def text(path, chance):
    whole = {
        "{" * 100_000,
        "[" * 100_000,
        '{"a":' * 50_000,
        "",
        "null",
        "[]",
        "{}",
        "\xff",
        "1" * 9_999,
    }
    path.write_text(chance.choice(sorted(whole)), encoding="latin-1")


def head(path, chance):
    """A head of safetensors with huge shapes and sizes."""
    size = chance.choice([2**20, 2**40, 2**63, -1])
    entry = {"dtype": "F32", "shape": [size, size], "data_offsets": [0, size]}
    data = json.dumps({"model.loc": entry, "places": entry, "x": entry}).encode()
    length = chance.choice([len(data), 2**40, 10, 0])
    path.write_bytes(length.to_bytes(8, "little") + data + bytes(64))


def special(path, chance):
    path.unlink()
    makers = [
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/dev/tty"),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("../../victim"),
        lambda: path.symlink_to("../../gone"),
        lambda: path.symlink_to("."),
        lambda: None,
    ]
    chance.choice(makers)()


def as_json(path, chance):
    """Values of a JSON file, of one line of rows, or of settings."""
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        place = chance.randrange(len(lines))
        lines[place] = json.dumps(mutate(json.loads(lines[place]), chance))
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(json.dumps(mutate(json.loads(path.read_text()), chance)))


def as_tensors(path, chance):
    """Tensors of a file, which is written whole, with its checksum where it has one."""
    if path.name.startswith("checkpoint"):
        save_state(path, mutate(load_state(path), chance))
        return
    found = load_file(path)
    name = chance.choice(sorted(found))
    kind = chance.randrange(4)
    if kind == 0:
        del found[name]
    elif kind == 1:
        found["x"] = found[name].clone()
    else:
        found[name] = tensor(found[name], chance)
    save_file(found, path)


def beside(path, chance):
    """Files that a run does not write, at names that it uses."""
    name = chance.choice(["run.lock", ".tmpabcdef", f"{path.name}.part", "figures", "rows.jsonl"])
    (path.parent / name).unlink(missing_ok=True) if not (path.parent / name).is_dir() else None
    kind = chance.choice([os.mkfifo, lambda p: os.symlink("../../victim", p)])
    if not os.path.lexists(path.parent / name):
        kind(path.parent / name)


PLAIN = [flip, cut, stretch, double, text, special, beside]
JSON, TENSORS = [as_json] * 14 + PLAIN, [as_tensors] * 10 + [head] * 2 + PLAIN


def of(path):
    """The mutations of a file, which depend on what it holds."""
    return {".safetensors": TENSORS, ".png": PLAIN}.get(path.suffix, JSON)
