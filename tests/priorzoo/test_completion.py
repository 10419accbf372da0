"""Completion of commands, spelling of options, and output that nobody reads to its end."""

import os
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from priorzoo.cli.completion import whole_parser
from priorzoo.cli.main import COMMANDS, main
from priorzoo.cli.options import repeatable, spelt
from priorzoo.cli.settings import read_words


@pytest.fixture(scope="module")
def script() -> str:
    shtab = pytest.importorskip("shtab")
    return shtab.complete(whole_parser(), "bash")


TYPED = [
    (["tra"], ["train"]),
    (["train", "digits-gm"], ["digits-gmvae"]),
    (["train", "gmvae", "--batch"], ["--batch-size"]),
    (["bench", "shu"], ["shu2016"]),
    (["evaluate", "runs", "--importance"], ["--importance-samples"]),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("words", "found"), TYPED)
def test_bash_completes(script, words, found):
    line = " ".join(["priorzoo", *words])
    said = f"""{script}
    COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMP_LINE='{line}'; COMP_POINT={len(line)}
    _shtab_priorzoo priorzoo {words[-1]} {["priorzoo", *words][-2]}
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    out = subprocess.run(["bash", "-c", said], capture_output=True, text=True, check=True)
    assert out.stdout.split() == found


def read_until(file, text, seconds=60):
    """What a terminal prints up to a text."""
    read, deadline = "", time.monotonic() + seconds
    while text not in read and time.monotonic() < deadline:
        if select.select([file], [], [], 0.1)[0]:
            read += os.read(file, 2**16).decode("utf-8", "replace")
    assert text in read, read
    return read


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes(tmp_path, capsys):
    """In a terminal of its own, where Tab is typed after each word."""
    import pty

    assert main(["completion", "zsh"]) == 0
    (tmp_path / "_priorzoo").write_text(capsys.readouterr().out)
    own, terminal = pty.openpty()
    environment = dict(os.environ, TERM="dumb", HOME=str(tmp_path))
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    with subprocess.Popen(["zsh", "-f", "-i"], env=environment, **streams) as shell:
        try:
            begin = f"PROMPT=; fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D"
            os.write(own, f"{begin}; echo rea''dy\n".encode())
            read_until(own, "ready\r")
            for (
                words,
                found,
            ) in TYPED:  # Ctrl-A and Ctrl-E move to the ends of the line, to print it
                line = f"priorzoo {' '.join(words)}\t\x01echo '\x05' do''ne\n"
                os.write(own, line.encode())
                printed = re.search(r"^priorzoo (.*) done", read_until(own, " done\r"), re.M)[1]
                assert printed.split() == [*words[:-1], *found]
        finally:
            shell.kill()
            os.close(own)
            os.close(terminal)


def test_every_command_is_completed(script):
    assert COMMANDS
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", script)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_the_script_is_printed(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "digits-gmvae" in capsys.readouterr().out


def test_options_may_be_spelt_either_way():
    for word in ("--batch-size", "--batch_size"):
        assert read_words([word, "20"], []) == {"batch_size": 20}
    assert read_words(["--model.learn-weights"], []) == {"model.learn_weights": True}
    assert spelt(["--out", "my_run", "--model.class_path=my_models.Own"]) == [
        "--out",
        "my_run",
        "--model.class-path=my_models.Own",
    ]
    assert repeatable(["m2", "--data_root", "x", "--batch_size", "9"]) == (
        "priorzoo train m2 --batch-size 9"
    )


def test_a_reader_that_has_enough_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "priorzoo", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    error = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 141
    assert "error" not in error
    assert "Traceback" not in error
