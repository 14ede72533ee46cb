"""The picture of the rooms: boxes on floors, arrows to the rooms below, and the table of all arrows."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise, permutations
from math import dist, sqrt
from pathlib import Path

from drawing.source import Source
from drawing.svg import Canvas, wrapped

__all__ = ["House", "imports_table", "modules_picture"]

#: A module of tests/ that says which room may import from which.
LAYERS = Path(__file__).parents[2] / "tests" / "test_layers.py"

_WIDTH = 1000
_LEFT, _RIGHT = 30, 985
_GAP, _BETWEEN = 52, 18
#: What an arrow that passes a floor takes of its width.
_CHANNEL = 22
_LINE = 15
#: All orders of up to so many items on a floor are tried.
_FEW = 6
#: Width of a letter of a module and of a title, and what lies left and right of them.
_LETTER, _BOLD, _MARGINS = 7.3, 8.8, 14
_FILLS = ("#f6f8fa", "#ddf4ff")

#: A room, or an arrow on its way past a floor: from, to.
Item = str | tuple[str, str]


class House:
    """The rooms of the package: the modules and packages at its top.

    Args:
        source: of the package.

    Attributes:
        files: room -> its modules.
        arrows: (room, room that it imports) -> how many of its files do.
        floors: the rooms of each floor, the ground first.
        drawn: the arrows that no way through other rooms implies.
    """

    def __init__(self, source: Source) -> None:
        self.name = source.package.name
        self.files: dict[str, list[str]] = defaultdict(list)
        for module in source.texts:
            self.files[_room(module)].append(module)
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for module, imported in source.imports().items():
            for other in imported:
                if _room(other) != _room(module):
                    found[_room(module), _room(other)].add(module)
        self.arrows = {pair: len(modules) for pair, modules in sorted(found.items())}
        below: dict[str, set[str]] = {room: set() for room in self.files}
        for upper, lower in [*_allowed(), *self.arrows]:
            if upper in below and lower in below and upper != lower:
                below[upper].add(lower)
        heights = _heights(below)
        self.floors = [
            [room for room in self.files if heights[room] == floor]
            for floor in range(max(heights.values()) + 1)
        ]
        self.drawn = self._without_implied()

    def title(self, room: str) -> str:
        """What a room is called."""
        is_folder = len(self.files[room]) > 1 or any("." in module for module in self.files[room])
        return f"{room}/" if is_folder else room or self.name

    def modules(self, room: str) -> list[str]:
        """The modules of a room by their names in it, without the packages themselves."""
        if not room:
            return ["__init__"]
        names = [module.removeprefix(room).lstrip(".") for module in self.files[room]]
        packages = {name.rpartition(".")[0] for name in names}
        return [name.replace(".", "/") for name in names if name and name not in packages]

    def _without_implied(self) -> list[tuple[str, str]]:
        """The arrows less those that a way through other rooms implies."""
        reached: dict[str, set[str]] = {}
        for room in (room for rooms in self.floors for room in rooms):
            direct = {lower for upper, lower in self.arrows if upper == room}
            reached[room] = direct.union(*(reached[lower] for lower in direct))
        return [
            (upper, lower)
            for upper, lower in self.arrows
            if not any(lower in reached[between] for start, between in self.arrows if start == upper)
        ]


def _room(module: str) -> str:
    return module.partition(".")[0]


def _allowed() -> list[tuple[str, str]]:
    """Pairs of rooms of which the first may import from the second."""
    made = importlib.util.spec_from_file_location("layers", LAYERS)
    assert made is not None
    assert made.loader is not None
    layers = importlib.util.module_from_spec(made)
    made.loader.exec_module(layers)
    return [
        (_room(upper), _room(lower)) for upper, allowed in layers.ALLOWED.items() for lower in sorted(allowed)
    ]


def _heights(below: Mapping[str, set[str]]) -> dict[str, int]:
    """Each room -> its floor: one above the highest room that it may import from."""
    heights: dict[str, int] = {}
    while len(heights) < len(below):
        ready = [room for room in below if room not in heights and below[room] <= heights.keys()]
        assert ready, f"rooms import each other in a circle: {sorted(below.keys() - heights.keys())}"
        heights |= {room: 1 + max((heights[lower] for lower in below[room]), default=-1) for room in ready}
    return heights


# ------------------------------------------------------------------------------------- the picture


class _Plan:
    """Where everything stands."""

    def __init__(self, house: House) -> None:
        self.house = house
        floor_of = {room: floor for floor, rooms in enumerate(house.floors) for room in rooms}
        #: Floor -> the steps of arrows from there to the next one below.
        self.steps: dict[int, list[tuple[Item, Item]]] = defaultdict(list)
        rows: list[list[Item]] = [list(rooms) for rooms in house.floors]
        for upper, lower in house.drawn:
            way: list[Item] = [upper]
            for floor in range(floor_of[upper] - 1, floor_of[lower], -1):
                way.append((upper, lower))
                rows[floor].append((upper, lower))
            way.append(lower)
            for floor, step in enumerate(pairwise(way)):
                self.steps[floor_of[upper] - floor].append(step)
        self.rows = self._sorted(rows)
        self.spans = {
            (floor, item): span
            for floor, row in enumerate(self.rows)
            for item, span in self._spans(row).items()
        }

    def _sorted(self, rows: list[list[Item]]) -> list[list[Item]]:
        """Each floor in the order with the fewest crossings, and then the shortest arrows."""
        for sweep in range(6):
            order = range(len(rows)) if sweep % 2 else range(len(rows) - 1, -1, -1)
            for floor in order:
                rows = self._best_order(rows, floor)
        return rows

    def _best_order(self, rows: list[list[Item]], floor: int) -> list[list[Item]]:
        """The rows with one floor in its best order; of many items, in one that no single move betters."""
        cost = partial(self._cost, floor=floor)

        def with_row(row: Sequence[Item]) -> list[list[Item]]:
            return [*rows[:floor], list(row), *rows[floor + 1 :]]

        if len(rows[floor]) <= _FEW:
            return min(map(with_row, permutations(sorted(rows[floor], key=str))), key=cost)
        while True:
            better = min(map(with_row, _moved(rows[floor])), key=cost)
            if cost(better) >= cost(rows):
                return rows
            rows = better

    def _cost(self, rows: list[list[Item]], *, floor: int) -> tuple[int, float]:
        crossings, length = 0, 0.0
        for upper in (floor + 1, floor):
            ends = sorted(
                (rows[upper].index(start), rows[upper - 1].index(end)) for start, end in self.steps[upper]
            )
            for index, (here, there) in enumerate(ends):
                crossings += sum(1 for _, later in ends[index + 1 :] if later < there)
                length += abs((here + 0.5) / len(rows[upper]) - (there + 0.5) / len(rows[upper - 1]))
        return crossings, length

    def _spans(self, row: list[Item]) -> dict[Item, tuple[float, float]]:
        """Where each item of a floor begins and ends."""
        free = _RIGHT - _LEFT - _BETWEEN * (len(row) - 1)
        free -= _CHANNEL * sum(isinstance(item, tuple) for item in row)
        rooms = [item for item in row if isinstance(item, str)]
        weights = {
            room: max(7.0, sqrt(sum(len(name) + 2 for name in self.house.modules(room)))) for room in rooms
        }
        # No name is wider than its room.
        least = {
            room: _MARGINS + max(_LETTER * max(map(len, self.house.modules(room)), default=0),
                                 _BOLD * len(self.house.title(room)))
            for room in rooms
        }  # fmt: skip
        free = max(0.0, free - sum(least.values()))
        x, found = float(_LEFT), {}
        for item in row:
            width = (
                _CHANNEL
                if isinstance(item, tuple)
                else least[item] + free * weights[item] / sum(weights.values())
            )
            found[item] = (x, x + width)
            x += width + _BETWEEN
        return found

    def port(self, floor: int, item: Item, place: int, count: int) -> float:
        """Where an arrow touches an item: one of so many."""
        left, right = self.spans[floor, item]
        return left + (right - left) * (place + 0.5) / count


def _moved(row: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield the orders in which one item has another place."""
    for item in row:
        others = [other for other in row if other != item]
        for place in range(len(row)):
            yield [*others[:place], item, *others[place:]]


