"""Native calls: torch's random numbers, matrix products, and memory that is used again."""

import ctypes
import json

import pytest
import torch

from priorzoo.inference.training.native import replacing
from priorzoo.inference.training.native.memory import ALIGNED, layout, spans
from priorzoo.inference.training.native.player import RANDOM, Player
from priorzoo.inference.training.native.script import (
    Native,
    Operation,
    Place,
    Script,
    UnknownCallError,
    View,
    encoded,
)


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def drawn(kind, count):
    """Numbers by our code, from torch's state and back."""
    library, state = replacing.calls_library(), torch.get_rng_state()
    own, found = torch.zeros(RANDOM, dtype=torch.uint8), torch.empty(count)
    replacing.loaded(library, "read_state")(pointer(state), pointer(own))
    replacing.loaded(library, kind)(pointer(own), pointer(found), ctypes.c_int64(count))
    replacing.loaded(library, "write_state")(pointer(own), pointer(state))
    torch.set_rng_state(state)
    return found


@pytest.mark.parametrize("count", [16, 17, 31, 300, 623, 624, 625, 1_000, 4_999])
@pytest.mark.parametrize("before", [0, 3, 624])
def test_random_numbers_are_those_of_torch(count, before):
    """Uniform ones to the bit, normal ones to rounding; the generator goes on as torch's would."""
    ends = []
    for draw in (
        (torch.rand, torch.randn),
        (lambda n: drawn("uniform", n), lambda n: drawn("normal", n)),
    ):
        torch.manual_seed(count)
        torch.rand(before)
        ends.append([draw[0](count), draw[1](count), torch.rand(1), torch.randn(1)])
    (uniform, normal, *after), (own, ours, *later) = ends
    assert torch.equal(uniform, own)
    torch.testing.assert_close(ours, normal, rtol=2e-6, atol=2e-6)
    assert torch.equal(torch.cat(after), torch.cat(later))


def test_normal_numbers_have_the_law():
    from scipy.stats import kstest

    torch.manual_seed(4)
    assert kstest(drawn("normal", 200_000).double().numpy(), "norm").pvalue > 1e-3


class Addresses:
    """Memory whose places are the addresses themselves."""

    def addresses(self, arguments):
        return [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments]

    def room(self, tensor):
        pass


@pytest.mark.parametrize("way", ["compiled", "blas"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (20, 30, 5), (3, 17, 33), (40, 1, 16), (17, 64, 40)])
def test_products_are_right_in_all_layouts(monkeypatch, way, shape):
    def only(operands, ways):
        return way if way in ways else next(iter(ways))

    monkeypatch.setattr(replacing, "fastest_of", only)
    made = torch.Generator().manual_seed(sum(shape))
    rows, inner, columns = shape
    a, b = (torch.randn(s, generator=made) for s in ((rows, inner), (inner, columns)))
    biases = [
        None,
        torch.randn(columns, generator=made),
        torch.randn(rows, columns, generator=made),
    ]
    for left in (a, a.t().contiguous().t(), torch.cat([a, a], 1)[:, inner:]):
        for right in (b, b.t().contiguous().t()):
            for bias in biases:
                found = torch.full((rows, columns), torch.nan)
                name, args = ("aten.mm.out", ()) if bias is None else ("aten.addmm.out", (bias,))
                call = replacing.native(Addresses(), name, (*args, left, right), {}, found)
                assert call is not None
                words = map(ctypes.c_int64, call.arguments)
                replacing.loaded(call.library, call.symbol)(*words)
                exact = left.double() @ right.double() + (0 if bias is None else bias)
                torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def test_other_operators_are_not_replaced():
    x, y = torch.rand(4, 4), torch.rand(4, 4)
    assert (
        replacing.native(Addresses(), "aten.mm.out", (x.double(), y.double()), {}, x.double())
        is None
    )
    assert replacing.native(Addresses(), "aten.addmm.out", (x, x, y), {"beta": 2}, x) is None
    assert replacing.native(Addresses(), "aten.randn.default", ([4],), {}, torch.rand(4)) is None
    scaled = "aten.normal_functional.default", (x, 1.0, 2.0), {}, x
    assert replacing.native(Addresses(), *scaled) is None
    assert replacing.native(Addresses(), "aten.mm.out", (x, y), {}, x.t()) is None


def script():
    view = View(Place(3, 8), torch.float32, (2, 3), (3, 1))
    calls = [
        Native("a.so", "kernel", (Place(0), Place(1, 4), 7)),
        Operation(
            "aten.sort.default", (view, -1, [True, None], (0.5,)), {"dtype": torch.int64}, (4, None)
        ),
        Native("a.so", "uniform", (Place(-2), Place(2), 5), random=True),
        Native("b.so", "kernel", (Place(2), Place(5))),
    ]
    inputs = [View(Place(0), torch.uint8, (), ())]
    rooms = {1: 100, 2: 64, 3: 40, 5: 1}
    return Script(
        inputs, rooms, {4: torch.zeros(2)}, calls, [View(Place(5), torch.bool, (1,), (1,))]
    )


def test_a_script_is_read_as_it_was_written():
    made = script()
    assert Script.read(made.written(), made.constants) == made
    assert not made.is_native
    assert made.libraries == ["a.so", "b.so"]
    json.loads(made.written())
    with pytest.raises(UnknownCallError, match="Generator"):
        encoded((torch.Generator(),))


def test_memory_is_used_again_but_not_before_it_is_free():
    """Random scripts, against all pairs of pieces."""
    made = torch.Generator().manual_seed(3)

    def number(most):
        return int(torch.randint(most, (), generator=made))

    saved = 0
    for _ in range(30):
        rooms = {home: 1 + number(500) for home in range(12)}
        calls = [Native("", "", tuple(Place(number(12)) for _ in range(3))) for _ in range(15)]
        one = Script([], rooms, {}, calls, [View(Place(number(12)), torch.uint8, (1,), (1,))])
        offsets, size = layout(one)
        living = spans(one)
        assert offsets.keys() == living.keys()
        for home, begin in offsets.items():
            assert begin % ALIGNED == 0
            assert begin + rooms[home] <= size
            for other in offsets:
                apart = (
                    begin + rooms[home] <= offsets[other] or offsets[other] + rooms[other] <= begin
                )
                (first, last), (start, end) = living[home], living[other]
                assert home == other or apart or last < start or end < first
        saved += sum(rooms[home] for home in offsets) - size
    assert saved > 0


def test_a_call_that_fails_is_an_error_of_python():
    """Such as an index that is out of bounds; the process goes on."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    text = '#include <stdexcept>\nextern "C" void kernel(int64_t* x) {'
    text = f'#include <cstdint>\n{text} if (*x) throw std::runtime_error("out of bounds"); }}'
    made = CppPythonBindingsCodeCache.load_pybinding(["int64_t*"], text)
    call = Native(made.__self__.__file__, "kernel", (Place(0),))
    inputs = [View(Place(0), torch.int64, (1,), (1,))]
    player = Player(Script(inputs, {}, {}, [call], []))
    assert player(torch.zeros(1, dtype=torch.int64)) == []
    with pytest.raises(RuntimeError, match="out of bounds"):
        player(torch.ones(1, dtype=torch.int64))
