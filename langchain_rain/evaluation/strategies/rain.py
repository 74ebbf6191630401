"""rain: a search by one of the presets, which gives the best it has."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_rain.arguments import Answer, RainArguments
from langchain_rain.config import RainConfig
from langchain_rain.engines.calling import Calls
from langchain_rain.evaluation.strategies.base import Answered, Content, Setting, Step
from langchain_rain.evaluation.strategies.making import Found, Making
from langchain_rain.evaluation.strategies.metering import metered
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import Committed, Event, Simulated

JUDGING = ("scoring", "min_option_mass", "calibrates")
"""Settings by which a judgement goes."""


@dataclass(frozen=True, slots=True)
class Rain:
    """Searches, with `on_unsatisfied="best"`: what a guardrail would refuse is given out, and told of.

    A preset brings its temperature and its own way of scoring questions. Whether an answer satisfies goes by the
    setting, as for all strategies: the answer is judged once more, for the record, where the preset's last judgement
    does not tell. What is vetoed, or of which nothing could be committed, is refused all the same. Within a budget the
    search ends with the best it has.
    """

    setting: Setting
    name: str
    config: RainConfig

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Strategy`."""
        return {"strategy": self.name, "search": self.config.model_dump(mode="json"), **self.setting.identity}

    async def answer(
        self, case_id: str, content: Content, *, seed: int, prefill: str = "", max_positions: int | None = None
    ) -> Answered:
        """See `Strategy`."""
        making = Making.of(self.setting, content, prefill, max_positions, seed=seed)
        answer = self._begin(making, seed, max_positions)
        making.meter.watch(answer.job.contexts)
        events: list[Event] = []
        limit = max_positions if making.meter.is_exact else None
        steps = metered(answer.job.steps, making.meter, making.consider, events, max_positions=limit)
        result = await making.run(replace(answer.job, steps=steps))
        if not making.meter.is_exact:
            making.consider()
        events += result.events
        making.steps += steps_of(events)
        found = await self._found(making, answer, result, rewinds_at(events))
        return making.answered(found, case_id, self.name, seed)

    def _begin(self, making: Making, seed: int, max_positions: int | None) -> Answer:
        """Begins the search; models whose calls alone tell what they take end it by that."""
        setting = self.setting
        arguments = RainArguments(
            model=setting.writer,
            judge=None if setting.judge is setting.writer else setting.judge,
            rubric=setting.rubric,
            config=self.config if setting.asks_ahead else self.config.model_copy(update={"lookahead": 0}),
            seed=seed,
            max_tokens=setting.max_tokens,
            stop=list(setting.stop),
            on_unsatisfied="best",
            max_forward_tokens=None if making.meter.is_exact else max_positions,
            loaded=setting.loaded,
        )
        prompt = making.question.prompt(setting.writer, max_tokens=setting.max_tokens)
        calls = Calls(loop=asyncio.get_running_loop())
        return arguments.begin(prompt, making.transcript, None, calls=calls)

    async def _found(self, making: Making, answer: Answer, result: SearchResult, rewinds: Sequence[int]) -> Found:
        decision = answer.arguments.policy.decide(result, answer.search.satisfied_text, result.text)
        verdict, checking_positions = result.verdict, 0
        if verdict is None or not self._judges_alike:
            verdict, checking_positions = await making.check(result.text)
        is_refused = decision.action == "refuse"
        text = making.question.shown(decision.answer, self.setting.writer)
        return Found(
            answer.arguments.refusal_message if is_refused else text,
            "refused" if is_refused else result.stop_reason,
            verdict,
            len(result.tokens),
            gave_up=result.stop_reason in ("dead_end", "budget"),
            checking_positions=checking_positions,
            num_simulations=result.num_simulations,
            rewinds_at=tuple(rewinds),
        )

    @property
    def _judges_alike(self) -> bool:
        """Whether the search judges as all strategies are judged."""
        return all(getattr(self.config, name) == getattr(self.setting.config, name) for name in JUDGING)


def rewinds_at(events: Sequence[Event]) -> list[int]:
    """How many tokens of the answer stayed at each rewind, in their order."""
    places, length = [], 0
    for event in events:
        if isinstance(event, Simulated):
            places += [length - event.num_rewound_tokens] if event.num_rewound_tokens else []
            length = len(event.prefix)
    return places


def steps_of(events: Sequence[Event]) -> list[Step]:
    """What has happened in a search: drafts behind what was committed, what was taken back, what was kept."""
    steps: list[Step] = []
    committed, num_committed, reached = "", 0, ""
    for event in events:
        if isinstance(event, Committed):
            committed += event.token_set.text
            num_committed += len(event.token_set.tokens)
            steps.append(Step(event.token_set.text, event.value, "commit", len(event.token_set.tokens)))
            continue
        leaf = event.draft.removesuffix(event.rollout)
        if event.num_rewound_tokens:
            steps.append(Step(reached[_num_common(reached, leaf) :], None, "rewind", event.num_rewound_tokens))
        behind = event.draft.removeprefix(committed)
        steps.append(Step(behind, event.verdict.value, "draft", max(0, len(event.prefix) - num_committed)))
        reached = leaf
    return steps


def _num_common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))
