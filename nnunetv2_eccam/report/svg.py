"""Small drawings as SVG in the page: text stays text, colours are the page's, and every name is escaped.

Nothing is styled by ``style`` attributes, which the page's content security policy forbids; classes are, in
``style.css``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

COLOURS = 7
"""How many series have a colour of their own: classes ``s0`` to ``s6``, of Okabe and Ito's set."""

LETTER = 0.56
"""Width of a letter over the size of the type, rather too wide than too narrow."""
TYPE = 12.0
"""Size of the type of all text, in units of the drawing, which are CSS pixels at most."""

Point = tuple[float, float]


def series(index: int) -> str:
    """Name the class of a series' colour."""
    return f"s{index % COLOURS}"


def text_width(text: str, size: float = TYPE) -> float:
    """Estimate how wide a text is."""
    return len(text) * LETTER * size


def shortened(text: str, width: float, size: float = TYPE) -> str:
    """Cut a text to a width, with three dots at its end."""
    most = max(1, int(width / (LETTER * size)))
    return text if len(text) <= most else text[: max(1, most - 1)] + "\u2026"


def coordinate(value: float) -> str:
    """Write a coordinate as short as a tenth of a pixel allows."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


@dataclass
class Drawing:
    """A drawing that elements are added to, the first at the back.

    Attributes:
        width: in units, of which one is a pixel at most.
        height: likewise.
        title: what it shows, for those who do not see it.
        description: what is to be seen in it, likewise.
        name: an id that no other drawing of the page has.
    """

    width: float
    height: float
    title: str
    description: str
    name: str
    elements: list[str] = field(default_factory=list)

    def line(self, start: Point, end: Point, kind: str) -> None:
        """Draw a line of a class."""
        (x1, y1), (x2, y2) = start, end
        self._add("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)

    def rectangle(self, corner: Point, width: float, height: float, kind: str) -> None:
        """Draw a rectangle from its upper left corner."""
        self._add("rect", kind, x=corner[0], y=corner[1], width=width, height=height)

    def path(self, points: Iterable[Point], kind: str) -> None:
        """Draw a line through points."""
        steps = [f"{coordinate(x)},{coordinate(y)}" for x, y in points]
        if steps:
            self.elements.append(f'<path class="{escape(kind)}" d="M{"L".join(steps)}"/>')

    def paths(self, lines: Iterable[Sequence[Point]], kind: str) -> None:
        """Draw many lines as one element."""
        text = "".join(
            "M" + "L".join(f"{coordinate(x)},{coordinate(y)}" for x, y in line) for line in lines if len(line) > 1
        )
        if text:
            self.elements.append(f'<path class="{escape(kind)}" d="{text}"/>')

    def dots(self, points: Iterable[Point], kind: str) -> None:
        """Draw many round dots as one element; the class gives their size as a line's width."""
        text = "".join(f"M{coordinate(x)},{coordinate(y)}h0" for x, y in points)
        if text:
            self.elements.append(f'<path class="dots {escape(kind)}" d="{text}"/>')

    def marker(self, place: Point, index: int, kind: str, title: str = "") -> None:
        """Draw the mark of a series, whose shape tells it apart without colour.

        Args:
            place: its middle.
            index: of the series.
            kind: more classes.
            title: what a pointer over it says.
        """
        self.elements.append(_mark(place, index, kind, title))

    def text(self, place: Point, text: str, kind: str = "", anchor: str = "start", turned: bool = False) -> None:
        """Write a text, ``start``, ``middle`` or ``end`` of which is at a place; turned, it reads upwards."""
        x, y = (coordinate(value) for value in place)
        turn = f' transform="rotate(-90 {x} {y})"' if turned else ""
        which = f' class="{escape(kind)}"' if kind else ""
        self.elements.append(f'<text{which} x="{x}" y="{y}" text-anchor="{anchor}"{turn}>{escape(text)}</text>')

    def markup(self) -> str:
        """Give the drawing as an element of a page."""
        size = f"{coordinate(self.width)} {coordinate(self.height)}"
        name = escape(self.name)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{coordinate(self.width)}" '
            f'height="{coordinate(self.height)}" role="img" aria-labelledby="{name}-title {name}-desc" class="figure">'
            f'<title id="{name}-title">{escape(self.title)}</title>'
            f'<desc id="{name}-desc">{escape(self.description)}</desc>{"".join(self.elements)}</svg>'
        )

    def _add(self, element: str, kind: str, **attributes: float) -> None:
        values = "".join(f' {name}="{coordinate(value)}"' for name, value in attributes.items())
        self.elements.append(f'<{element} class="{escape(kind)}"{values}/>')


_SHAPES: tuple[tuple[Point, ...], ...] = (
    ((-4.0, 0.0), (-2.8, -2.8), (0.0, -4.0), (2.8, -2.8), (4.0, 0.0), (2.8, 2.8), (0.0, 4.0), (-2.8, 2.8)),
    ((-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)),
    ((0.0, -4.6), (4.4, 3.2), (-4.4, 3.2)),
    ((0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)),
    ((0.0, 4.6), (4.4, -3.2), (-4.4, -3.2)),
    ((-1.5, -4.5), (1.5, -4.5), (1.5, -1.5), (4.5, -1.5), (4.5, 1.5), (1.5, 1.5), (1.5, 4.5), (-1.5, 4.5),
     (-1.5, 1.5), (-4.5, 1.5), (-4.5, -1.5), (-1.5, -1.5)),
    ((-4.2, -4.2), (0.0, -1.6), (4.2, -4.2), (1.6, 0.0), (4.2, 4.2), (0.0, 1.6), (-4.2, 4.2), (-1.6, 0.0)),
)  # fmt: skip
"""Round, square, up, diamond, down, plus, star: corners from the middle."""


def _mark(place: Point, index: int, kind: str, title: str = "") -> str:
    (x, y), steps = place, _SHAPES[index % len(_SHAPES)]
    shape = "L".join(f"{coordinate(x + dx)},{coordinate(y + dy)}" for dx, dy in steps)
    classes = f"marker {series(index)} {kind}".strip()
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<path class="{escape(classes)}" d="M{shape}Z">{inner}</path>'


def mark_with_line(index: int) -> str:
    """Draw the line and mark of a series, 24 units wide and 12 high."""
    return f'<path class="curve {series(index)}" d="M0,6L24,6"/>{_mark((12.0, 6.0), index, "")}'


def legend_mark(index: int) -> str:
    """Draw the line and mark of a series for the page's legend."""
    return f'<svg viewBox="0 0 24 12" aria-hidden="true">{mark_with_line(index)}</svg>'


@dataclass(frozen=True)
class Figure:
    """A drawing with what is said below it.

    Attributes:
        name: its id on the page.
        caption: what it shows.
        markup: the drawing.
        entries: the legend: index and name of each series.
    """

    name: str
    caption: str
    markup: str
    entries: tuple[tuple[int, str], ...] = ()
