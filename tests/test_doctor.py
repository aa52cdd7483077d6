"""`chat-history doctor`: it names what is wrong, its advice mends it, and it changes nothing by looking."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import servers
from command import in_schema, invoke, printed, run, told

from chat_history import ChatHistory, open_history
from chat_history.backends import sqlite_file
from chat_history.config import choose
from chat_history.doctor import Finding, Level, examine
from chat_history.doctor import postgres as postgres_checks
from chat_history.tables import Tables
from chat_history.testing.contents import image, showing

pytestmark = pytest.mark.usefixtures("empty_place")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def fill(url: str) -> None:
    """A chat with two branches and an archived message, and one of another owner."""
    with open_history(url) as history:
        history.add_messages("c", [user("one"), user("two"), user("three")])
        history.archive_oldest_messages("c", 1)
        history.save_messages("c", [user("two"), user("drei")])
        history.for_user("ann", tenant_id="acme").add_message("secret", user("psst"))


@pytest.fixture
def store(url: str) -> str:
    fill(url)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """A filled database."""
    url = "sqlite:///chats.db"
    if request.param == "postgres":
        url = in_schema(str(request.getfixturevalue("postgres_url")))
    fill(url)
    return url


def found(url: str, *levels: Level) -> list[Finding]:
    return [finding for finding in examine(url) if finding.level in (levels or [Level.WARNING, Level.ERROR])]


def only(url: str, level: Level = Level.ERROR) -> Finding:
    (finding,) = found(url)
    assert finding.level is level
    return finding


def spoil(url: str, statement: str, *parameters: Any) -> None:
    """Run a statement in which {} is what stands before a table's name."""
    tables = Tables.of(choose(url))
    assert tables is not None

    def work(connection: Any, *, schema: str | None, dialect: str, **where: Any) -> None:
        text = statement.format(f"{schema}." if schema else "")
        connection.execute(text.replace("?", "%s") if dialect == "postgres" else text, parameters)

    tables.visit(work)


def ids(url: str) -> dict[str, str]:
    """The ids of the messages by what they say."""
    with open_history(url) as history:
        return {each.text: each.message_id for each in history.iter_messages("c", status=None)}


# ---- in order


def test_a_store_in_order_is_fine_and_every_check_says_so(store: str) -> None:
    findings = printed("doctor", "--url", store)
    assert {each["level"] for each in findings} == {"ok"}
    assert {each["mend"] for each in findings} == {""}
    checks = {each["check"] for each in findings}
    file = {"file", "space", "place", "damage"}
    expected = {"json": file, "sqlite": file | {"tables"}, "postgresql": {"server", "pooling", "clock", "tables"}}
    assert checks == expected[store.split(":")[0]] | {"chats"}
    assert "5 messages of 2 chats" in told("doctor", "--url", store)


def test_in_a_process_of_its_own_by_the_environment(store: str) -> None:
    done = run("doctor", CHAT_HISTORY_URL=store)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok ")


@pytest.mark.parametrize("url", ["no.db", "no.json", "memory:"], indirect=False)
def test_a_store_that_is_not_there_yet_is_fine_and_is_not_made(url: str) -> None:
    assert found(url) == []
    assert list(Path().iterdir()) == []


def test_a_file_behind_a_link_is_looked_at_with_what_is_still_in_its_log() -> None:
    Path("links").mkdir()
    Path("links/chats.db").symlink_to("../chats.db")
    with open_history("chats.db") as history:
        history.add_message("c", user("one"))
        assert "1 messages of 1 chats" in found("links/chats.db", Level.OK)[-1].what
        location = str(Path("chats.db").resolve())
        assert printed("migrate", "--url", "links/chats.db")[0]["location"] == location == history.location


def test_a_backend_of_somebody_else_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("chat_history.toml").write_text('class = "theirs.Theirs"\npath = "theirs.json"\n')
    Path("theirs.py").write_text(
        "from chat_history.backends.json_file import JSONBackend\n\nclass Theirs(JSONBackend):\n    name = 'theirs'\n"
    )
    monkeypatch.syspath_prepend(Path().absolute())
    with open_history() as history:
        history.add_message("c", user("one"))
    (finding,) = examine()
    assert finding == (Level.OK, "chats", "1 messages of 1 chats are as they were stored", "")


def test_what_others_write_meanwhile_is_no_damage(store: str) -> None:
    done = Event()

    def write(number: int) -> None:
        with open_history(store) as history:
            while not done.is_set():
                history.add_messages(f"busy {number}", [user("a"), user("b")])
                history.save_messages(f"busy {number}", [user("a"), user("c")])
                history.delete_last_message(f"busy {number}")

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        try:
            for _ in range(5):
                assert found(store) == []
        finally:
            done.set()
        for writer in writers:
            writer.result()


