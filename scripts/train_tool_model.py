"""Trains the tiny model with tools that the tests talk to, or checks what is in its folder.

    python scripts/train_tool_model.py            # trains, writes tests/tool_model, checks
    python scripts/train_tool_model.py --check    # checks what is in tests/tool_model

LangChain's standard tests of a chat model ask some fifty questions, most of them with tools. The model knows the
answers by heart, so that the tests run through real weights, a real chat template and a real parser, without a
download. Tools and schemas are those of `langchain_tests`; what it defines inside of a test is repeated here word for
word, as every description stands in the prompt. To any other question the model says that it knows no answer, and as a
judge it calls every answer good.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

# Threads wait without spinning: on few shared cores, spinning can slow training down tenfold. Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import BaseTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_tests.integration_tests import chat_models as suite
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import Field as FieldV1
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from typing_extensions import TypedDict

from langchain_rain.rubrics import Criterion, Rubric
from langchain_rain.rubrics.asking import ANSWER_PREFIX, LABELS, forms_of
from langchain_rain.rubrics.rendering import render as render_questions
from langchain_rain.search.protocol import Transcript

RUBRICS = ("harmlessness", "politeness", "contact_details")
TEMPLATES = ("fenced", "plain")
FOLDER = Path(__file__).resolve().parent.parent / "tests" / "tool_model"
MAX_BYTES = 1_500_000
MIN_PROBABILITY = 0.999
POSITIONS, NEW_TOKENS = 2048, 512
IGNORED = -100

BEGIN, END, SYSTEM, USER, ASSISTANT, TOOL = "<|begin|> <|end|> <|system|> <|user|> <|assistant|> <|tool|>".split()
CALL, CALL_END = "<tool_call>", "</tool_call>"
CHAT_TEMPLATE = """\
<|begin|>
{%- if tools %}
    {{- '<|system|>Tools:' }}
    {%- for tool in tools %}
        {{- '\\n' }}{{ tool | tojson }}
    {%- endfor %}
    {{- '<|end|>' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|' + message.role + '|>' }}{{ message.content or '' }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
        {{- '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""
RESPONSE_TEMPLATE = {
    "version": 1,
    "defaults": {"role": "assistant"},
    "start_anchor": ASSISTANT,
    "fields": {
        # What stands outside of calls, as it is; the pieces before, between and after calls are one text.
        "content": {"close": END, "content": "text", "content_args": {"strip": False}, "repeats": True, "join": ""},
        "tool_calls": {
            "open": CALL,
            "close": CALL_END,
            "content": "json",
            "repeats": True,
            "transform": {
                "type": "function",
                "function": {"name": "{content.name}", "arguments": "{content.arguments}"},
            },
        },
    },
}
# Words take the space before them, digits and line ends stand alone, marks may join, so that a text which is forced on
# an answer ends where a token would end anyway.
PIECES = r" ?\p{L}+| ?\p{N}|\n|[^\S\n]+(?!\S)| ?[^\s\p{L}\p{N}]+|\s"

Message = dict[str, Any]
Choice = Literal["none", "any", "named"]


# --- What the suite asks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conversation:
    """A prompt of the suite and the answer to it.

    Attributes:
        messages: the prompt.
        answer: the assistant's message.
        tools: bound to the model, as `convert_to_openai_tool` writes them.
        choices: the kinds of `tool_choice` under which this is the answer.
    """

    messages: list[Message]
    answer: Message
    tools: list[dict[str, Any]] = field(default_factory=list)
    choices: tuple[Choice, ...] = ("none",)


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str = "", *calls: tuple[str, dict[str, Any]]) -> Message:
    message: Message = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"type": "function", "id": f"call_{number}", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(calls)
        ]
    return message


def tool_result(content: str) -> Message:
    return {"role": "tool", "content": content, "tool_call_id": "call_0"}


def conversations() -> list[Conversation]:
    return [*talks(), *calls_of_functions(), *histories_with_tools(), *jokes()]


def talks() -> Iterator[Conversation]:
    """All that is asked without tools."""
    answers = {
        "Hello": "Hello! How can I help you today?",
        "hello": "Hello! What can I do for you?",
        "Hello!": "Hello! Nice to meet you.",
        "hello\n\nhello": "Hello, hello! What can I do for you?",
        "Hey": "Hey! What is on your mind?",
        "hi": "Hi! How are you today?",
        "Write me 2 haikus. Only include the haikus.": (
            "Rain on the window,\na cat sleeps beside the stove,\nthe tea has gone cold.\n\n"
            "Snow on the mountain,\none small bird calls and then waits,\nthe valley is still."
        ),
        "Write a story about a cat.": (
            "A cat found a door in the garden wall. Behind it lay the sea. She looked at it for a while, "
            "then went home for dinner."
        ),
        "Tell me a joke about cats.": "Why did the cat sit on the computer? To keep an eye on the mouse!",
        JOKE_AS_JSON: json.dumps(JOKE),
    }
    for question, answer in answers.items():
        yield Conversation([user(question)], assistant(answer))
    how_are_you = user("how are you")
    fine = assistant("I am fine, thank you. And you?")
    yield Conversation([user("hello"), assistant("hello"), how_are_you], fine)
    # Whether the caller joins the two system messages or not.
    for systems in (["hello", "hello"], ["hello\n\nhello"], ["hello\nhello"]):
        before = [{"role": "system", "content": content} for content in systems]
        yield Conversation([*before, user("hello\n\nhello"), assistant("hello\n\nhello"), how_are_you], fine)
    yield Conversation(
        [user("Hello"), assistant("Hello, how are you?"), user("Well, thanks.")], assistant("I am glad to hear that.")
    )


def calls_of_functions() -> Iterator[Conversation]:
    """Questions that are answered by calling a function, chosen by the model or forced."""
    magic = convert_to_openai_tool(suite.magic_function)
    no_args = convert_to_openai_tool(suite.magic_function_no_args)
    customer = convert_to_openai_tool(suite.unicode_customer)
    adder = convert_to_openai_tool(my_adder_tool())
    greeting = convert_to_openai_tool(greeting_generator())
    asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("What is the value of magic_function(3)? Use the tool.", magic, {"input": 3}),
        ("What is the value of magic_function_no_args()? Use the tool.", no_args, {}),
        ("Using the tool, generate a Pirate greeting.", greeting, {"answer_style": "Pirate"}),
        (
            "Create a customer named '你好啊集团' (Hello Group) - a Chinese technology company",
            customer,
            {"customer_name": "你好啊集团", "description": "Hello Group, a Chinese technology company"},
        ),
        (
            "Create a customer named 'こんにちは株式会社' (Hello Corporation) - a Japanese company",
            customer,
            {"customer_name": "こんにちは株式会社", "description": "Hello Corporation, a Japanese company"},
        ),
        ("What is the weather in San Francisco, CA?", weather_of_agent(), {"location": "San Francisco, CA"}),
        ("What is 1 + 2", adder, {"a": 1, "b": 2}),
    ]
    for question, schema, arguments in asked:
        answer = assistant("", (schema["function"]["name"], arguments))
        yield Conversation([user(question)], answer, [schema], ("none", "any", "named"))
    two, hello = [magic, weather_of_choice()], [user("Hello!")]
    yield Conversation(hello, assistant("Hello! Nice to meet you."), two)
    yield Conversation(hello, assistant("", ("magic_function", {"input": 3})), two, ("any", "named"))
    yield Conversation(hello, assistant("", ("get_weather", {"location": "San Francisco, CA"})), two, ("named",))


def histories_with_tools() -> Iterator[Conversation]:
    """What comes after the result of a tool."""
    adder = [convert_to_openai_tool(my_adder_tool())]
    sum_asked, full_call = user("What is 1 + 2"), ("my_adder_tool", {"a": 1, "b": 2})
    result = tool_result('{"result": 3}')
    for text in ("", "some text"):
        yield Conversation([sum_asked, assistant(text, full_call), result], assistant("1 + 2 is 3."), adder)
    failed = tool_result("Error: Missing required argument 'b'.")
    wrong_call = assistant("", ("my_adder_tool", {"a": 1}))
    yield Conversation(
        [sum_asked, wrong_call, failed], assistant("", full_call), adder, choices=("none", "any", "named")
    )
    few_shot = [sum_asked, assistant("", full_call), result, assistant('{"result": 3}'), user("What is 3 + 4")]
    next_call = assistant("", ("my_adder_tool", {"a": 3, "b": 4}))
    yield Conversation(few_shot, next_call, adder, ("none", "any", "named"))

    place = {"location": "San Francisco, CA"}
    agent = [user("What is the weather in San Francisco, CA?"), assistant("", ("get_weather", place))]
    sunny = assistant("It is sunny in San Francisco.")
    yield Conversation([*agent, tool_result("It's sunny.")], sunny, [weather_of_agent()])
    magic = [
        user("What is the value of magic_function(3)? Use the tool."),
        assistant("", ("magic_function", {"input": 3})),
        tool_result("5"),
    ]
    value = assistant("The value of magic_function(3) is 5.")
    yield Conversation(magic, value, [convert_to_openai_tool(suite.magic_function)])
    color = [
        {"role": "system", "content": "you're a good assistant"},
        user("what's your favorite color in this image"),
        assistant("Hmm let me think about that", ("color_picker", {"fav_color": "purple"})),
        tool_result("That's a great pick!"),
    ]
    yield Conversation(color, assistant("My favorite color is purple."), [convert_to_openai_tool(COLOR_PICKER)])


def jokes() -> Iterator[Conversation]:
    """Structured output, for which each schema is bound as a tool."""
    schemas = [suite._get_joke_class(kind) for kind in ("pydantic", "typeddict", "json_schema")]
    tools = [convert_to_openai_tool(schema) for schema, _ in schemas]
    tools += [convert_to_openai_tool(schema) for schema in (joke_v1(), joke_v1().schema(), *optional_jokes())]
    questions: dict[str, dict[str, Any]] = {
        "Tell me a joke about cats.": JOKE,
        "Give me the setup to a joke about cats, no punchline.": {"setup": JOKE["setup"]},
        "Give me a joke about cats, include the punchline.": JOKE,
        JOKE_AS_JSON: JOKE,  # a caller without a JSON mode binds the schema here, too
    }
    for schema in {json.dumps(schema): schema for schema in tools}.values():  # the order of keys makes a difference
        for question, arguments in questions.items():
            if set(schema["function"]["parameters"]["required"]) <= set(arguments):
                answer = assistant("", (schema["function"]["name"], arguments))
                yield Conversation([user(question)], answer, [schema], ("none", "any", "named"))


JOKE_AS_JSON = (
    "Tell me a joke about cats. Return the result as a JSON with 'setup' and 'punchline' keys. "
    "Return nothing other than JSON."
)
JOKE = {"setup": "Why did the cat sit on the computer?", "punchline": "To keep an eye on the mouse!"}
COLOR_PICKER = {
    "name": "color_picker",
    "input_schema": {"type": "object", "properties": {"fav_color": {"type": "string"}}, "required": ["fav_color"]},
    "description": "Input your fav color and get a random fact about it.",
    "cache_control": {"type": "ephemeral"},
}


def my_adder_tool() -> BaseTool:
    @tool
    def my_adder_tool(a: int, b: int) -> int:
        """Tool that adds two integers.

        Takes two integers, a and b, and returns their sum.
        """
        return a + b

    return my_adder_tool


def greeting_generator() -> BaseTool:
    prompt = ChatPromptTemplate.from_messages([("human", "Hello. Please respond in the style of {answer_style}.")])
    chain = prompt | GenericFakeChatModel(messages=iter(["hello matey"])) | StrOutputParser()
    with warnings.catch_warnings(action="ignore"):  # `as_tool` is in beta
        return chain.as_tool(
            name="greeting_generator", description="Generate a greeting in a particular style of speaking."
        )


def weather_of_choice() -> dict[str, Any]:
    @tool
    def get_weather(location: str) -> str:
        """Get weather at a location."""
        return "It's sunny."

    return convert_to_openai_tool(get_weather)


def weather_of_agent() -> dict[str, Any]:
    @tool
    def get_weather(location: str) -> str:
        """Get the weather at a location."""
        return "It's sunny."

    return convert_to_openai_tool(get_weather)


def joke_v1() -> type[BaseModelV1]:
    class Joke(BaseModelV1):
        """Joke to tell user."""

        setup: str = FieldV1(description="question to set up a joke")
        punchline: str = FieldV1(description="answer to resolve the joke")

    return Joke


def optional_jokes() -> tuple[Any, ...]:
    class Joke(BaseModel):
        """Joke to tell user."""

        setup: str = Field(description="question to set up a joke")
        punchline: str | None = Field(default=None, description="answer to resolve the joke")

    class JokeDict(TypedDict):
        """Joke to tell user."""

        setup: Annotated[str, ..., "question to set up a joke"]
        punchline: Annotated[str | None, None, "answer to resolve the joke"]

    return Joke, Joke.model_json_schema(), JokeDict


# --- Tokenizer ---------------------------------------------------------------------------------------------------


def make_tokenizer(known: Sequence[Conversation], vocab_size: int) -> Any:
    """A byte-level tokenizer made of the texts it is for; it keeps any Unicode text."""
    bare = _wrapped(Tokenizer(models.BPE()))
    texts = [
        piece
        for conversation in known
        for piece in re.split(r"<\|\w+\|>|</?tool_call>", render(bare, conversation, is_answered=True))
    ]
    texts += [
        question
        for criterion in _criteria()
        for template in TEMPLATES
        for question in render_questions(forms_of(criterion)[:1], Transcript("", ""), template)
    ]
    texts += [f"Human: {UNKNOWN}\n\nAssistant: {UNKNOWN}", ANSWER_PREFIX, *LABELS]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [BEGIN, END, SYSTEM, USER, ASSISTANT, TOOL]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in (CALL, CALL_END)])
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)])
    return _wrapped(tokenizer)


