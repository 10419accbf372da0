"""What is rewritten before and within inductor: functions without fast code, matrix products."""

import json

import pytest
import torch
from scipy import special
from torch._inductor.decomposition import select_decomp_table
from torch.fx.experimental.proxy_tensor import make_fx

from priorzoo.inference.training import multiplying, products, rewriting

F32, F64 = torch.float32, torch.float64


def numbers(dtype):
    """Of all magnitudes, and those at which a function changes its form."""
    powers = torch.logspace(-37, 37, 20_001, dtype=F64)
    near = torch.linspace(-0.999, 3, 10_001, dtype=F64)
    return torch.cat([powers, -powers, near, 1e-3 * near]).to(dtype)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(
    ("form", "stock", "within"),
    [(rewriting.log1p, torch.log1p, (-1, 1e37)), (rewriting.expm1, torch.expm1, (-1e37, 88))],
)
def test_rewritten_functions_are_accurate_to_the_last_digits(form, stock, within, dtype):
    x = numbers(dtype)
    x = x[(x > within[0]) & (x < within[1])]
    exact = stock(x.double())
    error = ((form(x).double() - exact) / exact).abs()
    assert error.max() < 3 * torch.finfo(dtype).eps
    ends = torch.tensor([0.0, -0.0, -1.0, -2.0, torch.inf, -torch.inf, torch.nan], dtype=dtype)
    torch.testing.assert_close(form(ends), stock(ends), equal_nan=True)
    assert torch.equal(form(ends[:2]).signbit(), torch.tensor([False, True]))


@pytest.mark.parametrize(
    ("form", "stock"),
    [
        (rewriting.digamma, special.digamma),
        (rewriting.trigamma, lambda x: special.zeta(2, x)),  # the sum of 1 / (x + n)^2
    ],
)
def test_derivatives_of_log_gamma_are_accurate(form, stock):
    """To float32, against scipy, from 1e-18 to 1e18, near the root and below zero."""
    near = torch.linspace(1.4616, 1.4617, 999, dtype=F64)
    x = torch.cat([torch.logspace(-18, 18, 20_001, dtype=F64), near]).float()
    exact = torch.from_numpy(stock(x.double().numpy()))
    assert ((form(x).double() - exact) / exact).abs().max() < 1e-6
    below = -torch.linspace(0.01, 9.99, 999)
    below = below[(below - below.round()).abs() > 1e-3]
    own = torch.digamma if form is rewriting.digamma else lambda x: torch.polygamma(1, x)
    torch.testing.assert_close(form(below).double(), own(below.double()), rtol=1e-6, atol=1e-6)
    ends = torch.tensor([0.0, -0.0, torch.inf, torch.nan])
    torch.testing.assert_close(form(ends), own(ends), equal_nan=True)


def test_derivatives_of_log_gamma_are_rewritten_in_float32():
    def program(x, y):
        return torch.digamma(x), torch.polygamma(1, x), torch.polygamma(2, x), torch.digamma(y)

    x, y = torch.rand(5) + 0.1, torch.rand(5, dtype=F64)
    graph = make_fx(program, tracing_mode="fake")(x, y)
    expected = graph(x, y)
    rewriting.rewrite(graph.graph)
    graph.recompile()
    left = [str(node.target) for node in graph.graph.nodes]
    assert left.count("aten.digamma.default") == left.count("aten.polygamma.default") == 1
    torch.testing.assert_close(graph(x, y), expected)


@pytest.mark.parametrize("name", [*rewriting.FORMS, *rewriting.IN_FLOAT32])
def test_rewrites_hold_only_operations_that_inductor_accepts_after_its_decompositions(name):
    """With others it reports an error, and steps would be eager."""
    _, packet, overload = name.split(".")
    function = getattr(getattr(torch.ops.aten, packet), overload)
    order = (1,) if packet == "polygamma" else ()
    graph = make_fx(lambda x: function(*order, x), tracing_mode="fake")(torch.ones(5))
    rewriting.rewrite(graph.graph)
    graph.recompile()
    again = make_fx(graph, select_decomp_table(), tracing_mode="fake")(torch.ones(5))
    left, right = (
        [str(n.target) for n in g.graph.nodes if n.op[:4] == "call"] for g in (graph, again)
    )
    assert name not in left
    assert left == right


def test_only_floating_point_operations_are_rewritten():
    def program(x, n):
        return (x.log1p() * 2).expm1() + n.log1p(), torch.nn.functional.softplus(x)

    x, n = torch.rand(5, 3), torch.arange(3)
    table = torch._decomp.core_aten_decompositions()
    graph = make_fx(program, decomposition_table=table, tracing_mode="fake")(x, n)
    expected = graph(x, n)
    rewriting.rewrite(graph.graph)
    graph.recompile()
    left = [str(node.target) for node in graph.graph.nodes]
    assert left.count("aten.log1p.default") == 1  # of the whole numbers
    assert "aten.expm1.default" not in left
    torch.testing.assert_close(graph(x, n), expected)


