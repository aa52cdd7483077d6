"""Words are found wherever they stand, and nothing that is gone is found."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chat_history.errors import InvalidArgumentError
from chat_history.history import ChatHistory

from .checks import Reopen, say, says

__all__ = ["Searching"]


def found(history: ChatHistory, query: str, chat_id: str | None = None, **options: int) -> list[str]:
    """What was found, with the words set off."""
    return [hit.marked("[", "]") for hit in history.search(query, chat_id, **options)]


class Searching:
    """Words are found wherever they stand, and nothing that is gone is found."""

    def test_words_are_found_in_messages_and_titles(self, history: ChatHistory) -> None:
        history.create_chat("a", title="Weather in Paris")
        asked = history.add_message("a", say("user", "What is the weather like?"))
        history.add_message("b", say("assistant", "Sunny weather."))
        title, newest, oldest = history.search("weather")
        assert (title.chat_id, title.title, title.message_id, title.role) == ("a", "Weather in Paris", None, None)
        assert title.marked("<", ">") == "<Weather> in Paris"
        assert title.created_at == history.get_chat("a").updated_at
        assert (newest.chat_id, newest.title, newest.role, newest.snippet) == ("b", "", "assistant", "Sunny weather.")
        assert (oldest.message_id, oldest.created_at, oldest.marks) == (asked.message_id, asked.created_at, ((12, 19),))
        assert oldest.created_at.tzinfo == UTC

    def test_every_word_must_be_in_the_same_text(self, history: ChatHistory) -> None:
        history.add_messages("c", [say("user", "red green"), say("user", "green blue"), say("user", "blue red")])
        assert found(history, "red blue") == ["[blue] [red]"]
        assert found(history, "red green blue") == []
        assert found(history, '"green blue"') == ["[green blue]"]
        assert found(history, '"blue green"') == []

    @pytest.mark.parametrize(
        ("text", "query", "shown"),
        [
            ("Wie ist das Wetter in Köln?", "KOLN", "Wie ist das Wetter in [Köln]?"),
            ("Wie ist das Wetter in Ko\u0308ln?", "köln", "Wie ist das Wetter in [Ko\u0308ln]?"),
            ("Die Straße", "strasse", "Die [Straße]"),
            ("東京は晴れです", "東京", "[東京]は晴れです"),
            ("東京は晴れです", "晴", "東京は[晴]れです"),
            ("ガラス", "カラス", None),
            ("서울 날씨", "날씨", "서울 [날씨]"),
            ("İstanbul", "istanbul", "[İstanbul]"),
            ("ＡＢＣ", "abc", "[ＡＢＣ]"),
            ("unbelievable", "believ", "un[believ]able"),
            ("ab", "b", "a[b]"),
            ("a\U0001f600b", "\U0001f600", "a[\U0001f600]b"),
            ("one\ntwo\tthree", '"one two three"', "[one two three]"),
            ('say "hello" \\ it\'s 100% a_b', '"hello', 'say "[hello]" \\ it\'s 100% a_b'),
            ('say "hello" \\ it\'s 100% a_b', "it's", 'say "hello" \\ [it\'s] 100% a_b'),
            ('say "hello" \\ it\'s 100% a_b', "100% a_b", 'say "hello" \\ it\'s [100%] [a_b]'),
            ('say "hello" \\ it\'s 100% a_b', "\\", 'say "hello" [\\] it\'s 100% a_b'),
            ("I don\u2019t know \u2013 an e\u2011mail", "don't e-mail", "I [don\u2019t] know \u2013 an [e\u2011mail]"),
            ("I don't know", "don\u2019t", "I [don't] know"),
            (
                "\u2018one\u2019, \u201atwo\u201b, \u02bctis",
                "'tis 'one' 'two'",
                "[\u2018one\u2019], [\u201atwo\u201b], [\u02bctis]",
            ),
            ("green blue, blue red", "\u201cblue red\u201d", "green blue, [blue red]"),
            ("green blue, blue red", "\u201eblue green\u201c", None),
            ("green blue, blue red", "\u00ab green blue \u00bb", "[green blue], blue red"),
            ("100 percent, axb", "100%", None),
            ("cats AND dogs", "cats AND dogs", "[cats] [AND] [dogs]"),
            ("cats dogs", "cats AND dogs", None),
            ("a-b (c) * NEAR/2 x:y ^z", "NEAR/2 (c) x:y *", "a-b [(c)] [*] [NEAR/2] [x:y] ^z"),
            ("\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0e27\u0e31\u0e2a", "\u0e2a[\u0e27\u0e31\u0e2a]\u0e14\u0e35"),
        ],
    )
    def test_what_people_type_is_found_as_they_mean_it(
        self, history: ChatHistory, text: str, query: str, shown: str | None
    ) -> None:
        history.add_message("c", say("user", text))
        history.create_chat("d", title=text)
        assert found(history, query) == ([] if shown is None else [shown, shown])

    @pytest.mark.parametrize("query", ["", " ", '"', '""', '" "', "\u0301", "\n"])
    def test_a_query_without_a_word_finds_nothing(self, two: ChatHistory, query: str) -> None:
        assert two.search(query) == []

    def test_a_query_that_is_none_is_refused(self, two: ChatHistory) -> None:
        for query in (None, 5, "a\0", "\ud800"):
            with pytest.raises(InvalidArgumentError, match="query"):
                two.search(query)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="limit"):
            two.search("a", limit=0)
        assert two.search("x" * 100_000) == []

    def test_a_snippet_shows_the_text_around_the_first_hit(self, history: ChatHistory) -> None:
        history.add_message("c", say("user", "ä" * 1000 + " needle " + "ö" * 1000 + " needle"))
        (hit,) = history.search("needle")
        assert hit.snippet.startswith("…ää")
        assert hit.snippet.endswith("öö…")
        assert len(hit.snippet) < 250
        assert [hit.snippet[start:end] for start, end in hit.marks] == ["needle"]

    def test_the_newest_are_found_first_and_no_more_than_asked_for(self, history: ChatHistory) -> None:
        for number in range(50):
            history.add_message(f"c{number % 3}", say("user", f"item {number}"))
        assert [hit.snippet for hit in history.search("item", limit=4)] == ["item 49", "item 48", "item 47", "item 46"]
        assert [hit.snippet for hit in history.search("item", "c1", limit=2)] == ["item 49", "item 46"]
        assert len(history.search("item", limit=1000)) == len(history.search("item", limit=10**30)) == 50
        assert history.search("item", "nowhere") == []

    def test_a_few_that_have_every_word_are_found_among_many_that_have_one(self, history: ChatHistory) -> None:
        history.add_messages("c", [say("user", "red green"), *[say("user", "red")] * 50])
        assert found(history, "red green", limit=1) == ["[red] [green]"]
        assert found(history, "red green", "c", limit=1) == ["[red] [green]"]

    def test_a_search_in_a_chat_finds_no_title_and_no_message_of_another(self, history: ChatHistory) -> None:
        for chat in "ab":
            history.create_chat(chat, title=f"Red {chat}")
            history.add_message(chat, say("user", f"red {chat}"))
        assert found(history, "red", "a") == ["[Red] a", "[red] a"]

    def test_what_was_written_since_the_last_search_is_found(self, history: ChatHistory, reopen: Reopen) -> None:
        other = reopen()
        for number in range(40):
            other.add_message("c", say("user", f"number {number} it is"))
            assert found(history, f'"number {number} it"') == [f"[number {number} it] is"]

    def test_what_was_changed_is_found_as_it_is_now(self, two: ChatHistory) -> None:
        two.create_chat("d", title="old title")
        two.add_message("d", say("user", "old text"), message_id="x")
        assert len(two.search("old")) == 2
        two.update_chat("d", title="new title")
        two.replace_message("d", "x", say("user", "new text"))
        assert two.search("old") == []
        assert found(two, "new") == ["[new] title", "[new] text"]
        two.update_chat("d", title="")
        assert found(two, "new") == ["[new] text"]
        two.replace_message("d", "x", say("user", "newer text"))
        two.replace_message("d", "x", say("user", "newest text"))
        assert found(two, "newer") == []
        assert found(two, "newest") == ["[newest] text"]

    def test_what_is_gone_is_not_found(self, history: ChatHistory) -> None:
        def add() -> None:
            history.add_messages("c", says("aaa one", "aaa two", "aaa three"), message_ids=["1", "2", "3"])
            history.create_chat("d", title="aaa four")
            history.add_message("e", say("user", "aaa five"))

        add()
        assert len(history.search("aaa")) == 5
        assert history.delete_message("c", "2")
        assert {hit.snippet for hit in history.search("aaa")} == {"aaa one", "aaa three", "aaa four", "aaa five"}
        history.delete_chat_history("c")
        assert {hit.snippet for hit in history.search("aaa")} == {"aaa four", "aaa five"}
        history.add_message("c", say("user", "aaa again"))
        assert {hit.snippet for hit in history.search("aaa")} == {"aaa four", "aaa five", "aaa again"}
        history.clear_all()
        assert history.search("aaa") == []
        add()
        assert len(history.search("aaa")) == 5
        history.delete_last_message("e")
        history.add_message("e", say("user", "bbb"))
        assert (len(history.search("aaa")), len(history.search("bbb"))) == (4, 1)

    def test_archived_messages_are_found_and_displaced_ones_are_not(self, history: ChatHistory) -> None:
        history.add_messages("c", says("aaa one", "aaa two", "aaa three"))
        history.archive_oldest_messages("c", 1)
        history.save_messages("c", says("aaa one", "aaa two", "bbb"))
        assert found(history, "aaa") == ["[aaa] two", "[aaa] one"]
        assert found(history, "bbb") == ["[bbb]"]
        branch = next(each for each in history.list_branches("c") if not each.active)
        history.switch_branch("c", branch.head)
        assert found(history, "bbb") == []
        assert found(history, "aaa") == ["[aaa] three", "[aaa] two", "[aaa] one"]

    def test_nobody_finds_what_another_owner_wrote(self, history: ChatHistory) -> None:
        ann, bob = history.for_user("ann"), history.for_user("bob", tenant_id="acme")
        ann.add_message("c", say("user", "secret of ann"))
        ann.create_chat("d", title="secret title")
        bob.add_message("c", say("user", "secret of bob"))
        assert found(ann, "secret") == ["[secret] title", "[secret] of ann"]
        assert found(bob, "secret") == found(bob, "secret", "c") == ["[secret] of bob"]
        assert history.search("secret") == history.search("secret", "c") == bob.search("ann") == []
        ann.update_chat("d", shared=True)
        assert found(history.for_user("bob").shared_by("ann"), "secret") == ["[secret] title"]

    def test_a_long_text_and_many_messages_are_found(self, history: ChatHistory) -> None:
        words = [f"word{number}" for number in range(300)]
        history.add_messages("c", [say("user", " ".join(words[at:] + words[:at])) for at in range(0, 300, 3)])
        history.add_message("d", say("user", "x" * 200_000 + " köln " + "y" * 200_000))
        assert len(history.search("word7 word299", limit=1000)) == 100
        (hit,) = history.search("koln")
        assert [hit.snippet[start:end] for start, end in hit.marks] == ["köln"]
        assert hit.created_at <= datetime.now(UTC)
