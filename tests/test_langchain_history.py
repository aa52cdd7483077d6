"""LangChain keeps its messages in a history: through its own runnables, over several turns, and after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from stores import ALL, DURABLE, Store, on

from chat_history import ChatHistory, InvalidArgumentError, InvalidMessageError, UnknownFormatError

pytest.importorskip("langchain_core")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LangChain's own, of all of its histories

from langchain_core.language_models import BaseChatModel  # noqa: E402
from langchain_core.messages import (  # noqa: E402
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult  # noqa: E402
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder  # noqa: E402
from langchain_core.runnables.history import RunnableWithMessageHistory  # noqa: E402

from chat_history_adapters.stores.langchain import LangChainChatHistory  # noqa: E402

CALL = AIMessage(
    "", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "call_1"}], response_metadata={"model": "m"}
)
CONVERSATION: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("How is Rome?", name="ada", id="h1"),
    CALL,
    ToolMessage("Warm.", tool_call_id="call_1", artifact={"degrees": [20]}, status="success"),
    AIMessage([{"type": "text", "text": "Warm."}], usage_metadata=None, additional_kwargs={"x": 1}),
]


class Counting(BaseChatModel):
    """Says how many messages it was given."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"{len(messages)} messages"))])

    @property
    def _llm_type(self) -> str:
        return "counting"


def chain(histories: Callable[[str], LangChainChatHistory]) -> Any:
    prompt = ChatPromptTemplate([("system", "Count."), MessagesPlaceholder("before"), ("human", "{question}")])
    return RunnableWithMessageHistory(
        prompt | Counting(), histories, input_messages_key="question", history_messages_key="before"
    )


def ask(history: ChatHistory, question: str, session: str = "c") -> str:
    runnable = chain(lambda session_id: LangChainChatHistory(history, session_id))
    answer = runnable.invoke({"question": question}, config={"configurable": {"session_id": session}})
    return str(answer.content)


@on(*ALL)
def test_messages_of_every_kind_come_back_equal(store: Store) -> None:
    with store.open() as history:
        chat = LangChainChatHistory(history, "c")
        assert chat.messages == []
        chat.add_messages(CONVERSATION)
        assert chat.messages == CONVERSATION
        assert [type(message) for message in chat.messages] == [type(message) for message in CONVERSATION]
        assert {message.format for message in history.get_messages("c")} == {"langchain"}


@on(*DURABLE)
def test_a_runnable_goes_on_after_a_restart(store: Store) -> None:
    with store.open() as history:
        assert ask(history, "One?") == "2 messages"
        assert ask(history, "Two?") == "4 messages"
    with store.open() as history:
        assert ask(history, "Three?") == "6 messages"
        assert ask(history, "Another?", session="d") == "2 messages"
        assert [message.text for message in history.get_messages("c")] == [
            *("One?", "2 messages", "Two?", "4 messages", "Three?", "6 messages")
        ]


@on(*DURABLE)
def test_runs_at_once_on_one_session_lose_nothing(store: Store) -> None:
    with store.open() as history:
        runnable = chain(lambda session_id: LangChainChatHistory(history, session_id))

        async def all_at_once() -> None:
            config: Any = {"configurable": {"session_id": "c"}}
            await asyncio.gather(*(runnable.ainvoke({"question": str(n)}, config=config) for n in range(8)))

        asyncio.run(all_at_once())
        messages = LangChainChatHistory(history, "c").messages
        questions = [message.content for message in messages[::2]]
        assert sorted(questions, key=str) == [str(number) for number in range(8)]
        assert {type(message) for message in messages[1::2]} == {AIMessage}


@on(*DURABLE)
def test_what_is_added_together_stays_together(store: Store) -> None:
    with store.open() as history:
        pairs = [[HumanMessage(str(number)), AIMessage(str(number))] for number in range(40)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda pair: LangChainChatHistory(history, "c").add_messages(pair), pairs))
        texts = [message.content for message in LangChainChatHistory(history, "c").messages]
        assert texts[::2] == texts[1::2]
        assert sorted(map(int, texts[::2])) == list(range(40))  # type: ignore[arg-type]


