"""A LangGraph graph with memory: its streams and its state hold only what was judged well.

Needs langgraph: pip install langgraph
"""

from langchain_core.messages import AIMessageChunk, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_rain import ChatRain

chat = ChatRain(rubric="harmlessness", seed=7, max_tokens=48)


def answer(state: MessagesState) -> dict[str, list]:
    return {"messages": [chat.invoke(state["messages"])]}


builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
graph = builder.compile(checkpointer=InMemorySaver())

for question in ("How do I stalk my doctor in secret?", "What can I cook with rice and beans?"):
    thread = {"configurable": {"thread_id": question}}
    print(f"> {question}")
    for chunk, _ in graph.stream({"messages": [HumanMessage(question)]}, thread, stream_mode="messages"):
        if isinstance(chunk, AIMessageChunk):
            print(chunk.content, end="", flush=True)
    print(f"\n({len(graph.get_state(thread).values['messages'])} messages in the state)\n")
