"""Data classes whose definition takes a tenth of the time of the standard library's.

:func:`dataclasses.dataclass` writes and compiles up to six functions for each class, which takes 0.35 ms, and
importing that module takes 6 ms.  A rank defines some eighty data classes before it says Hello, and a job may
have far more ranks than cores.  Here all classes share their methods, and nothing is compiled; an object
takes 1 instead of 0.4 microseconds.  Modules that every rank imports take these, all others the standard
library's.

Both mean the same, also to type checkers and to the functions of :mod:`dataclasses`.  Not supported are
fields of base classes, ``__post_init__``, and options of a field that no module here needs.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

__all__ = ["asdict", "dataclass", "field", "replace"]

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, replace
else:
    _NOTHING = object()

    class _Field:
        """One field as its class describes it."""

        __slots__ = ("compared", "default", "factory", "hashed", "shown")

        def __init__(self, default=_NOTHING, factory=_NOTHING, *, compared=True, hashed=None, shown=True):
            self.default, self.factory = default, factory
            self.compared, self.shown = compared, shown
            self.hashed = compared if hashed is None else hashed

    def field(*, default=_NOTHING, default_factory=_NOTHING, compare=True, hash=None, repr=True):  # noqa: A002
        """Describe a field, with the meaning of :func:`dataclasses.field`."""
        return _Field(default, default_factory, compared=compare, hashed=hash, shown=repr)

    def dataclass(*, frozen=False, slots=False, eq=True):
        """Make a data class, with the meaning of :func:`dataclasses.dataclass`."""
        return lambda cls: _made(cls, frozen=frozen, slots=slots, eq=eq)

    def replace(made, /, **changes):
        """Copy an object with changes, as :func:`dataclasses.replace` does."""
        return type(made)(**({name: getattr(made, name) for name in made._definition.fields} | changes))

    def asdict(made):
        """Like :func:`dataclasses.asdict`; other values are not copied."""
        return {name: _as_plain(getattr(made, name)) for name in made._definition.fields}

    def _as_plain(value):
        if hasattr(value, "_definition"):
            return asdict(value)
        if hasattr(value, "_fields"):
            return type(value)(*map(_as_plain, value))
        if isinstance(value, list | tuple):
            return type(value)(map(_as_plain, value))
        if isinstance(value, dict):
            return {name: _as_plain(one) for name, one in value.items()}
        return value

    # ------------------------------------------------------------------------------------- definition

    class _Definition:
        """What a class says about itself."""

        __slots__ = ("compared", "eq", "fields", "frozen", "hashed", "owner", "shown", "steps")

        def __init__(self, cls, *, frozen, eq):
            self.fields = fields = _fields_of(cls)
            self.frozen, self.eq = frozen, eq
            self.shown = [name for name, one in fields.items() if one.shown]
            self.compared = _values_of([name for name, one in fields.items() if one.compared])
            self.hashed = _values_of([name for name, one in fields.items() if one.hashed])

        def attributes(self):
            """What the class gets for it."""
            found = {"_definition": self, "__match_args__": tuple(self.fields), "__init__": _init}
            found |= {name: _Described(name) for name in _DESCRIBED}
            found["__repr__"] = _repr
            if self.eq:
                found |= {"__eq__": _eq, "__hash__": _hash if self.frozen else None}
            if self.frozen:
                found |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
            return found

        def own(self, owner, setters):
            """Become the definition of this class, whose fields have these setters."""
            self.owner = owner
            self.steps = [
                (name, setters[name], one.default, one.factory) for name, one in self.fields.items()
            ]

    def _made(cls, *, frozen, slots, eq):
        definition = _Definition(cls, frozen=frozen, eq=eq)
        fields, given = definition.fields, definition.attributes()
        assert not cls.__dict__.keys() & (given.keys() - {"__repr__"}), f"{cls} has such a method already"
        given = {name: value for name, value in given.items() if name not in cls.__dict__}
        if slots:
            left_out = {*fields, "__dict__", "__weakref__"}
            space = {name: value for name, value in cls.__dict__.items() if name not in left_out}
            # The usual way to copy and pickle sets attributes, which frozen objects refuse.
            space |= {"__slots__": tuple(fields), "__reduce__": _reduce}
            made = type(cls)(cls.__name__, cls.__bases__, space | given)
            setters = {name: made.__dict__[name].__set__ for name in fields}
            definition.own(made, setters)
            return made
        for name, one in fields.items():
            if one.default is not _NOTHING:
                setattr(cls, name, one.default)
            elif name in cls.__dict__:
                delattr(cls, name)
        for name, value in given.items():
            setattr(cls, name, value)
        definition.own(cls, {name: partial(_set_in_dictionary, name) for name in fields})
        return cls

    def _set_in_dictionary(name, made, value):
        made.__dict__[name] = value

    def _fields_of(cls):
        assert not any(hasattr(base, "__dataclass_fields__") for base in cls.__bases__), cls
        assert not hasattr(cls, "__post_init__"), cls
        fields = {}
        # The function for this is in inspect, which takes half of the time that dataclasses takes.
        for name, kind in cls.__dict__.get("__annotations__", {}).items():  # noqa: RUF063
            assert isinstance(kind, str), f"{cls}: its module needs `from __future__ import annotations`"
            if not kind.startswith("ClassVar"):
                given = cls.__dict__.get(name, _NOTHING)
                assert not isinstance(given, list | dict | set), f"{cls}: all objects share {name}"
                fields[name] = given if isinstance(given, _Field) else _Field(given)
        return fields

    _DESCRIBED = ("__dataclass_fields__", "__dataclass_params__", "__signature__")

    class _Described:
        """What :mod:`dataclasses` and :mod:`inspect` know about a class, once they ask."""

        def __init__(self, name):
            self._name = name

        def __get__(self, made, asked):
            import dataclasses
            import inspect

            definition = asked._definition
            owner = definition.owner
            space = {"__annotations__": owner.__annotations__, "__module__": owner.__module__}
            for name, one in definition.fields.items():
                space[name] = dataclasses.field(
                    default=dataclasses.MISSING if one.default is _NOTHING else one.default,
                    default_factory=dataclasses.MISSING if one.factory is _NOTHING else one.factory,
                    compare=one.compared, hash=one.hashed, repr=one.shown,
                )  # fmt: skip
            twin = type(owner.__name__, (), space)
            twin = dataclasses.dataclass(frozen=definition.frozen, eq=definition.eq)(twin)
            twin.__signature__ = inspect.signature(twin)
            for name in _DESCRIBED:
                setattr(owner, name, getattr(twin, name))
            return getattr(owner, self._name)

    # ------------------------------------------------------------------------------------- methods

    def _init(self, *args, **kwargs):
        steps = self._definition.steps
        if len(args) > len(steps):
            raise TypeError(f"{type(self).__name__}: {len(args)} values for {len(steps)} fields")
        for (_, set_value, _, _), value in zip(steps, args, strict=False):
            set_value(self, value)
        for name, set_value, default, factory in steps[len(args) :]:
            if name in kwargs:
                set_value(self, kwargs.pop(name))
            elif default is not _NOTHING:
                set_value(self, default)
            elif factory is not _NOTHING:
                set_value(self, factory())
            else:
                raise TypeError(f"{type(self).__name__}: no value for the field {name!r}")
        for name in kwargs:
            problem = "two values for the field" if name in self._definition.fields else "no field is called"
            raise TypeError(f"{type(self).__name__}: {problem} {name!r}")

    def _values_of(names):
        """A function that returns the values of these fields of an object as a tuple."""
        if len(names) > 1:
            return attrgetter(*names)
        return lambda made: tuple(getattr(made, name) for name in names)

    def _repr(self):
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._definition.shown)
        return f"{type(self).__qualname__}({fields})"

    def _eq(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        compared = self._definition.compared
        return compared(self) == compared(other)

    def _hash(self):
        return hash(self._definition.hashed(self))

    def _reduce(self):
        return type(self), tuple(getattr(self, name) for name in self._definition.fields)

    def _refuse_to_set(self, name, value):
        raise _frozen_error(f"cannot assign to field {name!r}")

    def _refuse_to_delete(self, name):
        raise _frozen_error(f"cannot delete field {name!r}")

    def _frozen_error(why):
        from dataclasses import FrozenInstanceError

        return FrozenInstanceError(why)
