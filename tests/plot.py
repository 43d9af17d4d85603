"""Four small plots over a logarithmic axis, as one SVG."""

import math
from html import escape
from typing import NamedTuple, Tuple

WIDTH, HEIGHT = 380, 222  # of one panel, pixels
LEFT, RIGHT, TOP, BOTTOM = 50, 358, 66, 168  # of the lines across it
MARGIN = 30  # between the ends of these and the first and last size
STYLE = """
  svg { background: #fff; }
  text { font: 11px system-ui, sans-serif; fill: #57606a; }
  /* Lines do not run through the figures. */
  text.a, text.b { stroke: #fff; stroke-width: 3; paint-order: stroke; }
  .title { font-size: 13px; font-weight: 600; fill: #1f2328; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .a { fill: #0969da; }
  .b { fill: #bc4c00; }
  polyline { stroke-width: 2; }
  polyline.a { fill: none; stroke: #0969da; }
  polyline.b { fill: none; stroke: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    text { fill: #9198a1; }
    .title { fill: #f0f6fc; }
    .grid { stroke: #30363d; }
    .a { fill: #58a6ff; }
    .b { fill: #f0883e; }
    text.a, text.b { stroke: #0d1117; }
    polyline.a { fill: none; stroke: #58a6ff; }
    polyline.b { fill: none; stroke: #f0883e; }
  }
"""


class Panel(NamedTuple):
    """One or two lines over the same sizes."""

    title: str
    lines: Tuple[Tuple[str, Tuple[float, ...]], ...]  # (label, values)
    logarithmic: bool = False  # else from zero


def svg(title, sizes, panels, caption):
    """Return the text of a picture of panels in two columns.

    Args:
        sizes: places on the logarithmic x axis, rising; two or more.
        panels: each line has as many values, all above 0.
        caption: lines of text below.
    """
    height = (len(panels) + 1) // 2 * HEIGHT + 16 * len(caption) + 8
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" '
             'width="%d" height="%d" role="img">' % (
                 2 * WIDTH, height, 2 * WIDTH, height),
             "<title>%s</title>" % escape(title), "<style>%s</style>" % STYLE]
    for place, panel in enumerate(panels):
        row, column = divmod(place, 2)
        parts.append('<g transform="translate(%d %d)">' % (
            column * WIDTH, row * HEIGHT))
        parts += drawn(panel, sizes)
        parts.append("</g>")
    parts += [text(LEFT, height - 16 * (len(caption) - number) + 2, line)
              for number, line in enumerate(caption)]
    return "\n".join(parts + ["</svg>"]) + "\n"


def drawn(panel, sizes):
    """Yield the elements of one panel."""
    values = [value for _, line in panel.lines for value in line]
    marks, y_of = scale(values, panel.logarithmic)
    x_of = across(sizes)
    yield text(LEFT, 18, panel.title, "title")
    for mark in marks:
        yield ('<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>'
               % (LEFT, RIGHT, y_of(mark), y_of(mark)))
        yield text(LEFT - 6, y_of(mark) + 4, short(mark), anchor="end")
    for place, size in enumerate(sizes):
        yield text(x_of(size), BOTTOM + 34, short(size) + (
            "" if place else " files"), anchor="middle")
    for number, (label, line) in enumerate(panel.lines):
        kind, x = "ab"[number], LEFT + 150 * number
        yield '<circle class="%s" cx="%d" cy="33" r="4"/>' % (kind, x + 4)
        yield text(x + 13, 37, label)
        yield '<polyline class="%s" points="%s"/>' % (kind, " ".join(
            "%.1f,%.1f" % (x_of(size), y_of(value))
            for size, value in zip(sizes, line)))
    for place, size in enumerate(sizes):
        # The figure of the upper line is above it.
        order = sorted(range(len(panel.lines)), reverse=True,
                       key=lambda number: panel.lines[number][1][place])
        for rank, number in enumerate(order):
            value = panel.lines[number][1][place]
            yield '<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>' % (
                "ab"[number], x_of(size), y_of(value))
            yield text(x_of(size), y_of(value) + (17 if rank else -8),
                       short(value), "ab"[number], "middle")


def across(sizes):
    """Return what places a size on the x axis."""
    first, last = math.log(sizes[0]), math.log(sizes[-1])
    step = (RIGHT - LEFT - 2 * MARGIN) / (last - first)
    return lambda size: LEFT + MARGIN + (math.log(size) - first) * step


def scale(values, logarithmic):
    """Return (values that get a line across, what places one)."""
    if logarithmic:
        low = math.floor(math.log10(min(values)))
        high = max(low + 1, math.ceil(math.log10(max(values))))
        step = (BOTTOM - TOP) / (high - low)
        return ([10 ** power for power in range(low, high + 1)],
                lambda value: BOTTOM - (math.log10(value) - low) * step)
    unit = step_of(max(values))
    count = math.ceil(max(values) / unit)
    return ([unit * number for number in range(count + 1)],
            lambda value: BOTTOM - value * (BOTTOM - TOP) / (unit * count))


def step_of(most):
    """Return 1, 2 or 5 times a power of ten: two to five reach the most."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * factor for factor in (0.2, 0.5, 1.0, 2.0)
                if most <= 5 * power * factor)


def short(value):
    """Show two or three digits: 300k, 1.2k, 64, 0.85."""
    if value >= 1000:
        return ("%.1f" % (value / 1000) if value < 9950
                else "%d" % round(value / 1000)).replace(".0", "") + "k"
    return "%.0f" % value if value >= 10 else "%.2g" % value


def text(x, y, words, kind="", anchor=""):
    return "<text%s x=\"%.1f\" y=\"%.1f\"%s>%s</text>" % (
        ' class="%s"' % kind if kind else "", x, y,
        ' text-anchor="%s"' % anchor if anchor else "", escape(words))
