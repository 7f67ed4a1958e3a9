"""A public data set from its owner's address to a folder: fetched, checked, unpacked.

Addresses are https; plain http is allowed to this machine alone. What is not yet whole is named
`.<name>.partial`, and only such files of our own are ever deleted.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from recsys.data.public_sets import PublicSet, RemoteFile

CHUNK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which the connection is given up."""
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_FETCH_AGAIN = 416  # Range not satisfiable: what we have is no beginning of what is there.

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes there so far, and the bytes of the whole if known."""


def fetch(public_set: PublicSet, output: Path, progress: Progress) -> dict[str, str]:
    """Fetch a set's files to `output` and unpack its zips to a folder of the set's name there.

    Whole files that are there already are kept, begun ones are continued. Returns each file's
    checksum as `sha256:<hex>` or the kind that was published.

    Raises:
        ValueError: an address is not https, a file cannot be fetched or has another checksum, or
            a zip holds a name that leads out of its folder.
    """
    output.mkdir(parents=True, exist_ok=True)
    checksums = {
        file.name: _fetch_file(file, output / file.name, progress) for file in public_set.files
    }
    zips = [output / name for name in checksums if name.endswith(".zip")]
    if zips and not (output / public_set.name).exists():
        _unpack(zips, output / public_set.name)
    return checksums


def _fetch_file(file: RemoteFile, target: Path, progress: Progress) -> str:
    kind, _, expected = (file.checksum or "sha256:").partition(":")
    if target.exists():
        found = _digest(target, kind)
        if expected and found != expected:
            raise ValueError(f"{target} is there but is not {file.url}: move it away")
        return f"{kind}:{found}"
    partial = target.with_name(f".{target.name}.partial")
    if not expected:
        partial.unlink(missing_ok=True)  # Nothing could tell a mixture of two versions.
    _download(file.url, partial, progress)
    found = _digest(partial, kind)
    if expected and found != expected:
        partial.unlink()
        raise ValueError(
            f"{file.url}: its {kind} is {found}, but {expected} was published: the file was "
            "damaged on the way or changed at its source; nothing was kept"
        )
    partial.replace(target)
    return f"{kind}:{found}"


def _download(url: str, partial: Path, progress: Progress) -> None:
    """Append what is missing to `partial`, or write it anew where the server cannot continue."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(_checked(url))
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT) as reply:
            _save(
                reply, partial, have if reply.status == http.client.PARTIAL_CONTENT else 0, progress
            )
    except urllib.error.HTTPError as error:
        if not (have and error.code == _FETCH_AGAIN):
            raise ValueError(f"{url} cannot be fetched: {error}") from error
        partial.unlink()
        _download(url, partial, progress)
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"{url} cannot be fetched: {error}: run again to continue") from error


def _save(reply: http.client.HTTPResponse, partial: Path, have: int, progress: Progress) -> None:
    rest = reply.headers["Content-Length"]
    whole = have + int(rest) if rest else None
    with partial.open("ab" if have else "wb") as file:
        while chunk := reply.read(CHUNK):
            file.write(chunk)
            progress(partial.name.removeprefix(".").removesuffix(".partial"), file.tell(), whole)
        if whole is not None and file.tell() != whole:
            raise OSError(f"the connection ended after {file.tell()} of {whole} bytes")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        return super().redirect_request(req, fp, code, msg, headers, _checked(newurl))


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise ValueError(f"{url} is not https")
    return url


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(kind, usedforsecurity=False)
        ).hexdigest()


def _unpack(zips: list[Path], folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    for path in zips:
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    _check_member(path, member)
                archive.extractall(partial)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is no whole zip: {error}") from error
    partial.rename(folder)


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.orig_filename)
    leads_out = name.is_absolute() or ".." in name.parts or "\\" in member.orig_filename
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if leads_out or is_link or ":" in name.parts[0]:
        raise ValueError(f"{path}: '{member.orig_filename}' leads out of its folder: not unpacked")