def network(x, w, b, g, many):
    h = torch.addmm(b, x, w.t())
    return h, g @ w, g.t() @ x, many @ many.mT, x.double() @ w.t().double()


@pytest.fixture
def operands():
    shapes = (5, 4), (3, 4), (3,), (5, 3), (2, 6, 4)
    return [torch.randn(*shape, generator=torch.Generator().manual_seed(1)) for shape in shapes]


@pytest.fixture
def afresh(tmp_path, monkeypatch):
    """An empty folder of compiled code, and nothing known in this process."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    products._measured.cache_clear()
    yield tmp_path / "priorzoo-products.json"
    products._measured.cache_clear()


@pytest.mark.parametrize(("fastest", "count"), [("onednn", 4), ("compiled", 4), ("torch", 0)])
def test_products_are_computed_in_the_fastest_way(operands, afresh, monkeypatch, fastest, count):
    """With a bias, of transposed matrices, of many; those in float64 remain torch's."""
    monkeypatch.setattr(
        products, "_times", lambda ways: {name: 1.0 + (name != fastest) for name in ways}
    )
    graph = make_fx(network, tracing_mode="fake")(*operands)
    chosen = products.choose_products(graph)
    torch.testing.assert_close(chosen(*operands), network(*operands))
    assert products.count_products(graph) == {"torch": 5}
    assert products.count_products(chosen).get(fastest, 0) == (count or 5)


@pytest.mark.parametrize("rows", [1, 3, 15, 16, 21])
@pytest.mark.parametrize("columns", [1, 4, 15, 16, 17, 50])
def test_our_own_products_are_right_for_all_sizes_and_layouts(rows, columns):
    """Transposed or not, with strides and zeros of them, with a bias, in float64's first digits."""
    multiply, made = multiplying._compiled(), torch.Generator().manual_seed(rows * 100 + columns)
    for inner, near in ((1, 1e-5), (5, 1e-5), (16, 1e-5), (33, 1e-5), (300, 1e-4)):
        a, b = (torch.randn(shape, generator=made) for shape in ((rows, inner), (inner, columns)))
        bias = torch.randn(columns, generator=made)
        wide = torch.randn(2 * rows, 2 * inner, generator=made)[::2, ::2]
        spread = b[:, :1].expand(-1, columns)
        for left in (a, a.t().contiguous().t(), wide):
            for right in (b, b.t().contiguous().t(), b.repeat(2, 2)[::2, ::2], spread):
                if right.shape[0] != inner or right.shape[1] != columns:
                    continue
                for add in (None, bias):
                    exact = left.double() @ right.double() + (0 if add is None else add)
                    found = multiply(left, right, add)
                    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=near)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("columns", [100, 200])
def test_our_own_products_are_those_of_one_thread(threads, columns):
    """Rows are divided where columns cannot be; no number of threads divides 401."""
    multiply, made = multiplying._compiled(), torch.Generator().manual_seed(columns)
    a, b = (torch.randn(shape, generator=made) for shape in ((401, 300), (300, columns)))
    layouts = [(a, b), (a.t().contiguous().t(), b), (a, b.t().contiguous().t())]
    bias, before = torch.randn(columns, generator=made), torch.get_num_threads()
    found = {}
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            found[count] = [multiply(*each, add) for each in layouts for add in (None, bias)]
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[threads], found[1], rtol=0, atol=0)
    torch.testing.assert_close(found[1][1], a @ b + bias, rtol=1e-4, atol=1e-4)


def test_a_choice_is_kept_beside_the_compiled_code(operands, afresh):
    """Another process takes it over; a damaged file is measured anew."""
    graph = make_fx(network, tracing_mode="fake")(*operands)
    products.choose_products(graph)
    kept = json.loads(afresh.read_text())
    assert len(kept) == 4
    assert all(min(times.values()) > 0 and "torch" in times for times in kept.values())
    afresh.write_text(json.dumps({key: {"torch": 1.0, "onednn": 0.1} for key in kept}))
    products._measured.cache_clear()
    assert products.count_products(products.choose_products(graph)) == {"onednn": 4, "torch": 1}
    for damaged in ("{", "[]", json.dumps(dict.fromkeys(kept, 1.0))):
        afresh.write_text(damaged)
        products._measured.cache_clear()
        products.choose_products(graph)
        assert json.loads(afresh.read_text()) == products._measured().seconds


def test_without_other_ways_products_remain_as_they_are(operands, afresh, monkeypatch):
    monkeypatch.setattr(products, "ways", dict)
    graph = make_fx(network, tracing_mode="fake")(*operands)
    chosen = products.choose_products(graph)
    torch.testing.assert_close(chosen(*operands), network(*operands))
    assert products.count_products(chosen) == {"torch": 5}