def modules_picture(source: Source) -> str:
    """The rooms as an SVG."""
    house = House(source)
    plan = _Plan(house)
    canvas = Canvas(_WIDTH, f"The rooms of {house.name}, floor by floor, and what they import")
    canvas.text(_LEFT, 28, f"The rooms of {house.name} and what they import", size=16, bold=True)
    canvas.text(
        _LEFT,
        48,
        f"{len(house.files)} rooms, {len(house.arrows)} arrows. Drawn are the {len(house.drawn)} that no way "
        "through other rooms implies; the number: files of the upper room that import from the lower one.",
        pale=True,
    )
    y, tops, bottoms = 66.0, {}, {}
    for floor in range(len(plan.rows) - 1, -1, -1):
        texts = _texts(plan, floor)
        height = 34 + _LINE * max(len(lines) for lines in texts.values())
        tops[floor], bottoms[floor] = y, y + height
        canvas.text(8, y + height / 2 + 4, str(floor), size=13, bold=True, pale=True)
        for room, lines in texts.items():
            left, right = plan.spans[floor, room]
            canvas.box(left, y, right - left, height, _FILLS[floor % 2])
            canvas.text(left + 10, y + 19, house.title(room), size=14, bold=True)
            canvas.lines(left + 10, y + 37, lines, _LINE, mono=True, pale=True)
        y += height + _GAP
    _draw_arrows(canvas, plan, tops, bottoms)
    return canvas.svg(bottoms[0] + 16)


