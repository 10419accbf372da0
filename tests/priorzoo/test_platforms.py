"""What Windows, macOS and other shells lack: there is a way without it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from priorzoo.benchmarks.rows import peaks
from priorzoo.benchmarks.rows.locks import holder, locked
from priorzoo.benchmarks.runs import interruption
from priorzoo.benchmarks.runs.machine import machine, pick_device
from priorzoo.cli import main as cli

ABSENT = ("fcntl", "grp", "pwd", "resource", "termios")
# As on Windows: our own imports of these modules fail, and some of POSIX is not there.
PROGRAM = f"""
import builtins, importlib, os, pkgutil, signal, sys
from pathlib import Path
from types import SimpleNamespace
importing = builtins.__import__
def absent(name, globals=None, *given, **how):
    if name in {ABSENT} and str((globals or {{}}).get("__name__")).startswith("priorzoo"):
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return importing(name, globals, *given, **how)
import priorzoo.benchmarks.papers, sklearn.metrics, scipy.stats, multiprocessing, matplotlib.figure
builtins.__import__ = absent
for name in ("SIGHUP", "SIGALRM", "SIGKILL", "setitimer", "pthread_sigmask"):
    delattr(signal, name)
def refuse(*given, **how):
    raise OSError(1, "Operation not permitted")
os.link = os.symlink = refuse
for name in ("fork", "sched_getaffinity", "sched_setaffinity", "O_NONBLOCK"):
    delattr(os, name)
for name in [name for name in sys.modules if name.startswith("priorzoo")]:
    del sys.modules[name]
import priorzoo
for module in pkgutil.walk_packages(priorzoo.__path__, "priorzoo."):
    importlib.import_module(module.name)
from priorzoo.benchmarks.rows import locks
locks.sys = SimpleNamespace(platform="win32")
sys.modules["msvcrt"] = SimpleNamespace(LK_NBLCK=2, locking=lambda *_: None)
from priorzoo.cli.main import main
words = ["train", "digits-vae", "--steps", "2", "--encoder.hidden", "[8]", "--out", "run"]
sys.exit(main(words) or main(["evaluate", "run"]))
"""


@pytest.mark.slow
def test_everything_is_imported_and_trains_without_what_windows_lacks(tmp_path):
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "elbo" in run.stdout


def test_peak_memory_is_told_where_it_can_be(monkeypatch):
    assert 10 < peaks.peak_mib() < 1e6
    monkeypatch.setattr(peaks, "STATUS", Path("nowhere"))  # as on other systems than Linux
    assert 10 < peaks.peak_mib() < 1e6
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peaks.peak_mib() is None


def test_a_lock_by_the_means_of_windows(tmp_path, monkeypatch):
    taken = []

    def locking(file, kind, count):
        if taken:
            raise PermissionError
        taken.append(file)

    monkeypatch.setattr("priorzoo.benchmarks.rows.locks.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    with locked(tmp_path / "run.lock"):
        assert holder(tmp_path / "run.lock").startswith("process ")
    assert not (tmp_path / "run.lock").exists()


def test_signals_are_those_that_the_system_has(monkeypatch):
    of_windows = SimpleNamespace(SIGINT=2, SIGTERM=15, SIG_IGN=1)
    of_windows.getsignal, of_windows.signal = lambda number: None, lambda number, handler: None
    monkeypatch.setattr(interruption, "signal", of_windows)
    with interruption.handling(), interruption.holding_back():
        deferred = interruption.Deferred()
        with pytest.raises(KeyboardInterrupt), deferred:
            deferred._note(15, None)


def test_the_gpu_of_a_mac_is_chosen_by_name_alone(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps").type == machine(pick_device("mps"))["device"] == "mps"
    assert pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert cli.main(["train", "digits-vae", "--device", "mps"]) == 2
    assert "for --device mps but found none; use --device cpu" in capsys.readouterr().err


def test_a_model_that_needs_float64_is_refused_in_one_line_on_a_mac(monkeypatch, capsys):
    def lacking(words):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(cli, "_run", lacking)
    assert cli.main(["train", "digits-nggp", "--device", "mps"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
