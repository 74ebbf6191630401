"""A run answers and judges each thing once, whatever stops it, and tells of it what is true."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from langchain_rain import EngineError, RainConfig, RainConfigError
from langchain_rain.evaluation.notes import notes_of
from langchain_rain.evaluation.outcomes import OracleJudge
from langchain_rain.evaluation.report.tables import BETTER, LESS, cost_table, verdict
from langchain_rain.evaluation.results import Results
from langchain_rain.evaluation.runs import ANSWERS, Found, Plan, run
from langchain_rain.evaluation.strategies import Setting
from langchain_rain.evaluation.strategies.rain import Rain
from langchain_rain.evaluation.suites import demo
from langchain_rain.evaluation.summaries import summarised
from tests.eval_world import Ruled, WordJudge, WordPairs, check, plan, run_slowly, suite
from tests.forked import forked
from tests.scripted_world import RUBRIC, Kitchen

ROOT = Path(__file__).parents[1]

NUM_ROWS = 240 + 240 + 120 + 60
"""What `tests.eval_world` writes: answers, outcomes, preferences, checks."""


def told(planned: Plan, found: Found) -> Results:
    return summarised(planned, found, started=datetime(2026, 1, 1, tzinfo=UTC), seconds=1.0, settings={"a": 1})


def texts(found: Found) -> dict[str, str]:
    return {each: answer.text for each, answer in found.answers.items()}


def lines(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("concurrency", [1, 3, 100])
async def test_each_case_is_answered_and_judged_once_by_each_strategy_with_each_seed(
    tmp_path: Path, concurrency: int
) -> None:
    weak, strong, judge = Ruled("weak", 0.4), Ruled("strong", 0.9), WordJudge()
    planned = plan(weak, strong, seeds=(3, 4), outcome_judge=judge)
    found = await run(planned, tmp_path, concurrency=concurrency)
    assert len(found.answers) == len(found.outcomes) == len(judge.judged) == 8 * 2 * 2
    assert sorted(weak.asked) == sorted((case.id, seed, None) for case in planned.suite.cases for seed in (3, 4))
    assert all(
        outcome.labels == {"good": found.answers[each].text == " good"} for each, outcome in found.outcomes.items()
    )
    other = await run(plan(Ruled("weak", 0.4), Ruled("strong", 0.9), seeds=(3, 4)), tmp_path / "other", concurrency=7)
    assert texts(other) == texts(found)


async def test_what_is_answered_is_not_answered_again_and_more_is_added(tmp_path: Path) -> None:
    await run(plan(Ruled("weak", 0.4)), tmp_path, concurrency=4)
    weak, strong, judge = Ruled("weak", 0.4), Ruled("strong", 0.9), WordJudge()
    more = plan(weak, strong, num_cases=10, seeds=(0, 1), outcome_judge=judge)
    found = await run(more, tmp_path, concurrency=4)
    assert (len(weak.asked), len(strong.asked), len(judge.judged)) == (12, 20, 32)
    assert len(lines(tmp_path / ANSWERS)) == len(lines(tmp_path / more.outcomes_name)) == len(found.answers) == 40


async def test_answers_of_a_strategy_that_has_changed_are_not_taken_for_its_own(tmp_path: Path) -> None:
    await run(plan(Ruled("weak", 0.4)), tmp_path, concurrency=4)
    with pytest.raises(RainConfigError, match="made from another input"):
        await run(plan(Ruled("weak", 0.5)), tmp_path, concurrency=4)


async def test_a_folder_keeps_to_its_settings(tmp_path: Path) -> None:
    await run(plan(Ruled("weak", 0.4)), tmp_path, concurrency=4)
    with pytest.raises(RainConfigError, match="made by other settings"):
        await run(plan(Ruled("weak", 0.4), budget_of="weak"), tmp_path, concurrency=4)


async def test_another_judge_has_a_file_of_its_own_and_it_is_told_how_far_they_agree(tmp_path: Path) -> None:
    first = plan(Ruled("weak", 0.5), num_cases=20)
    await run(first, tmp_path, concurrency=4)
    second = plan(Ruled("weak", 0.5), num_cases=20, outcome_judge=WordJudge(name="another", unsure=("question 3",)))
    found = await run(second, tmp_path, concurrency=4)
    file = first.outcomes_name
    assert found.others.keys() == {file}
    (note,) = [each for each in told(second, found).notes if "say the same" in each]
    assert note == f"another and reader ({file}) say the same of 'good' for 19 of 19 answers (Cohen's kappa 1.00)."
    fewer = replace(second, suite=suite(5))
    (note,) = [each for each in told(fewer, await run(fewer, tmp_path, concurrency=4)).notes if "say the same" in each]
    assert "for 4 of 4 answers" in note  # of this run alone


async def test_judges_of_one_name_are_told_apart_by_their_files(tmp_path: Path) -> None:
    for unsure in ((), ("question 1",), ("question",)):
        sheet = WordJudge(name="people", unsure=unsure)
        await run(plan(Ruled("weak", 0.5), outcome_judge=sheet), tmp_path, concurrency=4)
    last = plan(Ruled("weak", 0.5))
    notes = [each for each in told(last, await run(last, tmp_path, concurrency=4)).notes if "say the same" in each]
    assert len(notes) == 2  # the third knows nothing
    assert {re.search(r"for \d of (\d)", note)[1] for note in notes} == {"8", "7"}  # type: ignore[index]


async def test_what_is_no_ledger_of_a_judge_stops_no_run(tmp_path: Path) -> None:
    first = plan(Ruled("weak", 0.5))
    await run(first, tmp_path, concurrency=4)
    rows = (tmp_path / first.outcomes_name).read_bytes()
    (tmp_path / "outcomes-backup.jsonl").write_bytes(rows)
    (tmp_path / "outcomes-mine.jsonl").write_text('{"a": 1}\n')
    torn, strange = "outcomes-0123456789abcdef.jsonl", "outcomes-fedcba9876543210.jsonl"
    (tmp_path / torn).write_bytes(rows[:-20])
    (tmp_path / strange).write_text('{"id": "a", "b": 1}\n')
    row = json.loads(rows.splitlines()[0])
    wrongs: list[dict[str, Any]] = [{"labels": None}, {"labels": ["good"]}, {"case_id": [1]}]
    for number, wrong in enumerate(wrongs):
        path = tmp_path / f"outcomes-{number:016d}.jsonl"
        path.write_text(json.dumps({**row, **wrong}) + "\n")
    (tmp_path / "outcomes-aaaaaaaaaaaaaaaa.jsonl").mkdir()
    (tmp_path / "outcomes-bbbbbbbbbbbbbbbb.jsonl").write_text(json.dumps({**row, "labels": {"good": 0.5}}) + "\n")
    found = await run(first, tmp_path, concurrency=4)
    assert found.others.keys() == {"outcomes-bbbbbbbbbbbbbbbb.jsonl"}  # of numbers there is no agreement
    assert len(found.unreadable) == 5
    notes = told(first, found).notes
    assert any(note.startswith("Passed over: ") and torn in note for note in notes)
    assert any(note.startswith("Passed over: ") and f"{strange}, line 1" in note for note in notes)
    assert not any("say the same" in note for note in notes)


async def test_what_is_known_of_a_case_belongs_to_what_was_found(tmp_path: Path) -> None:
    await run(plan(Ruled("weak", 0.5)), tmp_path, concurrency=4)
    changed = plan(Ruled("weak", 0.5))
    cases = tuple(replace(each, reference={"correct_answers": ["another"]}) for each in changed.suite.cases)
    with pytest.raises(RainConfigError, match="made from another input"):
        await run(replace(changed, suite=replace(changed.suite, cases=cases)), tmp_path, concurrency=4)


async def test_the_budget_of_a_case_is_what_the_reference_took_for_it_with_the_same_seed(tmp_path: Path) -> None:
    weak, strong = Ruled("weak", 0.4), Ruled("strong", 0.9, positions=100)
    await run(plan(weak, strong, num_cases=12, seeds=(0, 1), budget_of="strong"), tmp_path, concurrency=5)
    assert {budget for _, _, budget in strong.asked} == {None}
    assert all(budget == 100 + len(case_id) for case_id, _, budget in weak.asked)
    assert len(weak.asked) == 24


async def test_what_fails_is_named_passed_over_and_tried_again(tmp_path: Path) -> None:
    def fails(case_id: str, seed: int) -> Exception | None:
        return EngineError(f"away at {case_id}", is_retryable=True) if case_id == "world:3" else None

    weak, strong = Ruled("weak", 0.4), Ruled("strong", 0.9, fails=fails)
    planned = plan(weak, strong, budget_of="strong")
    found = await run(planned, tmp_path, concurrency=4)
    (failure,) = found.failures
    assert "away at world:3" in failure.error
    assert "world:3" not in {case_id for case_id, _, _ in weak.asked}  # there is no budget to keep to
    assert len(found.answers) == 14
    notes = told(planned, found).notes
    assert any("1 answers or judgements failed; the first: away at world:3" in note for note in notes)
    assert "2 of 16 answers are missing." in notes
    assert {each.num_answers for each in told(planned, found).strategies} == {7}
    again = await run(plan(Ruled("weak", 0.4), Ruled("strong", 0.9), budget_of="strong"), tmp_path, concurrency=4)
    assert (len(again.answers), again.failures) == (16, [])


async def test_rates_and_differences_are_those_of_the_answers(tmp_path: Path) -> None:
    judge = WordJudge(unsure=("question 5",))
    planned = plan(Ruled("weak", 0.3), Ruled("strong", 0.95), num_cases=60, outcome_judge=judge)
    found = await run(planned, tmp_path, concurrency=4)
    results = told(planned, found)
    by_name = {each.name: each for each in results.strategies}
    good = {
        name: [answer.text == " good" for answer in found.answers.values() if answer.strategy == name]
        for name in by_name
    }
    unsure = {f"world:{number}" for number in (5, *range(50, 60))}
    for name, strategy in by_name.items():
        known = [
            answer.text == " good"
            for answer in found.answers.values()
            if answer.strategy == name and answer.case_id not in unsure
        ]
        assert strategy.rates["good"].value == pytest.approx(sum(known) / len(known))
        assert (strategy.rates["good"].num, strategy.unknown["good"]) == (49, 11)
        assert strategy.would_refuse is not None
        assert strategy.would_refuse.value == pytest.approx(1 - sum(good[name]) / 60)
        assert list(strategy.groups) == ["even", "odd"]
        assert strategy.costs.seconds_p50 == 0.5
        assert set(strategy.rewinds_at) == {0.5}
    (comparison,) = results.comparisons
    assert (comparison.strategy, comparison.other, comparison.num) == ("strong", "weak", 49)
    rates = {name: each.rates["good"].value for name, each in by_name.items()}
    assert comparison.difference == pytest.approx(rates["strong"] - rates["weak"])
    assert comparison.p_value is not None
    assert comparison.p_value < 0.001
    assert any("strong is more often good than weak" in note for note in results.notes)
    order = {False: 0, None: 1, True: 2}
    ranks = [order[each.labels["good"]] for each in results.worst]  # type: ignore[index]  # no value in between here
    assert ranks == sorted(ranks)
    assert Results.from_json(results.to_json()) == results


async def test_a_strategy_may_be_compared_with_another_one_than_the_rest(tmp_path: Path) -> None:
    strategies = (Ruled("a, changed", 0.1), Ruled("a", 0.5), Ruled("b, changed", 0.2), Ruled("b", 0.9))
    bases = {"a, changed": "a", "b, changed": "b"}
    planned = plan(*strategies, num_cases=20, pair_judges=[WordPairs()], bases=bases)
    results = told(planned, await run(planned, tmp_path, concurrency=4))
    pairs = [("a", "a, changed"), ("b", "a"), ("b", "b, changed")]
    assert [(each.strategy, each.other) for each in results.comparisons] == pairs
    assert [(each.strategy, each.other) for each in results.win_rates] == pairs
    assert [each.name for each in results.strategies if each.is_reference] == ["a", "b"]
    costs = {str(row[0].text): row[1].detail for row in cost_table(results).rows}
    assert costs == dict.fromkeys(("a, changed", "a", "b, changed", "b"), "\u00d71.0")


async def test_what_differs_is_told_in_a_sentence_for_each_label_and_verdict(tmp_path: Path) -> None:
    same = [Ruled(f"same {number}", 0.9) for number in range(6)]
    planned = plan(Ruled("weak", 0.1), Ruled("poor", 0.2), *same, Ruled("strong", 0.9), num_cases=60)
    notes = told(planned, await run(planned, tmp_path, concurrency=8)).notes
    assert len(notes) == 2
    assert re.fullmatch(
        r"strong is more often good than weak \(\+\d\d\.\d points, p < 0\.001\) and poor \(.*, p < 0\.001\)\.", notes[0]
    )
    assert notes[1] == "strong is not shown to be more or less often good than 6 others."


def test_a_plan_that_cannot_be_run_is_named() -> None:
    with pytest.raises(RainConfigError, match="equal budget: one of weak is allowed, given 'strong'"):
        plan(Ruled("weak", 0.4), budget_of="strong")
    for seeds in ((), (1, 1)):
        with pytest.raises(RainConfigError, match="seeds: at least one, and each once"):
            plan(Ruled("weak", 0.4), seeds=seeds)
    assert suite(2).num_rows == 2


def test_killed_ten_times_it_comes_to_the_report_of_an_unbroken_run(tmp_path: Path) -> None:
    rng = random.Random(5)
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    broken.mkdir()
    unbroken.mkdir()

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "tests.eval_world", str(folder)], cwd=ROOT)

    def num_rows() -> int:
        return sum(path.read_bytes().count(b"\n") for path in broken.glob("*.jsonl"))

    for _ in range(10):
        before, process = num_rows(), forked(run_slowly, broken)
        deadline = time.monotonic() + 60
        while num_rows() == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)  # until it is under way, whose start takes a while
        time.sleep(rng.random() * 0.25)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert 10 <= num_rows() < NUM_ROWS
    for folder in (broken, unbroken):
        assert start(folder).wait(timeout=120) == 0
    for name in ("report.html", "report.md", "results.json"):
        assert (broken / "report" / name).read_bytes() == (unbroken / "report" / name).read_bytes()
    ids = [(path.name, line["id"]) for path in broken.glob("*.jsonl") for line in lines(path)]
    assert len(ids) == len(set(ids)) == NUM_ROWS


async def test_of_what_less_is_better_who_has_less_has_won(tmp_path: Path) -> None:
    judge = WordJudge(labels=("attack_succeeded",))
    planned = plan(Ruled("weak", 0.9), Ruled("strong", 0.1), num_cases=40, outcome_judge=judge)
    results = told(planned, await run(planned, tmp_path, concurrency=4))
    (comparison,) = results.comparisons
    assert comparison.difference < -0.5
    assert comparison.better > 20 > comparison.worse
    assert verdict(results, comparison) == BETTER
    assert results.worst[0].labels["attack_succeeded"]  # the worst come first


async def test_whether_a_refusal_is_right_depends_on_the_request(tmp_path: Path) -> None:
    judge = WordJudge(labels=("refused",))
    planned = plan(Ruled("weak", 0.9), Ruled("strong", 0.1), num_cases=40, outcome_judge=judge)
    results = told(planned, await run(planned, tmp_path, concurrency=4))
    assert (results.neutral_labels, results.worse_labels, results.labels) == (("refused",), (), ())
    (comparison,) = results.comparisons
    assert verdict(results, comparison) == LESS
    assert any("strong is less often refusing than weak" in note for note in results.notes)
    rated = replace(planned, suite=replace(planned.suite, rated="odd"))
    of_odd = told(rated, await run(rated, tmp_path, concurrency=4))
    assert (of_odd.neutral_labels, of_odd.worse_labels) == ((), ("refused",))
    assert verdict(of_odd, of_odd.comparisons[0]) == BETTER
    assert {each.num for each in of_odd.comparisons} == {20}
    assert all(each.rates["refused"] == each.groups["odd"]["refused"] for each in of_odd.strategies)
    assert {each.would_refuse.num for each in of_odd.strategies if each.would_refuse is not None} == {20}


async def test_only_answers_of_the_same_seed_are_compared(tmp_path: Path) -> None:
    class Unsure(WordJudge):
        """Cannot tell of the first answers of the one, and the second answers of the other."""

        async def judge(self, *given: Any, group: str) -> Mapping[str, Any]:
            found = dict(await super().judge(*given, group=group))
            return found if found["good"] else {"good": None}

    planned = plan(Ruled("weak", 0.5), Ruled("strong", 0.5), num_cases=40, seeds=(0, 1), outcome_judge=Unsure())
    found = await run(planned, tmp_path, concurrency=4)
    results = told(planned, found)
    good = {(each.strategy, each.case_id, each.seed) for each in found.answers.values() if each.text == " good"}
    both = {case_id for name, case_id, seed in good if name == "weak" and ("strong", case_id, seed) in good}
    (comparison,) = results.comparisons
    assert (comparison.num, comparison.difference) == (len(both), 0.0)


# --- What else is found ---


async def test_answers_of_the_reference_are_compared_with_those_of_each_other_strategy(tmp_path: Path) -> None:
    judge = WordPairs(unsure=("question 7\n",))
    strategies = (Ruled("weak", 0.2), Ruled("middling", 0.6), Ruled("strong", 0.95))
    planned = plan(*strategies, num_cases=40, seeds=(0, 1), pair_judges=[judge])
    found = await run(planned, tmp_path, concurrency=5)
    assert len(judge.compared) == len(found.preferences) == 2 * 40 * 2
    weak, middling = told(planned, found).win_rates
    assert [(each.by, each.strategy, each.other) for each in (weak, middling)] == [
        ("goodness", "strong", "weak"),
        ("goodness", "strong", "middling"),
    ]
    good = {(each.strategy, each.case_id, each.seed): each.text == " good" for each in found.answers.values()}
    for each in (weak, middling):
        assert each.rate is not None
        assert each.unknown == 2
        points = [
            (1 + good["strong", case_id, seed] - good[each.other, case_id, seed]) / 2
            for name, case_id, seed in good
            if name == "strong" and case_id != "world:7"
        ]
        assert each.rate.value == pytest.approx(sum(points) / len(points))
        assert each.wins + each.ties + each.losses == each.rate.num == 39
        assert each.position_bias is not None
        assert each.position_bias > 0  # ties fall to the first place
    assert weak.p_value is not None
    assert weak.p_value < 0.01
    again = WordPairs(unsure=("question 7\n",))
    await run(plan(*strategies, num_cases=40, seeds=(0, 1), pair_judges=[again]), tmp_path, concurrency=5)
    assert again.compared == []


async def test_a_judge_of_pairs_that_can_never_tell_has_no_win_rate(tmp_path: Path) -> None:
    planned = plan(Ruled("weak", 0.2), Ruled("strong", 0.9), pair_judges=[WordPairs(unsure=("question",))])
    (won,) = told(planned, await run(planned, tmp_path, concurrency=5)).win_rates
    assert (won.rate, won.p_value, won.position_bias, won.unknown) == (None, None, None, 8)
    assert (won.wins, won.ties, won.losses) == (0, 0, 0)


async def test_what_the_judge_says_where_the_truth_is_known_is_its_accuracy(tmp_path: Path) -> None:
    planned = plan(Ruled("weak", 0.4), checks=[check(number) for number in range(30)])
    accuracy = told(planned, await run(planned, tmp_path, concurrency=4)).judge_accuracy
    assert accuracy is not None
    right = [number % 5 != 4 and number % 3 != 2 for number in range(30)]
    assert accuracy.rate.value == pytest.approx(sum(right) / 30)
    assert accuracy.rate.num == 30
    assert (accuracy.unknown, accuracy.balanced) == (6, None)
    fewer = plan(Ruled("weak", 0.4), checks=[check(number) for number in range(3)])
    accuracy = told(fewer, await run(fewer, tmp_path, concurrency=4)).judge_accuracy
    assert accuracy is not None
    assert accuracy.rate.num == 3  # what was asked for more cases does not count


async def test_in_the_demo_world_a_judge_is_measured_on_the_answers(tmp_path: Path) -> None:
    data = demo.make(12)
    judge = WordJudge(labels=("harmless",))
    engine = Kitchen()
    planned = Plan(data, [Ruled("weak", 0.4)], (0,), Setting(engine, engine, RUBRIC), judge)
    found = await run(planned, tmp_path, concurrency=4)
    accuracy = told(planned, found).judge_accuracy
    assert accuracy is not None
    is_harmless = {case.id: case.reference["is_benign"] for case in data.cases}  # whatever else than a refusal is said
    num_right = sum((each.text == " good") == is_harmless[each.case_id] for each in found.answers.values())
    assert accuracy.rate.num == 12
    assert accuracy.rate.value == pytest.approx(num_right / 12)
    oracle = replace(planned, outcome_judge=OracleJudge())
    assert told(oracle, await run(oracle, tmp_path, concurrency=4)).judge_accuracy is None


async def test_searches_that_the_budget_of_another_cut_short_are_counted() -> None:
    engine = Kitchen()
    setting = Setting(engine, engine, RUBRIC)
    strategies = (Rain(setting, "rain-x", RainConfig()), Ruled("strong", 0.9))
    planned = Plan(suite(4), strategies, (0,), setting, WordJudge(), "strong")
    reasons: Iterator[Any] = iter(["budget", "refused", "eos", "refused", "budget", "refused", "eos", "eos"])
    answers = {
        task.id: replace(
            await Ruled(task.strategy.name, 0.9).answer(task.case.id, "", seed=0), finish_reason=next(reasons)
        )
        for task in planned.tasks
    }
    (told_of,) = [note for note in notes_of(planned, Found(answers=answers), []) if "searches" in note]
    assert told_of == "3 of 4 searches of rain-x ended with nothing that satisfies: that budget is not their own."
