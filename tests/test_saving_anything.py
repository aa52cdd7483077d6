"""`save_messages` over random conversations: continued, windowed, cut, edited, and merged as agents merge them."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart

from chat_history import ChatHistory, ChatHistoryWarning
from chat_history.backends.sqlite import SQLiteBackend
from chat_history.formats import get_format

FORMAT = get_format("pydantic_ai")
START = datetime(2026, 1, 1, tzinfo=UTC)


class Conversation:
    """Makes messages: all different, or the same few again and again at the same time."""

    def __init__(self, random: Random, *, distinct: bool) -> None:
        self.random = random
        self.distinct = distinct
        self.made = 0

    def word(self) -> str:
        self.made += 1
        return f"w{self.made}" if self.distinct else self.random.choice("ab")

    def now(self) -> datetime:
        return START + timedelta(seconds=self.made if self.distinct else 0)

    def request(self, *, first: bool) -> ModelRequest:
        system = [SystemPromptPart("system", timestamp=START)] if first and self.random.random() < 0.6 else []
        words = [self.word() for _ in range(self.random.choice([1, 1, 1, 2]))]
        return ModelRequest(parts=[*system, *(UserPromptPart(word, timestamp=self.now()) for word in words)])

    def response(self) -> ModelResponse:
        words = [self.word() for _ in range(self.random.choice([1, 1, 2]))]
        return ModelResponse(parts=[TextPart(word) for word in words], timestamp=self.now())

    def merged(self, messages: list[ModelMessage]) -> list[ModelMessage]:
        """Neighbours of the same kind as one message, as agents make them."""
        merged: list[ModelMessage] = []
        for message in messages:
            last = merged[-1] if merged else None
            if isinstance(last, ModelRequest) and isinstance(message, ModelRequest):
                merged[-1] = ModelRequest(parts=[*last.parts, *message.parts], timestamp=message.timestamp)
            elif isinstance(last, ModelResponse) and isinstance(message, ModelResponse):
                merged[-1] = ModelResponse(parts=[*last.parts, *message.parts], timestamp=message.timestamp)
            else:
                merged.append(message)
        return merged

    def next_list(self, history: ChatHistory) -> tuple[str, list[ModelMessage]]:
        kind = self.random.choice(["continue", "continue", "window", "cut", "edit"])
        messages = history.get_message_history("c")
        if kind == "window":
            messages = history.get_message_history("c", last=self.random.randint(1, 5))
        elif self.random.random() < 0.3:
            messages = FORMAT.load([FORMAT.dump(message).payload for message in messages])
        if kind == "cut":
            messages = messages[: self.random.randint(0, len(messages))]
        if kind == "edit" and messages:
            at = self.random.randrange(len(messages))
            is_request = isinstance(messages[at], ModelRequest)
            messages[at] = self.request(first=False) if is_request else self.response()
        for _ in range(self.random.randint(0, 2)):
            messages = [*messages, self.request(first=not messages), self.response()]
        return kind, self.merged(messages) if self.random.random() < 0.5 else messages


def parts(messages: list[ModelMessage]) -> list[str]:
    return [part for message in messages for part in FORMAT.parts(FORMAT.dump(message).payload).parts]


@pytest.mark.parametrize("distinct", [True, False], ids=["distinct", "repeating"])
@given(random=st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None)
def test_a_chat_ends_with_what_was_saved_and_nothing_is_lost_or_repeated(distinct: bool, random: Random) -> None:
    conversation = Conversation(random, distinct=distinct)
    with ChatHistory(SQLiteBackend(":memory:")) as history, warnings.catch_warnings():
        warnings.simplefilter("ignore", ChatHistoryWarning)
        for _ in range(random.randint(2, 7)):
            if random.random() < 0.2:
                history.add_messages("c", [{"role": "user", "content": conversation.word()}] * random.randint(1, 2))
                continue
            before = {message.message_id: message.payload for message in history.iter_messages("c", status=None)}
            active = [message.message_id for message in history.iter_messages("c")]
            kind, messages = conversation.next_list(history)
            history.save_messages("c", messages)

            after = {message.message_id: message.payload for message in history.iter_messages("c", status=None)}
            assert before.items() <= after.items(), "nothing is lost"
            saved, stored = parts(messages), parts(history.get_message_history("c"))
            carried = 1 if saved and "system-prompt" in saved[0] else 0
            assert (
                stored[len(stored) - len(saved) :] == saved
                or stored[len(stored) - len(saved) + carried :] == (saved[carried:])
            ), "it ends with what was saved"
            if distinct and kind in ("continue", "window"):
                now = [message.message_id for message in history.iter_messages("c")]
                assert now[: len(active)] == active, "what was stored stays, with its ids"
            assert history.save_messages("c", messages) == [], "nothing is stored twice"
            assert len(list(history.iter_messages("c", status=None))) == len(after)
            assert history.get_message_count("c") == len(list(history.iter_messages("c")))