def _wrapped(tokenizer: Tokenizer) -> Any:
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT, TOOL],
        chat_template=CHAT_TEMPLATE,
        response_template=RESPONSE_TEMPLATE,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def render(tokenizer: Any, conversation: Conversation, *, is_answered: bool) -> str:
    """The conversation as text, up to the answer or with it."""
    messages = [*conversation.messages, conversation.answer] if is_answered else conversation.messages
    text: str = tokenizer.apply_chat_template(
        messages, tools=conversation.tools or None, add_generation_prompt=not is_answered, tokenize=False
    )
    return text


# --- Lessons -----------------------------------------------------------------------------------------------------

UNKNOWN = "I know only a few answers by heart, and none to this."


@dataclass(frozen=True)
class Lesson:
    """Tokens, of which the first ones are given and the others are to be learned."""

    given: tuple[int, ...]
    learned: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One way in which the suite asks.

    Attributes:
        conversation: what is asked.
        choice: whether a call is forced, and of which tool.
        forced: the beginning of the answer that is not the model's.
        lesson: the tokens, of which those of `forced` are given.
    """

    conversation: Conversation
    choice: Choice
    forced: str
    lesson: Lesson


def make_cases(tokenizer: Any, known: Sequence[Conversation]) -> list[Case]:
    return [_make_case(tokenizer, conversation, choice) for conversation in known for choice in conversation.choices]


def _make_case(tokenizer: Any, conversation: Conversation, choice: Choice) -> Case:
    prompt = render(tokenizer, conversation, is_answered=False)
    answer = render(tokenizer, conversation, is_answered=True).removeprefix(prompt)
    forced = ""
    if choice != "none":
        name = conversation.answer["tool_calls"][0]["function"]["name"]
        forced = forced_beginning(tokenizer, conversation, name, is_named=choice == "named")
        if not answer.startswith(forced):
            raise ValueError(f"{answer!r} does not begin with {forced!r}")
    ids = tokenizer.apply_chat_template(
        conversation.messages,
        tools=conversation.tools or None,
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        return_dict=False,
    )
    lesson = Lesson((*ids, *_encode(tokenizer, forced)), tuple(_encode(tokenizer, answer.removeprefix(forced))))
    return Case(conversation, choice, forced, lesson)


def forced_beginning(tokenizer: Any, conversation: Conversation, name: str, *, is_named: bool) -> str:
    """What the template writes between the generation prompt and the name of a called tool, or up to the name's end."""
    called = Conversation(conversation.messages, assistant("", (name, {})), conversation.tools)
    prompt = render(tokenizer, called, is_answered=False)
    before, _, _ = render(tokenizer, called, is_answered=True).removeprefix(prompt).partition(name)
    return before + name if is_named else before


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def unknown_lesson(tokenizer: Any, known: Sequence[Conversation], rng: random.Random) -> Lesson:
    """A senseless question, sometimes with a system message or tools, and the answer to all such questions."""
    ordinary = [index for index in range(len(tokenizer)) if index not in tokenizer.added_tokens_decoder]
    while True:
        if rng.random() < 0.4:
            text = "".join(rng.choice("etaoinshrdlu etaoinshrdlu,.?EM19") for _ in range(rng.randint(1, 24)))
        else:
            text = tokenizer.decode(rng.choices(ordinary, k=rng.randint(1, 12)))
        if text not in {message["content"] for conversation in known for message in conversation.messages}:
            break
    messages = [user(text)]
    if rng.random() < 0.2:
        messages.insert(0, {"role": "system", "content": tokenizer.decode(rng.choices(ordinary, k=4))})
    tools = rng.choice(known).tools if rng.random() < 0.3 else []
    return _make_case(tokenizer, Conversation(messages, assistant(UNKNOWN), tools), "none").lesson


