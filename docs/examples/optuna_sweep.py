"""Search a recipe's settings with Optuna; the bound of the held-out rows chooses, no label does.

usage: python optuna_sweep.py [RECIPE] [TRIALS] [FOLDER]

Each trial is a run folder. Started again, or in several terminals at once, the command goes on with
the same study.
"""

import sys
from pathlib import Path

import optuna

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.changes import apply
from priorzoo.benchmarks.runs.run import train


def settings(trial: optuna.Trial) -> dict[str, object]:
    """What the search may change; each name is an option of ``priorzoo train RECIPE``."""
    width = trial.suggest_categorical("width", [64, 128, 256])
    return {
        "optimiser.lr": trial.suggest_float("optimiser.lr", 1e-4, 1e-2, log=True),
        "model.code": trial.suggest_int("model.code", 4, 16),
        "encoder.hidden": [width, width],
        "decoder.hidden": [width, width],
        "patience": 5,  # early stopping looks at the same bound
    }


def search(recipe: str, trials: int, folder: Path, **more: object) -> optuna.Study:
    """Run trials until the study has so many; ``more`` holds settings that stay fixed."""

    def bound(trial: optuna.Trial) -> float:
        chosen = apply(RECIPES[recipe], settings(trial) | more)
        run, _ = train(recipe, chosen, folder / f"trial{trial.number}", seed=0)
        held_out = [row["elbo"] for row in run.history if row["split"] == "valid"]
        trial.set_user_attr("folder", str(run.folder))
        return max(held_out)

    folder.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{folder / 'study.db'}"
    how = {"study_name": recipe, "direction": "maximize", "load_if_exists": True}
    study = optuna.create_study(storage=storage, **how)
    left = trials - sum(trial.state.is_finished() for trial in study.trials)
    if left > 0:
        enough = optuna.study.MaxTrialsCallback(trials)  # others may add trials at the same time
        study.optimize(bound, n_trials=left, callbacks=[enough])
    return study


if __name__ == "__main__":
    name, count, place = [*sys.argv[1:], *["digits-gmvae", "20", "runs/sweep"][len(sys.argv) - 1 :]]
    best = search(name, int(count), Path(place)).best_trial
    print(f"best bound of held-out rows {best.value:.2f} nats, in {best.user_attrs['folder']}")
    for option, value in best.params.items():
        print(f"  {option}  {value}")
