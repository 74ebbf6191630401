"""Structured output without tools: the schema is put into the conversation, and the answer is checked against it."""

import json
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from langchain_rain.engines.dialogue import guided


def structured(
    model: BaseChatModel, schema: dict[str, Any] | type, *, method: str, include_raw: bool
) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
    """`model` followed by a check of its answer.

    Args:
        model: writes the answer.
        schema: as for `with_structured_output`. A pydantic class checks all of an answer; of a TypedDict or a JSON
            schema it is checked that the answer is an object with the required keys.
        method: "json_schema" puts the schema into the conversation, "json_mode" leaves that to the user.
        include_raw: as for `with_structured_output`.
    """
    json_schema = convert_to_json_schema(schema)

    def instructed(given: LanguageModelInput) -> Sequence[BaseMessage]:
        messages = model._convert_input(given).to_messages()
        if method == "json_mode":
            return messages
        shown = json.dumps(json_schema, ensure_ascii=False)
        instruction = f"Answer with one JSON object alone that matches this JSON schema:\n{shown}"
        return guided(messages, instruction)

    told = {"kwargs": {"method": method}, "schema": json_schema}
    asked = RunnableLambda(instructed) | model.bind(ls_structured_output_format=told)
    parser = _parser(schema, json_schema)
    if not include_raw:
        return asked | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=asked) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _parser(schema: Any, json_schema: dict[str, Any]) -> Runnable[AIMessage, Any]:
    """Reads whole answers, in streams too: of a part nobody can say that it matches."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return RunnableLambda(PydanticOutputParser(pydantic_object=schema).invoke)
    read_json = JsonOutputParser().invoke
    required = json_schema.get("required", [])

    def read(message: AIMessage) -> Any:
        answer = read_json(message)
        if not isinstance(answer, dict) or any(key not in answer for key in required):
            raise OutputParserException(
                f"A JSON object with {', '.join(required)} is wanted, given {answer!r}.", llm_output=str(message.text)
            )
        return answer

    return RunnableLambda(read)
