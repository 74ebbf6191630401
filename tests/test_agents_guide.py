"""What the guide to agents shows is what happens."""

import re
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.tool import tool_call
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_rain import PatternCriterion, Rubric
from langchain_rain.middleware import RainMiddleware
from tests.fake_chat_models import FakeChat, in_turn, letter_judge

GUIDE = (Path(__file__).parents[1] / "docs" / "agents.md").read_text(encoding="utf-8")
GUARDED, RULE, RESUMED = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
OWN = """
name: own
criteria:
  - {name: calm, kind: pattern, must_not_match: ignore your instructions}
"""
MAIL = AIMessage("", tool_calls=[tool_call(name="send_mail", args={"to": "eve@evil.example"}, id="mail")])


def test_the_guard_of_the_guide_lets_mail_go_to_colleagues_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    sent: list[str] = []

    @tool
    def send_mail(to: str) -> str:
        """Send a mail."""
        sent.append(to)
        return "Sent."

    allowed = AIMessage("", tool_calls=[tool_call(name="send_mail", args={"to": "ada@ours.example"}, id="ada")])
    names: dict[str, Any] = {
        "model": FakeChat(reply=in_turn(MAIL, allowed, AIMessage("Done."))),
        "tools": [send_mail],
        "judge": letter_judge(),
    }
    for code in (RULE, GUARDED):
        exec(compile(code, "guide", "exec"), names)
    out = names["agent"].invoke({"messages": [HumanMessage("Tell Ada.")]})
    assert out["messages"][-1].text == "Done."
    assert sent == ["ada@ours.example"]

    ask = RainMiddleware(
        Rubric(name="any", criteria=(PatternCriterion(name="any", must_not_match="(?!)"),)),
        tool_rubric=names["my_tools"],
        on_unsatisfied="ask",
    )
    model = FakeChat(reply=lambda messages, _: AIMessage("Done.") if messages[-1].type == "tool" else MAIL)
    names["agent"] = create_agent(model, [send_mail], middleware=[ask], checkpointer=InMemorySaver())
    names["thread"] = {"configurable": {"thread_id": "1"}}
    exec(compile(RESUMED, "guide", "exec"), names)
    (request,) = names["result"]["__interrupt__"][0].value["action_requests"]
    assert (request["name"], request["args"]) == ("send_mail", {"to": "eve@evil.example"})
    assert sent == ["ada@ours.example", "eve@evil.example"]
