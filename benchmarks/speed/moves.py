"""How long a round of moves of clusters takes: ``priorzoo bench speed-moves``."""

import time
from argparse import Namespace
from itertools import product
from typing import Any

import torch

from priorzoo.benchmarks.rows.files import tell_row
from priorzoo.benchmarks.runs.machine import machine
from priorzoo.inference import Stream
from priorzoo.inference.nggp.collapsed_bound import Codes, CollapsedBound, Mixture
from priorzoo.inference.nggp.growth import grow
from priorzoo.models.nggp.code_families import FAMILIES
from priorzoo.models.nggp.law import NGGP

CODE, SPREAD, ROOM = 20, 0.02, 120  # D, of q(z | x), and the largest K


def planted(family: str, clusters: int, rows: int) -> tuple[CollapsedBound, Mixture, Codes, Codes]:
    """Codes of separated clusters, as many to propose as to decide, and the mixture they are of."""
    kind, labels = FAMILIES[family], torch.arange(rows) % clusters
    centres = torch.randn(clusters, CODE)
    roots = torch.eye(CODE).repeat(clusters, 1, 1)
    if family == "full":
        roots += 0.3 * torch.randn(clusters, CODE, CODE).tril(-1)

    def drawn() -> Codes:
        if family == "dirichlet":
            z = torch.distributions.Dirichlet(200 * centres[labels].softmax(-1)).sample()
            z = z.clamp(min=1e-6) / z.clamp(min=1e-6).sum(-1, keepdim=True)
        else:
            z = centres[labels] + 0.3 * (roots[labels] @ torch.randn(rows, CODE, 1)).squeeze(-1)
        return Codes(z, torch.full_like(z, SPREAD))

    codes, held = drawn(), drawn()
    loc, scale = kind.match(*codes, torch.eye(clusters)[labels])
    place = torch.arange(ROOM).clamp(max=clusters - 1)
    mixture = Mixture(loc[place], scale[place], torch.arange(ROOM) < clusters)
    law = NGGP(torch.tensor(1.0), torch.tensor(0.25))
    return CollapsedBound(law, 1.0, 55_000, 0.3, kind), mixture, codes, held


def timed(family: str, clusters: int, rows: int) -> dict[str, Any]:
    """The row of one call of :func:`grow`, in seconds of the processor."""
    with Stream(0):
        problem = planted(family, clusters, rows)
    begun = time.process_time()
    _, kept = grow(*problem)
    seconds = time.process_time() - begun
    sizes = {"family": family, "clusters": clusters, "rows": rows, "code": CODE}
    found = {"seconds": round(seconds, 3), "kept": sum(kept.values())}
    return {"kind": "speed-moves"} | sizes | found | machine(torch.device("cpu"))


def measure_moves(settings: Namespace) -> None:
    """Time moves that create, split, merge and remove clusters, where none of them is kept.

    usage: priorzoo bench speed-moves [--OPTION VALUE ...]

      --family gaussian|full|dirichlet  of the components [full]
      --clusters A,B                    K [5,10,20,40,80,100]
      --sizes A,B                       rows that propose, and as many that decide [5000]
      --commit ID                       of the moves, where it is not this version
      --rows FILE                       file of rows to append to
    """
    for clusters, rows in product(settings.clusters, settings.sizes):
        row = timed(settings.family, int(clusters), int(rows))
        row |= {"commit": settings.commit, "command": settings.command}
        tell_row(row, settings.rows)