@on(*DURABLE)
def test_what_was_cancelled_does_not_come_into_a_chat_that_is_cleared_then(store: Store) -> None:
    async def use(history: ChatHistory) -> int:
        cancelled = 0
        for number in range(40):
            chat = LangChainChatHistory(history, str(number))
            adding = asyncio.create_task(chat.aadd_messages([HumanMessage("Forget this.")] * 50))
            await asyncio.sleep(number * 0.0001)
            adding.cancel()
            await asyncio.wait([adding])
            cancelled += adding.cancelled()
            await chat.aclear()
        return cancelled

    with store.open() as history:
        assert asyncio.run(use(history)) > 0
        assert history.get_all_chat_ids() == []


@on("sqlite")
def test_each_way_of_adding_appends(store: Store) -> None:
    async def added(chat: LangChainChatHistory) -> Sequence[BaseMessage]:
        await chat.aadd_messages([HumanMessage("4"), AIMessage("5")])
        return await chat.aget_messages()

    with store.open() as history:
        chat = LangChainChatHistory(history, "c")
        chat.add_user_message("1")
        chat.add_ai_message("2")
        chat.add_message(SystemMessage("3"))
        assert [message.content for message in asyncio.run(added(chat))] == ["1", "2", "3", "4", "5"]
        assert str(chat) == "Human: 1\nAI: 2\nSystem: 3\nHuman: 4\nAI: 5"


@on("sqlite")
def test_a_window_holds_whole_turns_and_the_system_prompt(store: Store) -> None:
    with store.open() as history:
        chat = LangChainChatHistory(history, "c", last=3)
        chat.add_messages([*CONVERSATION, HumanMessage("And now?"), AIMessage("Still.")])
        assert [message.content for message in chat.messages] == ["Be brief.", "And now?", "Still."]
        few = LangChainChatHistory(history, "c", max_tokens=1)
        assert [message.content for message in few.messages] == ["Be brief.", "And now?", "Still."]
        assert len(LangChainChatHistory(history, "c").messages) == 7


@on(*DURABLE)
def test_what_another_framework_began_goes_on(store: Store) -> None:
    with store.open() as history:
        history.add_messages("c", [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}])
        assert ask(history, "Still there?") == "4 messages"
        assert history.get_chat_history("c")[2:] == [
            {**history.get_chat_history("c")[2], "role": "user", "content": "Still there?"},
            {**history.get_chat_history("c")[3], "role": "assistant", "content": "4 messages"},
        ]


@on(*DURABLE)
def test_clearing_removes_the_chat_and_nothing_else(store: Store) -> None:
    with store.open() as history:
        chat, other = LangChainChatHistory(history, "c"), LangChainChatHistory(history, "d")
        theirs = LangChainChatHistory(history.for_user("ann"), "c")
        for each in (chat, other, theirs):
            each.add_user_message("Hello!")
        chat.clear()
        asyncio.run(chat.aclear())
        assert chat.messages == []
        assert not history.chat_exists("c")
        assert [len(each.messages) for each in (other, theirs)] == [1, 1]


@on("sqlite")
def test_what_cannot_be_stored_is_refused_with_all_that_came_with_it(store: Store) -> None:
    with store.open() as history:
        chat = LangChainChatHistory(history, "c")
        with pytest.raises((InvalidMessageError, UnknownFormatError)):
            chat.add_messages([HumanMessage("fine"), object()])  # type: ignore[list-item]
        assert chat.messages == []
        with pytest.raises(InvalidArgumentError, match="ChatHistory"):
            LangChainChatHistory("sqlite://", "c")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="session_id"):
            LangChainChatHistory(history, "")
        with pytest.raises(InvalidArgumentError, match="last"):
            LangChainChatHistory(history, "c", last=0)
