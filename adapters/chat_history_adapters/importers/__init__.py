"""Chats from the stores that people have today, into any history.

Each kind of store is one small module. It reads its source, which is never written to, without the framework that wrote
it, and gives its chats one by one; `arriving` takes them in, the same for all.
"""

from __future__ import annotations

from os import PathLike

from chat_history import transfer
from chat_history.arguments import checked_history
from chat_history.errors import InvalidArgumentError
from chat_history.history import ChatHistory
from chat_history.transfer import Moved, Progress

from . import chatgpt, langchain, llama_index, openai_agents, openai_jsonl, rakam
from .arriving import receive
from .databases import Database
from .documents import Document
from .foreign import ForeignChat, ForeignMessage, Importer, Source
from .opening import opened

__all__ = ["KINDS", "ForeignChat", "ForeignMessage", "Importer", "import_from"]

_IMPORTERS: dict[str, Importer] = {
    each.name: each
    for each in (
        chatgpt.IMPORTER,
        langchain.IMPORTER,
        llama_index.IMPORTER,
        openai_agents.IMPORTER,
        openai_jsonl.IMPORTER,
        rakam.IMPORTER,
    )
}
OWN = "chat_history"

KINDS = (OWN, *_IMPORTERS)
"""What `kind` may be. "chat_history" is a file that `chat-history export` wrote."""


def import_from(
    source: str | PathLike[str],
    history: ChatHistory,
    *,
    kind: str | None = None,
    table: str | None = None,
    skip: bool = False,
    progress: Progress | None = None,
) -> Moved:
    """Take all chats of a foreign store into a history; how much has arrived, what was there already included.

    source: a path, or the URL of a database. The chats become those of the history's owner (`history.for_user(...)`).
    Messages are stored in the format that they came in. kind: one of `KINDS`; recognised unless given. table: which
    one, where a database has several of the kind.

    Nothing arrives twice: the same call, also after one that was interrupted, adds what is missing. A chat that was
    gone on with here keeps its active branch. `ChatExistsError` for a chat of that id which did not come from there.
    skip: leave out messages that cannot be read, with a `ChatHistoryWarning`; otherwise the first is an
    `InvalidMessageError` that names it. `InvalidArgumentError` for a source of no known kind. After an error, what came
    before it has arrived.
    """
    if not isinstance(source, str | PathLike):
        raise InvalidArgumentError(f"source is a path, or the URL of a database, not a {type(source).__name__}")
    checked_history(history)
    if kind is not None and kind not in KINDS:
        raise InvalidArgumentError(f"{kind!r} is no kind of store that can be imported; there are: {', '.join(KINDS)}")
    with opened(source) as found:
        if kind == OWN or (kind is None and _is_export(found)):
            return _own(found, history, progress)
        importer = _recognised(found) if kind is None else _IMPORTERS[kind]
        if kind is not None and not importer.recognises(found):
            raise InvalidArgumentError(f"{found.name} is not of {kind}, which would be {importer.expects}")
        return receive(history, importer.chats(found, table), skip=skip, progress=progress)


def _recognised(source: Source) -> Importer:
    found = [each for each in _IMPORTERS.values() if each.recognises(source)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.name for each in found)
        raise InvalidArgumentError(f"{source.name} may be of several kinds: say which, kind= or --from ({names})")
    own = source.having("chat_key") if isinstance(source, Database) else source.shape.key == OWN
    if own:
        raise InvalidArgumentError(
            f"{source.name} is a store of chat_history itself: `chat-history copy` brings it over"
        )
    expected = "; ".join(f"{each.name}: {each.expects}" for each in _IMPORTERS.values())
    raise InvalidArgumentError(f"{source.name} is of no kind that can be imported. These are: {expected}")


def _is_export(source: Source) -> bool:
    return isinstance(source, Document) and source.shape.key == next(iter(transfer.HEADER))


def _own(source: Source, history: ChatHistory, progress: Progress | None) -> Moved:
    if not isinstance(source, Document):
        raise InvalidArgumentError(f"{source.name} is no file that `chat-history export` wrote")
    with source.text() as file:
        return transfer.import_from(file, history, progress=progress)
