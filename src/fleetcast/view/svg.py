"""Drawing primitives for small inline figures: scales, ticks, text, paths. Colours are CSS variables of the page."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleetcast.base.show import show
from fleetcast.view.words import show_energy


@dataclass(frozen=True)
class Scale:
    """Maps values to places on the paper: linear, or logarithmic for positive values."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Returns the place of ``value``, kept within the paper."""
        low, high, v = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, v = math.log(low), math.log(high), math.log(v)
        share = (v - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Returns round values within the scale: 1, 2, 5 times powers of ten; about ``most``, where they fit so."""
        if self.log:
            return self._log_ticks(most)
        if self.high <= self.low:
            return [self.low]
        step = round_step((self.high - self.low) / max(1, most - 1))
        ticks, finer = self._multiples(step), self._multiples(round_step(step / 2.6))
        # one or two say too little, but two are better than a crowd
        return finer if len(ticks) < 2 or (len(ticks) == 2 and len(finer) <= most + 2) else ticks

    def _multiples(self, step: float) -> list[float]:
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            ticks = [d * 10.0**e for e in exponents for d in digits]
            ticks = [t for t in ticks if self.low <= t * (1 + 1e-9) and t <= self.high * (1 + 1e-9)]
            if len(ticks) <= most:
                return ticks
        return ticks[:: math.ceil(len(ticks) / most)]


def round_step(step: float) -> float:
    """Returns the least of 1, 2, 5 times a power of ten that is at least ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(d * power for d in (1, 2, 5, 10) if d * power >= step * (1 - 1e-9))


def scale(values: Sequence[float], start: float, end: float, *, zero: bool = False, share: float = 0.06) -> Scale:
    """Returns a scale that shows ``values`` with a little room; logarithmic where they span more than a decade.

    Args:
        values: what it must hold.
        start: place of its low end.
        end: place of its high end.
        zero: begin at 0.
        share: of the values' range, left free at either end of a linear scale.
    """
    low, high = min(values), max(values)
    if not zero and low > 0 and high / low > 10:
        return Scale(low / 1.15, high * 1.15, start, end, log=True)
    # Below a range of 4 % ticks would all read the same: such values are equal for any purpose here.
    room = max(share * (high - low), 0.02 * abs(high) - (high - low) / 2) or 1.0
    return Scale(0.0 if zero else max(0.0, low - room) if low >= 0 else low - room, high + room, start, end)


def tick_text(value: float, unit: str) -> str:
    """Returns the label of a tick."""
    if unit == "%":
        return f"{value:.0%}"
    if unit == "J":
        return show_energy(value)
    if unit == "$":
        return f"${value:,.3g}" if value < 1000 else f"${value:,.0f}"
    return show(value, unit)


def tick_texts(ticks: Sequence[float], unit: str) -> list[str]:
    """Returns the labels of an axis: those of one unit with as many decimals as the finest of them, 0 in it too."""
    parts = [_AMOUNT.fullmatch(tick_text(tick, unit)) for tick in ticks]
    if any(part is None for part in parts):
        return [tick_text(tick, unit) for tick in ticks]
    found = [part.groups("") for part in parts if part]
    units = [rest for _, whole, fraction, rest in found if (whole + fraction).strip("0.")]
    made = []
    for mark, whole, fraction, rest in found:
        zero = not (whole + fraction).strip("0.")
        own = units[0] if zero and units else rest
        places = max(len(f) for _, _, f, r in found if r == own or (zero and r == rest))
        places = max(places, 3) if mark and places else places  # cents: a point and two digits
        made.append(f"{mark}{whole}{(fraction or '.' if places else fraction).ljust(places, '0')}{own}")
    return made


_AMOUNT = re.compile(r"(\$?)(-?[\d,]+)(\.\d+)?([^\d.]*)")


def escape(text: object) -> str:
    """Returns text that cannot leave its place in HTML or SVG."""
    return html.escape(str(text), quote=True)


def text(x: float, y: float, content: object, kind: str = "", anchor: str = "start", title: str = "") -> str:
    """Returns a piece of text; ``kind`` is its CSS class."""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}{tip}</text>'


def words(x: float, y: float, pieces: Iterable[tuple[str, str]]) -> str:
    """Returns a line of text of several (content, CSS class), with a little room between them."""
    said = "".join(
        f'<tspan class="{kind}"{" dx=" + chr(34) + "10" + chr(34) if i else ""}>{escape(content)}</tspan>'
        for i, (content, kind) in enumerate(pieces)
    )
    return f'<text x="{x:.1f}" y="{y:.1f}">{said}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Returns a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def path(points: Iterable[tuple[float, float]], kind: str, *, closed: bool = False) -> str:
    """Returns a polyline through ``points``, points closer than half a unit to the last left out."""
    kept: list[tuple[float, float]] = []
    last: tuple[float, float] | None = None
    for point in points:
        last = point
        if not kept or abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= 0.5:
            kept.append(point)
    if last is not None and kept[-1] != last:
        kept.append(last)
    places = "L".join(f"{x:.1f} {y:.1f}" for x, y in kept)
    return f'<path d="M{places}{"Z" if closed else ""}" class="{kind}"/>' if kept else ""


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    """Returns a rectangle; ``title`` shows when pointed at."""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}" '
        f'class="{kind}">{tip}</rect>'
    )


def dot(x: float, y: float, radius: float, kind: str, title: str = "") -> str:
    """Returns a dot; ``title`` shows when pointed at."""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{kind}">{tip}</circle>'


def figure(width: float, height: float, body: Iterable[str], label: str) -> str:
    """Returns a whole figure; ``label`` says to a screen reader what it shows."""
    inner = "\n".join(piece for piece in body if piece)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">\n{inner}\n</svg>'
    )


def axes(x: Scale, y: Scale, x_unit: str, y_unit: str, x_name: str, y_name: str) -> list[str]:
    """Returns grid lines, ticks and names of a plane whose scales say where it lies on the paper."""
    left, right, bottom, top = x.start, x.end, y.start, y.end
    pieces = []
    ticks = y.ticks(6)
    for tick, said in zip(ticks, tick_texts(ticks, y_unit), strict=True):
        pieces.append(line(left, y(tick), right, y(tick), "grid"))
        pieces.append(text(left - 8, y(tick) + 4, said, "tick", "end"))
    ticks = x.ticks(max(5, int((right - left) / 95)))
    for tick, said in zip(ticks, tick_texts(ticks, x_unit), strict=True):
        pieces.append(line(x(tick), bottom, x(tick), bottom + 4, "axis"))
        pieces.append(text(x(tick), bottom + 18, said, "tick", "middle"))
    pieces.append(line(left, bottom, right, bottom, "axis"))
    if x_name:
        pieces.append(text((left + right) / 2, bottom + 38, x_name, "name", "middle"))
    if y_name:
        pieces.append(text(0, top - 14, y_name, "name"))
    return pieces
