"""The examples in docstrings give what they say."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHOWN = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for floor in ("models", "guides", "inference", "benchmarks", "priorzoo")
    for path in sorted((ROOT / floor).rglob("*.py"))
    if re.search(r">>> (?!.*\+SKIP)", path.read_text("utf-8"))
]


@pytest.mark.parametrize("name", SHOWN)
def test_examples_give_what_they_say(name):
    module = import_module(name if name.startswith("priorzoo.") else f"priorzoo.{name}")
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted
    assert not found.failed
