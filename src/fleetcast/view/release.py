"""Which version this is."""

from __future__ import annotations


def release() -> str:
    """Returns the installed version; "source" where the package runs from its sources."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fleetcast")
    except PackageNotFoundError:
        return "source"
