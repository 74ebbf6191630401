"""Drawing into SVG elements that stand in the page: its fonts, its colours by day and by night, no styles of their own.

Matplotlib writes style attributes, a style sheet and ids. A page whose security policy allows one style sheet takes
none of that, so they become presentation attributes, and what is referred to gets an id that no other plot has.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from langchain_rain.evaluation.packages import needed

WIDTH = 360.0
"""Of every plot, in points, which are pixels where the page is as narrow as a phone."""

INK, SOFT, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
"""Text, its quieter form, lines and the background: stand-ins for the page's own colours, as are `HUES`."""

HUES = tuple(f"#05050{number}" for number in range(8))

VARIABLES: Mapping[str, str] = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    **{hue: f"var(--hue-{number})" for number, hue in enumerate(HUES)},
}
"""What the page calls them."""

STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; the page's own font is hardly ever wider
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.5,
}

_METADATA = ("Creator", "Date", "Format", "Type")
_REFERENCES = re.compile(r"url\(#([^)]+)\)|^#(.+)")
_DROPPED = frozenset({"font-family", "font-style", "font-variant", "font-stretch"})


def draw(name: str, height: float, paint: Callable[[Any], None]) -> str:
    """One plot as an SVG element; the same plot is the same text.

    Args:
        name: tells its ids from those of other plots.
        height: in points.
        paint: draws on the figure.

    Raises:
        RainConfigError: matplotlib is missing.
    """
    matplotlib, figures = needed("matplotlib"), needed("matplotlib.figure")
    canvas = needed("matplotlib.backends.backend_svg").FigureCanvasSVG
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A name in a script that DejaVu lacks is measured wrongly and shown rightly.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = figures.Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        canvas(figure)
        paint(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    return _as_element(name, file.getvalue())


def _as_element(name: str, text: str) -> str:
    root = ElementTree.fromstring(text)
    ids = {match[1] or match[2] for element in root.iter() for match in _references(element)}
    for element in root.iter():
        _rewrite(element, name, ids)
    for parent in root.iter():
        for child in [child for child in parent if child.tag == "style"]:
            parent.remove(child)
    viewed = {"viewBox": root.attrib["viewBox"], "stroke-linejoin": "round", "aria-hidden": "true"}
    root.attrib.clear()
    root.attrib.update(viewed)
    return ElementTree.tostring(root, encoding="unicode")


def _references(element: ElementTree.Element) -> Iterator[re.Match[str]]:
    return (match for value in element.attrib.values() for match in _REFERENCES.finditer(value))


def _rewrite(element: ElementTree.Element, name: str, ids: set[str]) -> None:
    """Names without namespaces, which HTML has none of; attributes instead of styles; ids only where needed."""
    element.tag = element.tag.rpartition("}")[2]
    given = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    given |= presentation(given.pop("style", ""))
    if given.get("id") in ids:
        given["id"] = f"{name}-{given['id']}"
    else:
        given.pop("id", None)
    if given.get("transform", "").startswith("rotate(-0 "):
        del given["transform"]
    element.attrib.clear()
    for key, value in given.items():
        referring = re.sub(r"url\(#", f"url(#{name}-", value)
        referring = f"#{name}-{value[1:]}" if key == "href" else referring
        element.set(key, " ".join(referring.split()))
    element.tail = None
    if element.tag != "text":
        element.text = None


def presentation(style: str) -> dict[str, str]:
    """The attributes that say what a style says."""
    found: dict[str, str] = {}
    for declaration in filter(None, map(str.strip, style.split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":  # as matplotlib before 3.11 has it: weight, size and families in one
            size = re.search(r"([\d.]+)px", value)
            found |= {"font-size": size[1]} if size else {}
            found |= {"font-weight": "bold"} if re.search(r"\b(bold|[6-9]00)\b", value) else {}
        elif key not in _DROPPED:
            found[key] = VARIABLES.get(value, value)
    return found
