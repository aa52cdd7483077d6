"""ChatGPT's export: `conversations.json`, alone or in the zip or folder that it came in.

A conversation is a tree, `mapping`, of which `current_node` is the end that was seen last. Its messages become dicts of
Chat Completions; what these cannot say of one (its whole content where that is more than text, the model, citations,
attachments) is kept beside it, in the message's metadata under "chatgpt".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from chat_history.errors import InvalidArgumentError

from .documents import Document
from .foreign import ForeignChat, ForeignMessage, Source, moment

__all__ = ["IMPORTER", "ChatGPT"]

KEY = "chatgpt"
USUAL: Mapping[str, Any] = {"recipient": "all", "status": "finished_successfully", "weight": 1}
"""What nearly every message has."""
CONTEXTS = ("user_editable_context", "model_editable_context")
"""What the user or the model put down about the user, for every conversation: a system prompt to it."""
THOUGHTS = ("thoughts", "reasoning_recap")


class ChatGPT:
    """Ids, titles and times stay as they are. Every branch arrives, the current one active."""

    name = "chatgpt"
    expects = "ChatGPT's export: conversations.json, or the zip or folder with it"

    def recognises(self, source: Source) -> bool:
        """A list of objects, the first with a `mapping`."""
        if not isinstance(source, Document) or source.shape.opens != "[":
            return False
        for reader in source.readers():
            for _ in reader.elements() if reader.peek() == "[" else ():
                for key in reader.members() if reader.peek() == "{" else ():
                    if key == "mapping":
                        return True
                    reader.value()
                return False
        return False

    def chats(self, source: Source, table: str | None) -> Iterator[ForeignChat]:
        """All conversations. One at a time is held as a whole."""
        document = cast(Document, source)
        for reader in document.readers():
            for number in reader.elements():
                yield _chat(reader.value(), f"conversation {number + 1} of {document.name}")
            reader.end()


IMPORTER = ChatGPT()


def _chat(conversation: Any, named: str) -> ForeignChat:
    mapping = conversation.get("mapping") if isinstance(conversation, dict) else None
    if not isinstance(mapping, dict) or not all(isinstance(node, dict) for node in mapping.values()):
        raise InvalidArgumentError(f"{named} has no tree of messages ('mapping'); what came before it has arrived")
    tree = _Tree(mapping, conversation.get("current_node"), named)
    created_at = moment(conversation.get("create_time"))
    known = {"mapping", "current_node", "title", "create_time", "update_time", "id", "conversation_id"}
    rest = {key: value for key, value in conversation.items() if key not in known and value not in (None, [], {})}
    return ForeignChat(
        str(conversation.get("conversation_id") or conversation.get("id") or ""),
        tree.messages(),
        str(conversation.get("title") or ""),
        created_at,
        {KEY: rest} if rest else None,
        tree.head,
    )


class _Tree:
    def __init__(self, mapping: dict[str, dict[str, Any]], current: object, named: str) -> None:
        self._nodes = mapping
        self._named = named
        self._children: dict[str | None, list[str]] = {}
        for node_id, node in mapping.items():
            parent = node.get("parent")
            known = parent if isinstance(parent, str) and parent in mapping else None
            self._children.setdefault(known, []).append(node_id)
        self.head = next((each for each in self._way(current) if _says_something(self._nodes[each])), None)

    def _way(self, node_id: Any) -> Iterator[str]:
        """From this node to the root."""
        seen: set[str] = set()
        while isinstance(node_id, str) and node_id in self._nodes and node_id not in seen:
            seen.add(node_id)
            yield node_id
            node_id = self._nodes[node_id].get("parent")

    def messages(self) -> Iterator[ForeignMessage]:
        """Every message after the one that it follows."""
        count = 0
        # Each node with the message that it follows, and the call of a tool that waits for its result.
        waiting: list[tuple[str, str | None, str | None]] = []
        self._push(waiting, None, None, None)
        while waiting:
            node_id, parent, call = waiting.pop()
            count += 1
            node = self._nodes[node_id]
            if _says_something(node):
                read = _read(node["message"], node_id, parent, call)
                call = _open_call(read.content, node_id, call)
                yield read
                parent = node_id
            self._push(waiting, node_id, parent, call)
        if count < len(self._nodes):
            raise InvalidArgumentError(f"{self._named} has messages that follow one another in a circle")

    def _push(
        self, waiting: list[tuple[str, str | None, str | None]], of: str | None, parent: str | None, call: str | None
    ) -> None:
        waiting += [(child, parent, call) for child in reversed(self._children.get(of, ()))]


def _says_something(node: dict[str, Any]) -> bool:
    """Whether a node is more than a place in the tree: the root, or a prompt that was left empty."""
    message = node.get("message")
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, dict) and content.get("content_type") in ("text", *CONTEXTS):
        try:
            return bool(_text(content))
        except TypeError:
            return True  # named where it arrives
    return message is not None


# ---- one message


def _read(message: Any, node_id: str, parent: str | None, call: str | None) -> ForeignMessage:
    try:
        rest = _rest(message)
        found = _message(message, node_id, call)
    except (AttributeError, TypeError):
        # Named where it arrives, since it is no message.
        return ForeignMessage(message, "openai", message_id=node_id, parent=parent)
    return ForeignMessage(
        found, "openai", moment(message.get("create_time")), {KEY: rest} if rest else None, node_id, parent
    )


def _message(message: dict[str, Any], node_id: str, call: str | None) -> dict[str, Any]:
    """The message as a dict of Chat Completions."""
    author = message.get("author") or {}
    content = message.get("content")
    role, text = author.get("role"), _text(content)
    kind = content.get("content_type") if isinstance(content, dict) else None
    if kind in CONTEXTS:
        return {"role": "system", "content": text}
    if role == "tool":
        named = {"name": author["name"]} if author.get("name") else {}
        return {"role": "tool", "tool_call_id": call, **named, "content": text}
    if role == "assistant" and kind in THOUGHTS:
        return {"role": "assistant", "content": None, "reasoning_content": text}
    if role == "assistant" and message.get("recipient") not in (None, "all"):
        tool = {"name": str(message["recipient"]), "input": text}
        return {"role": "assistant", "content": None, "tool_calls": [{"id": node_id, "type": "custom", "custom": tool}]}
    return {"role": role, "content": text}


def _open_call(message: Any, node_id: str, call: str | None) -> str | None:
    """The call of a tool that a result after this message answers."""
    if not isinstance(message, dict) or message.get("role") == "user":
        return None
    return node_id if message.get("tool_calls") else call


def _text(content: Any) -> str:
    """What a person would read of it."""
    if not isinstance(content, dict):
        return content if isinstance(content, str) else ""
    texts: list[Any] = []
    for part in content.get("parts") or ():
        texts.append(part if isinstance(part, str) else _part(part))
    for thought in content.get("thoughts") or ():
        texts.append(thought.get("content") or thought.get("summary") if isinstance(thought, dict) else None)
    texts += [content.get(key) for key in ("user_profile", "user_instructions", "model_set_context")]
    if not any(texts):
        texts = [content.get(key) for key in ("text", "result", "content")]
    return "\n".join(text for text in texts if isinstance(text, str) and text)


def _part(part: Any) -> str | None:
    """A picture or a sound is named: ChatGPT keeps it under a pointer that nobody else can follow."""
    if not isinstance(part, dict):
        return None
    if isinstance(part.get("text"), str):
        return str(part["text"])
    kind = str(part.get("content_type") or "attachment").removesuffix("_asset_pointer").replace("_", " ")
    pointer = part.get("asset_pointer")
    return f"[{kind} {pointer.rpartition('/')[2]}]" if isinstance(pointer, str) else f"[{kind}]"


def _rest(message: dict[str, Any]) -> dict[str, Any]:
    """What the dict does not say."""
    rest = {key: value for key, value in message.items() if key not in ("id", "create_time", "author", "content")}
    rest = {key: value for key, value in rest.items() if value != USUAL.get(key)}
    author = {key: value for key, value in (message.get("author") or {}).items() if key != "role"}
    rest["author"] = {key: value for key, value in author.items() if value}
    content = message.get("content")
    plain = (
        isinstance(content, dict)
        and content.get("content_type") == "text"
        and all(isinstance(part, str) for part in content.get("parts") or ())
        and content.keys() == {"content_type", "parts"}
    )
    if not plain:
        rest["content"] = content
    return {key: value for key, value in rest.items() if value not in (None, [], {})}
