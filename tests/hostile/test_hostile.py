"""Hostile run folders, checkpoints, rows, memories and settings, made by mutation of good ones.

Each is read by the library, or by the command line, in a process whose memory is limited. It must
be read, or refused in one line, in time; it runs nothing, and writes through no link. The
environment variable ``HOSTILE`` has the number of cases, of which every twentieth is a command in a
process of its own; ``make hostile`` makes 1,000.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from priorzoo.benchmarks.grid.cells import Cell
from priorzoo.benchmarks.grid.shared import Shared
from priorzoo.benchmarks.report.page import write_report
from priorzoo.benchmarks.runs import opening
from priorzoo.benchmarks.runs import run as runs
from priorzoo.cli.settings import read_file
from priorzoo.inference import load
from priorzoo.inference.memory import Memory

resource = pytest.importorskip("resource", reason="needs limits of memory and FIFOs")

spec = spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
mutations = module_from_spec(spec)
spec.loader.exec_module(mutations)

COUNT = int(os.environ.get("HOSTILE", "40"))
MEMORY, SECONDS, EVERY = 2 * 2**30, 60, 20
WORDS = ["train", "digits-gmvae", "--encoder.hidden", "[4]", "--decoder.hidden", "[4]"]
WORDS += ["--data", "own.npz", "--binarise", "none", "--steps", "6", "--every", "2"]

# What reads the files


def load_run(folder, recipe):
    load(folder / "run")


def open_run(folder, recipe):
    opening.open_run(folder / "run", "cpu")


def resume(folder, recipe):
    runs.train("x", recipe, folder / "run", device="cpu", resume=True)


def overwrite(folder, recipe):
    runs.train("x", recipe, folder / "run", device="cpu", overwrite=True)


def remember(folder, recipe):
    model, _ = load(folder / "run")
    Memory.load(folder / "run", model).codes_at(torch.zeros(2, 2))


def report(folder, recipe):
    write_report(folder / "run", folder / "site")


def read_settings(folder, recipe):
    read_file(folder / "run" / "settings.json")


def share(folder, recipe):
    (folder / "run" / "rows.jsonl").touch()
    Shared(folder / "run").state(Cell("digits-gmvae"))


KINDS = {  # of a good folder: which files are changed, who reads them, and commands that do
    "finished": (
        ["config.json"] * 3 + ["model.safetensors", "result.json", "history.jsonl"],
        [load_run, open_run] * 3 + [resume, overwrite],
        [["evaluate", "run"], ["sample", "run", "--n", "3"], ["plot", "run"]],
    ),
    "broken off": (
        ["checkpoint.safetensors"] * 4 + ["checkpoint-1.safetensors", "history.jsonl"],
        [resume, resume, resume, overwrite],
        [[*WORDS, "--out", "run", "--resume"]],
    ),
    "memory": (["memory.safetensors"], [remember], []),
    "rows": (
        ["rows.jsonl"] * 4 + ["speed.jsonl", "failures.jsonl", "history/a.jsonl", "own.png"],
        [report, report, share],
        [["report", "run"]],
    ),
    "settings": (
        ["settings.json"],
        [read_settings],
        [[*WORDS, "--config", "run/settings.json", "--out", "new"]],
    ),
}
WEIGHTS = {"finished": 8, "broken off": 6, "memory": 2, "rows": 4, "settings": 1}


# The cases


class LateError(BaseException):
    """A case that hangs."""


def late(*_):
    raise LateError


def attack(good, home, number, recipe):
    """Make and read one case; returns its kind and how it ended."""
    chance = random.Random(number)
    kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    names, readers, commands = KINDS[kind]
    work = home / "work"
    shutil.copytree(good / kind, work, symlinks=True, copy_function=link)
    (home / "victim").write_text("untouched")
    os.chdir(work)
    path = work / "run" / chance.choice(names)
    changes = mutations.of(path)
    chance.choice(changes)(path, chance)
    words = chance.choice(commands) if commands and number % EVERY == 0 else None
    told = f"{number} {kind}: {path.name}"
    try:
        ended = command(words) if words else read(partial(chance.choice(readers), work, recipe))
        assert not (work / "executed").exists(), "the canary was executed"
        assert (home / "victim").read_text() == "untouched", "it wrote through a link"
        return f"{kind}{', command' if words else ''}", ended, ""
    except BaseException:
        return kind, "broken", f"{told} {words or ''}\n{traceback.format_exc()[-2_500:]}"
    finally:
        os.chdir(home)
        shutil.rmtree(work)


def link(source, to):
    """Copy a file; FIFOs and links stay what they are."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), to)
    elif Path(source).is_fifo():
        os.mkfifo(to)
    else:
        shutil.copyfile(source, to)


def read(reader):
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    said, before = None, peak()
    try:
        reader()
    except (ValueError, OSError, FloatingPointError) as error:
        said = str(error)
    finally:
        signal.alarm(0)
    used = peak() - before
    assert used < MEMORY, f"it took {used:,} bytes"
    assert said is None or (said and len(said.splitlines()) == 1), said
    return "read" if said is None else "refused"


def command(words):
    made = [sys.executable, "-m", "priorzoo", *words]
    done = subprocess.run(
        made, capture_output=True, text=True, timeout=5 * SECONDS, preexec_fn=limit, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 2), (done.returncode, done.stderr)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert used < MEMORY, f"it took {used:,} bytes"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"priorzoo {words[0]}: "), done.stderr
    return "refused" if done.returncode else "read"


def limit(held=0):
    """Of what a process may allocate beside what it holds, and those that it starts."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (held + 3 * MEMORY // 2, hard))


def held():
    """Bytes of data of this process, such as those of tests before."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmData")).split()[1])


def peak():
    """Bytes that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def batch(good, home, numbers, recipe):
    """Make some cases in a forked process, whose memory is limited; returns how they ended."""
    home.mkdir()
    process = os.fork()
    if process == 0:
        try:  # whatever happens, this process must not go on with other tests
            attacks(good, home, numbers, recipe)
        except BaseException:
            (home / "fell").write_text(traceback.format_exc())
        finally:
            os._exit(0)
    until = time.monotonic() + 10 * SECONDS + 20 * SECONDS * len(numbers)
    while os.waitpid(process, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    ended = [json.loads(line) for line in (home / "ended").read_text().splitlines()]
    missing = numbers[len(ended) :]
    why = (home / "fell").read_text() if (home / "fell").is_file() else "the process ended"
    return ended + [("?", "broken", f"{number}: {why}") for number in missing]


def attacks(good, home, numbers, recipe):
    """Make some cases, and write how each ended."""
    limit(held())
    warnings.simplefilter("ignore")
    with (home / "said").open("w") as said, (home / "ended").open("w") as file:
        sys.stderr = sys.stdout = said
        for number in numbers:
            print(json.dumps(attack(good, home, number, recipe)), file=file, flush=True)


def test_hostile_files_are_read_or_refused_in_one_line(good, small, tmp_path):
    size = 50
    batches = [range(COUNT)[i : i + size] for i in range(0, COUNT, size)]
    found = [
        each
        for i, some in enumerate(batches)
        for each in batch(good, tmp_path / f"{i}", some, small)
    ]
    counts = Counter((kind, ended) for kind, ended, _ in found)
    print("\n" + "\n".join(f"{kind}, {ended}: {n}" for (kind, ended), n in sorted(counts.items())))
    broken = [told for *_, told in found if told]
    assert not broken, f"{len(broken)} of {COUNT}\n" + "\n\n".join(broken[:40])
    assert len(found) == COUNT
