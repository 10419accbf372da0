"""Tables of result rows: ``python -m priorzoo.benchmarks.report.tables`` writes the README's."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from priorzoo.benchmarks.rows.files import RESULTS, Row, read_rows
from priorzoo.benchmarks.speed.report import summary

FACTOR_HEAD = (
    "| command | steps | seeds | labels | assignment of test rows | regression on the same labels "
    "| regression on all | agreement on drawn rows |\n|---|---|---|---|---|---|---|---|\n"
)
HEAD = (
    "| command | steps | seeds | K, used K | -ELBO, nats | H(y given x), nats "
    "| majority accuracy | reference: -ELBO, accuracy |\n|---|---|---|---|---|---|---|---|\n"
)


K_MEANS_HEAD = (
    "| command | steps | seeds | used K | -ELBO, nats | majority accuracy | best-example accuracy "
    "| NMI | k-means, as many clusters |\n|---|---|---|---|---|---|---|---|---|\n"
)


def clustering_table(rows: Iterable[Row]) -> str:
    """Markdown: a line for each command and number of steps, mean and sd over the seeds.

    -ELBO, entropy and accuracy are those of the test rows. The resolved settings play no part:
    they hold the defaults of torch's classes, which change with its version.
    """
    own = (r for r in rows if "embedding" not in r and not r["settings"].get("labels"))
    return HEAD + "".join(map(_line, _grouped(own)))


def factor_table(rows: Iterable[Row]) -> str:
    """Markdown: a line for each command, number of steps and labelled factor, seeds together."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        for site in row["settings"].get("labels") or {}:
            groups.setdefault((row["command"], row["steps"], site), []).append(row)
    lines = []
    for (command, steps, site), found in groups.items():
        figures = [
            spread([row["metrics"][f"{site}.{name}"] for row in found], 3)
            for name in ("accuracy", "regression", "judge", "agreement")
        ]
        name = found[0]["settings"]["labels"][site]
        lines.append(
            " | ".join([f"| `{command}`", f"{steps:,}", _seeds(found), name, *figures]) + " |\n"
        )
    return FACTOR_HEAD + "".join(lines)


def k_means_table(rows: Iterable[Row]) -> str:
    """Markdown: models beside k-means with as many clusters as each run uses, seeds together.

    Both have the majority accuracy of the test rows. A run without k-means of its data and its
    number of clusters has none beside it.
    """
    models: list[Row] = []
    floors: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["recipe"] == "k-means":
            floors.setdefault(_place(row), []).append(row["metrics"]["accuracy_majority"])
        else:
            models.append(row)
    return K_MEANS_HEAD + "".join(_k_means_line(found, floors) for found in _grouped(models))


def _k_means_line(rows: Sequence[Row], floors: Mapping[tuple[str, int], list[float]]) -> str:
    measured, beside = [row["metrics"] for row in rows], [floors.get(_place(row)) for row in rows]
    cells = [
        f"`{rows[0]['command']}`",
        f"{rows[0]['steps']:,}",
        _seeds(rows),
        _span(sorted({int(m["used_clusters"]) for m in measured})),
        spread([-row["terms"]["elbo"] for row in rows], 2),
        spread([m["accuracy_majority"] for m in measured], 3),
        spread([m["accuracy_best_example"] for m in measured], 3),
        spread([m["nmi"] for m in measured], 3),
        "-" if None in beside else f"{mean(mean(found) for found in beside if found):.3f}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _place(row: Row) -> tuple[str, int]:
    return row["settings"]["data"], int(row["metrics"]["used_clusters"])


def write_readme(
    readme: Path, rows: Iterable[Row], timed: Iterable[Row] = (), beside: Iterable[Row] = ()
) -> None:
    """Put each table between the README's two marks for it, ``<!-- name -->`` and its end.

    Args:
        readme: the file.
        rows: results of training.
        timed: rows of the speed of a step.
        beside: results of models and of k-means, to be compared.

    Raises:
        ValueError: for a file without marks for results.
    """
    rows, text = list(rows), readme.read_text()
    if not re.search("<!-- results -->.*<!-- /results -->", text, re.S):
        raise ValueError(
            "Expected <!-- results --> and then <!-- /results --> in "
            f"{readme} but got none; add them."
        )
    tables = {
        "results": clustering_table(rows),
        "planes": embedding_table(rows),
        "factors": factor_table(rows),
        "speed": summary(timed),
        "clusters": k_means_table(beside),
    }
    for name, table in tables.items():
        text = _put(text, f"<!-- {name} -->", f"<!-- /{name} -->", table)
    readme.write_text(text)


def _put(text: str, begin: str, end: str, table: str) -> str:
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}{end}", text, flags=re.S)