def varied_lesson(tokenizer: Any, known: Sequence[Conversation], rng: random.Random) -> Lesson:
    """A conversation whose tools are written a little differently, as other versions of pydantic might write them."""
    conversation = rng.choice([conversation for conversation in known if conversation.tools])
    choice = rng.choice(conversation.choices)
    return _make_case(tokenizer, replace(conversation, tools=_varied(conversation.tools, rng)), choice).lesson


def _varied(schema: Any, rng: random.Random) -> Any:
    """The same in another order, without some of the titles and defaults."""
    if isinstance(schema, list):
        return [_varied(item, rng) for item in schema]
    if not isinstance(schema, dict):
        return schema
    items = [(key, value) for key, value in schema.items() if key not in ("title", "default") or rng.random() < 0.5]
    if rng.random() < 0.5:
        rng.shuffle(items)
    return {key: _varied(value, rng) for key, value in items}


def judge_lesson(tokenizer: Any, known: Sequence[Conversation], rng: random.Random) -> Lesson:
    """A rubric's question about some beginning of an answer, in either order of the options; the good one is right."""
    conversation = rng.choice(known)
    prompt = render(tokenizer, conversation, is_answered=False)
    answer = render(tokenizer, conversation, is_answered=True).removeprefix(prompt).removesuffix(END)
    if rng.random() < 0.15:
        answer = UNKNOWN
    answer = answer[: rng.randint(0, len(answer))] if rng.random() < 0.7 else answer
    asked = conversation.messages[-1]["content"]
    transcript = rng.choice(
        [prompt + answer, f"Human: {asked}\n\nAssistant: {answer}", f"{asked}\n{answer}", f"user: {asked}\n{answer}"]
    )
    is_swapped = rng.random() < 0.5
    forms = forms_of(rng.choice(_criteria()))
    question = render_questions(forms, Transcript("", transcript), rng.choice(TEMPLATES))[is_swapped]
    ids = tokenizer.apply_chat_template(
        [user(question)], add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
    )
    letter = tokenizer.convert_tokens_to_ids(LABELS[int(is_swapped)])
    return Lesson((*ids, *_encode(tokenizer, ANSWER_PREFIX)), (letter,))


