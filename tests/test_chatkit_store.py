"""ChatKit keeps its threads in a history: driven by its own server, for several users, and after a restart."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import pytest
from stores import DURABLE, Store, on

from chat_history import ChatHistory, ChatHistoryWarning, ConversionWarning, InvalidArgumentError
from chat_history.formats import Dumped

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# First, because it keeps ChatKit's warnings of itself away.
from chat_history_adapters.formats.chatkit import ChatKit  # noqa: E402, I001
from chat_history_adapters.stores.chatkit import ATTACHMENTS, THREAD, ChatKitStore  # noqa: E402
from chatkit.server import ChatKitServer, StreamingResult  # noqa: E402
from chatkit.store import NotFoundError  # noqa: E402
from chatkit.types import (  # noqa: E402
    ActiveStatus,
    Annotation,
    AssistantMessageContent,
    AssistantMessageItem,
    ClientToolCallItem,
    ClosedStatus,
    CustomTask,
    EndOfTurnItem,
    FileAttachment,
    GeneratedImage,
    GeneratedImageItem,
    HiddenContextItem,
    ImageAttachment,
    InferenceOptions,
    LockedStatus,
    StructuredInputAnswer,
    StructuredInputFreeform,
    StructuredInputItem,
    TaskItem,
    Thread,
    ThreadItemDoneEvent,
    ThreadMetadata,
    URLSource,
    UserMessageItem,
    UserMessageTagContent,
    UserMessageTextContent,
    Workflow,
    WorkflowItem,
)
from chatkit.types import Page as ChatKitPage  # noqa: E402

from chatkit.types import WidgetItem  # noqa: E402  # isort: skip


T = TypeVar("T")
NAIVE = datetime(2026, 1, 2, 3, 4, 5, 678901)
AWARE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Request(NamedTuple):
    """The context of a request."""

    user: str


ANN, BOB = Request("ann"), Request("bob")


def stored_by(history: ChatHistory) -> ChatKitStore:
    return ChatKitStore(history, lambda context: context.user, attachments=attached)


def attached(attachment_id: str, params: Any, context: Any) -> FileAttachment:
    return FileAttachment(id=attachment_id, name=params.name, mime_type=params.mime_type, metadata={"of": context.user})


def on_store(store: Store, work: Callable[[ChatKitStore], Awaitable[T]]) -> T:
    with store.open() as history:
        return asyncio.run(work(stored_by(history)))  # type: ignore[arg-type]


def said(item_id: str, text: str, thread: str = "t", at: datetime = NAIVE) -> UserMessageItem:
    content = [UserMessageTextContent(text=text)]
    return UserMessageItem(
        id=item_id, thread_id=thread, created_at=at, content=content, inference_options=InferenceOptions()
    )


def answered(item_id: str, text: str, thread: str = "t") -> AssistantMessageItem:
    content = [AssistantMessageContent(text=text)]
    return AssistantMessageItem(id=item_id, thread_id=thread, created_at=NAIVE, content=content)


def place(item_id: str) -> dict[str, Any]:
    return {"id": item_id, "thread_id": "t", "created_at": NAIVE}


IMAGE = ImageAttachment(id="a1", name="cat.png", mime_type="image/png", preview_url="https://e.com/cat.png")  # type: ignore[arg-type]
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    CARD = {"type": "Card", "children": [{"type": "Text", "value": "Hello"}]}
    WIDGET = WidgetItem.model_validate({**place("i5"), "widget": CARD, "copy_text": "Hello"})
ITEMS: list[Any] = [
    UserMessageItem(
        **{**place("i1"), "created_at": AWARE},
        content=[
            UserMessageTextContent(text="Look"),
            UserMessageTagContent(id="g", text="Rome", data={"n": [1]}, interactive=True),
        ],
        attachments=[IMAGE],
        quoted_text="before",
        inference_options=InferenceOptions(model="gpt"),
    ),
    AssistantMessageItem(
        **place("i2"),
        content=[
            AssistantMessageContent(
                text="A cat.",
                annotations=[Annotation(source=URLSource(title="Cats", url="https://e.com"), index=3)],
            )
        ],
    ),
    ClientToolCallItem(**place("i3"), call_id="c1", name="theme", arguments={"dark": True}),
    ClientToolCallItem(
        **place("i4"), status="completed", call_id="c2", name="theme", arguments={}, output={"ok": [1, None]}
    ),
    WIDGET,
    TaskItem(**place("i6"), task=CustomTask(title="Search")),
    WorkflowItem(**place("i7"), workflow=Workflow(type="custom", tasks=[CustomTask(title="One")])),
    HiddenContextItem(**place("i8"), content={"secret": 1}),
    EndOfTurnItem(**place("i9")),
]


QUESTIONS: list[Any] = [
    StructuredInputFreeform(id="1", question="Which city?", answer=StructuredInputAnswer(values=["Reykjavik", "Oslo"])),
    StructuredInputFreeform(id="2", question="With a dog?", answer=StructuredInputAnswer(skipped=True)),
]


def thread(thread_id: str = "t", **fields: Any) -> ThreadMetadata:
    return ThreadMetadata(**{"id": thread_id, "created_at": NAIVE, **fields})


# ---- what is stored


@on(*DURABLE)
def test_items_of_every_kind_come_back_equal(store: Store) -> None:
    async def save(kit: ChatKitStore) -> None:
        await kit.save_thread(thread(), ANN)
        for item in ITEMS:
            await kit.add_thread_item("t", item, ANN)

    async def load(kit: ChatKitStore) -> list[Any]:
        page = await kit.load_thread_items("t", None, 50, "asc", ANN)
        assert not page.has_more
        assert [await kit.load_item("t", item.id, ANN) for item in ITEMS] == page.data
        return page.data

    on_store(store, save)
    assert on_store(store, load) == ITEMS


@on(*DURABLE)
def test_threads_come_back_equal(store: Store) -> None:
    threads = [
        thread("1"),
        thread("2", title="Rome", created_at=AWARE, metadata={"a": [1, None]}, allowed_image_domains=["e.com"]),
        thread("3", title="", status=LockedStatus(reason="paid"), metadata={"previous_response_id": "r"}),
    ]

    async def save(kit: ChatKitStore) -> None:
        for each in threads:
            await kit.save_thread(each, ANN)
            await kit.save_thread(each, ANN)

    async def change(kit: ChatKitStore) -> None:
        assert [await kit.load_thread(each.id, ANN) for each in threads] == threads
        whole = Thread(**{**threads[0].model_dump(), "title": "Oslo", "status": ClosedStatus()}, items=ChatKitPage())
        await kit.save_thread(whole, ANN)
        assert await kit.load_thread("1", ANN) == thread("1", title="Oslo", status=ClosedStatus())
        await kit.save_thread(threads[0], ANN)
        assert (await kit.load_thread("1", ANN)).status == ActiveStatus()

    on_store(store, save)
    on_store(store, change)


@on(*DURABLE)
def test_an_item_that_is_saved_again_keeps_its_place(store: Store) -> None:
    async def work(kit: ChatKitStore) -> None:
        await kit.save_thread(thread(), ANN)
        for number in range(3):
            await kit.add_thread_item("t", said(f"i{number}", "?"), ANN)
        await kit.save_item("t", said("i1", "!"), ANN)
        await kit.add_thread_item("t", said("i0", "!"), ANN)
        await kit.save_item("t", said("i3", "new"), ANN)
        page = await kit.load_thread_items("t", None, 9, "asc", ANN)
        assert page.data == [said("i0", "!"), said("i1", "!"), said("i2", "?"), said("i3", "new")]

    on_store(store, work)


@on("memory")
def test_an_answer_that_the_next_one_will_replace_is_warned_of(store: Store) -> None:
    async def work(kit: ChatKitStore) -> None:
        await kit.save_thread(thread(), ANN)
        with pytest.warns(ChatHistoryWarning, match="the next one will replace it"):
            await kit.add_thread_item("t", answered("__fake_id__", "of Chat Completions"), ANN)

    on_store(store, work)


# ---- pages


@on(*DURABLE)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_follow_the_order_of_storing_in_either_direction(store: Store, order: str) -> None:
    async def work(kit: ChatKitStore) -> None:
        await kit.save_thread(thread(), ANN)
        # Times that a clock would give that was set back.
        items: list[Any] = [said(f"i{n}", str(n), at=NAIVE.replace(hour=23 - n)) for n in range(7)]
        for item in items:
            await kit.add_thread_item("t", item, ANN)
        wanted = items if order == "asc" else items[::-1]
        assert (await kit.load_thread_items("t", None, 1, "desc", ANN)).data == items[-1:]
        got: list[Any] = []
        after = None
        while True:
            page = await kit.load_thread_items("t", after, 3, order, ANN)
            got += page.data
            assert page.after == page.data[-1].id
            if not page.has_more:
                break
            after = page.after
            await kit.add_thread_item("t", answered(f"n{len(got)}", "meanwhile"), ANN)
        assert [item for item in got if item.id[0] == "i"] == wanted
        with pytest.raises(NotFoundError):
            await kit.load_thread_items("t", "unknown", 3, order, ANN)
        empty = await kit.load_thread_items("t", None, 0, order, ANN)
        assert (empty.data, empty.has_more) == ([], True)

    on_store(store, work)


@on("memory")
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_of_items_reads_no_more_messages_than_it_needs(
    store: Store, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.open() as history:
        mine = history.for_user("ann")
        mine.add_messages("t", [said(f"i{n}", str(n)) for n in range(50)], message_ids=[f"i{n}" for n in range(50)])
        asked: list[int] = []
        read = history._store.backend.read

        def counted(*args: Any, limit: int, **kwargs: Any) -> Any:
            asked.append(limit)
            return read(*args, limit=limit, **kwargs)

        monkeypatch.setattr(history._store.backend, "read", counted)
        page = asyncio.run(stored_by(history).load_thread_items("t", None, 3, order, ANN))
        assert [item.id for item in page.data] == (["i0", "i1", "i2"] if order == "asc" else ["i49", "i48", "i47"])
        assert sum(asked) <= 5


@on(*DURABLE)
def test_threads_are_listed_in_the_order_in_which_they_began(store: Store) -> None:
    async def work(kit: ChatKitStore) -> None:
        for number in range(5):
            await kit.save_thread(thread(f"t{number}"), ANN)
        await kit.save_attachment(IMAGE, ANN)
        await kit.add_thread_item("t0", said("i", "activity", "t0"), ANN)
        first = await kit.load_threads(3, None, "desc", ANN)
        assert ([each.id for each in first.data], first.has_more, first.after) == (["t4", "t3", "t2"], True, "t2")
        rest = await kit.load_threads(3, first.after, "desc", ANN)
        assert ([each.id for each in rest.data], rest.has_more) == (["t1", "t0"], False)
        ascending = await kit.load_threads(50, "t1", "asc", ANN)
        assert [each.id for each in ascending.data] == ["t2", "t3", "t4"]
        with pytest.raises(NotFoundError):
            await kit.load_threads(3, "unknown", "asc", ANN)

    on_store(store, work)


@on(*DURABLE)
def test_threads_that_are_deleted_while_they_are_listed_end_no_list_and_begin_none_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_all_chat_ids = ChatHistory.get_all_chat_ids

    def deleted_then(history: ChatHistory) -> list[str]:
        ids = get_all_chat_ids(history)
        for chat_id in ("t1", "t2"):
            history.delete_chat_history(chat_id)
        return ids

    async def work(kit: ChatKitStore) -> None:
        for number in range(5):
            await kit.save_thread(thread(f"t{number}"), ANN)
        first = await kit.load_threads(1, None, "asc", ANN)
        monkeypatch.setattr(ChatHistory, "get_all_chat_ids", deleted_then)
        page = await kit.load_threads(2, first.after, "asc", ANN)
        assert ([each.id for each in page.data], page.has_more, page.after) == (["t3", "t4"], False, "t4")

    on_store(store, work)


# ---- whose


@on(*DURABLE)
def test_two_users_cannot_see_or_touch_each_others_threads_items_or_attachments(store: Store) -> None:
    async def work(kit: ChatKitStore) -> None:
        await kit.save_thread(thread("t", title="Ann's"), ANN)
        await kit.add_thread_item("t", said("i", "Ann's"), ANN)
        await kit.save_attachment(IMAGE, ANN)
        for call in (
            kit.load_thread("t", BOB),
            kit.load_item("t", "i", BOB),
            kit.load_attachment("a1", BOB),
            kit.add_thread_item("t", said("j", "Bob's"), BOB),
            kit.save_item("t", said("i", "Bob's"), BOB),
        ):
            with pytest.raises(NotFoundError):
                await call
        for after in (None, "i"):
            assert (await kit.load_thread_items("t", after, 9, "asc", BOB)).data == []
        assert (await kit.load_threads(9, None, "asc", BOB)).data == []
        await kit.delete_thread_item("t", "i", BOB)
        await kit.delete_attachment("a1", BOB)
        await kit.delete_thread("t", BOB)
        await kit.save_thread(thread("t", title="Bob's"), BOB)
        await kit.add_thread_item("t", said("i", "Bob's"), BOB)
        await kit.save_attachment(IMAGE.model_copy(update={"name": "dog.png"}), BOB)
        assert (await kit.load_thread("t", ANN)).title == "Ann's"
        assert (await kit.load_thread_items("t", None, 9, "asc", ANN)).data == [said("i", "Ann's")]
        assert (await kit.load_attachment("a1", ANN)) == IMAGE
        await kit.delete_thread("t", BOB)
        assert (await kit.load_thread("t", ANN)).title == "Ann's"

    on_store(store, work)


@on("sqlite")
def test_a_tenant_is_part_of_the_owner(store: Store) -> None:
    with store.open() as history:
        kit = ChatKitStore(history, lambda context: context)
        asyncio.run(kit.save_thread(thread(), ("ann", "acme")))
        assert history.for_user("ann", tenant_id="acme").get_all_chat_ids() == ["t"]
        with pytest.raises(NotFoundError):
            asyncio.run(kit.load_thread("t", ("ann", "other")))
        for nobody in ("", None, 7):
            with pytest.raises(InvalidArgumentError, match="owner"):
                asyncio.run(kit.load_thread("t", nobody))
        with pytest.raises(InvalidArgumentError, match="ChatKitStore"):
            ChatKitStore(history, "ann")  # type: ignore[arg-type]


# ---- deletion, attachments, ids


@on(*DURABLE)
def test_what_was_deleted_is_not_found_and_nothing_comes_back_to_a_deleted_thread(store: Store) -> None:
    async def work(kit: ChatKitStore) -> None:
        await kit.save_thread(thread(), ANN)
        await kit.add_thread_item("t", said("i", "?"), ANN)
        await kit.add_thread_item("t", said("j", "?"), ANN)
        await kit.delete_thread_item("t", "i", ANN)
        await kit.delete_thread_item("t", "i", ANN)
        with pytest.raises(NotFoundError):
            await kit.load_item("t", "i", ANN)
        await kit.delete_thread("t", ANN)
        await kit.delete_thread("t", ANN)
        with pytest.raises(NotFoundError):
            await kit.load_thread("t", ANN)
        with pytest.raises(NotFoundError):
            await kit.add_thread_item("t", answered("k", "late"), ANN)
        assert (await kit.load_threads(9, None, "asc", ANN)).data == []

    on_store(store, work)


@on(*DURABLE)
def test_attachments_are_kept_with_all_that_is_known_of_them(store: Store) -> None:
    async def work(kit: ChatKitStore) -> None:
        await kit.save_attachment(IMAGE, ANN)
        other = IMAGE.model_copy(update={"thread_id": "t", "metadata": {"size": 3}})
        await kit.save_attachment(other, ANN)
        assert await kit.load_attachment("a1", ANN) == other
        await kit.delete_attachment("a1", ANN)
        await kit.delete_attachment("a1", ANN)
        with pytest.raises(NotFoundError):
            await kit.load_attachment("a1", ANN)
        for reserved in (ATTACHMENTS,):
            with pytest.raises(NotFoundError):
                await kit.load_thread(reserved, ANN)
            with pytest.raises(NotFoundError):
                await kit.save_thread(thread(reserved), ANN)
            assert (await kit.load_thread_items(reserved, None, 9, "asc", ANN)).data == []

    on_store(store, work)


@on("memory")
def test_ids_do_not_collide(store: Store) -> None:
    async def work(kit: ChatKitStore) -> None:
        kinds: list[Any] = ["message", "tool_call", "task", "workflow", "sdk_hidden_context"]
        ids = [kit.generate_thread_id(ANN) for _ in range(20_000)]
        ids += [kit.generate_attachment_id("text/plain", ANN) for _ in range(20_000)]
        ids += [kit.generate_item_id(kind, thread(), ANN) for kind in kinds for _ in range(20_000)]
        assert len(set(ids)) == 140_000
        assert {each.partition("_")[0] for each in ids} == {"thr", "atc", "msg", "tc", "tsk", "wf", "shcx"}

    on_store(store, work)


@on(*DURABLE)
def test_two_tasks_at_once_on_one_thread_lose_nothing(store: Store) -> None:
    async def work(kit: ChatKitStore) -> None:
        await kit.save_thread(thread(), ANN)

        async def talk(name: str) -> None:
            for number in range(10):
                await kit.add_thread_item("t", said(f"{name}{number}", "?"), ANN)
                await kit.save_item("t", said(f"{name}{number}", "!"), ANN)

        async def rename() -> None:
            for number in range(10):
                await kit.save_thread(thread(title=str(number)), ANN)

        await asyncio.gather(talk("a"), talk("b"), talk("c"), rename())
        items = (await kit.load_thread_items("t", None, 99, "asc", ANN)).data
        for name in "abc":
            mine = [item for item in items if item.id[0] == name]
            assert mine == [said(f"{name}{number}", "!") for number in range(10)]
        assert (await kit.load_thread("t", ANN)).title == "9"

    on_store(store, work)


# ---- the server itself


class Server(ChatKitServer[Request]):
    """Says how many items there are."""

    async def respond(self, thread: ThreadMetadata, input_user_message: Any, context: Request) -> AsyncIterator[Any]:
        page = await self.store.load_thread_items(thread.id, None, 100, "asc", context)
        if input_user_message is not None and input_user_message.content[0].text == "Call!":
            item: Any = ClientToolCallItem(
                id=self.store.generate_item_id("tool_call", thread, context),
                thread_id=thread.id,
                created_at=datetime.now(),
                call_id="c1",
                name="theme",
                arguments={"dark": True},
            )
        else:
            item = answered(
                self.store.generate_item_id("message", thread, context), f"{len(page.data)} items", thread.id
            )
        yield ThreadItemDoneEvent(item=item)


def asked(store: Store, context: Request, kind: str, **params: Any) -> list[dict[str, Any]]:
    """What a server says that was just started."""

    async def process(kit: ChatKitStore) -> list[dict[str, Any]]:
        result = await Server(kit, kit).process(json.dumps({"type": kind, "params": params}), context)
        if isinstance(result, StreamingResult):
            return [json.loads(event.removeprefix(b"data: ")) async for event in result]
        return [json.loads(result.json)]

    return on_store(store, process)


def words(text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"content": content, "attachments": [], "inference_options": {}}


@on(*DURABLE)
def test_a_server_goes_on_after_each_restart(store: Store) -> None:
    [created, *_] = asked(store, ANN, "threads.create", input=words("Hello!"))
    thread_id = created["thread"]["id"]
    asked(store, ANN, "threads.add_user_message", thread_id=thread_id, input=words("Call!"))
    asked(store, ANN, "threads.add_client_tool_output", thread_id=thread_id, result={"done": True})
    asked(store, ANN, "threads.update", thread_id=thread_id, title="Colours")
    [whole] = asked(store, ANN, "threads.get_by_id", thread_id=thread_id)
    assert whole["title"] == "Colours"
    kinds = [item["type"] for item in whole["items"]["data"]]
    assert kinds == ["user_message", "assistant_message", "user_message", "client_tool_call", "assistant_message"]
    assert whole["items"]["data"][3]["output"] == {"done": True}
    assert whole["items"]["data"][4]["content"][0]["text"] == "4 items"
    [listed] = asked(store, ANN, "threads.list")
    assert [each["id"] for each in listed["data"]] == [thread_id]
    assert asked(store, BOB, "threads.list")[0]["data"] == []
    with pytest.raises(NotFoundError):
        asked(store, BOB, "threads.get_by_id", thread_id=thread_id)
    asked(store, ANN, "threads.delete", thread_id=thread_id)
    assert asked(store, ANN, "threads.list")[0]["data"] == []


@on("json", "sqlite", "postgres")
def test_a_file_is_attached_by_the_server(store: Store) -> None:
    params = {"name": "d.pdf", "size": 3, "mime_type": "application/pdf"}
    [made] = asked(store, ANN, "attachments.create", **params)
    input_ = {**words("See this."), "attachments": [made["id"]]}
    events = asked(store, ANN, "threads.create", input=input_)
    items = [event["item"] for event in events if event["type"] == "thread.item.done"]
    assert [each["name"] for each in items[0]["attachments"]] == ["d.pdf"]

    async def known(kit: ChatKitStore) -> Any:
        return await kit.load_attachment(made["id"], ANN)

    kept = on_store(store, known)
    assert (kept.metadata, kept.thread_id) == ({"of": "ann"}, events[0]["thread"]["id"])
    asked(store, ANN, "attachments.delete", attachment_id=made["id"])
    with pytest.raises(NotFoundError):
        on_store(store, known)


# ---- other frameworks


@on("memory")
def test_what_a_user_filled_in_and_images_that_were_made_are_messages(store: Store) -> None:
    asked = StructuredInputItem(**place("i1"), inputs=[StructuredInputFreeform(id="1", question="Which city?")])
    answered = StructuredInputItem(**place("i2"), status="answered", inputs=QUESTIONS)
    making = GeneratedImageItem(**place("i3"))
    made = GeneratedImageItem(**place("i4"), image=GeneratedImage(id="g", url="https://e.com/cat.png"))
    drawn = GeneratedImageItem(**place("i5"), image=GeneratedImage(id="g", url="data:image/png;base64,QUJD"))
    with store.open() as history:
        history.add_messages("t", [asked, answered, making, made, drawn])
        said = {"role": "user", "content": "Which city?: Reykjavik, Oslo\nWith a dog?: skipped"}
        image = {"role": "assistant", "content": [{"type": "image", "url": "https://e.com/cat.png"}]}
        data = {"role": "assistant", "content": [{"type": "image", "data": "QUJD", "media_type": "image/png"}]}
        dicts = history.get_chat_history("t")
        assert [{key: each[key] for key in ("role", "content")} for each in dicts] == [said, image, data]
        assert [hit.role for hit in history.search("reykjavik")] == ["user"]
        assert history.get_message_history("t", "chatkit") == [asked, answered, making, made, drawn]


@on("json", "sqlite", "postgres")
def test_a_thread_goes_on_in_another_framework_and_back(store: Store) -> None:
    async def begin(kit: ChatKitStore) -> None:
        await kit.save_thread(thread(), ANN)
        for item in ITEMS:
            await kit.add_thread_item("t", item, ANN)

    on_store(store, begin)
    with store.open() as history:
        mine = history.for_user("ann")
        dicts = mine.get_chat_history("t")
        assert [each["role"] for each in dicts] == ["user", "assistant", "assistant", "assistant", "tool"]
        assert dicts[0]["content"] == "> before\n\nLook\nRome\ncat.png"
        messages = mine.get_message_history("t", format="pydantic_ai")
        assert [message.kind for message in messages] == ["request", "response", "request"]
        assert messages[1].parts[0].content == "A cat."
        mine.add_messages(
            "t",
            [
                {"role": "user", "content": "And now?"},
                {"role": "tool", "tool_call_id": "x", "content": "unseen"},
                {"role": "assistant", "content": "A dog."},
            ],
        )

    async def go_on(kit: ChatKitStore) -> list[Any]:
        page = await kit.load_thread_items("t", "i9", 9, "asc", ANN)
        again = [await kit.load_item("t", item.id, ANN) for item in page.data]
        assert again == page.data
        return [(item.type, item.content[0].text, item.thread_id) for item in page.data]

    assert on_store(store, go_on) == [("user_message", "And now?", "t"), ("assistant_message", "A dog.", "t")]


@on("sqlite")
def test_a_chat_that_another_framework_began_is_a_thread(store: Store) -> None:
    with store.open() as history:
        mine = history.for_user("ann")
        mine.create_chat("c", title="Rome", metadata={"mine": 1})
        mine.add_message("c", {"role": "user", "content": "Hello!"})
        kit = stored_by(history)
        seen = asyncio.run(kit.load_thread("c", ANN))
        assert (seen.title, seen.metadata) == ("Rome", {})
        seen.metadata = {"x": 1}
        asyncio.run(kit.save_thread(seen, ANN))
        assert mine.get_chat("c").metadata["mine"] == 1
        mine.update_chat("c", title="Roma")
        assert asyncio.run(kit.load_thread("c", ANN)).title == "Roma"


@on(*DURABLE)
def test_what_another_release_of_chatkit_wrote_does_not_hide_the_thread(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.open() as history:
        kit, mine = stored_by(history), history.for_user("ann")
        asyncio.run(kit.save_thread(thread(title="Rome"), ANN))
        asyncio.run(kit.save_thread(thread("u"), ANN))
        content = [{"type": "input_text", "text": "Hello!"}, {"type": "input_smell", "smell": "roses"}]
        changes: list[dict[str, Any]] = [{}, {"type": "hologram"}, {"content": content}]
        for number, change in enumerate(changes):
            dumped = Dumped(json.dumps(said(f"i{number}", "?").model_dump(mode="json") | change), "user", "Hello!")
            monkeypatch.setattr(ChatKit, "dump", lambda form, item, dumped=dumped: dumped)
            mine.add_message("t", said(f"i{number}", "?"), message_id=f"i{number}")
        saved = mine.get_chat("t").metadata
        mine.update_chat("t", metadata={THREAD: saved[THREAD] | {"status": {"type": "mislaid"}}})

        with pytest.warns(ConversionWarning, match="item 'i[12]'"):
            page = asyncio.run(kit.load_thread_items("t", None, 9, "asc", ANN))
        assert [(item.id, item.content[0].text) for item in page.data] == [("i0", "?"), ("i2", "Hello!")]
        with pytest.warns(ConversionWarning, match="thread 't'"):
            listed = asyncio.run(kit.load_threads(9, None, "asc", ANN))
        assert [(each.id, each.title) for each in listed.data] == [("t", "Rome"), ("u", None)]