def _line(rows: Sequence[Row]) -> str:
    first, settings = rows[0], rows[0]["settings"]
    measured = [row["metrics"] for row in rows]
    clustered = "clusters" in measured[0]
    labelled = all("accuracy_majority" in m for m in measured)
    used = sorted({int(m["used_clusters"]) for m in measured}) if clustered else []
    cells = [
        f"`{first['command']}`",
        f"{first['steps']:,}",
        _seeds(rows),
        f"{measured[0]['clusters']:.0f}, {_span(used)}" if clustered else "-",
        spread([-row["terms"]["elbo"] for row in rows], 2),
        spread([m["entropy"] for m in measured], 2) if clustered else "-",
        spread([m["accuracy_majority"] for m in measured], 3) if labelled else "-",
        ", ".join(
            f"{value:g}" for name, value in settings["published"].items() if _applies(name, first)
        )
        or "-",
    ]
    return f"| {' | '.join(cells)} |\n"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and standard deviation where there are several values."""
    middle = f"{mean(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ± {stdev(values):.{digits}f}"


def _grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one command and one number of steps together, in the order of the first of them."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["command"], row["steps"]), []).append(row)
    return list(groups.values())


def _seeds(rows: Iterable[Row]) -> str:
    return ", ".join(map(str, sorted(row["seed"] for row in rows)))


def _span(values: Sequence[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _applies(name: str, row: Row) -> bool:
    """Whether a published figure was taken after as many steps as the row."""
    return f" at {row['steps']:,} steps" in name


EMBEDDING_HEAD = (
    "| command | steps | seeds | reconstruction, nats: at a draw of the code, at its mean, through "
    "the plane | embedding, dimensions | 10 nearest neighbours | trustworthiness "
    "| confident in between |\n|---|---|---|---|---|---|---|---|\n"
)


def embedding_table(rows: Iterable[Row]) -> str:
    """Markdown of the rows that :mod:`priorzoo.benchmarks.scores.embedding` made, seeds together.

    Below them the planes of the pixels themselves, which the same rows hold.
    """
    scored = [row for row in rows if "embedding" in row]
    pixels: dict[str, dict[int, Mapping[str, float]]] = {"pca": {}, "umap": {}}
    for row in scored:
        beside = row["embedding"].get("pixels", {})
        for name in pixels.keys() & beside.keys():
            pixels[name][beside["seed"]] = beside[name]
    lines = list(map(_embedding_line, _grouped(scored)))
    for name, planes in pixels.items():
        if planes:
            head = [f"{name.upper()} of the pixels", "-", ", ".join(map(str, sorted(planes)))]
            cells = [*head, "-", "2", *_plane(list(planes.values())), "-"]
            lines.append(f"| {' | '.join(cells)} |\n")
    return EMBEDDING_HEAD + "".join(lines)


def _embedding_line(rows: Sequence[Row]) -> str:
    planes = [row["embedding"] for row in rows]
    nats = [[row["terms"]["reconstruction"] for row in rows]]
    nats += [[plane[k] for plane in planes if k in plane] for k in ("direct", "through_plane")]
    cells = [
        f"`{rows[0]['command']}`",
        f"{rows[0]['steps']:,}",
        _seeds(rows),
        ", ".join(spread(values, 1) if values else "-" for values in nats),
        f"{planes[0]['site']}, {planes[0]['dimensions']}",
        *_plane(planes),
        spread([plane["confident_between"] for plane in planes], 3),
    ]
    return f"| {' | '.join(cells)} |\n"


def _plane(planes: Sequence[Mapping[str, float]]) -> list[str]:
    names = ("neighbour_accuracy", "trustworthiness")
    return [spread([plane[name] for plane in planes], 3) for name in names]


def main() -> None:
    """Write the tables of the README."""
    write_readme(
        Path(__file__).parents[2] / "README.md",
        [row for row in read_rows(RESULTS) if row.get("kind") is None],
        [row for row in read_rows(RESULTS) if row.get("kind") == "speed"],
        [row for name in ("clusters", "sticks") for row in read_rows(RESULTS / name)],
    )


if __name__ == "__main__":
    main()
