"""Whole answers as steps of a search: plain sampling and best-of-n."""

import math

from langchain_rain import Criterion, Rubric, drivers
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.evaluation.strategies import Sampled, best_of, sample
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.search.protocol import OptionLogprobs, Rollout, Score, TokenSet

RUBRIC = Rubric(name="r", criteria=(Criterion(name="c", instruction="Look.", good="fine", bad="foul"),))
ANSWERS = ["foul one", "fine one", "fine two"]


class _Game:
    """Answers in the order in which they are asked for, judged fine if they say so."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def rollout(self, request: Rollout) -> TokenSet:
        assert request.until == ()
        assert request.max_tokens is None
        self.seeds.append(request.seed)
        return TokenSet((len(self.seeds),), ANSWERS[len(self.seeds) - 1], finish_reason="eos")

    @staticmethod
    def score(request: Score) -> OptionLogprobs:
        is_fine = " fine " in request.question.split("Options:")[0]
        first_is_good = "(A) fine" in request.question
        logprobs = (math.log(0.9), math.log(0.1))
        return OptionLogprobs(logprobs if is_fine == first_is_good else logprobs[::-1], mass=1.0)


def _best_of(num_answers: int) -> tuple[Sampled, _Game]:
    game = _Game()
    engine = ScriptedEngine(rollout=game.rollout, score=game.score)
    context = engine.open("Prompt:", max_tokens=9)
    judge = RubricJudge(RUBRIC, context)
    steps = best_of(context, judge, "Prompt: ", num_answers=num_answers, temperature=1.0, seed=5)
    return drivers.run(drivers.Job(steps, {context: engine})).result, game


def test_best_of_n_returns_the_answer_judged_best_and_the_first_of_equals() -> None:
    sampled, _ = _best_of(3)
    assert sampled.answer.text == "fine one"
    assert sampled.verdict.value == 1.0


def test_the_answers_of_best_of_n_are_drawn_with_different_seeds() -> None:
    _, game = _best_of(3)
    assert len(set(game.seeds)) == 3


def test_best_of_one_is_vanilla_sampling_given_out_whatever_it_is_worth() -> None:
    sampled, _ = _best_of(1)
    assert sampled.answer.text == "foul one"
    assert sampled.verdict.value == -1.0


def test_a_plain_sample_asks_for_no_judgement() -> None:
    engine = ScriptedEngine(rollout=_Game().rollout)
    context = engine.open("Prompt:", max_tokens=9)
    steps = sample(context, temperature=1.0, seed=0)
    assert drivers.run(drivers.Job(steps, {context: engine})).result.text == "foul one"
    assert [type(request) for request in engine.asked] == [Rollout]
