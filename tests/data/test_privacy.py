"""Pseudonyms: the same for the same user and key, unrelated otherwise, and the key never shows."""

from __future__ import annotations

import hashlib
import re
import traceback

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.privacy import check_same_key, key_fingerprint, parse_key, pseudonymise

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
ids = st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=30)
keys = st.binary(min_size=16, max_size=64)


def names(user_ids, key=KEY) -> list[str | None]:
    return pseudonymise(pa.array(user_ids, pa.string()), key).to_pylist()


def test_a_pseudonym_is_keyed_blake2b_of_the_ids_utf8() -> None:
    # The command line's `b2sum` has no key, so the value is hashlib's one-shot call.
    for user in ("u1", "用户", "🛒 a\nb"):
        person = b"recsys-user"
        wanted = hashlib.blake2b(user.encode(), key=KEY, digest_size=16, person=person).hexdigest()
        assert names([user]) == [wanted]


def test_the_value_of_one_pseudonym_never_changes() -> None:
    # Stored datasets hold these: another value would make every user a stranger.
    assert names(["u1"]) == ["c7fbcc1ff35dd59446591a98dd2dbfec"]
    assert key_fingerprint(KEY) == "f6c42f67d08900cb"


@settings(deadline=None)
@given(user_ids=ids)
def test_equal_ids_and_only_those_have_equal_pseudonyms(user_ids) -> None:
    found = names(user_ids)
    assert len(found) == len(user_ids)
    pairs = set(zip(user_ids, found, strict=True))
    assert len(pairs) == len(set(user_ids)) == len(set(found))
    for user, pseudonym in pairs:
        assert pseudonym == user if not user else re.fullmatch("[0-9a-f]{32}", pseudonym)


@settings(deadline=None)
@given(user_ids=ids, cut=st.integers(0, 30))
def test_blocks_and_encodings_do_not_matter(user_ids, cut) -> None:
    whole = pa.array(user_ids, pa.string())
    parts = pa.chunked_array([whole[:cut], whole[cut:]], pa.string())
    wanted = names(user_ids)
    for same in (
        parts,
        whole.dictionary_encode(),
        parts.dictionary_encode(),
        whole.cast(pa.large_string()),
        pl.Series(user_ids, dtype=pl.String).to_arrow(compat_level=pl.CompatLevel.newest()),
    ):
        found = pseudonymise(same, KEY)
        assert isinstance(found, pa.Array)
        assert found.type == pa.large_string()
        assert found.to_pylist() == wanted


def test_a_number_is_named_as_its_digits() -> None:
    assert pseudonymise(pa.array([7, None, 10**15]), KEY).to_pylist() == names(
        ["7", None, "1000000000000000"]
    )


@pytest.mark.parametrize("empty", [pa.array([], pa.string()), pa.chunked_array([], pa.string())])
def test_nothing_has_no_pseudonyms(empty) -> None:
    assert pseudonymise(empty, KEY).to_pylist() == []


def test_nobody_stays_nobody_so_that_the_row_goes_to_quarantine() -> None:
    assert names([None, "", "u"])[:2] == [None, ""]
    assert pseudonymise(pa.nulls(2), KEY).to_pylist() == [None, None]


def test_ids_that_look_alike_are_different_users() -> None:
    alike = ["u1", "U1", "u1 ", " u1", "é", "e\u0301", "u1\0"]
    assert len(set(names(alike))) == len(alike)


@settings(deadline=None)
@given(first=keys, second=keys)
def test_another_key_gives_other_pseudonyms(first, second) -> None:
    users = [f"user-{n}" for n in range(20)]
    shared = set(names(users, first)) & set(names(users, second))
    assert len(shared) == (20 if first == second else 0)
    assert (key_fingerprint(first) == key_fingerprint(second)) == (first == second)


