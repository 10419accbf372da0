"""Where the pieces of memory of a step lie in one block, which is used again as soon as it can."""

from collections.abc import Iterator, Mapping

from torch.utils import _pytree

from priorzoo.inference.training.native.script import Call, Native, Place, Script, View

ALIGNED = 64  # bytes: a line of the processor's cache


def places(call: Call) -> Iterator[Place]:
    """Those that a call reads or writes."""
    given = call.arguments if isinstance(call, Native) else (call.arguments, call.keywords)
    for each in _pytree.tree_leaves(given, is_leaf=lambda x: isinstance(x, (Place, View))):
        if isinstance(each, View):
            yield each.place
        elif isinstance(each, Place):
            yield each


def spans(script: Script) -> dict[int, tuple[int, int]]:
    """The first and the last call that needs each piece of memory; outputs last to the end."""
    found: dict[int, tuple[int, int]] = {}
    for number, call in enumerate(script.calls):
        for home in {place.home for place in places(call)}:
            found[home] = found.get(home, (number, number))[0], number
    for view in script.outputs:
        first, _ = found.get(view.place.home, (0, 0))
        found[view.place.home] = first, len(script.calls)
    return found


def layout(script: Script) -> tuple[dict[int, int], int]:
    """The offset of each piece in the block, and the bytes of the block.

    The largest come first, each where it first fits between those that live at the same time.
    """
    living = spans(script)
    rooms: Mapping[int, int] = {home: size for home, size in script.rooms.items() if home in living}
    placed: list[tuple[int, int, tuple[int, int]]] = []  # offset, end, span
    offsets, total = {}, 0
    for home, size in sorted(rooms.items(), key=lambda item: -item[1]):
        first, last = living[home]
        taken = sorted(p for p in placed if p[2][0] <= last and first <= p[2][1])
        begin = 0
        for start, end, _ in taken:
            if start - begin >= size:
                break
            begin = max(begin, end)
        end = begin + -(-size // ALIGNED) * ALIGNED
        placed.append((begin, end, (first, last)))
        offsets[home], total = begin, max(total, end)
    return offsets, total
