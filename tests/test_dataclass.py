"""The data classes of mpisweep.dataclass mean what those of the standard library mean."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mpisweep.dataclass as ours

MODULES = {"ours": ours, "theirs": dataclasses}


class Pair(NamedTuple):
    """A tuple within an object."""

    first: int
    second: str


def classes(module: Any, name: str = "Made", **options: bool) -> type[Any]:
    """A class with all that the package's data classes have."""

    class Made:
        """Documented."""

        kind: ClassVar[str] = "made"

        number: int
        text: str = "default"
        values: list[int] = module.field(default_factory=list)
        hidden: float = module.field(default=0.5, compare=False, repr=False)
        unhashed: tuple[Any, ...] = module.field(default=(), hash=False)

        @property
        def doubled(self) -> int:
            return 2 * self.number

        @classmethod
        def of(cls, number: int) -> Any:
            return cls(number)

    Made.__qualname__ = Made.__name__ = name
    made: type[Any] = module.dataclass(**options)(Made)
    return made


OPTIONS = [
    {"frozen": frozen, "slots": slots, "eq": eq}
    for frozen in (False, True)
    for slots in (False, True)
    for eq in (True, False)
]


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the type of its error."""
    try:
        return call()
    except Exception as error:
        return type(error)


CALLS: list[Callable[[type[Any]], Any]] = [
    lambda made: repr(made(1)),
    lambda made: repr(made(1, "two", [3], 4.0, (5,))),
    lambda made: repr(made(text="two", number=1)),
    lambda made: made(1).values is made(1).values,
    lambda made: made(),
    lambda made: made(1, unknown=2),
    lambda made: made(1, number=2),
    lambda made: made(1, "2", [], 0.0, (), 6),
    lambda made: made(1) == made(1),
    lambda made: made(1) == made(2),
    lambda made: made(1, hidden=1.0) == made(1, hidden=2.0),
    lambda made: made(1) == (1, "default", []),
    lambda made: made(float("nan")) == made(float("nan")),
    lambda made: len({hash(one) for one in [made(1, values=()), made(1, values=())]}),
    lambda made: len({made(1, values=()), made(1, values=(), unhashed=(1,))}),
    lambda made: len({hash(one) for one in [made(1, values=(), unhashed=(2,)), made(1, values=())]}),
    lambda made: isinstance(hash(made(1, values=[])), int),
    lambda made: setattr(made(1), "number", 2),
    lambda made: delattr(made(1), "number"),
    lambda made: made(1).doubled,
    lambda made: made.of(3).number,
    lambda made: (made.kind, made.__doc__, made.__name__, made.__match_args__),
    lambda made: hasattr(made(1), "__dict__"),
    lambda made: [(one.name, one.type, one.compare, one.repr) for one in dataclasses.fields(made)],
    lambda made: dataclasses.is_dataclass(made) and dataclasses.is_dataclass(made(1)),
    lambda made: dataclasses.asdict(made(1, values=[2])),
    lambda made: repr(dataclasses.replace(made(1), text="other")),
    lambda made: dataclasses.replace(made(1), unknown=1),
    lambda made: repr(copy.copy(made(1, "x"))),
    lambda made: repr(copy.deepcopy(made(1, "x"))),
    lambda made: made.__dataclass_params__.frozen,
    lambda made: str(inspect.signature(made)),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_use_has_the_outcome_that_it_has_with_the_standard_library(options: dict[str, bool]):
    for number, call in enumerate(CALLS):
        # A class of its own for each, so that each is the first use.
        found = {name: outcome(lambda: call(classes(module, **options))) for name, module in MODULES.items()}  # noqa: B023
        assert found["ours"] == found["theirs"], f"call {number}: {found}"


@given(
    st.lists(
        st.tuples(st.integers(-2, 2), st.sampled_from(["a", "b"]), st.sampled_from([0.0, 1.0])), min_size=2
    )
)
def test_objects_are_equal_and_have_equal_hashes_when_theirs_do(values: list[tuple[int, str, float]]):
    mine, reference = (classes(module, frozen=True, slots=True) for module in (ours, dataclasses))
    made = [mine(number, text, (), hidden) for number, text, hidden in values]
    others = [reference(number, text, (), hidden) for number, text, hidden in values]
    for one, other in zip(made, others, strict=True):
        assert [one == that for that in made] == [other == that for that in others]
        assert hash(one) == hash(other)
    assert len(set(made)) == len(set(others))


@ours.dataclass(frozen=True, slots=True)
class Sent:
    """A class that pickle finds."""

    number: int
    inner: Any = None


def test_objects_survive_pickling_also_if_the_class_was_not_used_before():
    made = Sent(1, Sent(2))
    assert pickle.loads(pickle.dumps(made)) == made
    program = f"import pickle, sys; sys.path.insert(0, 'tests'); print(pickle.loads({pickle.dumps(made)!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Sent(number=1, inner=Sent(number=2, inner=None))"


@pytest.mark.parametrize("slots", [True, False])
def test_replace_and_asdict_are_those_of_the_standard_library(slots: bool):
    made = classes(ours, frozen=True, slots=slots)(1, values=[2])
    assert ours.replace(made, text="x") == dataclasses.replace(made, text="x")
    with pytest.raises(TypeError, match="unknown"):
        ours.replace(made, unknown=1)
    nested = Sent(1, {"a": [Sent(2), (Sent(3),)], "b": Pair(4, "5")})
    assert ours.asdict(nested) == dataclasses.asdict(nested)
    assert type(ours.asdict(nested)["inner"]["b"]) is Pair


def test_a_class_without_slots_caches_properties_and_a_subclass_has_methods_of_its_own():
    @ours.dataclass(frozen=True)
    class Made:
        number: int

        @cached_property
        def costly(self) -> list[int]:
            return [self.number]

    class Below(Made):
        def __init__(self) -> None:
            super().__init__(7)

    made = Made(1)
    assert made.costly is made.costly == [1]
    assert Below().number == 7
    assert Below() != Made(7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.number = 2  # type: ignore[misc]


def test_a_match_statement_binds_fields_by_position():
    match Sent(1, "x"):
        case Sent(number, inner):
            assert (number, inner) == (1, "x")
        case _:
            pytest.fail("it does not match")


def _post_init() -> None:
    @ours.dataclass(slots=True)
    class Made:
        number: int

        def __post_init__(self) -> None: ...


def _inherits() -> None:
    @ours.dataclass(slots=True)
    class Made(Sent):
        more: int


def _shares() -> None:
    @ours.dataclass(slots=True)
    class Made:
        values: list[int] = []


def _has_method() -> None:
    @ours.dataclass(slots=True)
    class Made:
        number: int

        def __eq__(self, other: object) -> bool:
            return True


@pytest.mark.parametrize("define", [_post_init, _inherits, _shares, _has_method])
def test_what_is_not_supported_fails_when_the_class_is_defined(define: Callable[[], None]):
    with pytest.raises(AssertionError):
        define()
