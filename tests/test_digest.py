"""The digest of an artifact: equal where its content is, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.test_artifact import FILES, contents, make


def test_the_digest_says_nothing_of_place_parents_or_the_order_of_writing(tmp_path):
    first = make(tmp_path / "a", FILES, parents={"items": "x"})
    second = make(tmp_path / "b", dict(reversed(FILES.items())), parents={"items": "y"})
    assert first.digest == second.digest


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"epochs": 4}},
        {"facts": {"rows": 1}},
        {"kind": "index"},
        {"files": FILES | {"a.bin": b"First"}},
        {"files": FILES | {"more.bin": b""}},
        {"files": {"a.bin": b"first"}},
    ],
)
def test_the_digest_tells_other_content_apart(tmp_path, changed):
    assert make(tmp_path / "a").digest != make(tmp_path / "b", **changed).digest


@settings(deadline=None, max_examples=40)
@given(first=contents, second=contents)
def test_digests_are_equal_where_files_are(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("digests")
    same = make(folder / "a", first).digest == make(folder / "b", second).digest
    assert same == (first == second)
