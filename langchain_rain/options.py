"""Options that the commands which write answers share."""

import os
from typing import Annotated, Literal

import typer
from pydantic import SecretStr

from langchain_rain.config import PRESETS
from langchain_rain.engines.loading import DEMO_MODEL
from langchain_rain.errors import RainConfigError
from langchain_rain.rubrics import Rubric

DEFAULT_KEY = "RAIN_SERVER_API_KEY"
"""The environment variable that holds a key where no other is named; it need not be set."""

ModelOption = Annotated[
    str, typer.Option(help='A folder, an id on the Hugging Face hub, or "demo", the bundled model.')
]
WriterOption = Annotated[
    str | None,
    typer.Option(
        help='A folder, an id on the Hugging Face hub, or "demo", the bundled model.', show_default=DEMO_MODEL
    ),
]
ServersOption = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="An inference server that writes instead; may be repeated for replicas."),
]
RubricOption = Annotated[str, typer.Option(help=f"A YAML file, or one of: {', '.join(Rubric.names_in_library())}.")]
PresetOption = Annotated[
    str | None, typer.Option(help=f"One of: {', '.join(PRESETS)}; without it the default settings.")
]
MaxTokensOption = Annotated[int, typer.Option(help="Longest answer, in tokens.")]
StopOption = Annotated[list[str] | None, typer.Option(help="The answer ends before this text; may be repeated.")]
OnUnsatisfiedOption = Annotated[
    str, typer.Option(help="What to give when no answer satisfies the rubric: refuse, best or raise.")
]
ServerModelOption = Annotated[
    str, typer.Option(help="The model's name on the server; without it the only one there is.", show_default=False)
]
TokenizerOption = Annotated[str | None, typer.Option(help="Of the model on the server: a folder or an id.")]
JudgeServersOption = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="An inference server that judges; may be repeated for replicas."),
]
JudgeServerModelOption = Annotated[str, typer.Option(help="The same on the --judge-server.", show_default=False)]
JudgeTokenizerOption = Annotated[
    str | None, typer.Option(help="Of the model on the --judge-server: a folder or an id.")
]
ApiKeyOption = Annotated[
    str, typer.Option(metavar="NAME", help="The environment variable that holds the key for servers.")
]


def api_key_in(name: str) -> SecretStr | None:
    """The key in an environment variable; None if it is the default one and not set.

    Raises:
        RainConfigError: another one is not set.
    """
    key = os.environ.get(name)
    if not key and name != DEFAULT_KEY:
        raise RainConfigError(f"--api-key-env: the environment variable {name!r} is not set.")
    return SecretStr(key) if key else None


def check_models(
    who: Literal["", "judge", "outcome"],
    model: str | None,
    servers: list[str] | None,
    server_model: str,
    tokenizer: str | None,
) -> None:
    """Checks the options that name the writer, or whoever judges, whose names begin with who it is.

    Raises:
        RainConfigError: a model of this process is given beside a server, or what belongs to a server without one.
    """
    begin = f"--{who}-" if who else "--"
    in_process = {"": "--model", "judge": "--judge", "outcome": "--outcome-judge"}[who]
    if servers and model is not None:
        raise RainConfigError(f"{in_process} or {begin}server is allowed, given both, {model!r} and {servers[0]!r}.")
    for option, given in (("server-model", server_model or None), ("tokenizer", tokenizer)):
        if given is not None and not servers:
            raise RainConfigError(f"{begin}{option} {given!r} belongs to a {begin}server, and none is given.")
