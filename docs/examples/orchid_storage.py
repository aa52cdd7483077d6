"""Orchid over a SQLite file: its invoker answers a question, and goes on in a storage that was opened anew.

Offline: the graph is a script, and no model is asked.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

warnings.simplefilter("ignore")  # of what Orchid imports
from langgraph.graph import END, START, StateGraph  # noqa: E402
from orchid_ai.orchid.invoker import OrchidInvoker  # noqa: E402
from orchid_ai.persistence.factory import build_chat_storage  # noqa: E402

from chat_history import open_history  # noqa: E402

CLASS = "chat_history_adapters.stores.orchid.OrchidHistoryStorage"
FILE = "sqlite:///orchid.db"


def answer(state: dict[str, Any]) -> dict[str, Any]:
    """What an agent would say."""
    heard = len(state["messages"])
    return {**state, "final_response": f"You have told me {heard} things with this.", "active_agents": ["listener"]}


def graph() -> Any:
    """One agent, which is a script."""
    builder = StateGraph(dict)
    builder.add_node("listener", answer)
    builder.add_edge(START, "listener")
    builder.add_edge("listener", END)
    return builder.compile()


async def ask(question: str, chat_id: str | None = None) -> str:
    """One question, by a process that opens the storage anew. Returns the session."""
    storage = build_chat_storage(CLASS, FILE)
    await storage.init_db()
    try:
        result = await OrchidInvoker(graph(), storage).invoke(
            question, chat_id=chat_id, user_id="ann", tenant_id="acme"
        )
        print(f"{question} - {result.response}")
        return result.chat_id
    finally:
        await storage.close()


session = asyncio.run(ask("Where is it warm?"))
assert asyncio.run(ask("And where is it cold?", session)) == session

# For people, and for other frameworks.
with open_history(FILE) as history:
    ann = history.for_user("ann", tenant_id="acme")
    chat = ann.list_chats()[0]
    assert chat.title == "Where is it warm?"
    lines = ann.get_readable_chat_history(chat.chat_id)
    assert [line["from"] for line in lines] == ["user", "assistant", "user", "assistant"]
    assert lines[3]["message"] == "You have told me 3 things with this."
