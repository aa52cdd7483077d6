"""The `chat-history` command, as people and scripts use it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from command import HERE, output, run
from typer.testing import CliRunner

from chat_history import open_history
from chat_history.cli import app

pytestmark = pytest.mark.usefixtures("empty_place")

MULTIPLY = {"id": "call_1", "type": "function", "function": {"name": "multiply", "arguments": '{"a": 6, "b": 7}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is 6 × 7?"}, IMAGE]},
    {"role": "assistant", "content": None, "tool_calls": [MULTIPLY]},
    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    {"role": "assistant", "content": "It is 42."},
]


@pytest.fixture
def store() -> str:
    """A store with one chat of every kind of message, and one of another owner."""
    with open_history("chats.json") as history:
        history.add_messages("sums", CONVERSATION)
        history.update_chat("sums", title="Sums")
        history.for_user("ann", tenant_id="acme").add_message("secret", {"role": "user", "content": "psst"})
    return "chats.json"


# The demo.


def test_the_demo_goes_on_in_a_second_process_with_what_the_first_one_stored(url: str) -> None:
    with open_history(url) as history:
        history.add_message("demo", {"role": "user", "content": "mine"})
    said = output("demo", "--url", url)
    first, second = re.findall(r"^Process (\d+) ", said, re.MULTILINE)
    assert first != second
    assert re.search(r"loaded its 4 messages", said)
    # The script's second answer names what only the first process was told.
    assert "you are Ada. It is 4 °C and raining in Oslo; in Paris it was 18 °C and sunny." in said
    assert said.index("Hello, I am Ada") < said.index("→ weather(") < said.index("tool weather") < said.index("Oslo?")
    assert "--url postgresql://" in said
    with open_history(url) as history:
        (chat_id,) = [name for name in history.get_all_chat_ids() if name != "demo" and name in said]
        stored = list(history.iter_messages(chat_id))
        assert history.get_chat_history("demo") == [{"role": "user", "content": "mine"}]
    assert [message.position for message in stored] == list(range(8))
    assert [message.role for message in stored] == ["user", "assistant", "tool", "assistant"] * 2
    shown = output("show", chat_id, "--url", url)
    assert shown.strip() in said


def test_the_demo_without_a_url_touches_nothing_but_the_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "chat_history.toml").write_text('url = "sqlite:///mine.db"\n')
    said = run("demo", CHAT_HISTORY_URL="json:///mine.json")
    assert said.returncode == 0, said.stderr
    (named,) = re.findall(r"messages are in (\S+chats\.db)", said.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {"chat_history.toml", Path(named).parent.name}
    (command,) = re.findall(r"chat-history (show \S+ --url \S+)", said.stdout)
    assert "you are Ada" in output(*command.split())


def test_on_a_terminal_the_demo_says_the_same_and_nobody_else_says_anything() -> None:
    # A shell's environment, not a test's: Pydantic AI keeps silent in a test.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR")} | {"TERM": "xterm"}
    terminal, end = pty.openpty()
    with subprocess.Popen([*HERE, "demo"], stdout=end, stderr=end, env=environment):
        os.close(end)
        said = ""
        # Linux ends a terminal with an error instead of an empty read.
        with suppress(OSError):
            while piece := os.read(terminal, 100_000):
                said += piece.decode(errors="replace")
    os.close(terminal)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", said)
    assert "you are Ada. It is 4 °C" in plain
    assert "pydantic-ai v" not in plain


def test_each_demo_is_a_chat_of_its_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chats.db"
    output("demo", "--url", url)
    output("demo", "--url", url)
    with open_history(url) as history:
        assert len(history.get_all_chat_ids()) == 2


def test_a_demo_on_a_store_that_cannot_be_opened_is_one_plain_line() -> None:
    done = run("demo", "--url", "postgresql://user:hunter2@127.0.0.1:1/d?timeout=2")
    assert done.returncode == 1
    assert_plain_error(done.stderr)
    assert "began" not in done.stdout


# Looking at a store.


def test_list_shows_the_newest_activity_first(store: str) -> None:
    with open_history(store) as history:
        history.add_message("later", CONVERSATION[0])
    lines = output("list", "--url", store).splitlines()
    assert lines[0].split() == ["chat", "title", "messages", "last", "activity"]
    assert [line.split()[0] for line in lines[1:]] == ["later", "sums"]
    assert lines[2].split()[:3] == ["sums", "Sums", "5"]
    assert "secret" not in "".join(lines)


def test_list_of_another_owner(store: str) -> None:
    lines = output("list", "--url", store, "--user", "ann", "--tenant", "acme", "--json").splitlines()
    assert [json.loads(line)["chat_id"] for line in lines] == ["secret"]


def test_list_says_when_there_are_more_and_all_lists_all(store: str) -> None:
    with open_history(store) as history:
        for number in range(450):
            history.create_chat(f"chat {number}")
    some = run("list", "--url", store)
    assert len(some.stdout.splitlines()) == 51
    assert "--all" in some.stderr
    every = [json.loads(line)["chat_id"] for line in output("list", "--url", store, "--all", "--json").splitlines()]
    assert sorted(every) == sorted([*(f"chat {number}" for number in range(450)), "sums"])
    assert every[0] == "chat 449"


def test_a_list_for_a_program_is_not_cut_to_a_width(store: str) -> None:
    long = "a chat with a long name " * 20
    with open_history(store) as history:
        history.create_chat(long)
    assert long.strip() in output("list", "--url", store)


@pytest.mark.parametrize(
    "arguments",
    [
        ("copy", "typo.db", "target.db"),
        ("export", "-", "--url", "typo.json"),
        ("list", "--json", "--url", "typo.db"),
        ("show", "sums", "--url", "typo.json"),
        ("search", "sums", "--url", "typo.db"),
        ("stats", "--url", "sqlite:///typo.db"),
        ("purge", "--older-than", "90d", "--yes", "--url", "typo.json"),
    ],
)
def test_a_store_that_is_not_there_is_not_taken_for_an_empty_one(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no store" in done.stderr
    assert not Path("typo.db").exists()
    assert not Path("typo.json").exists()


def test_what_cannot_be_printed_is_told_in_one_line() -> None:
    with open_history("chats.db") as history:
        history.add_message("c", {"role": "user", "content": "Caf\u00e9 \U0001f600"})
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*HERE, "show", "c", "--url", "chats.db"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "could not be written" in done.stderr
    # The second is what Python makes of the locale C, where it may not take UTF-8 in its place.
    for encoding in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}):
        assert "Caf\\xe9" in run("show", "c", "--url", "chats.db", **encoding).stdout


def test_an_interrupt_is_exit_code_130_and_no_traceback(store: str) -> None:
    with open_history(store) as history:
        history.add_messages("long", [{"role": "user", "content": "x" * 100}] * 3000)  # more than a pipe holds
    with subprocess.Popen(
        [*HERE, "show", "long", "--url", store], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as shown:
        assert shown.stdout
        assert shown.stderr
        shown.stdout.read(1000)  # it is at work by now, and waits for a reader
        shown.send_signal(signal.SIGINT)
        shown.stdout.read()
        assert "Traceback" not in shown.stderr.read().decode()
    assert shown.returncode == 130
    assert "| 130 |" in (Path(__file__).parent.parent / "docs" / "command.md").read_text()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", [["list"], ["show", "sums", "--json"], ["copy"]])
def test_a_command_needs_no_open_input_or_output(store: str, arguments: list[str], closed: str) -> None:
    where = [store, "copy.db"] if arguments == ["copy"] else ["--url", store]
    command = ["sh", "-c", f'"$@" {closed}', "sh", *HERE, *arguments, *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    if arguments == ["copy"]:
        with open_history("copy.db") as history:
            assert history.get_message_count("sums") == len(CONVERSATION)


def test_an_empty_store_says_where_it_is() -> None:
    open_history("empty.db").shutdown()
    done = run("list", "--url", "empty.db")
    assert (done.returncode, done.stdout) == (0, "")
    assert "empty.db" in done.stderr


def test_show_reads_as_a_conversation(store: str) -> None:
    assert output("show", "sums", "--url", store) == (
        "system\nBe brief.\n\n"
        "user\nWhat is 6 × 7?\n[image]\n\n"
        'assistant\n→ multiply({"a": 6, "b": 7})\n\n'
        "tool multiply\n42\n\n"
        "assistant\nIt is 42.\n\n"
    )


def test_show_last_shows_the_newest(store: str) -> None:
    assert output("show", "sums", "--url", store, "--last", "1") == "assistant\nIt is 42.\n\n"


def test_show_for_scripts_holds_the_payload_as_it_is_stored(store: str) -> None:
    with open_history(store) as history:
        stored = history.add_message("sums", {"content": "7 × 7?", "role": "user", "scale": 1e2})
    lines = output("show", "sums", "--url", store, "--json").splitlines()
    assert [json.loads(line)["payload"] for line in lines[:5]] == CONVERSATION
    assert lines[-1].endswith(f'"payload": {stored.payload}}}')
    assert json.loads(lines[-1])["message_id"] == stored.message_id


def test_show_of_pydantic_ai_messages_and_dicts_in_one_chat(store: str) -> None:
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

    with open_history(store) as history:
        history.add_messages("sums", [ModelRequest([UserPromptPart("And 7 × 8?")]), ModelResponse([TextPart("56.")])])
    assert output("show", "sums", "--url", store, "--last", "3") == (
        "assistant\nIt is 42.\n\nuser\nAnd 7 × 8?\n\nassistant\n56.\n\n"
    )


def test_a_message_cannot_change_the_terminal(store: str) -> None:
    with open_history(store) as history:
        history.add_message(
            "a\x1b]0;b\nc", {"role": "user", "content": "\x1b[31mred\x07 \x9b2J\ttab\nline [bold]x[/bold]"}
        )
    shown = output("show", "a\x1b]0;b\nc", "--url", store)
    assert shown == "user\n␛[31mred␇ �2J   tab\nline [bold]x[/bold]\n\n"
    assert "a␛]0;b␊c" in output("list", "--url", store)


@pytest.mark.parametrize(
    "arguments",
    [["path"], ["list"], ["search", "x"], ["stats"], ["doctor"], ["migrate"], ["purge", "--older-than", "1d", "--yes"]],
    ids=" ".join,
)
def test_the_name_of_a_store_cannot_change_the_terminal(arguments: list[str]) -> None:
    open_history("\x1b]0;b.db").shutdown()
    # The command's output is not a terminal here, where escape sequences would be taken out by others.
    shown = CliRunner().invoke(app, [*arguments, "--url", "\x1b]0;b.db"], color=True).output
    assert "\x1b" not in shown
    assert "␛]0;b.db" in shown


def test_path_prints_where_the_data_is(url: str) -> None:
    place = output("path", "--url", url).strip()
    assert json.loads(output("path", "--url", url, "--json")) == {"location": place}
    with open_history(url) as history:
        assert place == history.location


def test_without_a_url_the_environment_says_which_store(store: str) -> None:
    done = run("path", CHAT_HISTORY_URL=store)
    assert done.stdout.strip().endswith(store)
    assert output("path").strip().endswith("chat_history.db")


def test_a_long_chat_is_shown_piece_by_piece_with_a_bar_only_where_a_person_sees_it(store: str) -> None:
    with open_history(store) as history:
        history.add_messages("long", [{"role": "user", "content": f"number {n}"} for n in range(1000)])
    done = run("show", "long", "--url", store)
    assert done.stdout.split("\n\n")[:-1] == [f"user\nnumber {n}" for n in range(1000)]
    assert done.stderr == ""
    terminal, end = pty.openpty()
    with open("shown.txt", "w") as shown:
        subprocess.run([*HERE, "show", "long", "--url", store], stdout=shown, stderr=end, timeout=60, check=True)
    os.close(end)
    assert "messages" in os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert Path("shown.txt").read_text() == done.stdout


# How it ends.


def assert_plain_error(text: str) -> None:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "no such chat", "--url", "memory:"],
        ["show", "", "--url", "memory:"],
        ["list", "--url", "mysql://user:hunter2@h/d"],
        ["list", "--url", "postgresql://user:hunter2@h:port/d"],
        ["path", "--url", "missing.toml"],
        ["path", "--url", "no/such/directory/at/all\0.db"],
        ["path", "--url", "/dev/null/chats.db"],
        ["path", "--url", "/dev/null/chats.json"],
    ],
)
def test_an_error_of_ours_is_one_plain_line_and_exit_code_1(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert_plain_error(done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["list", "--limit", "0"], ["show", "x", "--last", "-1"], ["list", "--colour"], ["remove"]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command",
    ["list", "show", "search", "stats", "path", "export", "import", "migrate", "purge", "doctor", "demo"],
)
def test_every_command_has_help_and_takes_a_url(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "--url" in done.stdout


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert output("--version").strip() == version("agent-chat-history")


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_reader_that_has_enough_is_not_an_error(store: str, extra: list[str]) -> None:
    with open_history(store) as history:
        history.add_messages("long", [{"role": "user", "content": "word " * 100} for _ in range(1000)])
    process = subprocess.Popen(
        [*HERE, "show", "long", "--url", store, *extra], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    complaint = process.stderr.read()
    assert (process.wait(60), complaint) == (0, b"")
    process.stderr.close()


def test_a_warning_is_one_plain_line_too(store: str) -> None:
    path = Path(store)
    path.write_bytes(path.read_bytes()[:-20])
    done = run("show", "sums", "--url", store)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: ")
    assert done.stderr.count("\n") == 1


def test_a_store_is_copied_exported_and_imported(store: str, url: str) -> None:
    copied = CliRunner().invoke(app, ["copy", store, url])
    assert (copied.exit_code, copied.stdout) == (0, "")
    assert "2 chats with 6 messages are in" in copied.stderr
    for arguments in (["export", "all.jsonl", "--url", url], ["import", "all.jsonl", "--url", "again.db"]):
        assert CliRunner().invoke(app, arguments).exit_code == 0
    shown = [
        CliRunner().invoke(app, ["show", "sums", "--json", "--url", each]).stdout for each in (store, url, "again.db")
    ]
    assert shown[0] == shown[1] == shown[2] != ""
    piped = CliRunner().invoke(app, ["export", "-", "--url", "again.db"])
    assert piped.stdout == Path("all.jsonl").read_text()
    given = CliRunner().invoke(app, ["import", "-", "--url", "third.json"], input=piped.stdout)
    assert (given.exit_code, given.stdout) == (0, "")
    refused = CliRunner().invoke(app, ["import", "all.jsonl", "--url", "fourth.db", "--user", "ann"])
    assert (refused.exit_code, "is another user's" in refused.stderr) == (1, True)


def test_an_export_overwrites_nothing_and_leaves_no_half_file(store: str, tmp_path: Path) -> None:
    Path("mine.txt").write_text("mine")
    for name, problem in (("mine.txt", "File exists"), ("no/where.jsonl", "No such file")):
        result = CliRunner().invoke(app, ["export", name, "--url", store])
        assert (result.exit_code, problem in result.stderr) == (1, True)
    assert Path("mine.txt").read_text() == "mine"
    result = CliRunner().invoke(app, ["import", "mine.txt", "--url", "new.db"])
    assert (result.exit_code, "mine.txt is of no kind" in result.stderr) == (1, True)