# ---- damage, and what mends it


def test_a_payload_that_is_not_json_is_named_and_can_be_replaced_or_removed(database: str) -> None:
    for text, mend in (("drei", ChatHistory.delete_message), ("two", None)):
        message_id = ids(database)[text]
        spoil(database, "UPDATE {}messages SET payload = ? WHERE message_id = ?", '{"role": "user', message_id)
        finding = only(database)
        assert finding.check == "chats"
        assert "chat 'c' has the message" in finding.what
        assert message_id in finding.what
        assert "not JSON" in finding.what
        with open_history(database) as history:
            if mend is None:
                history.replace_message("c", message_id, user("two"))
            else:
                history.delete_message("c", message_id)
        assert found(database) == []


def test_a_payload_of_another_owner_is_named_with_the_owner(database: str) -> None:
    spoil(database, "UPDATE {}messages SET payload = ? WHERE payload LIKE ?", "{", "%psst%")
    assert "of user 'ann', tenant 'acme'" in only(database).what


def test_a_payload_that_is_another_one_is_told(database: str) -> None:
    message_id = ids(database)["two"]
    payload = json.dumps(user("tow"))
    spoil(database, "UPDATE {}messages SET payload = ? WHERE message_id = ?", payload, message_id)
    assert message_id in only(database, Level.WARNING).what
    with open_history(database) as history:
        history.replace_message("c", message_id, user("tow"))
    assert found(database) == []


def test_a_chat_that_ends_with_a_message_that_is_not_there_is_mended_by_a_switch(database: str) -> None:
    spoil(database, "UPDATE {}chats SET head = ? WHERE chat_id = ?", "gone", "c")
    finding = only(database)
    assert "'gone', which is not there" in finding.what
    assert "switch_branch" in finding.mend
    last = ids(database)["drei"]
    with open_history(database) as history:
        history.switch_branch("c", last)
        assert history.get_chat_history("c") == [user("two"), user("drei")]
    assert found(database) == []


def test_a_wrong_count_is_mended_by_a_copy(database: str) -> None:
    spoil(database, "UPDATE {}chats SET message_count = 17 WHERE chat_id = ?", "c")
    finding = only(database)
    assert "17 active messages, and has 2" in finding.what
    told("copy", database, "copy.json")
    assert found("copy.json") == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE {}messages SET parent = 'gone' WHERE message_id = ?", "'gone' is not there"),
        ("UPDATE {}messages SET status = 'lost' WHERE message_id = ?", "unknown status 'lost'"),
        ("UPDATE {}chats SET head = NULL WHERE ? <> '' AND chat_id = 'c'", "no last one"),
    ],
)
def test_what_does_not_hang_together_is_an_error(database: str, statement: str, says: str) -> None:
    spoil(database, statement, ids(database)["three"])
    assert [finding for finding in found(database, Level.ERROR) if says in finding.what]


@pytest.mark.parametrize("change", ["created_at = 'yesterday'", "digest = 'none'", "payload = x'ff'"])
def test_what_cannot_be_read_is_an_error_of_its_chat_and_the_others_are_looked_at(change: str) -> None:
    fill("chats.db")
    spoil("chats.db", f"UPDATE {{}}messages SET {change} WHERE message_id = ?", ids("chats.db")["drei"])
    spoil("chats.db", "UPDATE {}chats SET message_count = 17 WHERE user_id = ?", "ann")
    finding, another = found("chats.db")
    assert "chat 'c' cannot be read" in finding.what
    assert "of user 'ann', tenant 'acme' says that it has 17" in another.what


def test_a_chat_under_a_key_that_is_not_its_own_is_an_error(database: str) -> None:
    spoil(database, "UPDATE {}chats SET chat_id = ? WHERE chat_id = ?", "d", "c")
    assert "not that of its id" in only(database).what


def test_a_damaged_database_file_is_an_error() -> None:
    fill("chats.db")
    with open_history("chats.db") as history:
        history.add_messages("long", [user("x" * 3000) for _ in range(100)])
    data = bytearray(Path("chats.db").read_bytes())
    data[4096 * 20 : 4096 * 40] = b"\x55" * 4096 * 20
    Path("chats.db").write_bytes(data)
    done = invoke("doctor", "--url", "chats.db")
    assert done.exit_code == 1
    assert "damage: " in done.stdout
    assert "restore it" in done.stdout


@pytest.mark.parametrize("name", ["not.db", "not.json"])
def test_what_is_no_store_is_an_error(name: str) -> None:
    Path(name).write_text("something else altogether")
    Path(name).chmod(0o600)
    done = invoke("doctor", "--url", name)
    assert done.exit_code == 1
    assert "something else" not in done.output
    only(name)


