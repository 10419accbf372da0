"""Schemas of rows: of results and their histories, of speed, gradients, precision and failures."""

from collections.abc import Mapping

from priorzoo.inference.schema import (
    Either,
    Flag,
    Many,
    Map,
    Number,
    Plain,
    Record,
    Schema,
    Text,
    Whole,
    optional,
)

VALUE = Number(finite=False)
SEED = Whole(-(2**63), 2**64)
COUNT = Whole(1)
LINE = Text(20_000)
PLANE = Record({"neighbour_accuracy": VALUE, "trustworthiness": VALUE})
PLANES = Record({"seed": SEED}, {"pca": PLANE, "umap": PLANE})
STEP = Record(  # of a history
    {"step": Whole()},
    {
        **dict.fromkeys(("split", "stage"), LINE),
        **dict.fromkeys(("terms", "metrics", "k-means"), Map(VALUE)),
        **dict.fromkeys(("epoch", "seconds", "elbo", "reconstruction", "objective"), VALUE),
        "lost": Whole(),
        "changed": Map(Plain(8)),
        **dict.fromkeys(("births", "deaths", "merges", "splits", "occupied", "alone"), VALUE),
    },
    others=Either((VALUE, Flag(), optional(LINE), Map(Plain(8)), Many(Plain(8)))),
    begins={"kl[": VALUE, "log p(": VALUE},
)
# What rows of any kind may have; what is there fits.
ROW: Mapping[str, Schema] = {
    "format": Whole(),
    "recipe": LINE,
    "command": LINE,
    "cell": LINE,
    "budget": LINE,
    "device": LINE,
    "seed": SEED,
    "steps": Whole(),
    "seconds": optional(Number(0)),
    "threads": Whole(),
    "shape": Either((Many(COUNT), Number(0))),  # of a result, or the parameter of a gamma
    "terms": Map(VALUE),
    "metrics": Map(VALUE),
    "merged": Map(VALUE),
    "versions": Map(LINE),
    "changes": Map(Plain(16)),
    "settings": Record({}, {"data": LINE, "model": Record({})}, others=Plain(16)),
    "history": Either((LINE, Many(STEP), optional(LINE))),
    "figures": optional(Many(LINE, most=100)),
    "embedding": Record({}, {"pixels": PLANES}, others=Plain(8)),
    "stages": Map(Record({}, others=Plain(8))),
}
# What rows of a kind need, by the entry that tells the kind.
NEEDED: Mapping[str, Mapping[str, Schema]] = {
    "result": {name: ROW[name] for name in ("command", "seed", "steps", "terms", "metrics")},
    "error": {"recipe": LINE, "seed": SEED, "error": LINE},
    "estimator": {
        **dict.fromkeys(("expectation", "estimator", "command"), LINE),
        **dict.fromkeys(("gradient", "estimate", "variance", "draws"), VALUE),
    },
    "quantity": {
        **dict.fromkeys(("quantity", "method"), LINE),
        "shape": Number(0),
        "exact": Either((Number(1e-100), Number(most=-1e-100))),
        **dict.fromkeys(("float32", "float64"), Record({"mean": VALUE}, {"spread": VALUE})),
    },
}
# The same of rows of speed and of tables, by their ``kind``.
SPEED: Mapping[str, Mapping[str, Schema]] = {
    "speed": {
        **dict.fromkeys(("recipe", "arm", "device"), LINE),
        **dict.fromkeys(("batch", "code"), COUNT),
        **dict.fromkeys(("microseconds", "ratio"), Number(0)),
        "hidden": optional(Many(COUNT)),
        "clusters": optional(COUNT),
        "threads": Whole(),
        "ratio_quartiles": Many(Number(0), 2, 2),
    },
    "speed-run": {
        **dict.fromkeys(("recipe", "arm", "device", "command"), LINE),
        **dict.fromkeys(("replicas", "steps", "full_steps", "threads"), Whole()),
        **dict.fromkeys(("seconds", "extrapolated_seconds"), Number(0)),
    },
    "speed-moves": {
        **dict.fromkeys(("family", "command"), LINE),
        **dict.fromkeys(("clusters", "rows"), Whole()),
        "seconds": Number(0),
        "commit": optional(LINE),
    },
    "speed-files": {
        **dict.fromkeys(("stored", "from", "command", "device"), LINE),
        **dict.fromkeys(("rows", "steps"), COUNT),
        **dict.fromkeys(("rows_per_second", "rows_per_cpu_second"), Many(Number(0), 1)),
        "peak_mib": optional(Number(0)),  # unknown on Windows
    },
    "speed-bound": {
        **dict.fromkeys(("recipe", "command", "step", "device"), LINE),
        **dict.fromkeys(("clusters", "rows", "samples"), COUNT),
        "draws_per_cpu_second": Many(Number(0), 1),
        "difference": Number(0),
        "peak_mib": optional(Number(0)),
    },
    "speed-start": {
        **dict.fromkeys(("recipe", "command", "start", "device"), LINE),
        **dict.fromkeys(("clock_seconds", "cpu_seconds"), Many(Number(0), 1)),
        "peak_mib": Number(0),
    },
    "speed-processes": {
        **dict.fromkeys(("recipe", "command", "step", "device"), LINE),
        **dict.fromkeys(("batch", "processes", "parameters", "steps", "message_bytes"), Whole()),
        **dict.fromkeys(("microseconds", "message_microseconds"), Number(0)),
    },
    "samples": {
        **dict.fromkeys(("recipe", "command"), LINE),
        "settings": ROW["settings"],
        "metrics": ROW["metrics"],
        "steps": Whole(),
        "samples": COUNT,
        "judge_accuracy": Number(0, 1),
    },
    "counts": {
        "command": LINE,
        "covariate": Flag(),
        **dict.fromkeys(("rows", "planted", "clusters", "steps"), Whole()),
        **dict.fromkeys(("ari", "ari_of_batches", "elbo"), VALUE),
    },
}
# The same of rows that name their ``measure``.
MEASURED: Mapping[str, Mapping[str, Schema]] = {
    "serving": {
        **dict.fromkeys(("recipe", "command", "output"), LINE),
        **dict.fromkeys(("programs", "graph"), Many(Number(0), 2, 2)),
        **dict.fromkeys(("onnx_kib", "difference"), Number(0)),
    },
    "tables": {
        **dict.fromkeys(("table", "method"), LINE),
        "missing": Number(0, 1),
        "seed": SEED,
        **dict.fromkeys(("ari", "nats"), optional(VALUE)),
    },
}


def schema_of(row: Mapping[str, object]) -> Record:
    """The schema of the kind of row that its entries name."""
    if "measure" in row:
        measure = row["measure"]
        needs = MEASURED.get(measure if isinstance(measure, str) else "", {})
        return Record({"measure": Text(among=tuple(MEASURED)), **needs}, ROW, others=Plain(8))
    if "kind" in row:
        kind = row["kind"]
        needed = SPEED.get(kind if isinstance(kind, str) else "", {})
        more: dict[str, Schema] = {
            "operations": Whole(),
            "kernels": Whole(),
            "peak_mib": Number(0),  # which an arm without torch does not measure
            "precision": LINE,
            "base": LINE,
            "products": LINE,
        }
        return Record({"kind": Text(among=tuple(SPEED)), **needed}, {**ROW, **more})
    found = next((name for name in ("estimator", "quantity", "error") if name in row), "result")
    return Record(NEEDED[found], ROW)
