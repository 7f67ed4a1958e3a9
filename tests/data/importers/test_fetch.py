"""Fetching: a local HTTP server, a made-up set, and everything that can go wrong between."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recsys.data.importers.convert import FORMATS
from recsys.data.importers.fetch import fetch
from recsys.data.public_sets import PUBLIC_SETS, PublicSet, RemoteFile

BODY = bytes(range(256)) * 5000


class Server(ThreadingHTTPServer):
    """Serves `bodies` by path; `cut` ends replies early; notes the ranges that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.ranges: list[str | None] = []
        self.cut: int | None = None
        self.continues = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        if self.path in self.server.redirects:
            return self.reply(302, {"Location": self.server.redirects[self.path]}, b"")
        body = self.server.bodies.get(self.path)
        if body is None:
            return self.reply(404, {}, b"")
        start = int(asked.removeprefix("bytes=")[:-1]) if asked and self.server.continues else 0
        if start >= len(body):
            return self.reply(416, {}, b"")
        return self.reply(206 if start else 200, {}, body[start:])

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def quiet(name: str, at: int, of: int | None) -> None:
    """No bar."""


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()


def made_up(
    server: Server, body: bytes, name: str = "a.bin", checksum: str | None = ""
) -> PublicSet:
    server.bodies[f"/{name}"] = body
    file = RemoteFile(f"{server.url}/{name}", md5(body) if checksum == "" else checksum)
    return PublicSet("made-up", (file,), "CC0", "Nobody 2026", "tabular")


def zipped(*names: str, link: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, f"content of {name}")
        if link:
            member = zipfile.ZipInfo(link)
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, "/etc/passwd")
    return out.getvalue()


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_comes_whole_and_its_progress_is_told(server, tmp_path, kind):
    checksum = f"{kind}:{hashlib.new(kind, BODY).hexdigest()}"
    told = []
    public = made_up(server, BODY, checksum=checksum)
    found = fetch(public, tmp_path / "out", lambda *step: told.append(step))
    assert (tmp_path / "out" / "a.bin").read_bytes() == BODY
    assert found == {"a.bin": checksum}
    assert told[-1] == ("a.bin", len(BODY), len(BODY))


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    public = made_up(server, BODY)
    fetch(public, tmp_path, quiet)
    fetch(public, tmp_path, quiet)
    assert server.ranges == [None]


def test_a_broken_transfer_is_continued_where_it_broke(server, tmp_path):
    public = made_up(server, BODY)
    server.cut = 700_000
    with pytest.raises(ValueError, match="ended after 700000 of 1280000 bytes: run again"):
        fetch(public, tmp_path, quiet)
    assert files(tmp_path) == {".a.bin.partial"}
    server.cut = None
    fetch(public, tmp_path, quiet)
    assert server.ranges == [None, "bytes=700000-"]
    assert files(tmp_path) == {"a.bin"}
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize("continues", [True, False])
def test_a_server_that_cannot_continue_begins_anew(server, tmp_path, continues):
    server.continues = continues
    had = BODY[:100] if not continues else BODY + b"more than there is"
    (tmp_path / ".a.bin.partial").write_bytes(had)
    fetch(made_up(server, BODY), tmp_path, quiet)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_without_a_checksum_nothing_is_continued_and_the_computed_one_is_returned(server, tmp_path):
    (tmp_path / ".a.bin.partial").write_bytes(b"of an older version")
    found = fetch(made_up(server, BODY, checksum=None), tmp_path, quiet)
    assert found == {"a.bin": "sha256:" + hashlib.sha256(BODY).hexdigest()}
    assert server.ranges == [None]


def test_another_checksum_is_refused_and_only_our_own_file_goes(server, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    public = made_up(server, BODY, checksum=md5(b"something else"))
    with pytest.raises(ValueError, match="was published"):
        fetch(public, tmp_path, quiet)
    assert files(tmp_path) == {"mine.txt"}


def test_a_file_of_that_name_with_other_content_is_left_alone(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match="move it away"):
        fetch(made_up(server, BODY), tmp_path, quiet)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert server.ranges == []


def test_a_missing_file_is_told(server, tmp_path):
    public = made_up(server, BODY)
    server.bodies.clear()
    with pytest.raises(ValueError, match=r"a\.bin cannot be fetched: HTTP Error 404"):
        fetch(public, tmp_path, quiet)


def test_only_https_is_fetched_also_after_a_redirect(server, tmp_path):
    public = made_up(server, BODY)
    server.redirects["/a.bin"] = "http://example.org/a.bin"
    with pytest.raises(ValueError, match=r"http://example\.org/a\.bin is not https"):
        fetch(public, tmp_path, quiet)
    for url in ("http://example.org/a", "ftp://127.0.0.1/a", "file:///etc/passwd"):
        plain = PublicSet("x", (RemoteFile(url, None),), "", "", "tabular")
        with pytest.raises(ValueError, match="is not https"):
            fetch(plain, tmp_path, quiet)


def test_a_redirect_to_this_machine_is_followed(server, tmp_path):
    public = made_up(server, BODY)
    server.redirects["/a.bin"] = "/b.bin"
    server.bodies["/b.bin"] = BODY
    fetch(public, tmp_path, quiet)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_zip_is_unpacked_to_a_folder_of_the_sets_name(server, tmp_path):
    public = made_up(server, zipped("ml/u.data", "ml/sub/u.item"), "ml.zip")
    fetch(public, tmp_path, quiet)
    assert files(tmp_path) == {"ml.zip", "made-up/ml/u.data", "made-up/ml/sub/u.item"}
    assert (tmp_path / "made-up" / "ml" / "u.data").read_text() == "content of ml/u.data"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:/evil"])
def test_a_name_that_leads_out_of_the_folder_is_refused(server, tmp_path, name):
    public = made_up(server, zipped("good.txt", name), "ml.zip")
    with pytest.raises(ValueError, match="leads out of its folder"):
        fetch(public, tmp_path / "out", quiet)
    assert files(tmp_path) == {"out/ml.zip"}


def test_a_link_in_a_zip_is_refused(server, tmp_path):
    public = made_up(server, zipped("good.txt", link="passwords"), "ml.zip")
    with pytest.raises(ValueError, match="'passwords' leads out"):
        fetch(public, tmp_path, quiet)


def test_a_file_that_is_no_zip_is_told(server, tmp_path):
    with pytest.raises(ValueError, match=r"ml\.zip is no whole zip"):
        fetch(made_up(server, BODY, "ml.zip"), tmp_path, quiet)


@pytest.mark.parametrize("public", PUBLIC_SETS.values(), ids=lambda public: public.name)
def test_every_set_offered_has_terms_an_importer_and_safe_addresses(public):
    assert public.licence
    assert public.citation
    assert public.format in FORMATS
    for file in public.files:
        assert file.url.startswith("https://")
        kind, _, digits = (file.checksum or "sha256:" + "0" * 64).partition(":")
        assert len(bytes.fromhex(digits)) == hashlib.new(kind).digest_size
