"""What an answer cost, as LangChain counts it: everything that was run, once."""

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata

from langchain_rain.arguments import Answer, cost_of
from langchain_rain.drivers import Outcome
from langchain_rain.engines.base import ChatEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.paper import SearchResult


def usage_of(
    answer: Answer, outcome: Outcome[SearchResult] | EngineError, message: AIMessage | None
) -> UsageMetadata | None:
    """The usage of an answer; None if a chat model did not tell its own.

    `total_tokens` is all that went through a model, with what it had read before (`cache_read`), and with the last
    token of an answer, which comes out and need not go in. Of a model in this process the conversation is the input,
    and all else output; a chat model says itself what was its input, drafts and judgements together.
    `output_token_details` splits the output into kept, discarded and judging tokens.

    Args:
        answer: the answer.
        outcome: how its search ended.
        message: what a chat model wrote and was kept; None if nothing was.
    """
    cost = cost_of(outcome)
    writer = answer.arguments.writer
    writes_whole = isinstance(writer, ChatEngine) and writer.writes_whole_messages
    if cost is None or cost.num_estimated:
        return None
    if writes_whole:
        own = message.usage_metadata if message is not None else None
        num_kept = own["output_tokens"] if own is not None else 0
    elif message is not None:
        num_kept = len(answer.search.tree.root.prefix)
    else:
        num_kept = answer.search.num_satisfied_tokens
    num_input = answer.search.context.num_prompt_tokens + cost.input_positions
    num_read = cost.token_positions + cost.cached_positions
    num_discarded = max(0, num_read - num_input - cost.judging_positions - num_kept)
    num_output = num_kept + num_discarded + cost.judging_positions
    cached = InputTokenDetails(cache_read=cost.cached_positions) if cost.cached_positions else InputTokenDetails()
    details = {"kept": num_kept, "discarded": num_discarded, "judging": cost.judging_positions}
    return UsageMetadata(
        input_tokens=num_input,
        output_tokens=num_output,
        total_tokens=num_input + num_output,
        input_token_details=cached,
        output_token_details=OutputTokenDetails(**details),  # type: ignore[typeddict-item]  # more keys are allowed
    )