def test_half_of_the_bits_change_with_the_key_and_with_one_letter() -> None:
    users = [f"user-{n:06d}" for n in range(500)]
    rows = [names(users), names(users, OTHER), names([f"vser-{n:06d}" for n in range(500)])]
    first, by_key, by_letter = ([int(name, 16) for name in row] for row in rows)
    for other in (by_key, by_letter):
        changed = sum((a ^ b).bit_count() for a, b in zip(first, other, strict=True))
        # 64,000 fair coins: 0.45 to 0.55 is 25 standard deviations either way.
        assert 0.45 < changed / (500 * 128) < 0.55


def test_no_id_shows_in_the_output() -> None:
    users = [f"anna.{n}@example.org" for n in range(100)]
    text = "".join(filter(None, names(users)))
    assert not any(part in text for user in users for part in (user, user.encode().hex()))


def test_a_fingerprint_is_no_part_of_any_pseudonym_or_of_the_key() -> None:
    fingerprint = key_fingerprint(KEY)
    assert re.fullmatch("[0-9a-f]{16}", fingerprint)
    assert fingerprint not in KEY.hex()
    unkeyed = hashlib.blake2b(KEY, digest_size=8).hexdigest()
    assert fingerprint not in (unkeyed, hashlib.sha256(KEY).hexdigest()[:16])
    # The same call with the users' personalisation would be the pseudonym of "" cut short.
    assert (
        not hashlib.blake2b(key=KEY, digest_size=16, person=b"recsys-user")
        .hexdigest()
        .startswith(fingerprint)
    )


def test_the_same_key_or_none_twice_goes_on() -> None:
    check_same_key(key_fingerprint(KEY), KEY)
    check_same_key(None, None)


@pytest.mark.parametrize(
    ("previous", "key", "told"),
    [
        (
            key_fingerprint(KEY),
            OTHER,
            f"made with user key {key_fingerprint(KEY)}, and the key giv",
        ),
        (key_fingerprint(KEY), None, "and none was given"),
        (None, KEY, "made without a user key"),
    ],
)
def test_another_key_is_refused_by_fingerprint(previous, key, told) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        check_same_key(previous, key)
    assert "give the same key, or prepare in full" in str(caught.value)
    assert_hidden(caught.value, KEY, OTHER)


def assert_hidden(error: BaseException, *secrets: bytes) -> None:
    """The error, and all that it is chained to, tell nothing of the secrets."""
    told = "".join(traceback.format_exception(error)) + repr(error.args)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    for secret in secrets:
        shown = (secret.hex(), repr(secret)[2:-1], secret.decode("latin1"))
        assert not any(form in told for form in shown)


@pytest.mark.parametrize("key", [b"", b"hunter2hunter2!", b"K" * 65])
def test_a_key_of_a_wrong_length_is_refused_and_not_shown(key) -> None:
    for use in (lambda: names(["u"], key), lambda: key_fingerprint(key), lambda: parse_key(key)):
        with pytest.raises(ValueError, match=rf"has {len(key)} bytes; it needs 16 to 64") as caught:
            use()
        if key:
            assert_hidden(caught.value, key)


@pytest.mark.parametrize("content", [KEY.hex().encode(), KEY.hex().upper().encode() + b"\r\n"])
def test_a_key_of_hex_digits_is_the_bytes_they_stand_for(content) -> None:
    assert parse_key(content) == KEY


def test_another_text_is_the_key_itself() -> None:
    assert (
        parse_key("  correct horse 电池 staple\n".encode()) == "correct horse 电池 staple".encode()
    )
    assert parse_key(b"0123456789abcdef0") == b"0123456789abcdef0"  # 17 digits are no bytes


def test_a_file_that_is_not_text_is_refused_and_not_shown() -> None:
    content = b"\xffsecret-secret-secret"
    with pytest.raises(ValueError, match="not text: make one with `openssl rand") as caught:
        parse_key(content)
    assert_hidden(caught.value, content, b"secret-secret-secret")
