"""Makes the packaged questions of everyday life: ``python -m benchmarks.questions`` writes the file anew.

All questions were written for this project. No random numbers: figures come from lists, orders from a hash.
"""

from __future__ import annotations

import csv
import io

from benchmarks.questions import home, known, town
from benchmarks.questions.draft import rows
from fleetcast.runtime.measure.quality.items import COLUMNS

FAMILIES = (*home.FAMILIES, *town.FAMILIES, *known.FAMILIES)


def text() -> str:
    """Returns the file: CSV with the published columns, and beside them answer, field, source and check."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for family in FAMILIES:
        writer.writerows(rows(family))
    return out.getvalue()
