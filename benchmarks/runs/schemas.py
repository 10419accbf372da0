"""Schemas of what a run keeps in its folder: the result, the history and the state."""

from priorzoo.benchmarks.rows.schemas import COUNT, LINE, ROW, SEED, STEP
from priorzoo.inference.schema import Many, Map, Number, Plain, Record, Text, Whole, optional

OF_SETTINGS = Record(
    {
        "data": LINE,
        "binarise": Text(among=("none", "static", "dynamic")),
        "train": optional(COUNT),
        "validation": Whole(),
    },
    {
        "labelled": Whole(),
        "labels": optional(Map(LINE)),
        "memory": optional(COUNT),
        "kl": optional(Map(Record({}))),
        "moves": optional(Map(Record({}))),
    },
    others=Plain(32),
)
OF_RESULT = Record(
    {
        "settings": OF_SETTINGS,
        "seed": SEED,
        "shape": Many(COUNT, 1, 8),
        "metrics": Map(Number(finite=False)),
    },
    {
        **ROW,
        "fingerprint": optional(Map(LINE)),
        "sources": Map(LINE),
        "words": optional(Plain(8)),
        "stages": optional(ROW["stages"]),
    },
)
OF_FINISHED = Record({"steps": Whole(), "seconds": Number(0)})  # to repeat the scores
OF_HISTORY = Record({"step": Whole(), "split": LINE}, STEP.optional, STEP.others, STEP.begins)
OF_STATE = Record(
    {
        "settings": Text(10_000_000),
        "data": optional(Map(LINE)),
        "stage": Whole(0, 1_000),
        "rows": Whole(),
        "before": Whole(),
        "spent": Number(0),
        "training": Plain(200, 10_000_000),
    },
    {"starts": Many(Plain(200, 10_000_000), 3, 3)},
)
