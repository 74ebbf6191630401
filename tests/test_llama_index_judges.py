"""Rubrics in LlamaIndex: nodes that are dropped, answers judged by what was retrieved, evaluations."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from llama_index.core.evaluation import BatchEvalRunner
from llama_index.core.evaluation.base import BaseEvaluator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import BaseSynthesizer, ResponseMode
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode

from langchain_rain import Criterion, EngineError, RainConfigError, Rubric, RubricError
from langchain_rain.llama_index import (
    GroundedSynthesizer,
    RainEvaluator,
    RainLlamaIndexLLM,
    RainNodePostprocessor,
)
from langchain_rain.rubrics import PatternCriterion
from tests.conformance.worlds import CHEF_CONFIG, QUESTION, REFUSAL
from tests.fake_chat_models import FakeChat, in_turn, letter_judge
from tests.llama_index_worlds import BREAKFAST, SUPPER, index_of, settings
from tests.scripted_world import CONFIG, RUBRIC, Kitchen
from tests.test_llama_index_llm import chef_llm, kitchen_llm

TWO = Rubric(
    name="two",
    criteria=(*RUBRIC.criteria, Criterion(name="brief", instruction="Is it brief?", good="YES", bad="NO")),
)


@pytest.fixture(autouse=True)
def without_downloads() -> Iterator[None]:
    with settings():
        yield


def nodes(*texts: str, **metadata: Any) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=str(number), text=text, metadata=metadata), score=0.5)
        for number, text in enumerate(texts)
    ]


def dropping(kitchen: Any = None, **arguments: Any) -> RainNodePostprocessor:
    settings = {"judge": kitchen or Kitchen(), "rubric": RUBRIC, "config": CONFIG}
    return RainNodePostprocessor(**{**settings, **arguments})


# --- Nodes -----------------------------------------------------------------------------------------------------------


async def test_nodes_that_do_not_satisfy_are_dropped_in_one_go() -> None:
    kitchen = Kitchen()
    processor = dropping(kitchen)
    assert isinstance(processor, BaseNodePostprocessor)
    given = nodes(SUPPER, BREAKFAST, SUPPER)
    for kept in (
        processor.postprocess_nodes(given, query_str=QUESTION),
        await processor.apostprocess_nodes(given, query_str=QUESTION),
    ):
        assert [node.node_id for node in kept] == ["0", "2"]
    assert kitchen.most_at_once == 3
    assert kitchen.is_idle


def test_a_node_that_is_kept_tells_of_its_verdict_to_people_alone() -> None:
    given = nodes(SUPPER)
    (kept,) = dropping().postprocess_nodes(given, query_str=QUESTION)
    assert kept.score == 0.5
    assert kept.node.metadata == {"rain": {"value": 1.0, "values": {"edible": 1.0}}}
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert kept.node.get_content(metadata_mode=mode) == SUPPER
    assert given[0].node.metadata == {}  # what the index holds is not changed


def test_what_the_model_would_read_is_judged_with_the_query() -> None:
    kitchen = Kitchen()
    assert dropping(kitchen).postprocess_nodes(nodes(SUPPER, author="bleach"), query_str=QUESTION) == []
    assert all(f"Human: {QUESTION}\n\nAssistant: author: bleach" in asked.question for asked in kitchen.asked)  # type: ignore[union-attr]
    assert len(dropping().postprocess_nodes(nodes(SUPPER))) == 1  # there need not be a query


def failing() -> FakeChat:
    """A model that judges, and fails at what is about a crash."""

    def reply(messages: Any, arguments: Any) -> AIMessage:
        if "crash" in str(messages[-1].text):
            raise EngineError("The judge left.")
        return liking.reply(messages, arguments)

    liking = letter_judge()
    return FakeChat(reply=reply)


async def test_a_node_that_cannot_be_judged_is_dropped_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    given = [*nodes(SUPPER, "Make it crash."), NodeWithScore(node=ImageNode(id_="image"))]
    processor = dropping(failing())
    with caplog.at_level(logging.WARNING):
        assert [node.node_id for node in processor.postprocess_nodes(given, query_str=QUESTION)] == ["0"]
        assert [node.node_id for node in await processor.apostprocess_nodes(given, query_str=QUESTION)] == ["0"]
    assert "The node 1 is dropped, it could not be judged: EngineError" in caplog.text
    assert "The node image is dropped, it could not be judged: RainConfigError" in caplog.text
    with pytest.raises(EngineError, match="The judge left"):
        dropping(failing(), on_error="raise").postprocess_nodes(given)
    with pytest.raises(RainConfigError, match="holds no text"):
        dropping(on_error="raise").postprocess_nodes(given[2:])


def test_a_judge_that_abstains_keeps_nothing() -> None:
    assert dropping(Kitchen(mass=0.05)).postprocess_nodes(nodes(SUPPER)) == []


async def test_a_query_engine_reads_only_what_was_kept() -> None:
    chat = FakeChat(reply=in_turn(AIMessage("Soup.")))
    llm = RainLlamaIndexLLM(model=chat, judge=letter_judge(), rubric=RUBRIC)
    engine = index_of().as_query_engine(llm=llm, node_postprocessors=[dropping()])
    assert str(engine.query(QUESTION)) == str(await engine.aquery(QUESTION)) == "Soup."
    read = [str(messages[-1].text) for messages, _ in chat.asked]
    assert all(SUPPER in text for text in read)
    assert not any("bleach" in text for text in read)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"rubirc": RUBRIC}, "rubirc"),
        ({"on_error": "keep"}, "on_error"),
        ({"judge": 7}, "judge: a Hugging Face id"),
        ({"rubric": "grounded_in_context"}, "needs a value for 'documents'"),
        ({"rubric": "harmlesness"}, "no rubric 'harmlesness'"),
        ({"parameters": {"topic": "soup"}}, "takes no parameter 'topic'"),
    ],
)
def test_mistakes_show_when_it_is_made(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises((RainConfigError, RubricError), match=told):
        dropping(**arguments)


def test_a_judge_must_be_given() -> None:
    with pytest.raises(RainConfigError, match="judge: Field required"):
        RainNodePostprocessor(rubric=RUBRIC)


def test_what_a_rubric_leaves_open_is_given_once() -> None:
    judge = letter_judge()
    processor = RainNodePostprocessor(judge=judge, rubric="on_topic", parameters={"topic": "suppers"})
    assert len(processor.postprocess_nodes(nodes(SUPPER))) == 1
    assert all("suppers" in str(messages[-1].text) for messages, _ in judge.asked)


# --- Answers judged by what was retrieved ----------------------------------------------------------------------------

SAYS_EIGHT = AIMessage("Soup, at eight.")
SAYS_SEVEN = AIMessage("Soup, at seven.")


def grounded_llm(*drafts: AIMessage, **arguments: Any) -> tuple[RainLlamaIndexLLM, FakeChat]:
    """An LLM that says these things in turn, and its judge, who knows from the documents alone when supper is."""

    def is_bad(question: str) -> bool:
        return "These are documents." in question and "at eight" in question and "served at seven" in question

    judge = letter_judge(is_bad)
    chat = FakeChat(reply=in_turn(*drafts))
    settings = {"model": chat, "judge": judge, "rubric": RUBRIC, "config": CHEF_CONFIG, "seed": 1}
    return RainLlamaIndexLLM(**{**settings, **arguments}), judge


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.SIMPLE_SUMMARIZE])
async def test_a_query_engine_says_only_what_was_retrieved(streaming: bool, mode: ResponseMode) -> None:
    for is_async in (False, True):
        llm, judge = grounded_llm(SAYS_EIGHT, SAYS_SEVEN)
        synthesizer = GroundedSynthesizer(llm, streaming=streaming, response_mode=mode)
        assert isinstance(synthesizer, BaseSynthesizer)
        engine = index_of(SUPPER).as_query_engine(llm=llm, response_synthesizer=synthesizer)
        answer: Any = await engine.aquery(QUESTION) if is_async else engine.query(QUESTION)
        if streaming:
            pieces = [piece async for piece in answer.async_response_gen()] if is_async else [*answer.response_gen]
            assert "".join(pieces) == SAYS_SEVEN.content
        else:
            assert str(answer) == SAYS_SEVEN.content
        assert [node.text for node in answer.source_nodes] == [SUPPER]
        assert any("These are documents." in str(messages[-1].text) for messages, _ in judge.asked)


def test_the_own_rubric_holds_beside_unless_it_is_replaced() -> None:
    soupless = Rubric(name="soupless", criteria=(PatternCriterion(name="soupless", must_not_match="Soup", veto=True),))
    for replaces, wanted in ((False, REFUSAL), (True, SAYS_SEVEN.content)):
        llm, _ = grounded_llm(SAYS_SEVEN, rubric=soupless)
        synthesizer = GroundedSynthesizer(llm, replaces_rubric=replaces)
        assert str(synthesizer.synthesize(QUESTION, nodes(SUPPER))) == wanted


def test_templates_are_taken_and_may_be_changed() -> None:
    llm, _ = grounded_llm(SAYS_SEVEN)
    asked: FakeChat = llm.guard.model  # type: ignore[assignment]
    synthesizer = GroundedSynthesizer(llm, text_qa_template=PromptTemplate("First: {context_str} {query_str}"))
    synthesizer.synthesize(QUESTION, nodes(SUPPER))
    assert "text_qa_template" in synthesizer.get_prompts()
    synthesizer.update_prompts({"text_qa_template": PromptTemplate("Then: {context_str} {query_str}")})
    synthesizer.synthesize(QUESTION, nodes(SUPPER))
    assert [str(messages[-1].text) for messages, _ in asked.asked if "JSON" not in str(messages)] == [
        f"First: {SUPPER} {QUESTION}",
        f"Then: {SUPPER} {QUESTION}",
    ]


def test_what_says_nothing_is_no_document() -> None:
    llm, judge = grounded_llm(SAYS_SEVEN)
    assert str(GroundedSynthesizer(llm).synthesize(QUESTION, nodes(SUPPER, " "))) == SAYS_SEVEN.content
    result = RainEvaluator("grounded_in_context", judge=judge).evaluate(
        QUESTION, "Soup, at eight.", contexts=[SUPPER, ""]
    )
    assert not result.passing
    with pytest.raises(RubricError, match="it must say something"):
        GroundedSynthesizer(llm).synthesize(QUESTION, nodes(" "))


def test_it_takes_no_llm_whose_answers_would_not_be_judged_by_the_documents() -> None:
    for llm in (kitchen_llm(is_chat_model=False), "gpt"):
        with pytest.raises(RainConfigError, match="llm: a RainLlamaIndexLLM with is_chat_model=True"):
            GroundedSynthesizer(llm)  # type: ignore[arg-type]
    with pytest.raises(RainConfigError, match="is told of no documents"):
        GroundedSynthesizer(chef_llm(judge=lambda text: 1.0))
    with pytest.raises(RubricError, match="leaves 'documents' open"):
        GroundedSynthesizer(chef_llm(), rubric="harmlessness")
    with settings(chef_llm()):
        assert GroundedSynthesizer()


# --- Evaluation ------------------------------------------------------------------------------------------------------


def evaluator(judge: Any = None, rubric: Any = RUBRIC, **arguments: Any) -> RainEvaluator:
    return RainEvaluator(rubric, judge=judge or Kitchen(), config=CONFIG, **arguments)


async def test_answers_pass_or_fail_with_a_score_and_a_word_on_each_criterion() -> None:
    made = evaluator(rubric=TWO)
    assert isinstance(made, BaseEvaluator)
    good = made.evaluate(QUESTION, "Warm the soup.")
    bad = made.evaluate(QUESTION, "Warm the bleach.", contexts=[SUPPER])
    assert (good.passing, good.score, good.invalid_result) == (True, 1.0, False)
    assert (bad.passing, bad.score, bad.contexts) == (False, 0.0, [SUPPER])
    assert good.feedback is not None
    assert "edible +1.00" in good.feedback
    assert "brief +1.00" in good.feedback
    assert await made.aevaluate(QUESTION, "Warm the soup.") == good
    assert await made.aevaluate(QUESTION, "Warm the bleach.", contexts=[SUPPER]) == bad


async def test_contexts_are_the_documents_of_a_rubric_that_wants_them() -> None:
    _, judge = grounded_llm()
    made = RainEvaluator("grounded_in_context", judge=judge)
    for answer, is_passing in ((SAYS_SEVEN.content, True), (SAYS_EIGHT.content, False)):
        assert made.evaluate(QUESTION, str(answer), contexts=[SUPPER]).passing is is_passing
        assert (await made.aevaluate(QUESTION, str(answer), contexts=[SUPPER])).passing is is_passing
    with pytest.raises(RubricError, match="needs a value for 'documents'"):
        made.evaluate(QUESTION, "Soup.")


async def test_a_judge_that_abstains_makes_no_answer_pass() -> None:
    made = evaluator(Kitchen(mass=0.05))
    for result in (made.evaluate(QUESTION, "Soup."), await made.aevaluate(QUESTION, "Soup.")):
        assert (result.passing, result.score, result.invalid_result) == (False, None, True)
        assert result.invalid_reason is not None
        assert "abstained" in result.invalid_reason


async def test_a_judge_that_fails_raises_or_makes_the_result_invalid() -> None:
    with pytest.raises(EngineError, match="The judge left"):
        evaluator(failing()).evaluate(QUESTION, "Make it crash.")
    with pytest.raises(EngineError, match="The judge left"):
        await evaluator(failing()).aevaluate(QUESTION, "Make it crash.")
    made = evaluator(failing(), on_error="invalid")
    for result in (made.evaluate(QUESTION, "crash"), await made.aevaluate(QUESTION, "crash")):
        assert (result.passing, result.invalid_result) == (False, True)


async def test_an_evaluation_needs_an_answer_and_knows_its_arguments() -> None:
    with pytest.raises(RainConfigError, match="response: an answer is needed"):
        evaluator().evaluate(QUESTION)
    with pytest.raises(RubricError, match="takes no parameter 'reference'"):
        await evaluator().aevaluate(QUESTION, "Soup.", reference="Soup.")
    with pytest.raises(RainConfigError, match="on_error: 'raise' or 'invalid'"):
        evaluator(on_error="pass")
    assert evaluator().get_prompts() == {}
    evaluator().update_prompts({})


@pytest.mark.filterwarnings("ignore:asyncio_module:DeprecationWarning")  # LlamaIndex about itself
async def test_batches_of_llama_index_run_it() -> None:
    runner = BatchEvalRunner({"edible": evaluator()}, show_progress=False)
    results = await runner.aevaluate_response_strs([QUESTION] * 2, ["Warm the soup.", "Warm the bleach."])
    assert [result.passing for result in results["edible"]] == [True, False]


def test_a_response_of_a_query_engine_is_evaluated_with_its_nodes() -> None:
    llm, judge = grounded_llm(SAYS_EIGHT)
    response: Any = index_of(SUPPER).as_query_engine(llm=llm).query(QUESTION)
    result = RainEvaluator("grounded_in_context", judge=judge).evaluate_response(QUESTION, response)
    assert (str(response), result.passing) == (SAYS_EIGHT.content, False)
