"""Functions of the user's, named so that none is taken for another."""

import hashlib
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any


def name_of_function(function: Any) -> str | None:
    """A name that no other function has, with a hash of its code; None for what has no such name.

    A wrapper and what was defined in a function share their names with others. Part of the hash are the values of the
    module that the function uses, other functions of it too.
    """
    if not isinstance(function, FunctionType) or function.__closure__ or hasattr(function, "__wrapped__"):
        return None
    found: Any = getattr(sys.modules.get(function.__module__), function.__qualname__, None)
    if found is not function:
        return None
    digest = hashlib.sha256(repr(list(_content(function, set()))).encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{function.__module__}.{function.__qualname__}#{digest}"


def _content(function: FunctionType, seen: set[int]) -> Iterator[Any]:
    seen.add(id(function))
    yield function.__defaults__, function.__kwdefaults__
    names: set[str] = set()
    yield from _code(function.__code__, names)
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        if isinstance(value, FunctionType):
            if value.__module__ == function.__module__ and id(value) not in seen:
                yield name, list(_content(value, seen))
        elif isinstance(value, set | frozenset):
            yield name, sorted(map(repr, value))  # in an order that does not change from process to process
        elif isinstance(value, str | bytes | int | float | tuple | list | dict):
            yield name, repr(value)


def _code(code: CodeType, names: set[str]) -> Iterator[Any]:
    """What a piece of code does, what is defined in it too; adds the names that it uses to `names`."""
    names.update(code.co_names)
    constants = [each for each in code.co_consts if not inspect.iscode(each)]
    yield (
        code.co_code,
        code.co_names,
        [sorted(map(repr, each)) if isinstance(each, frozenset) else each for each in constants],
    )
    for each in code.co_consts:
        if inspect.iscode(each):
            yield from _code(each, names)
