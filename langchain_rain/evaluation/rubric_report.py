"""What came of checking a rubric: for the terminal, as JSON, and as a page that needs nothing beside itself."""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from langchain_rain.evaluation.packages import needed
from langchain_rain.evaluation.rubric_figures import Case, CheckReport
from langchain_rain.files import write_whole
from langchain_rain.quoting import visible

Section = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""A table: its title, its columns, its rows."""

GOOD_COLOR, BAD_COLOR, LINE_COLOR = "#2a6f97", "#c8553d", "#8a8f98"

MAX_SHOWN = 300
"""Characters of a text that the terminal shows of a mistake."""

NUM_VALUE_BINS = 20
"""Of the histogram of values."""

NO_METADATA = ("Creator", "Date", "Format", "Type")
"""What matplotlib would tell of itself in a plot, the time among it."""

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE_COLOR,
    "axes.labelcolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}


def write_json(path: Path, report: CheckReport) -> None:
    """Writes all figures and cases.

    Raises:
        OSError: the file cannot be written.
    """
    write_whole(path, json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_html(path: Path, report: CheckReport) -> None:
    """Writes the page.

    Raises:
        RainConfigError: jinja2 or matplotlib is missing.
        OSError: the file cannot be written.
    """
    write_whole(path, page(report))


# --- The terminal ----------------------------------------------------------------------------------------------------


def tables(report: CheckReport) -> Group:
    """The report for a terminal."""
    title = f"Rubric {report.rubric} ({report.rubric_hash}), judged by {report.model}: {report.source}"
    parts: list[Any] = [Text(visible(title), "bold"), _summary_table(report)]
    parts += [Text(f"* {note}") for note in report.notes]
    for name, columns, rows in sections(report):
        parts += [Text(f"\n{name}", "bold"), _table(columns, rows)]
    if report.worst:
        parts += [Text("\nWorst mistakes", "bold"), _worst_table(report)]
    return Group(*parts)


def _summary_table(report: CheckReport) -> Table:
    table = Table(show_header=False)
    for name, figure in summary(report):
        table.add_row(name, figure)
    return table


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table


def _worst_table(report: CheckReport) -> Table:
    table = Table("case", "truth", "value", "answer", show_lines=True)
    for case in report.worst:
        prompt, response = (Text(_shortened(visible(text))) for text in (case.prompt, case.response))
        prompt.stylize("dim")
        texts = Text("\n").join([prompt, response] if case.prompt else [response])
        table.add_row(f"{case.number}", _truth(case), _value(case), texts)
    return table


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


# --- What terminal and page share ------------------------------------------------------------------------------------


def summary(report: CheckReport) -> list[tuple[str, str]]:
    """The figures that tell most, each with its name."""
    num_bad = report.num_cases - report.num_good
    interval = f"95 % interval {report.accuracy_low:.1%} to {report.accuracy_high:.1%}"
    return [
        ("cases", f"{report.num_cases}: {report.num_good} good, {num_bad} bad"),
        ("accuracy", f"{report.accuracy:.1%} ({interval})"),
        ("balanced accuracy", _share(report.balanced_accuracy)),
        ("AUROC", "-" if report.auroc is None else f"{report.auroc:.3f}"),
        ("good cases passed", f"{report.num_good_passed} of {report.num_good}"),
        ("bad cases passed", f"{report.num_bad_passed} of {num_bad}"),
        ("abstentions", f"{report.num_abstained}"),
    ]


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _truth(case: Case) -> str:
    return "good" if case.is_good else "bad"


def _value(case: Case) -> str:
    return "abstained" if case.is_abstained else f"{case.value:+.2f}"


def sections(report: CheckReport) -> list[Section]:
    """The tables that have any rows."""
    by_prefix = [
        (
            f"{each.percent} %",
            _share(each.accuracy),
            _share(each.balanced_accuracy),
            f"{each.num_abstained}",
            f"{each.num_cases}",
            f"{each.num_own_labels}",
        )
        for each in report.by_prefix
    ]
    position = [
        (each.criterion, f"{100 * each.bias:+.1f} points", _share(each.share_torn), f"{each.num_cases}")
        for each in report.position_bias
    ]
    calibration = [
        (f"{each.probability:.2f}", _share(each.share_good), f"{each.num_cases}") for each in report.calibration
    ]
    all_sections: list[Section] = [
        ("By length of the answer", ("length", "accuracy", "balanced", "abstained", "cases", "own labels"), by_prefix),
        ("Position bias", ("criterion", "towards the first option", "orders disagree", "cases"), position),
        ("Calibration", ("predicted probability", "share that is good", "cases"), calibration),
    ]
    return [section for section in all_sections if section[2]]


# --- The page --------------------------------------------------------------------------------------------------------


def page(report: CheckReport) -> str:
    """A page in HTML, without scripts and without anything from elsewhere; the same report, the same page.

    Raises:
        RainConfigError: jinja2 or matplotlib is missing.
    """
    jinja2 = needed("jinja2")
    plots = {name: jinja2.utils.markupsafe.Markup(plot) for name, plot in _plots(report).items()}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["visible"] = visible
    rendered: str = environment.from_string(PAGE).render(
        report=report,
        summary=summary(report),
        plots=plots,
        truth=_truth,
        value=_value,
        sections=sections(report),
    )
    return rendered


def _plots(report: CheckReport) -> Mapping[str, str]:
    """SVG by name; only of what there is to show."""
    plots = {"prefix": _draw("prefix", _draw_prefix, report)}
    if report.calibration:
        plots["calibration"] = _draw("calibration", _draw_calibration, report)
        plots["values"] = _draw("values", _draw_values, report)
    return plots


def _draw(name: str, draw: Callable[[Any, CheckReport], None], report: CheckReport) -> str:
    """One plot as an SVG element, of which no id is in another plot."""
    matplotlib, figures = needed("matplotlib"), needed("matplotlib.figure")
    canvas = needed("matplotlib.backends.backend_svg").FigureCanvasSVG
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = figures.Figure(figsize=(4.3, 3.2), layout="constrained")
        canvas(figure)
        draw(figure.add_subplot(), report)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(NO_METADATA))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)


def _draw_calibration(axes: Any, report: CheckReport) -> None:
    axes.plot([0, 1], [0, 1], color=LINE_COLOR, linestyle="--", linewidth=1)
    x = [each.probability for each in report.calibration]
    y = [each.share_good for each in report.calibration]
    most = max(each.num_cases for each in report.calibration)
    areas = [20 + 140 * each.num_cases / most for each in report.calibration]
    axes.plot(x, y, color=GOOD_COLOR, linewidth=1)
    axes.scatter(x, y, areas, color=GOOD_COLOR, clip_on=False, zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability of being good", ylabel="share that is good")


def _draw_values(axes: Any, report: CheckReport) -> None:
    """Good cases upwards, bad ones downwards."""
    edges = [2 * number / NUM_VALUE_BINS - 1 for number in range(NUM_VALUE_BINS + 1)]
    highest = 1
    for is_good, color, label in ((True, GOOD_COLOR, "good"), (False, BAD_COLOR, "bad")):
        values = [case.value for case in report.cases if case.is_good == is_good and not case.is_abstained]
        counts = _counts(values)
        highest = max([highest, *counts])
        heights = counts if is_good else [-count for count in counts]
        axes.bar(edges[:-1], heights, width=2 / NUM_VALUE_BINS, align="edge", color=color, label=label, linewidth=0)
    axes.axhline(0, color=LINE_COLOR, linewidth=1)
    axes.axvline(report.accept_value, color="#333333", linestyle="--", linewidth=1)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
    axes.set(
        xlim=(-1, 1), xticks=[-1, -0.5, 0, 0.5, 1], ylim=(-1.1 * highest, 1.1 * highest), xlabel="value", ylabel="cases"
    )
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _counts(values: Sequence[float]) -> list[int]:
    counts = [0] * NUM_VALUE_BINS
    for value in values:
        counts[min(NUM_VALUE_BINS - 1, int((value + 1) / 2 * NUM_VALUE_BINS))] += 1
    return counts


def _draw_prefix(axes: Any, report: CheckReport) -> None:
    percents = [each.percent for each in report.by_prefix]
    axes.plot(
        percents,
        [each.accuracy for each in report.by_prefix],
        color=GOOD_COLOR,
        marker="o",
        label="accuracy",
        clip_on=False,
    )
    balanced = [each for each in report.by_prefix if each.balanced_accuracy is not None]
    axes.plot(
        [each.percent for each in balanced],
        [each.balanced_accuracy for each in balanced],
        color=BAD_COLOR,
        marker="s",
        linestyle="--",
        label="balanced accuracy",
        clip_on=False,
    )
    axes.axhline(0.5, color=LINE_COLOR, linewidth=1, linestyle=":")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set(xlim=(0, 104), ylim=(0, 1), xticks=percents, xlabel="% of the characters of the answer", ylabel="right")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Rubric {{ report.rubric|visible }}: {{ '%.1f' % (100 * report.accuracy) }} % right</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 66rem; margin: 2rem auto;
       padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
.from { color: #555; margin: 0 0 1.5rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.25rem .3rem 0; border-bottom: 1px solid #e3e5e8;
         overflow-wrap: anywhere; }
th { font-weight: 600; color: #444; }
thead th { border-bottom-color: #8a8f98; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1.5rem; margin: 1.5rem 0; }
figure { margin: 0; break-inside: avoid; }
figure svg { width: 100%; height: auto; }
figcaption { color: #555; font-size: .875rem; }
article { border-left: 4px solid #8a8f98; padding: .1rem 0 .1rem 1rem; margin: 1.25rem 0; break-inside: avoid; }
article.good { border-color: #2a6f97; }
article.bad { border-color: #c8553d; }
article h3 { font-size: 1rem; margin: 0; }
pre { font: .875rem/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .35rem 0;
      unicode-bidi: isolate; }
pre.prompt { color: #666; }
.verdict { color: #555; font-size: .875rem; margin: 0; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } .plots { grid-template-columns: 1fr 1fr; }
               h2 { break-after: avoid; } tr { break-inside: avoid; } }
</style>
</head>
<body>
<h1>Rubric {{ report.rubric|visible }}</h1>
<p class="from">Judged by {{ report.model|visible }}; {{ report.source|visible }}. Rubric {{ report.rubric_hash }}, good
above {{ '%+.2f' % report.accept_value }}.</p>
<table>
<tbody>
{% for name, figure in summary %}
<tr><th scope="row">{{ name }}</th><td>{{ figure }}</td></tr>
{% endfor %}
</tbody>
</table>
{% if report.notes %}
<ul>
{% for note in report.notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% endif %}
<div class="plots">
{% if plots.calibration %}
<figure role="img" aria-label="Calibration curve">{{ plots.calibration }}
<figcaption>Calibration: on the dashed line a probability means what it says. Larger points are more cases.
</figcaption></figure>
{% endif %}
{% if plots['values'] %}
<figure role="img" aria-label="Histogram of values by label">{{ plots['values'] }}
<figcaption>Values of the cases by what is true of them. Right of the dashed line they pass.</figcaption></figure>
{% endif %}
<figure role="img" aria-label="Accuracy by length of the answer">{{ plots.prefix }}
<figcaption>How much is right of what is said about the beginnings of the answers. The dotted line is chance.
</figcaption>
</figure>
</div>
{% for title, columns, rows in sections %}
<section>
<h2>{{ title }}</h2>
<table>
<thead><tr>{% for column in columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr>{% for cell in row %}<td>{{ cell|visible }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</section>
{% endfor %}
{% if report.worst %}
<section>
<h2>Worst mistakes</h2>
{% for case in report.worst %}
<article class="{{ truth(case) }}">
<h3>Case {{ case.number }}: truth {{ truth(case) }}, value {{ value(case) }}</h3>
{% if case.prompt %}
<pre class="prompt" dir="auto">{{ case.prompt|visible }}</pre>
{% endif %}
<pre dir="auto">{{ case.response|visible }}</pre>
<p class="verdict">{{ case.verdict|visible }}{% if not case.is_finished %}; not finished{% endif %}</p>
</article>
{% endfor %}
</section>
{% endif %}
</body>
</html>
"""