def _texts(plan: _Plan, floor: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in plan.rows[floor]:
        if isinstance(item, str):
            left, right = plan.spans[floor, item]
            found[item] = wrapped(plan.house.modules(item), right - left - 18)
    return found


def _draw_arrows(canvas: Canvas, plan: _Plan, tops: dict[int, float], bottoms: dict[int, float]) -> None:
    chips: list[tuple[float, float, str]] = []
    for floor in range(len(plan.rows) - 1, 0, -1):
        upper, lower = plan.rows[floor], plan.rows[floor - 1]
        steps = plan.steps[floor]
        for start, end in steps:
            leaving = sorted(lower.index(other) for other_start, other in steps if other_start == start)
            arriving = sorted(upper.index(other) for other, other_end in steps if other_end == end)
            x = plan.port(floor, start, leaving.index(lower.index(end)), len(leaving))
            to = plan.port(floor - 1, end, arriving.index(upper.index(start)), len(arriving))
            points = [(x, bottoms[floor]), (to, tops[floor - 1])]
            if isinstance(end, tuple):
                points.append((to, bottoms[floor - 1]))
            if isinstance(start, str):
                pair = end if isinstance(end, tuple) else (start, end)
                places = [
                    (x + (to - x) * share, bottoms[floor] + _GAP * share) for share in (0.36, 0.22, 0.5, 0.62)
                ]
                free = [place for place in places if all(dist(place, chip[:2]) > 24 for chip in chips)]
                chips.append((*(free or places)[0], str(plan.house.arrows[pair])))
            (canvas.arrow if isinstance(end, str) else canvas.line)(points)
    for chip in chips:
        canvas.chip(*chip)


# ------------------------------------------------------------------------------------- the table


def imports_table(source: Source) -> str:
    """Every room from the top floor down, and from which it imports."""
    house = House(source)
    rows = ["| floor | room | files | imports from (files that do) |", "|---|---|---|---|"]
    for floor in range(len(house.floors) - 1, -1, -1):
        for room in house.floors[floor]:
            lower = [
                f"`{end or house.name}` {n}" for (start, end), n in house.arrows.items() if start == room
            ]
            name = room or house.name
            rows.append(f"| {floor} | `{name}` | {len(house.files[room])} | {', '.join(lower)} |")
    return "\n".join(rows)
