"""Checks before a run is resumed: the same data, and the same settings except those of steps."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from priorzoo.benchmarks.data.fingerprints import Fingerprint, differing
from priorzoo.benchmarks.recipes.recipe import Part, Recipe, Stage
from priorzoo.benchmarks.rows.files import plain
from priorzoo.inference.files import parse
from priorzoo.inference.schema import Map, Plain, check

FREE = ("clip", "on_nonfinite", "optimiser.lr", "optimiser.rate", "rollbacks")

State = dict[str, Any]
Changed = dict[str, list[Any]]  # the old and the new value of settings by name


def check_same(state: State, settings: Mapping[str, Any], folder: Path) -> Changed:
    """Check that a checkpoint has the same settings and seed; returns the settings that differ.

    A run that is not finished may go on with others of :data:`FREE`.

    Raises:
        ValueError: naming those that must be the same and differ.
    """
    kept: Any = parse(state["settings"], f"the settings of {folder}")
    check(Map(Plain(64)), kept, "the settings", folder, "train again")
    old, new = _by_option(kept), _by_option(settings)
    pairs = {name: [old.get(name), value] for name, value in new.items()}
    changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    free = () if state["stage"] is None else FREE
    other = sorted(changed.keys() - set(free))
    if other:
        may = f"; only {', '.join(free)} may" if free else ", and it is finished"
        raise ValueError(
            f"Expected the settings of the run in {folder} but {', '.join(other)} differ{may}; "
            "resume with the same, or train anew elsewhere."
        )
    return changed


def check_data(state: State, found: Fingerprint, folder: Path) -> None:
    """Check that a checkpoint was saved with the same data.

    Raises:
        ValueError: naming the arrays that differ.
    """
    if other := differing(state["data"] or found, found):
        raise ValueError(
            f"Expected the data of the run in {folder} but {'; '.join(other)}. Resume with the "
            "same data, or train anew elsewhere."
        )


def counted(history: list[State]) -> State:
    """Counts of steps with NaN or infinity, and changed settings, from a history."""
    found: State = {}
    done = [row for row in history if row["split"] == "nonfinite"]
    if done:
        skipped = sum(row.get("lost", 0) for row in done if row.get("done") == "skip")
        rollbacks = sum(row.get("done") == "rollback" for row in done)
        found["nonfinite"] = {"skipped": skipped, "rollbacks": rollbacks}
    resumed = [row for row in history if row["split"] == "resume"]
    if resumed:
        found["resumed"] = [{"step": row["step"], **row.get("changed", {})} for row in resumed]
    return found


def _by_option(settings: Mapping[str, Any]) -> State:
    """Settings by name, the arguments of the optimiser each by their own.

    Settings that were added after a checkpoint was written have their defaults.
    """
    found: State = {**_defaults(Recipe), **settings}
    if isinstance(stages := found.get("stages"), list):
        later = _defaults(Stage)
        found["stages"] = [{**later, **s} if isinstance(s, dict) else s for s in stages]
    chosen = found.get("optimiser")
    if isinstance(chosen, dict) and isinstance(arguments := chosen.get("init_args"), dict):
        found |= {f"optimiser.{name}": value for name, value in arguments.items()}
        found["optimiser"] = chosen.get("class_path")
    return found


def _defaults(kind: type[Recipe] | type[Stage]) -> State:
    """The defaults of a dataclass, but for those that are classes with arguments."""
    known = {each.name: each.default for each in fields(kind)}
    return plain({k: v for k, v in known.items() if v is not MISSING and not isinstance(v, Part)})
