"""Options that the commands which write answers share."""

from typing import Annotated

import typer

from langchain_rain.config import PRESETS
from langchain_rain.rubrics import Rubric

ModelOption = Annotated[
    str, typer.Option(help='A folder, an id on the Hugging Face hub, or "demo", the bundled model.')
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
