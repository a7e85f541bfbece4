"""aiconfigurator on the same rows (to come)."""
from typing import Any
def rival(held: Any, ask: bool) -> list[Any]:
    return []
