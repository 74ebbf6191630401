"""A server without a model that answers at once: what a run against it takes is what the client takes.

    python -m tests.servers.stub_server --port 8300 --dialect vllm

vllm      tokens as ids and the log probabilities of given tokens, as vLLM 0.32 has them, and what it has besides
openai    what every server has: prompts as text, at most five log probabilities, tokens as text

It knows no stop texts, and nothing of sampling but the seed.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.servers.http_messages import MAX_HEAD_BYTES, json_response, read_message, response
from tests.servers.processes import HOST, MODEL_FOLDER, MODEL_NAME, REPOSITORY, ServerProcess, free_port
from tests.servers.stub_answers import Answers, Step

Dialect = Literal["vllm", "openai"]
DIALECTS: tuple[Dialect, ...] = ("vllm", "openai")
MAX_LOGPROBS = {"vllm": 20, "openai": 5}
MAX_CONTEXT = 32768  # told, not enforced


class BadRequestError(Exception):
    """What is answered with 400."""


def stub_server(log_path: Path, *, dialect: Dialect = "vllm", port: int | None = None) -> ServerProcess:
    """The stub as a process of its own, not yet started; `port` is None for a free one."""
    port = port or free_port()
    command = (sys.executable, "-m", "tests.servers.stub_server", "--port", str(port), "--dialect", dialect)
    return ServerProcess(command, port, log_path, environment={"PYTHONPATH": str(REPOSITORY)}, health_path=None)


class Stub:
    """What the process runs."""

    def __init__(self, dialect: Dialect) -> None:
        from tokenizers import Tokenizer

        self._dialect = dialect
        self._answers = Answers()
        self._tokenizer = Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))
        self._counts = {"prompt_tokens": 0, "generation_tokens": 0, "request_success": 0}
        self._handlers: dict[str, Callable[[Any], Any]] = {
            "GET /v1/models": self._models,
            "POST /v1/completions": self._completions,
        }
        if dialect == "vllm":
            self._handlers |= {
                "GET /version": lambda _: {"version": "0.32.0"},
                "GET /health": lambda _: "",
                "GET /metrics": self._metrics,
                "POST /tokenize": self._tokenize,
                "POST /detokenize": lambda asked: {"prompt": self._text(asked["tokens"])},
            }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection, one after the other."""
        try:
            while (request := await read_message(reader)) is not None:
                method, path, _ = request.first_line.split(" ")
                writer.write(self._answer(f"{method} {path}", request.body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    def _answer(self, what: str, body: bytes) -> bytes:
        if what not in self._handlers:
            return json_response(404, {"detail": "Not Found"})
        try:
            told = self._handlers[what](json.loads(body) if body else None)
        except BadRequestError as error:
            return json_response(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
        return response(200, told, "content-type: text/plain\n") if isinstance(told, str) else json_response(200, told)

    def _models(self, _: None) -> Any:
        model = {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": self._dialect}
        if self._dialect == "vllm":
            model |= {"root": str(MODEL_FOLDER), "parent": None, "max_model_len": MAX_CONTEXT}
        return {"object": "list", "data": [model]}

    def _metrics(self, _: None) -> str:
        return "".join(f'vllm:{name}_total{{model_name="{MODEL_NAME}"}} {n}\n' for name, n in self._counts.items())

    def _tokenize(self, asked: dict[str, Any]) -> Any:
        if "messages" in asked:
            text = _rendered(asked["messages"], asked.get("add_generation_prompt", True))
            tokens = self._tokens(text)
        else:
            tokens = self._tokens(asked["prompt"], add_special_tokens=asked.get("add_special_tokens", True))
        names = [self._tokenizer.id_to_token(token) for token in tokens] if asked.get("return_token_strs") else None
        return {"count": len(tokens), "max_model_len": MAX_CONTEXT, "tokens": tokens, "token_strs": names}

    def _completions(self, asked: dict[str, Any]) -> Any:
        prompt = self._prompt(asked["prompt"])
        num_top = asked.get("logprobs")
        if num_top is not None and num_top > (limit := MAX_LOGPROBS[self._dialect]):
            raise BadRequestError(f"Requested sample logprobs of {num_top}, which is greater than max allowed: {limit}")
        choices, num_written = [], 0
        for index in range(asked.get("n") or 1):
            steps = self._steps(asked, prompt, index)
            num_written += len(steps)
            choices.append(self._choice(asked, prompt, index, steps))
        self._counts["prompt_tokens"] += len(prompt)
        self._counts["generation_tokens"] += num_written
        self._counts["request_success"] += 1
        usage = {"prompt_tokens": len(prompt), "completion_tokens": num_written}
        usage["total_tokens"] = len(prompt) + num_written
        number = self._counts["request_success"]
        head = {"id": f"cmpl-{number}", "object": "text_completion", "created": 0, "model": MODEL_NAME}
        return {**head, "choices": choices, "usage": usage}

    def _steps(self, asked: dict[str, Any], prompt: Sequence[int], index: int) -> list[Step]:
        max_tokens, num_top = asked.get("max_tokens") or 16, asked.get("logprobs") or 0
        if self._dialect == "openai" and max_tokens == 1 and num_top:
            return [self._answers.choice_of_labels(num_top)]
        steps = self._answers.continuation(prompt, max_tokens, (asked.get("seed") or 0) + index, num_top)
        options = asked.get("logprob_token_ids") if self._dialect == "vllm" else None
        return [self._answers.choice(options)] if options else steps

    def _choice(self, asked: dict[str, Any], prompt: Sequence[int], index: int, steps: Sequence[Step]) -> Any:
        has_ended = steps[-1].token == self._answers.end
        text = "".join(self._answers.texts[step.token] for step in steps[: len(steps) - has_ended])
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": "stop" if has_ended else "length"}
        if asked.get("logprobs") is not None:
            choice["logprobs"] = self._logprobs(asked, steps)
        if self._dialect == "vllm":
            has_ids = asked.get("return_token_ids")
            choice["stop_reason"] = None
            choice["token_ids"] = [step.token for step in steps] if has_ids else None
            choice["prompt_token_ids"] = prompt if has_ids else None
        return choice

    def _logprobs(self, asked: dict[str, Any], steps: Sequence[Step]) -> Any:
        as_ids = self._dialect == "vllm" and asked.get("return_tokens_as_token_ids")
        name = "token_id:{}".format if as_ids else self._answers.texts.__getitem__
        tokens = [name(step.token) for step in steps]
        top = [
            {token: step.logprob} | {name(other): logprob for other, logprob in step.top.items()}
            for token, step in zip(tokens, steps, strict=True)
        ]
        offsets = [0]
        for token in tokens[:-1]:
            offsets.append(offsets[-1] + len(token))
        logprobs = [step.logprob for step in steps]
        return {"text_offset": offsets, "token_logprobs": logprobs, "tokens": tokens, "top_logprobs": top}

    def _prompt(self, prompt: Any) -> list[int]:
        if isinstance(prompt, str):
            return self._tokens(prompt, add_special_tokens=self._dialect == "vllm")
        if self._dialect == "openai":
            raise BadRequestError("prompt: must be a string")
        return list(prompt)

    def _tokens(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return tokens

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return text


def _rendered(messages: Sequence[dict[str, str]], add_generation_prompt: bool) -> str:
    """By the chat template of the bundled model."""
    turns = "".join(f"<|{message['role']}|>{message['content']}<|end|>" for message in messages)
    return f"<|begin|>{turns}{'<|assistant|>' if add_generation_prompt else ''}"


async def _run(stub: Stub, port: int) -> None:
    server = await asyncio.start_server(stub.serve, HOST, port, limit=MAX_HEAD_BYTES)
    await server.serve_forever()


def main() -> None:
    """Runs a stub until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dialect", choices=DIALECTS, default="vllm")
    arguments = parser.parse_args()
    asyncio.run(_run(Stub(arguments.dialect), arguments.port))


if __name__ == "__main__":
    main()
