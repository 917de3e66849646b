"""Imports of large libraries, without what they would import beside what is asked for.

For: packages that stay closed until somebody asks them for a name, so that one module of them can be had without all
the others; and packages that are not there for a while, which libraries would import only because they are installed.
Leaves which ones to `models`.
Invariant: a closed package opens by itself, once, and what was hidden can be imported afterwards; a library that has
asked meanwhile whether it is there may remember that it is not.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

from engine.turns import take_turn

_opening = threading.RLock()  # who asks for a name while another thread opens the package waits, as for an import
_PATIENCE = 30.0  # seconds; two threads that wait for each other's imports would wait for good


class _Closed(ModuleType):
    """A package whose own code has not run: its modules can be imported, and what else is asked for opens it."""

    _opened = False

    def __getattr__(self, name: str) -> Any:
        lacking = AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name.startswith("__"):  # asked for by whoever looks through all modules
            raise lacking
        with take_turn(_opening, _PATIENCE) as mine:
            if mine and not self._opened and self.__spec__ is not None and self.__spec__.loader is not None:
                self._opened = True  # before its code runs, which may ask for what it has not made yet
                try:
                    self.__spec__.loader.exec_module(self)
                except BaseException:
                    self._opened = False
                    raise
        # A package may have put another module in its place.
        if (found := sys.modules[self.__name__]) is not self:
            return getattr(found, name)
        try:
            return vars(self)[name]
        except KeyError:
            raise lacking from None


def close(package: str) -> None:
    """Keep a package from running its own code until it is asked for a name. Imports what it lies in.

    Does nothing to one that is imported already, or that is not there.
    """
    if package in sys.modules or (spec := find_spec(package)) is None:
        return
    closed = module_from_spec(spec)
    closed.__class__ = _Closed
    sys.modules[package] = closed
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(import_module(parent), name, closed)


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """For whoever imports or looks for a package that is not loaded yet, it is not there until the block ends."""
    absent = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is Python's own sign of it
    try:
        yield
    finally:
        for package in absent:
            del sys.modules[package]
