"""Keys: made, stored as hashes, found, expired, revoked, and changed while the service runs."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.api_key import Arguments, run
from recsys.serving.security.key_file import add_key, read_key_file, revoke_key
from recsys.serving.security.keys import (
    KeyFile,
    KeyRecord,
    by_hash,
    find_key,
    hash_of,
    make_key,
    new_key,
    parse_keys,
)
from recsys.serving.security.principal import Unauthorised
from recsys.serving.security.reloaded import Reloaded
from tests.serving.security.calling import NOW, Application, ask, call, secured

SECOND = datetime.timedelta(seconds=1)


def record(name: str = "shop", key: str = "k", **fields: object) -> KeyRecord:
    return KeyRecord.model_validate(
        {"name": name, "sha256": hash_of(key), "scopes": ["read"], **fields}
    )


def test_a_key_is_random_and_its_hash_is_all_that_is_kept():
    key, stored = make_key("shop", "read, events", NOW, 90, 5.0)
    assert len({new_key() for _ in range(50)}) == 50
    assert len(key) >= 43  # 256 bits in base64
    assert "." not in key  # by which keys are told from tokens
    assert key not in stored.model_dump_json()
    # What `printf abc | sha256sum` prints.
    assert hash_of("abc").startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20")
    assert stored.scopes == ("read", "events")
    assert stored.expires == NOW + datetime.timedelta(days=90)


@settings(deadline=None, max_examples=50)
@given(others=st.lists(st.text(max_size=60), max_size=5), tried=st.text(max_size=60))
def test_a_key_is_found_if_and_only_if_it_is_the_same(others, tried):
    keys = by_hash(record(f"n{i}", key) for i, key in enumerate(others))
    if tried in others:
        assert find_key(keys, tried, NOW).scopes == {"read"}
    else:
        with pytest.raises(Unauthorised, match="unknown key"):
            find_key(keys, tried, NOW)


def test_the_hash_in_the_file_is_no_key():
    keys = by_hash([record(key="k")])
    with pytest.raises(Unauthorised, match="unknown key"):
        find_key(keys, hash_of("k"), NOW)


def test_a_key_expires_to_the_second():
    keys = by_hash([record(expires=NOW)])
    assert find_key(keys, "k", NOW - SECOND).name == "shop"
    with pytest.raises(Unauthorised, match="expired key shop"):
        find_key(keys, "k", NOW)


def test_an_expired_key_is_refused_as_an_unknown_one_is():
    file = KeyFile(keys=(record(key="old", expires=NOW - SECOND),)).model_dump_json()
    app = secured(Application(), keys=file)
    expired, unknown = (ask(app, "GET", "/v1/model", key) for key in ("old", "never"))
    assert (expired.status, expired.json()) == (unknown.status, unknown.json())
    assert expired.status == 401


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "a b"}, "keys.0.name"),
        ({"name": "token:x"}, "keys.0.name"),
        ({"sha256": "rk_a_key_in_plain_text"}, "keys.0.sha256"),
        ({"scopes": []}, "keys.0.scopes"),
        ({"scopes": ["root"]}, "keys.0.scopes"),
        ({"expires": "2030-01-01T00:00:00"}, "keys.0.expires"),
        ({"rate_per_s": 0}, "keys.0.rate_per_s"),
        ({"key": "rk_a_key_in_plain_text"}, "keys.0.key"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_repeats_nothing(change, told):
    content = {"keys": [record().model_dump(mode="json", exclude_none=True) | change]}
    with pytest.raises(ValueError, match=told) as caught:
        parse_keys(json.dumps(content))
    assert "plain_text" not in str(caught.value)
    assert caught.value.__suppress_context__  # nor does a traceback


@pytest.mark.parametrize(
    ("second", "told"),
    [(record("shop", "other"), "name shop"), (record("web", "k"), "sha256 ")],
)
def test_two_keys_differ_in_name_and_hash(second, told):
    content = {"keys": [key.model_dump(mode="json") for key in (record(), second)]}
    with pytest.raises(ValueError, match=f"{told}.* stands twice"):
        parse_keys(json.dumps(content))


def write(path: Path, *records: KeyRecord) -> None:
    path.write_text(KeyFile(keys=records).model_dump_json())


def test_keys_change_without_a_restart_and_a_broken_file_changes_nothing(tmp_path, caplog):
    path, seconds = tmp_path / "keys.json", [0.0]
    write(path, record("old", "k1"))
    application = Application()
    app = secured(
        application, keys=None, keys_file=str(path), check_files_s=1.0, clock=lambda: seconds[0]
    )

    def statuses() -> list[int | None]:
        seconds[0] += 1.0
        return [ask(app, "GET", "/v1/model", key).status for key in ("k1", "k2")]

    assert statuses() == [200, 401]
    write(path, record("old", "k1"), record("new", "k2"))
    assert statuses() == [200, 200]
    # Same size, and very likely the same time of the file: only the content tells.
    write(path, record("old", "k3"), record("new", "k2"))
    assert statuses() == [401, 200]
    for broken in ("{", '{"keys": [{"name": "rk_secret"}]}', ""):
        path.write_text(broken)
        assert statuses() == [401, 200]
        assert statuses() == [401, 200]
    path.unlink()
    assert statuses() == [401, 200]
    assert statuses() == [401, 200]
    told = [entry for entry in caplog.records if "what it said before stays" in entry.message]
    assert len(told) == 4  # once for each change, not at every look
    assert "rk_secret" not in caplog.text
    write(path)
    assert statuses() == [401, 401]


def test_a_file_is_read_no_more_often_than_it_is_said(tmp_path):
    path, seconds, parsed = tmp_path / "f", [0.0], []
    path.write_text("1")

    def parse(text: str) -> str:
        parsed.append(text)
        return text

    value = Reloaded(path, parse, 10.0, lambda: seconds[0])
    path.write_text("2")
    seconds[0] = 9.9
    assert (value(), parsed) == ("1", ["1"])
    seconds[0] = 10.0
    assert (value(), parsed) == ("2", ["1", "2"])
    seconds[0] = 20.0
    assert (value(), parsed) == ("2", ["1", "2"])


def test_a_file_that_comes_back_is_followed_again(tmp_path, caplog):
    path, seconds = tmp_path / "f", [0.0]
    path.write_text("1")
    value = Reloaded(path, int, 0.0, lambda: seconds[0])
    path.write_text("x")
    assert value() == 1
    path.write_text("1")
    assert value() == 1
    path.write_text("7")
    assert value() == 7


def test_a_key_with_its_own_rate_has_that_rate():
    file = KeyFile(keys=(record("slow", "s", rate_per_s=1.0), record("fast", "f")))
    app = secured(Application(), keys=file.model_dump_json(), clock=lambda: 0.0)
    statuses = {k: [ask(app, "GET", "/v1/model", k).status for _ in range(4)] for k in "sf"}
    assert statuses == {"s": [200, 200, 429, 429], "f": [200] * 4}


def test_a_key_is_added_and_revoked_in_a_file_that_only_its_owner_reads(tmp_path):
    path = tmp_path / "deep" / "keys.json"
    umask = os.umask(0)
    try:
        add_key(path, record("shop", "a"))
        add_key(path, record("web", "b", expires=NOW))
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key_file(path).keys == (record("shop", "a"), record("web", "b", expires=NOW))
    with pytest.raises(ValueError, match="has a key 'web': revoke it"):
        add_key(path, record("web", "c"))
    revoke_key(path, "shop")
    assert [key.name for key in read_key_file(path).keys] == ["web"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="no key 'shop'; it has: web"):
        revoke_key(path, "shop")
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


def test_a_file_that_is_none_of_keys_is_not_overwritten(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text('{"other": 1}')
    with pytest.raises(ValueError, match=r"keys\.json: not a file of keys"):
        add_key(path, record())
    assert path.read_text() == '{"other": 1}'


def test_the_command_makes_a_key_that_the_service_takes(tmp_path):
    path = tmp_path / "keys.json"
    first = run(Arguments(path, "shop", "read,events", expires_days=90), NOW)
    second = run(Arguments(path, "web", "read", rate_per_s=3.0), NOW)
    assert first not in path.read_text()
    app = secured(Application(), keys=None, keys_file=str(path), check_files_s=0.0)

    async def asked() -> list[int | None]:
        paths = [("POST", "/v1/events"), ("GET", "/v1/model")]
        return [(await call(app, *p, key)).status for key in (first, second) for p in paths]

    assert asyncio.run(asked()) == [200, 200, 403, 200]
    listed = run(Arguments(path), NOW).splitlines()
    assert [json.loads(line)["name"] for line in listed] == ["shop", "web"]
    assert json.loads(listed[0])["expires"] == "2030-04-01T00:00:00Z"
    assert hash_of(first) not in "".join(listed)
    assert run(Arguments(path, revoke="web"), NOW).count("\n") == 0
    assert asyncio.run(asked()) == [200, 200, 401, 401]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"scopes": "read,root"}, "scopes.1"),
        ({"scopes": ""}, "scopes.0"),
        ({"name": "a shop"}, "name"),
        ({"expires_days": 0.0}, "expires_days is 0"),
        ({"expires_days": 1e9}, "at most 3650"),
        ({"rate_per_s": -1.0}, "rate_per_s"),
    ],
)
def test_the_command_refuses_what_cannot_be(tmp_path, arguments, told):
    path = tmp_path / "keys.json"
    with pytest.raises(ValueError, match=told):
        run(Arguments(**{"file": path, "name": "shop"} | arguments), NOW)
    assert not path.exists()


def test_the_program_tells_an_error_in_one_line(tmp_path):
    command = [sys.executable, "-m", "ray_jobs.api_key", "--file", str(tmp_path / "keys.json")]
    done = subprocess.run([*command, "--revoke", "shop"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
