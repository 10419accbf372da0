"""``priorzoo evaluate``, ``plot`` and ``sample``: score, draw and sample a trained run."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from priorzoo.benchmarks.charts import run_charts as charts
from priorzoo.benchmarks.data.fingerprints import differing, fingerprint
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.recipes.changes import read_value
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.runs.reading import data_of, read_data
from priorzoo.benchmarks.runs.scoring import score
from priorzoo.benchmarks.scores.run import Run
from priorzoo.cli.options import Parser, print_next, quoted, trusting
from priorzoo.cli.scores import print_scores, print_warning
from priorzoo.inference import Stream, draw


def evaluate_command(words: Sequence[str]) -> None:
    """Score a run on the test rows of its own data set or of another.

    usage: priorzoo evaluate RUN [--OPTION VALUE ...]

      RUN                     run folder
      --data NAME             another data set than the run's own
      --importance-samples N  of the bound on log p(x); without, there is none [0]
      --json                  print one line of JSON
      --data-root DIR         folder of the data sets
      --download              fetch missing data
      --device NAME           auto, cpu, cuda or mps [auto]
      --trust MODULE          import classes from this module of yours, which runs its code
    """
    settings = Parser("evaluate", evaluate_command).parse(words)
    run, dataset = _open(settings)
    result = score(run, dataset, settings.importance_samples, progress=True)
    if settings.json:
        print(json.dumps(result))
    else:
        print_scores(result)
    print_warning(result)
    print_next(f"priorzoo plot {quoted(settings.run)}{trusting(settings.trust)}")


def plot_command(words: Sequence[str]) -> None:
    """Draw every chart that fits the model, as PNG.

    usage: priorzoo plot RUN [--OPTION VALUE ...]

      RUN              run folder
      --data NAME      another data set than the run's own
      --data-root DIR  folder of the data sets
      --download       fetch missing data
      --device NAME    auto, cpu, cuda or mps [auto]
      --trust MODULE   import classes from this module of yours, which runs its code
    """
    settings = Parser("plot", plot_command).parse(words)
    for path in charts.draw_run(*_open(settings)):
        print(path)
    print_next(f"priorzoo sample {quoted(settings.run)}{trusting(settings.trust)}")


def sample_command(words: Sequence[str]) -> None:
    """Draw rows from the prior, all or of one cluster, as a picture or as an array.

    usage: priorzoo sample RUN [--OPTION VALUE ...]

      RUN            run folder
      --cluster K    draw from one cluster; from all if left out
      --given SITES  values of sites: {"r_1": 0, "r_2": 3}
      --n N          number of rows [100]
      --seed N       seed of the draws [0]
      --out FILE     .png, or .npz for numbers; RUN/samples.png if left out
      --device NAME  auto, cpu, cuda or mps [auto]
      --trust MODULE  import classes from this module of yours, which runs its code
    """
    settings = Parser("sample", sample_command).parse(words)
    if settings.n < 1:
        raise ValueError(f"Expected --n of at least 1 but got {settings.n}.")
    run = open_run(settings.run, settings.device, trust=settings.trust or ())
    given = {} if settings.cluster is None else {run.site: settings.cluster}
    if settings.given is not None:
        sites = read_value(settings.given)
        if not (isinstance(sites, dict) and all(isinstance(k, int) for k in sites.values())):
            raise ValueError(f'Expected --given such as {{"r_1": 0}} but got {settings.given!r}.')
        given |= sites
    with Stream(settings.seed, run.device):
        rows = draw(run.story, settings.n, given=given).cpu()
    out: Path = settings.out or run.folder / "samples.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    print(charts.write_rows(rows, run.shape, out))
    print_next(f"priorzoo report {quoted(run.folder.parent)}")


def _open(settings: argparse.Namespace) -> tuple[Run, Dataset]:
    run = open_run(settings.run, settings.device, trust=settings.trust or ())
    if settings.data is None:
        dataset = data_of(run, settings.data_root, settings.download)
    else:
        chosen = {**run.settings, "data": settings.data, "train": None, "validation": 0}
        where = {"root": settings.data_root, "download": settings.download}
        dataset = read_data(chosen, seed=run.seed, **where)
    known = run.result.get("fingerprint")
    if known and (other := differing(known, fingerprint(dataset), "_test")):
        print(f"warning: not the data of the run: {'; '.join(other)}", file=sys.stderr)
    return run, dataset
