"""An agent with a file tool is kept from deleting what it may not: the call is judged before it runs, and drawn again.

A fake stands in for a provider's model, so that this runs anywhere; yours goes in its place. Needs the extra `agents`.
"""

import tempfile
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from langchain_rain import CallableCriterion, Rubric
from langchain_rain.middleware import RainMiddleware
from langchain_rain.tool_calls import proposed_call

folder = Path(tempfile.mkdtemp()).resolve()
(folder / "scratch").mkdir()
for name in ("report.txt", "scratch/draft.txt"):
    (folder / name).write_text("...")


@tool
def delete_file(path: str) -> str:
    """Delete a file."""
    (folder / path).unlink()
    return f"{path} is deleted."


def is_in_scratch(text) -> float:
    """1 for a call that may run, -1 for one that may not; a path counts as what it leads to."""
    path = (folder / str(proposed_call(text).args.get("path"))).resolve()
    return 1.0 if path.is_relative_to(folder / "scratch") else -1.0


class Careless(GenericFakeChatModel):
    def bind_tools(self, tools, **kwargs):
        return self.bind()


def calling(path: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "delete_file", "args": {"path": path}, "id": path}])


may_delete = CallableCriterion(name="in_scratch", function=is_in_scratch, good="It deletes only files in scratch/.")
drafts = [calling("scratch/../report.txt"), calling("scratch/draft.txt"), AIMessage("The draft is gone.")]
guard = RainMiddleware(judge=lambda text: 1.0, tool_rubric=Rubric(name="files", criteria=[may_delete]))
agent = create_agent(Careless(messages=iter(drafts)), [delete_file], middleware=[guard])

for message in agent.invoke({"messages": [("user", "Tidy up, please.")]})["messages"]:
    print(f"{message.type}: {message.text}{[call['args'] for call in getattr(message, 'tool_calls', [])] or ''}")
print("left:", sorted(path.name for path in folder.rglob("*.txt")))
