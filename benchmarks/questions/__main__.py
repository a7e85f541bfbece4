"""Writes the packaged questions."""

from benchmarks.questions import text
from fleetcast.base.files import write_atomic
from fleetcast.runtime.measure.quality.items import EVERYDAY

write_atomic(EVERYDAY, text())
print(f"{EVERYDAY.name}: {text().count(chr(10)) - 1} questions")
