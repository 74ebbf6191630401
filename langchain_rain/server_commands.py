"""The commands `langchain-rain server ...`: what an inference server can do. Tables go to standard output."""

import json
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from langchain_rain.engines.loading import completions_engine
from langchain_rain.options import DEFAULT_KEY, ApiKeyOption, ServerModelOption, TokenizerOption, api_key_in
from langchain_rain.quoting import visible

EXIT_CODES = (
    "Exit codes: 0 the server can be searched with; 2 a mistake in what was given (option, package that is missing); "
    "3 it cannot be reached, or lacks what a search needs; 130 stopped by Ctrl-C."
)

app = typer.Typer(
    help="See what an inference server can do.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _keep_subcommands() -> None:
    """See what an inference server can do."""


@app.command(epilog=EXIT_CODES)
def check(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it is, for example http://localhost:8000.")],
    model: ServerModelOption = "",
    tokenizer: TokenizerOption = None,
    dialect: Annotated[
        str | None, typer.Option(help="vllm, llama-server, sglang or openai; by default found out.")
    ] = None,
    api_key_env: ApiKeyOption = DEFAULT_KEY,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask a server for a few tokens in all the ways that a search needs, and print what it can do."""
    engine = completions_engine(
        url, model, tokenizer=tokenizer, dialect=dialect, api_key=api_key_in(api_key_env), max_retries=1
    )
    try:
        report = engine.report()
    finally:
        engine.shut_down()
    if as_json:
        print(json.dumps({row.key: row.value for row in report}))
        return
    # Here and not above: it needs httpx, as the engine does that is there by now.
    from langchain_rain.engines.addresses import named
    from langchain_rain.engines.server_report import OPTIONS

    title = visible(f"{engine.name} at {named(url)}")
    table = Table("", "", "what it is for", title=title, title_style="bold")
    for row in report:
        table.add_row(row.name, Text(visible(_told(row.value, OPTIONS))), row.purpose)
    Console(highlight=False).print(table)


def _told(value: object, ways: Mapping[str, str]) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", then ".join(ways[each] for each in value)
    return "not told" if value is None else str(value)
