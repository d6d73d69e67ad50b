"""Draws the power curve: a small SVG, the same bytes for the same figures, readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from rates import Rate


@dataclass(frozen=True)
class Curve:
    """``rates``: by the slow-down in percent."""

    name: str
    rates: Mapping[float, Rate]


@dataclass(frozen=True)
class Panel:
    title: str
    curves: Sequence[Curve]
    marked: Mapping[float, str]
    """Slow-downs at which a vertical line stands, with what it says; at most two."""
    axis: str = "slow-down that is really executed, in %"


WIDTH, HEIGHT, GAP = 380, 260, 70
LEFT, TOP = 52, 34
LEGEND_LINE = 20
MOST_PERCENT = 20.0
MARGIN = 10
DODGE = 2.2  # px between the bars of two curves, so that they do not hide each other

_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 13px }
.small { font-size: 11px; fill: #57606a }
.grid { stroke: #d0d7de; stroke-width: 1 }
.mark { stroke: #57606a; stroke-width: 1; stroke-dasharray: 2 3 }
.line { fill: none; stroke-width: 2 }
.bar { stroke-width: 1.2; opacity: .75 }
.s0 { stroke: #0550ae; fill: #0550ae } .s1 { stroke: #bc4c00; fill: #bc4c00 }
.s2 { stroke: #6e7781; fill: #6e7781 } .s3 { stroke: #8250df; fill: #8250df }
.line.s0, .line.s1, .line.s2, .line.s3 { fill: none }
.line.s1 { stroke-dasharray: 8 3 } .line.s2 { stroke-dasharray: 2 3 } .line.s3 { stroke-dasharray: 8 3 2 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } .mark { stroke: #9198a1 }
.s0 { stroke: #58a6ff; fill: #58a6ff } .s1 { stroke: #f0883e; fill: #f0883e }
.s2 { stroke: #b1bac4; fill: #b1bac4 } .s3 { stroke: #bc8cff; fill: #bc8cff }
}"""


def draw(panels: Sequence[Panel], description: str) -> str:
    """The whole file. At most four curves in a panel; curves of one name look the same in all panels."""
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    if len(names) > 4:
        raise ValueError(f"there are looks for four curves, not for {len(names)}")
    width = LEFT + len(panels) * WIDTH + (len(panels) - 1) * GAP + 16
    bottom = TOP + HEIGHT + 56
    height = bottom + LEGEND_LINE * ((len(names) + 1) // 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(description)}</title>",
        f"<style>\n{_STYLE}\n</style>",
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, names, LEFT + number * (WIDTH + GAP))
    for number, name in enumerate(names):
        x, y = LEFT + (number % 2) * (WIDTH + GAP), bottom + LEGEND_LINE * (number // 2)
        parts.append(f'<path class="line s{number}" d="M{x} {y}h36"/>{_marker(number, x + 18, y)}')
        parts.append(f'<text x="{x + 44}" y="{y + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, names: Sequence[str], left: float) -> list[str]:
    def across(percent: float) -> float:
        return left + MARGIN + (WIDTH - 2 * MARGIN) * percent / MOST_PERCENT

    def down(share: float) -> float:
        return TOP + HEIGHT * (1 - share)

    parts = [f'<text class="title" x="{left}" y="{TOP - 16}">{escape(panel.title)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="grid" d="M{left} {down(share):.1f}h{WIDTH}"/>')
        parts.append(f'<text class="small" x="{left - 6}" y="{down(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for place, (percent, words) in enumerate(sorted(panel.marked.items())):
        anchor = ("end", "start")[place % 2]  # neighbours make room for each other
        parts.append(f'<path class="mark" d="M{across(percent):.1f} {TOP}v{HEIGHT}"/>')
        parts.append(f'<text class="small" x="{across(percent):.1f}" y="{TOP - 3}" text-anchor="{anchor}">{escape(words)}</text>')
    for percent in sorted({percent for curve in panel.curves for percent in curve.rates}):
        label = f"+{percent:g}" if percent else "0"
        parts.append(f'<text class="small" x="{across(percent):.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{label}</text>')
    parts.append(
        f'<text class="small" x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 32}" text-anchor="middle">{escape(panel.axis)}</text>'
    )
    for place, curve in enumerate(panel.curves):
        look = names.index(curve.name)
        aside = (place - (len(panel.curves) - 1) / 2) * DODGE
        points = [(across(percent) + aside, rate) for percent, rate in sorted(curve.rates.items()) if rate.trials]
        path = "L".join(f"{x:.1f} {down(rate.share):.1f}" for x, rate in points)
        if path:
            parts.append(f'<path class="line s{look}" d="M{path}"/>')
        for x, rate in points:
            low, high = rate.interval()
            parts.append(
                f'<path class="bar s{look}" d="M{x:.1f} {down(low):.1f}V{down(high):.1f}"/>{_marker(look, x, down(rate.share))}'
            )
    return parts


def _marker(look: int, x: float, y: float) -> str:
    if look == 0:
        return f'<circle class="s0" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    shape = {1: "m-3.2 -3.2h6.4v6.4h-6.4z", 2: "m0 -4l4 7h-8z", 3: "m0 -4.4l4 4.4l-4 4.4l-4 -4.4z"}[look]
    return f'<path class="s{look}" d="M{x:.1f} {y:.1f}{shape}"/>'