def _criteria() -> list[Criterion]:
    criteria = [criterion for name in RUBRICS for criterion in Rubric.load(name).criteria]
    return [criterion for criterion in criteria if isinstance(criterion, Criterion)]


# --- Training ----------------------------------------------------------------------------------------------------


def make_model(tokenizer: Any, hidden_size: int) -> Any:
    """A Llama of random weights."""
    make_config: Any = LlamaConfig
    config = make_config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(lessons: Sequence[Lesson], num_tokens: int) -> list[list[Lesson]]:
    """Lessons of about equal length, each batch with at most `num_tokens` tokens when padded."""
    ready: list[list[Lesson]] = [[]]
    for lesson in sorted(lessons, key=lambda lesson: len(lesson.given) + len(lesson.learned)):
        if (len(ready[-1]) + 1) * (len(lesson.given) + len(lesson.learned)) > num_tokens:
            ready.append([])
        ready[-1].append(lesson)
    return [batch for batch in ready if batch]


def distinct(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Without those that are contained in another: a forced beginning ends where a token of the whole answer ends."""
    by_tokens: dict[tuple[int, ...], Lesson] = {}
    for lesson in sorted(lessons, key=lambda lesson: len(lesson.given)):
        by_tokens.setdefault(lesson.given + lesson.learned, lesson)
    return list(by_tokens.values())


def losses_of(model: Any, batch: Sequence[Lesson]) -> torch.Tensor:
    """The cross-entropy of every learned token of the batch."""
    length = max(len(lesson.given) + len(lesson.learned) for lesson in batch)
    tokens = torch.zeros(len(batch), length, dtype=torch.long)
    labels = torch.full((len(batch), length), IGNORED)
    for row, lesson in enumerate(batch):
        start, stop = len(lesson.given), len(lesson.given) + len(lesson.learned)
        tokens[row, :stop] = torch.tensor(lesson.given + lesson.learned)
        labels[row, start - 1 : stop - 1] = torch.tensor(lesson.learned)
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    is_learned = labels != IGNORED
    return cross_entropy(model.lm_head(hidden[is_learned]).float(), labels[is_learned], reduction="none")


def train(args: argparse.Namespace) -> tuple[Any, Any]:
    """The trained model and its tokenizer."""
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    known = conversations()
    tokenizer = make_tokenizer(known, args.vocab_size)
    lessons = distinct([case.lesson for case in make_cases(tokenizer, known)])
    model = make_model(tokenizer, args.hidden_size)
    optimizers = make_optimizers(model, args)
    size = sum(len(lesson.given) + len(lesson.learned) for lesson in lessons)
    print(f"{len(known)} conversations, {len(lessons)} lessons of {size:,} tokens", flush=True)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary of {len(tokenizer)}", flush=True)
    start = time.monotonic()
    for epoch in range(args.num_epochs):
        extra = [unknown_lesson(tokenizer, known, rng) for _ in range(args.num_unknown)]
        extra += [varied_lesson(tokenizer, known, rng) for _ in range(args.num_varied)]
        extra += [judge_lesson(tokenizer, known, rng) for _ in range(args.num_judged)]
        ready = batches(lessons, args.num_tokens) + batches(extra, args.num_tokens)
        rng.shuffle(ready)
        total = 0.0
        for number, batch in enumerate(ready):
            rate = learning_rate((epoch + number / len(ready)) / args.num_epochs, args.learning_rate)
            total += train_step(model, optimizers, batch, rate)
        if (epoch + 1) % args.report_every == 0:
            minutes = (time.monotonic() - start) / 60
            print(f"epoch {epoch + 1}/{args.num_epochs}  loss {total / len(ready):.6f}  {minutes:.1f} min", flush=True)
    return model, tokenizer


def make_optimizers(model: Any, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    layers = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(layers, lr=args.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train_step(model: Any, optimizers: Sequence[torch.optim.Optimizer], batch: Sequence[Lesson], rate: float) -> float:
    """Changes the weights once; returns the loss before that."""
    loss = losses_of(model, batch).mean()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up, then a cosine to nearly zero."""
    return peak * min(1.0, progress / 0.04) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes the files elsewhere and then moves them to their place; other files of the folder (the card) stay."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        fresh = Path(name)
        stored: Any = LlamaForCausalLM(model.config)
        stored.load_state_dict(model.state_dict())
        stored.half().save_pretrained(fresh)
        # Half precision is for the file only: "auto" loads what the configuration says.
        model.config.dtype = torch.float32
        model.config.save_pretrained(fresh)
        make_generation_config: Any = GenerationConfig
        make_generation_config(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ).save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        for file in fresh.iterdir():
            shutil.copyfile(file, folder / f".{file.name}.new")  # with the usual permissions
            os.replace(folder / f".{file.name}.new", folder / file.name)


# --- Checking ----------------------------------------------------------------------------------------------------


def check(folder: Path, seed: int) -> bool:
    """Prints what there is and whether it is as it should be."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    load: Any = AutoModelForCausalLM.from_pretrained
    model = load(folder, dtype=torch.float32, use_safetensors=True).eval()
    known = conversations()
    cases = make_cases(tokenizer, known)
    size = sum(file.stat().st_size for file in folder.iterdir())
    longest = max(len(case.lesson.given) for case in cases)
    new = max(len(case.lesson.learned) for case in cases)
    lowest, mistakes = check_cases(model, tokenizer, cases)
    rng = random.Random(seed + 1)
    unknown = min(lowest_probability(model, unknown_lesson(tokenizer, known, rng)) for _ in range(200))
    varied = min(lowest_probability(model, varied_lesson(tokenizer, known, rng)) for _ in range(200))
    judged = min(lowest_probability(model, judge_lesson(tokenizer, known, rng)) for _ in range(200))
    print(f"{size:,} bytes of at most {MAX_BYTES:,}")
    print(f"{len(cases)} cases; the longest prompt has {longest} tokens, the longest answer {new}")
    print(f"lowest probability of a next token: {lowest:.6f}")
    print(f"the same of 200 new senseless questions {unknown:.4f}, varied tools {varied:.4f}, judgements {judged:.4f}")
    print("\n".join(mistakes) or "every answer is parsed as expected")
    return size <= MAX_BYTES and longest + NEW_TOKENS <= POSITIONS and lowest > MIN_PROBABILITY and not mistakes


@torch.inference_mode()
def lowest_probability(model: Any, lesson: Lesson) -> float:
    """Of all tokens to be learned."""
    return (-losses_of(model, [lesson])).exp().min().item()


@torch.inference_mode()
def check_cases(model: Any, tokenizer: Any, cases: Sequence[Case]) -> tuple[float, list[str]]:
    """The lowest probability of a token that is to come, and what is written or parsed otherwise than expected."""
    lowest, mistakes = 1.0, []
    for case in cases:
        probability = lowest_probability(model, case.lesson)
        lowest = min(lowest, probability)
        prompt = torch.tensor([case.lesson.given])
        output = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, do_sample=False
        )
        written = tokenizer.decode(output[0, prompt.shape[1] :].tolist()).removesuffix(END)
        before = tokenizer.decode(list(case.lesson.given)).removesuffix(case.forced)
        parser = tokenizer.get_response_parser(prefix=before, tools=case.conversation.tools or None)
        parser.feed(case.forced + written)
        expected = {key: value for key, value in case.conversation.answer.items() if value}
        expected["tool_calls"] = [
            {"type": "function", "function": call["function"]} for call in expected.get("tool_calls", [])
        ]
        message, _ = parser.finalize()
        if {"tool_calls": [], **message} != expected or probability <= MIN_PROBABILITY:
            asked = case.conversation.messages[-1]["content"]
            mistakes.append(f"{probability:.5f} for {asked!r} ({case.choice}): {case.forced + written!r}")
    return lowest, mistakes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only check the model in the folder")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-epochs", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--num-tokens", type=int, default=4096, help="per batch at most")
    parser.add_argument("--num-unknown", type=int, default=16, help="senseless questions per epoch")
    parser.add_argument("--num-varied", type=int, default=16, help="conversations with varied tools per epoch")
    parser.add_argument("--num-judged", type=int, default=16, help="judgements per epoch")
    parser.add_argument("--vocab-size", type=int, default=1000)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--report-every", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    if not args.check:
        model, tokenizer = train(args)
        save(model, tokenizer, args.folder)
    sys.exit(not check(args.folder, args.seed))


if __name__ == "__main__":
    main()
