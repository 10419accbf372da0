"""Locks: one holder at a time, dropped with its process, and named."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from priorzoo.benchmarks.rows import locks
from priorzoo.benchmarks.rows.locks import holder, locked

# By its path: the packages around it would import torch.
READ = f"""
import runpy, sys, time
from pathlib import Path
locked = runpy.run_path({locks.__file__!r})["locked"]
"""
HOLD = f"""{READ}
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
COUNT = f"""{READ}
lock, number = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(100):
    with locked(lock, wait=True):
        number.write_text(str(int(number.read_text()) + 1))
"""


def test_a_lock_has_one_holder_who_is_named(tmp_path):
    path = tmp_path / "lock"
    assert holder(path) == ""
    with locked(path):
        assert f"process {os.getpid()} on" in holder(path)
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"), locked(path):
            pytest.fail("two held it")
        assert f"process {os.getpid()} on" in holder(path)
    assert not path.exists()
    with locked(path):
        pass


def test_a_lock_goes_with_its_process(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    assert f"process {process.pid} on" in holder(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.is_file()
    assert holder(path) == ""
    with locked(path):
        assert f"process {os.getpid()} on" in holder(path)


def test_whoever_waits_has_it_next(tmp_path):
    path, order = tmp_path / "lock", []

    def wait():
        with locked(path, wait=True):
            order.append("waited")

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        order.append("held")
    thread.join(10)
    assert order == ["held", "waited"]


def test_no_two_processes_are_ever_inside(tmp_path):
    """Although the file is removed and made anew each time."""
    number = tmp_path / "number"
    number.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "lock"), str(number)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0] * 3
    assert number.read_text() == "300"


def test_a_full_disk_is_no_reason_against_a_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: (_ for _ in ()).throw(OSError(28, "full")))
    with locked(tmp_path / "lock"):
        assert holder(tmp_path / "lock") == "another process"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"), locked(tmp_path / "nowhere" / "lock"):
        pytest.fail("there is no such folder")
