"""Functions of the user's, named so that none is taken for another."""

import hashlib
import inspect
import sys
from types import CodeType, FunctionType
from typing import Any


def name_of_function(function: Any) -> str | None:
    """A name that no other function has, with a hash of its code; None for what has no such name.

    A wrapper and what was defined in a function share their names with others.
    """
    if not isinstance(function, FunctionType) or function.__closure__ or hasattr(function, "__wrapped__"):
        return None
    found: Any = getattr(sys.modules.get(function.__module__), function.__qualname__, None)
    if found is not function:
        return None
    code: CodeType = function.__code__
    constants = [each for each in code.co_consts if not inspect.iscode(each)]
    content = repr((code.co_code, code.co_names, constants, function.__defaults__, function.__kwdefaults__))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return f"{function.__module__}.{function.__qualname__}#{digest}"
