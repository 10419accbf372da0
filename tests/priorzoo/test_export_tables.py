"""What exported predictions of tables take, and how ONNX solves triangular systems."""

import numpy as np
import pytest
import torch

from priorzoo.cli.export import beside
from priorzoo.inference import read_table
from priorzoo.inference.serving.export import _solved


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_triangular_systems_are_solved_by_substitution(upper, left, unit):
    torch.manual_seed(0)
    a, b = torch.randn(3, 1, 4, 4).double(), torch.randn(2, 4, 4).double()
    a = (a.triu() if upper else a.tril()) + 2 * torch.eye(4)
    how = {"upper": upper, "left": left, "unitriangular": unit}
    if unit:
        a.diagonal(dim1=-2, dim2=-1).fill_(1)
    torch.testing.assert_close(_solved(a, b, **how), torch.linalg.solve_triangular(a, b, **how))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("exposure", [False, True])
def test_the_example_has_what_stands_beside_a_row(missing, exposure):
    rng = np.random.default_rng(0)
    columns = {"n": rng.poisson(3.0, 30).astype(float), "b": ["x", "y", "z"] * 10}
    columns |= {"t": rng.random(30) + 1, "age": rng.normal(size=30), "a": rng.normal(size=30)}
    columns["a"][3] = np.nan if missing else 0
    said = "n=count,b=covariate,age=covariate" + exposure * ",t=exposure"
    table = read_table(columns, columns=said)
    found = beside(table.schema)
    assert found.keys() == table.context.keys()
    for name, value in table.context.items():
        assert found[name].shape[1:] == value.shape[1:]
        assert found[name].dtype == value.dtype