def test_a_torn_end_of_a_json_file_is_told_and_left_as_it_is() -> None:
    fill("chats.json")
    path = Path("chats.json")
    path.write_bytes(path.read_bytes()[:-30])
    finding = only("chats.json", Level.WARNING)
    assert "ends in the middle of a record" in finding.what
    with pytest.warns(UserWarning, match="damaged-1"), open_history("chats.json"):
        pass
    aside = only("chats.json", Level.WARNING)
    assert str(path.absolute()) + ".damaged-1" in aside.what
    Path("chats.json.damaged-1").unlink()
    assert found("chats.json") == []


def test_a_bad_line_of_a_json_file_is_named() -> None:
    fill("chats.json")
    path = Path("chats.json")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1].replace("position", "pozition"), *lines[2:]]))
    finding = only("chats.json")
    assert f"{path.absolute()} is damaged in line 2" in finding.what
    assert "correct or remove that line" in finding.mend


def test_a_json_payload_that_is_not_json_is_named() -> None:
    with open_history("chats.json") as history:
        history.add_message("c", user("one"))
    path = Path("chats.json")
    path.write_text(path.read_text().replace('"content": "one"}', '"content": "one"'))
    assert "not JSON" in only("chats.json").what


def test_a_json_file_that_was_laid_out_anew_is_told_and_left_as_it_is() -> None:
    fill("chats.json")
    path = Path("chats.json")
    text = json.dumps(json.loads(path.read_text()), indent=2)
    path.write_text(text)
    assert "not laid out" in found("chats.json")[0].what
    assert found("chats.json", Level.ERROR) == []
    assert path.read_text() == text


# ---- tables, files, clocks


def test_tables_of_a_newer_release_are_an_error_with_both_versions(database: str) -> None:
    spoil(database, "INSERT INTO {}schema_migrations VALUES (?, ?, ?)", "900", "later", datetime.now(UTC).isoformat())
    finding = only(database)
    assert finding.check == "tables"
    assert "version 900" in finding.what
    assert "up to 00" in finding.what
    assert "upgrade" in finding.mend


def test_a_step_that_has_not_run_is_told_and_does_not_run(
    database: str, empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_place / "their_steps").mkdir()
    (empty_place / "their_steps" / "__init__.py").touch()
    (empty_place / "their_steps" / "v001_more.py").write_text("VERSION = 1\ndef up(conn, *, dialect):\n    pass\n")
    monkeypatch.syspath_prepend(empty_place)
    url = f"{database}{'&' if '?' in database else '?'}migrations=their_steps"
    for _ in range(2):
        finding = only(url, Level.WARNING)
        assert "ext:001 more has not run" in finding.what
        assert "chat-history migrate" in finding.mend
    told("migrate", "--url", url)
    assert found(url) == []


def test_another_applications_database_is_an_error_and_left_alone() -> None:
    with closing(sqlite3.connect("theirs.db")) as connection:
        connection.execute("CREATE TABLE messages (id INTEGER)")
    Path("theirs.db").chmod(0o600)
    assert "another application" in only("theirs.db").what


@pytest.mark.parametrize("name", ["chats.db", "chats.json"])
class TestFiles:
    """What is looked for beside every file."""

    def test_a_file_that_others_may_read_is_told(self, name: str) -> None:
        fill(name)
        assert Path(name).stat().st_mode & 0o777 == 0o600
        Path(name).chmod(0o644)
        finding = only(name, Level.WARNING)
        assert finding.check == "file"
        assert "0644" in finding.what
        Path(name).chmod(0o600)
        assert finding.mend == f"chmod 600 {Path(name).absolute()}"

    def test_a_network_file_system_is_told(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(name)
        device = Path(name).stat().st_dev
        Path("mounts").write_text(f"36 35 {os.major(device)}:{os.minor(device)} / / rw - nfs4 server:/home rw\n")
        monkeypatch.setattr(sqlite_file, "MOUNTS", "mounts")
        finding = only(name, Level.WARNING)
        assert finding.check == "place"
        assert "nfs4" in finding.what

    @pytest.mark.parametrize(("free", "level"), [(50 * 2**20, Level.WARNING), (1000, Level.ERROR)])
    def test_little_room_is_told(self, name: str, free: int, level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(name)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40 - free, free))
        assert only(name, level).check == "space"

    def test_a_folder_is_no_store(self, name: str) -> None:
        Path(name).mkdir()
        only(name)


