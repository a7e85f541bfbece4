"""What our hot loops use of Cython's pure-Python mode, for a machine where Cython is absent.

A hot loop is one .py file, compiled where there is a C compiler, run as it is where there is none:

    try:
        import cython
    except ImportError:
        from fleetcast.kernels import shim as cython

Its types stand in annotations, which ``from __future__ import annotations`` leaves unevaluated, so
only the names below are touched at run time. `cast` and `declare` change nothing here: a hot loop
uses them only where the plain value already has the type (never to round a float).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

compiled = False


def cfunc(function: F) -> F:
    """Marks a C-only function."""
    return function


ccall = inline = nogil = cfunc


def cclass(class_: type) -> type:
    """Marks a C struct with methods."""
    return class_


def _directive(*_: object, **__: object) -> Callable[[F], F]:
    return cfunc


boundscheck = wraparound = cdivision = initializedcheck = exceptval = returns = locals = _directive


def cast(_: object, value: Any, **__: object) -> Any:
    """Returns ``value`` as it is."""
    return value


def declare(_: object = None, value: Any = None) -> Any:
    """Returns the initial ``value`` of a typed variable."""
    return value


char = uchar = short = int = uint = long = longlong = ulonglong = None
float = double = bint = Py_ssize_t = None


def slotted(class_: type) -> type:
    """Returns the class with a slot per annotated attribute: uncompiled hot loops read those a tenth faster."""
    body = {k: v for k, v in vars(class_).items() if k not in ("__dict__", "__weakref__")}
    return type(class_.__name__, class_.__bases__, body | {"__slots__": tuple(class_.__annotations__)})
