"""The command `langchain-rain`. Answers go to standard output, everything else to standard error."""

import contextlib
import io
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from langchain_rain import batch_commands, eval_commands, rubric_commands, server_commands
from langchain_rain._version import __version__
from langchain_rain.config import RainConfig
from langchain_rain.demo import AnswerRecorder, run_demo
from langchain_rain.engines.loading import DEMO_MODEL, load_engine
from langchain_rain.errors import (
    EngineError,
    JudgeAtChanceWarning,
    RainConfigError,
    RubricError,
    UnsatisfiedError,
)
from langchain_rain.llms import RainLLM
from langchain_rain.options import (
    MaxTokensOption,
    ModelOption,
    OnUnsatisfiedOption,
    PresetOption,
    RubricOption,
    StopOption,
)
from langchain_rain.quoting import visible
from langchain_rain.rubric_commands import FunctionsOption, ParameterOption, load_rubric, prepare_for

SATISFIED, UNSATISFIED, MISTAKE, ENGINE_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes; MISTAKE is also what typer exits with when it cannot read the command line."""

EXIT_CODES = (
    "Exit codes: 0 the answer satisfies the rubric; 1 it does not, or was refused; 2 a mistake in what was given "
    "(option, setting, rubric, prompt, file); 3 the model could not be loaded or failed; 130 stopped by Ctrl-C."
)

app = typer.Typer(
    help="Answers that judge themselves while they are written (RAIN), for LangChain.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(rubric_commands.app, name="rubric")
app.add_typer(server_commands.app, name="server")
app.command("run", epilog=batch_commands.EXIT_CODES)(batch_commands.run)
app.command("eval", epilog=eval_commands.EXIT_CODES)(eval_commands.evaluate)


@app.command(epilog=EXIT_CODES)
def demo(seed: Annotated[int, typer.Option(help="Chooses the requests and all draws.")] = 7) -> None:
    """The bundled model answers ten requests, by ordinary sampling and with RAIN in a LangChain chain.

    Takes a minute or two on two cores, and no network.
    """
    prepare_for(DEMO_MODEL)
    run_demo(load_engine(DEMO_MODEL), seed=seed, out=Console(), err=Console(stderr=True))


@app.command(epilog=EXIT_CODES)
def generate(  # noqa: PLR0913, PLR0917 - one for each option
    prompt: Annotated[str, typer.Argument(help='What to continue, as it stands; "-" reads it from standard input.')],
    model: ModelOption = DEMO_MODEL,
    rubric: RubricOption = "harmlessness",
    parameter: ParameterOption = None,
    functions: FunctionsOption = None,
    preset: PresetOption = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer; without it one is drawn and told.")] = None,
    max_tokens: MaxTokensOption = 256,
    stop: StopOption = None,
    on_unsatisfied: OnUnsatisfiedOption = "refuse",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with all that happened.")] = False,
    stream: Annotated[
        bool | None, typer.Option(help="Print text as it is released; by default on a terminal.", show_default=False)
    ] = None,
) -> None:
    """Continue one prompt with RAIN."""
    prepare_for(model)
    prompt = _read_standard_input() if prompt == "-" else prompt
    llm = RainLLM(
        model=model,
        rubric=load_rubric(rubric, parameter or (), functions),
        config=RainConfig() if preset is None else RainConfig.preset(preset),
        seed=seed,
        max_tokens=max_tokens,
        stop=stop,
        on_unsatisfied=on_unsatisfied,
    )
    recorder = AnswerRecorder()
    is_terminal = sys.stdout.isatty()
    if as_json:
        llm.invoke(prompt, {"callbacks": [recorder]})
        print(json.dumps({"prompt": prompt, "answer": recorder.text, **recorder.info}))
    elif stream if stream is not None else is_terminal:
        for piece in llm.stream(prompt, {"callbacks": [recorder]}):
            print(visible(piece) if is_terminal else piece, end="", flush=True)
        print()
    else:
        answer = llm.invoke(prompt, {"callbacks": [recorder]})
        print(visible(answer) if is_terminal else answer)
    rain = recorder.info["rain"]
    print(_summary(rain), file=sys.stderr)
    raise typer.Exit(SATISFIED if rain["is_satisfied"] else UNSATISFIED)


@app.command()
def version() -> None:
    """Print the version."""
    print(f"langchain-rain {__version__}")


def main() -> None:
    """The entry point: never a traceback for a user's mistake, a closed pipe, a full disk or Ctrl-C."""
    if hasattr(signal, "SIGPIPE"):  # like other filters: whoever closes the pipe ends this process, silently
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _prepare_streams()
    _silence_libraries()
    code = run(sys.argv[1:])
    if code == INTERRUPTED:
        # The thread of the engine may be in the middle of a step; nobody waits for it any more.
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs a command line and returns its exit code; what went wrong stands on standard error, in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", JudgeAtChanceWarning)
            warnings.showwarning = _tell_warning
            return _exit_code_of(lambda: app(arguments, prog_name="langchain-rain"))
    except OSError as error:
        _give_up(sys.stdout)
        return _fail(f"The output cannot be written: {error.strerror or error}.", MISTAKE)


def _exit_code_of(command: Callable[[], Any]) -> int:
    try:
        command()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else SATISFIED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (RainConfigError, RubricError) as error:
        code = _fail(str(error), MISTAKE)
    except UnsatisfiedError as error:
        code = _fail(str(error), UNSATISFIED)
    except EngineError as error:
        code = _fail(str(error), ENGINE_FAILED)
    if code == INTERRUPTED:
        print("\nStopped.", file=sys.stderr)
    sys.stdout.flush()
    return code


def _tell_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _fail(f"Warning: {message}", SATISFIED)


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"langchain-rain: {visible(' '.join(message.split()))}", file=sys.stderr)
    return code


def _give_up(stream: TextIO) -> None:
    """Sends what is still buffered nowhere, so that the end of the process does not try, and fail, again."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _prepare_streams() -> None:
    """Lets standard streams that are closed, or that cannot encode a character, not end in a traceback."""
    sys.stdin, sys.stdout, sys.stderr = (
        stream or io.TextIOWrapper(io.BytesIO()) for stream in (sys.stdin, sys.stdout, sys.stderr)
    )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence_libraries() -> None:
    """Has no library write between the lines of ours. Read by Hugging Face's libraries when they are imported."""
    warnings.simplefilter("ignore")
    logging.getLogger("langchain_rain").addHandler(logging.NullHandler())
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _read_standard_input() -> str:
    """What stands on standard input, without the end of its last line."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise RainConfigError(f"Standard input is not UTF-8 text: {error}.") from error


def _summary(rain: dict[str, Any]) -> str:
    """One line on how an answer came about."""
    value = "not judged" if rain["value"] is None else f"value {rain['value']:+.2f}"
    end = "satisfied" if rain["is_satisfied"] else f"not satisfied ({rain['stop_reason']})"
    bypass = f"; given out by {rain['bypass']}" if rain["bypass"] else ""
    return (
        f"{end}, {value}{bypass}; {rain['num_tokens']} tokens, {rain['num_simulations']} simulations, "
        f"{rain['num_rewinds']} rewinds, {rain['forward_passes']} forward passes; seed {rain['seed']}"
    )