def test_a_time_in_the_future_is_told(store: str) -> None:
    told("export", "all.jsonl", "--url", store)
    ahead = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    lines[-2]["created_at"] = ahead
    Path("later.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    told("import", "later.jsonl", "--url", "later.json")
    finding = only("later.json", Level.WARNING)
    assert finding.check == "clock"
    assert "NTP" in finding.mend


# ---- Postgres


def test_a_server_whose_clock_is_another_is_told(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = in_schema(postgres_url)
    fill(url)
    monkeypatch.setattr(postgres_checks, "CLOCK", "SELECT clock_timestamp() - interval '2 hours'")
    finding = only(url, Level.WARNING)
    assert finding.check == "clock"
    assert "apart" in finding.what


def test_a_server_that_cannot_be_reached_is_an_error_without_its_password() -> None:
    done = invoke("doctor", "--url", "postgresql://user:hunter2@127.0.0.1:1/d?timeout=2")
    assert done.exit_code == 1
    assert "server: postgresql://user@127.0.0.1:1/d cannot be reached" in done.stdout
    assert "hunter2" not in done.output


def test_a_server_that_may_lose_everything_is_an_error(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = in_schema(postgres_url)
    fill(url)
    monkeypatch.setattr(postgres_checks, "SETTING", "SELECT CASE WHEN %s = 'fsync' THEN 'off' END")
    assert "fsync = off" in only(url).what


def test_a_server_that_acknowledges_what_it_may_still_lose_is_told(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    url += "&options=-c%20synchronous_commit%3Doff"
    fill(url)
    assert "synchronous_commit = off" in only(url, Level.WARNING).what
    assert found(f"{url}&durability=relaxed") == []


def test_a_role_that_was_granted_the_tables_of_an_earlier_release_is_told(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    fill(url)
    schema, role = url.rpartition("schema=")[2], f"app_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        try:
            connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
            connection.execute(f"GRANT INSERT, UPDATE, DELETE ON {schema}.chats, {schema}.messages TO {role}")
            parts = urlsplit(url)
            theirs = parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}").geturl()
            finding = only(theirs, Level.WARNING)
            assert finding.check == "tables"
            assert ".contents: INSERT, UPDATE, DELETE" in finding.what
            assert ".chats" not in finding.what
            assert "GRANT" in finding.mend
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_server_is_as_it_was(postgres_url: str) -> None:
    url = in_schema(postgres_url)
    assert found(url) == []
    schema = url.rpartition("schema=")[2]
    with psycopg.connect(postgres_url) as connection:
        query = "SELECT count(*) FROM pg_namespace WHERE nspname = %s"
        assert connection.execute(query, (schema,)).fetchone() == (0,)


def test_a_pooler_in_transaction_mode_is_recognised(postgres_url: str) -> None:
    # A pooler of its own, as statements that are prepared in its sessions stay there.
    with servers.pgbouncer(postgres_url) as pooled:
        url = in_schema(pooled)
        fill(url)
        for opened in (url, f"{url}&prepare=false"):
            (finding,) = [finding for finding in found(opened, Level.OK) if finding.check == "pooling"]
            assert "transaction mode" in finding.what
            assert found(opened) == []
        prepared = found(f"{url}&prepare=true")
        assert any(each.check == "pooling" and "leave prepare out" in each.mend for each in prepared)


def test_an_image_that_is_kept_beside_its_message_is_no_damage(url: str) -> None:
    with open_history(url) as history:
        history.add_message("image", showing(image(1)))
    assert found(url) == []


# ---- nothing changes


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def shuffled(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"position": 1', b'"position": 9', 1))


def indented(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))


def newer(path: Path) -> None:
    spoil(str(path), "INSERT INTO schema_migrations VALUES ('900', 'later', '2030-01-01')")


def older(path: Path) -> None:
    told("migrate", "--to", "0", "--yes", "--url", str(path))


def rolled_back(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def whole(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *[("chats.json", change) for change in (whole, torn, shuffled, indented, broken)],
        *[("chats.db", change) for change in (whole, newer, older, rolled_back, broken)],
    ],
)
def test_looking_changes_nothing(name: str, change: Callable[[Path], None]) -> None:
    fill(name)
    change(Path(name))
    before = everything()
    invoke("doctor", "--url", name)
    assert everything() == before


def test_looking_at_a_file_that_was_not_closed_changes_nothing_in_it() -> None:
    with open_history("open.db") as history:
        history.add_message("c", user("one"))
        for name in ("open.db", "open.db-wal"):
            shutil.copy(name, name.replace("open", "chats"))
    before = {path: content for path, content in everything().items() if path.startswith("chats")}
    assert "1 messages of 1 chats" in told("doctor", "--url", "chats.db")
    after = everything()
    assert {path: after[path] for path in before} == before


def everything() -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files()}


def files() -> Iterator[Path]:
    return (path for path in Path().iterdir() if path.is_file())
