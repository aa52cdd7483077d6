"""A ChatKit server over a SQLite file: two users, a file that is attached, and a restart between any two requests.

Offline: `respond` says what it was told to, instead of asking a model.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from chat_history import open_history

warnings.filterwarnings("ignore", category=DeprecationWarning)  # ChatKit's, of classes of its own that it imports
from chatkit.server import ChatKitServer, StreamingResult  # noqa: E402
from chatkit.store import NotFoundError  # noqa: E402
from chatkit.types import (  # noqa: E402
    AssistantMessageContent,
    AssistantMessageItem,
    AttachmentCreateParams,
    AttachmentUploadDescriptor,
    FileAttachment,
    ThreadItemDoneEvent,
)

from chat_history_adapters.stores.chatkit import ChatKitStore  # noqa: E402

FILE = "sqlite:///chatkit.db"


class Clerk(ChatKitServer[str]):
    """Counts what it was told; here an agent would be run."""

    async def respond(self, thread: Any, input_user_message: Any, context: str) -> AsyncIterator[Any]:
        said = (await self.store.load_thread_items(thread.id, None, 50, "asc", context)).data
        files = [each.name for item in said for each in getattr(item, "attachments", [])]
        text = f"{context}, you have told me {len(said)} things, and shown me {files or 'nothing'}."
        item = AssistantMessageItem(
            id=self.store.generate_item_id("message", thread, context),
            thread_id=thread.id,
            created_at=datetime.now(),
            content=[AssistantMessageContent(text=text)],
        )
        yield ThreadItemDoneEvent(item=item)


def upload(attachment_id: str, params: AttachmentCreateParams, user: str) -> FileAttachment:
    """Where the file itself goes is the application's to say."""
    to = AttachmentUploadDescriptor(url=f"https://files.example.com/{user}/{attachment_id}", method="PUT")  # type: ignore[arg-type]
    return FileAttachment(id=attachment_id, name=params.name, mime_type=params.mime_type, upload_descriptor=to)


async def ask(user: str, kind: str, **params: Any) -> list[dict[str, Any]]:
    """One request, to a server that was just started: the context of a request is the user's name here."""
    with open_history(FILE) as history:
        store = ChatKitStore(history, lambda context: context, attachments=upload)
        result = await Clerk(store, store).process(json.dumps({"type": kind, "params": params}), user)
        if isinstance(result, StreamingResult):
            return [json.loads(event.removeprefix(b"data: ")) async for event in result]
        return [json.loads(result.json)]


def message(text: str, *attachments: str) -> dict[str, Any]:
    """What a user types."""
    content = [{"type": "input_text", "text": text}]
    return {"content": content, "attachments": list(attachments), "inference_options": {}}


async def main() -> None:
    """Ann talks, attaches a file, and comes back; Bob sees nothing of it."""
    [created, *_] = await ask("ann", "threads.create", input=message("Hello!"))
    thread = created["thread"]["id"]
    [file] = await ask("ann", "attachments.create", name="plan.pdf", size=3, mime_type="application/pdf")
    await ask("ann", "threads.add_user_message", thread_id=thread, input=message("See this.", file["id"]))

    [whole] = await ask("ann", "threads.get_by_id", thread_id=thread)
    texts = [item["content"][0]["text"] for item in whole["items"]["data"]]
    print(*texts, sep="\n")
    assert texts[3] == "ann, you have told me 3 things, and shown me ['plan.pdf']."

    try:
        await ask("bob", "threads.get_by_id", thread_id=thread)
    except NotFoundError as error:
        print(f"for bob: {error}")
    assert (await ask("bob", "threads.list"))[0]["data"] == []


asyncio.run(main())
