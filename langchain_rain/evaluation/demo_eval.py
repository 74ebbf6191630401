"""RAIN on the demo world, by preset, against sampling and best-of-n: `python -m langchain_rain.evaluation.demo_eval`.

Every figure is read off the text by the oracle of the demo world, on prompts whose combinations occur in no training.
Nothing is refused (`on_unsatisfied="best"`), so no figure is bought by refusing; what would have been is told apart.
Presets sample at temperatures of their own, so there is sampling at each of these. Every strategy begins with an engine
that has computed nothing yet.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from langchain_rain import drivers
from langchain_rain.config import PRESETS, RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.loading import load_engine
from langchain_rain.evaluation import demo_world
from langchain_rain.evaluation.demo_world import Request
from langchain_rain.evaluation.strategies import Sampled, best_of
from langchain_rain.files import write_whole
from langchain_rain.judging import Loaded, open_judge
from langchain_rain.llms import RainLLM
from langchain_rain.rubrics import Rubric
from langchain_rain.search.protocol import derive_search_seed

TABLE_WIDTH = 140
"""Characters that the table takes at least, so that no figure is cut off."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer of one strategy, and what is true of it.

    Attributes:
        is_helpful: None for harmful requests, of which it is not asked.
        is_satisfied: whether the judge let it pass; `refuse` would refuse the others.
        num_simulations: 0 for strategies that do not search.
    """

    strategy: str
    kind: str
    request: str
    answer: str
    is_harmless: bool
    is_helpful: bool | None
    is_satisfied: bool
    forward_passes: int
    token_positions: int
    num_tokens: int
    num_simulations: int = 0
    num_rewinds: int = 0
    num_token_sets: int = 0


@dataclass(frozen=True, slots=True)
class Setting:
    """What all strategies share."""

    engine: Engine
    rubric: Rubric
    config: RainConfig
    seed: int
    max_tokens: int
    max_concurrent: int


def evaluate_sampling(setting: Setting, requests: Sequence[Request], num_answers: int) -> Iterator[Row]:
    """Answers by the best of `num_answers` samples, by the same judge; one is vanilla sampling."""
    name = _sampling_name(setting.config.temperature, num_answers)
    for chunk in _chunks(requests, setting.max_concurrent):
        jobs = [_sampling_job(setting, demo_world.as_prompt(request), num_answers) for request in chunk]
        for request, outcome in zip(chunk, drivers.run_batch(jobs), strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            sampled: Sampled = outcome.result
            yield _row(
                name,
                request,
                sampled.answer.text,
                is_satisfied=sampled.verdict.satisfies(setting.config.accept_value),
                forward_passes=outcome.cost.forward_passes,
                token_positions=outcome.cost.token_positions,
                num_tokens=len(sampled.answer.tokens),
            )


def evaluate_rain(setting: Setting, requests: Sequence[Request]) -> Iterator[Row]:
    """Answers by RainLLM, giving out the best it has."""
    llm = RainLLM(
        model=setting.engine,
        rubric=setting.rubric,
        config=setting.config,
        seed=setting.seed,
        max_tokens=setting.max_tokens,
        on_unsatisfied="best",
    )
    for chunk in _chunks(requests, setting.max_concurrent):
        result = llm.generate([demo_world.as_prompt(request) for request in chunk])
        for request, (generation,) in zip(chunk, result.generations, strict=True):
            info = (generation.generation_info or {})["rain"]
            counts = ("forward_passes", "token_positions", "num_tokens", "num_simulations", "num_rewinds")
            yield _row(
                f"RAIN {setting.config.preset_name}",
                request,
                generation.text,
                is_satisfied=info["is_satisfied"],
                **{name: info[name] for name in (*counts, "num_token_sets")},
            )


def summarize(rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    """The figures of one strategy; shares in [0, 1], counts per answer."""
    benign = [row for row in rows if row.is_helpful is not None]
    harmless = _share(row.is_harmless for row in rows)
    helpful = _share(row.is_helpful for row in benign)
    return {
        "num_prompts": len(rows),
        "harmless": harmless,
        "harmless_on_harmful": _share(row.is_harmless for row in rows if row.kind == "harmful"),
        "harmless_on_late": _share(row.is_harmless for row in rows if row.kind == "late"),
        "helpful": helpful,
        "product": harmless * helpful,
        "would_refuse": _share(not row.is_satisfied for row in rows),
        "forward_passes": _mean(row.forward_passes for row in rows),
        "token_positions": _mean(row.token_positions for row in rows),
        "answer_tokens": _mean(row.num_tokens for row in rows),
        "seconds": seconds / len(rows) if rows else 0.0,
        "simulations": _mean(row.num_simulations for row in rows),
        "rewinds": _mean(row.num_rewinds for row in rows),
        "simulations_per_token_set": sum(row.num_simulations for row in rows)
        / max(1, sum(row.num_token_sets for row in rows)),
    }


def main() -> None:
    """Runs the evaluation, prints a table, and writes all rows where `--out` says."""
    arguments = _parse_arguments()
    requests = demo_world.test_requests(arguments.num_harmful, arguments.num_benign, seed=arguments.seed)
    rows, summaries = [], {}
    with Progress(console=Console(stderr=True)) as progress:
        for name, (config, strategy) in _strategies(arguments).items():
            setting = _setting(arguments, config)
            started = time.monotonic()
            own = list(progress.track(strategy(setting, requests), total=len(requests), description=name))
            summaries[name] = summarize(own, time.monotonic() - started)
            rows += own
    Console(width=max(Console().width, TABLE_WIDTH)).print(render(summaries))
    if arguments.out is not None:
        report = {"settings": _settings(arguments), "summaries": summaries, "rows": [asdict(row) for row in rows]}
        write_whole(arguments.out, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


Strategy: TypeAlias = Callable[[Setting, Sequence[Request]], Iterator[Row]]


def _strategies(arguments: argparse.Namespace) -> dict[str, tuple[RainConfig, Strategy]]:
    """What is compared, and with which settings: what samples has the judge of the first preset of its temperature."""
    configs = [RainConfig.preset(name) for name in arguments.presets]
    strategies: dict[str, tuple[RainConfig, Strategy]] = {}
    for num_answers in (1, arguments.best_of):
        for config in configs:
            name = _sampling_name(config.temperature, num_answers)
            strategies.setdefault(name, (config, partial(evaluate_sampling, num_answers=num_answers)))
    return strategies | {f"RAIN {config.preset_name}": (config, evaluate_rain) for config in configs}


def _sampling_name(temperature: float, num_answers: int) -> str:
    return f"{'vanilla' if num_answers == 1 else f'best-of-{num_answers}'}, T={temperature:g}"


def _setting(arguments: argparse.Namespace, config: RainConfig) -> Setting:
    return Setting(
        engine=load_engine(arguments.model),
        rubric=Rubric.load("harmlessness"),
        config=config,
        seed=arguments.seed,
        max_tokens=arguments.max_tokens,
        max_concurrent=arguments.max_concurrent,
    )


def render(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """The summaries side by side, a column a strategy."""
    table = Table(title="Demo world, unseen prompts; judged by the oracle, nothing refused")
    table.add_column("", no_wrap=True)
    for name in summaries:
        table.add_column(name, justify="right")
    for label, key, form in (
        ("harmless", "harmless", "{:.1%}"),
        ("  on harmful requests", "harmless_on_harmful", "{:.1%}"),
        ("  on late-harm requests", "harmless_on_late", "{:.1%}"),
        ("helpful (benign requests)", "helpful", "{:.1%}"),
        ("harmless x helpful", "product", "{:.3f}"),
        ("`refuse` would have refused", "would_refuse", "{:.1%}"),
        ("forward passes an answer", "forward_passes", "{:.0f}"),
        ("token positions an answer", "token_positions", "{:.0f}"),
        ("tokens an answer", "answer_tokens", "{:.0f}"),
        ("seconds an answer, merged", "seconds", "{:.2f}"),
        ("simulations an answer", "simulations", "{:.0f}"),
        ("rewinds an answer", "rewinds", "{:.0f}"),
        ("simulations a token set", "simulations_per_token_set", "{:.1f}"),
    ):
        table.add_row(label, *(form.format(summary[key]) for summary in summaries.values()))
    return table


def _sampling_job(setting: Setting, prompt: str, num_answers: int) -> drivers.Job[Sampled]:
    context = setting.engine.open(prompt, max_tokens=setting.max_tokens)
    judging = open_judge(setting.rubric, setting.engine, setting.config, loaded=Loaded(), context=context)
    steps = best_of(
        context,
        judging.judge,
        prompt,
        num_answers=num_answers,
        temperature=setting.config.temperature,
        seed=derive_search_seed(setting.seed, prompt),
    )
    return drivers.Job(steps, {context: setting.engine, **judging.contexts})


def _row(strategy: str, request: Request, answer: str, **figures: Any) -> Row:
    return Row(
        strategy=strategy,
        kind=request.kind,
        request=request.text,
        answer=answer,
        is_harmless=demo_world.is_harmless(request, answer),
        is_helpful=demo_world.is_helpful(request, answer) if request.is_benign else None,
        **figures,
    )


def _chunks(requests: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
    return (requests[start : start + size] for start in range(0, len(requests), size))


def _share(truths: Iterable[bool | None]) -> float:
    return _mean(float(bool(truth)) for truth in truths)


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return sum(values) / len(values) if values else 0.0


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name != "out"}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="Hugging Face folder or id; default: the bundled model")
    presets = list(PRESETS)
    parser.add_argument("--presets", nargs="+", choices=presets, default=presets, help="of RainConfig")
    parser.add_argument("--num-harmful", type=int, default=150)
    parser.add_argument("--num-benign", type=int, default=150)
    parser.add_argument("--best-of", type=int, default=16, help="answers that best-of-n samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--max-concurrent", type=int, default=10, help="prompts that share forward passes")
    parser.add_argument("--out", type=Path, help="a JSON file for all answers and figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
