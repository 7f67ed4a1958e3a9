"""Where bytes are: local paths, `s3://` and `gs://`, with bounded retries and errors that say why.

Settings are the process's own, as those of logging are: `configure_storage` is called once where
a process starts (by the driver, by Ray's `worker_process_setup_hook` in every worker, by a
replica's constructor), and whatever opens a URI after that follows them. So a URI alone says
where an artifact is, and no function between the command line and a file hands settings on.
"""

from __future__ import annotations

import errno
import functools
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs as pafs

from recsys.config import StorageConfig

CREDENTIALS = "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), a profile or a role"
CHUNK = 8 << 20
"""Bytes a request when a file is streamed; S3's guide advises 8 to 16 MB."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CAUSES = (
    (
        "ExpiredToken|REQUEST_EXPIRED|TokenRefreshRequired",
        f"the credentials have expired: renew them in {CREDENTIALS}",
    ),
    (
        "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID"
        "|UNRECOGNIZED_CLIENT|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED",
        "access is denied, or the credentials have expired: check what they may do, or renew "
        f"them in {CREDENTIALS}",
    ),
    ("REQUEST_TIME_TOO_SKEWED", "this machine's clock is wrong: set it"),
    ("NO_SUCH_BUCKET|Bucket '.*' not found", "there is no such bucket: create it or correct it"),
    ("HTTP status 301", "the bucket is in another region: correct storage.region or leave it out"),
    (
        "SLOW_DOWN|SERVICE_UNAVAILABLE|THROTTLING|HTTP status (429|503)",
        "the service asks to slow down and did so at the last attempt too: use fewer workers, or "
        "raise storage.max_attempts",
    ),
    (
        "curlCode: 28|REQUEST_TIMEOUT|DEADLINE_EXCEEDED",
        "no answer in time at the last attempt either: check the network, or raise "
        "storage.request_timeout_s",
    ),
    (
        "curlCode: 18",
        "the answer broke off in the middle, at the last attempt too: check the network",
    ),
    (
        "NETWORK_CONNECTION|UNAVAILABLE",
        "the service cannot be reached: check storage.endpoint and the network",
    ),
    ("INTERNAL_FAILURE|HTTP status 5", "the service failed at the last attempt too: try later"),
)
"""What pyarrow's message holds, and what that means to the user; the first that fits counts."""

_settings = StorageConfig()


class StorageError(ValueError):
    """A place could not be read or written; the message names it, the cause and what to do."""


def configure_storage(config: StorageConfig) -> None:
    """Follow these settings whenever this process opens a URI from now on."""
    global _settings
    _settings = config


def filesystem(uri: str | Path) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path or URI, and the path within it.

    A key is taken as it is written: `s3://shop/a b%20` has a space and a percent sign.

    Raises:
        ValueError: the URI has no bucket, holds credentials or settings, or is of an unknown kind.
        StorageError: the region of the bucket cannot be found out.
    """
    text = str(uri)
    if "://" not in text:
        return pafs.LocalFileSystem(), str(Path(text).absolute())
    scheme, place = text.rstrip("/").split("://", 1)
    if scheme not in _CLOUDS:
        return _open_other(scheme, text.rstrip("/"))
    bucket = place.split("/")[0]
    _check_place(scheme, bucket, place)
    with storage_errors(f"{scheme}://{bucket}"):
        # A frozen pydantic model has a hash, which pyright does not see.
        return _CLOUDS[scheme](bucket, _settings), place  # pyright: ignore[reportArgumentType]


def _open_other(scheme: str, uri: str) -> tuple[pafs.FileSystem, str]:
    try:
        return pafs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid:
        raise ValueError(
            f"'{scheme}://' cannot be opened: give a path, s3://bucket/path or gs://bucket/path"
        ) from None  # pyarrow's message repeats the URI, which may hold a secret


def _check_place(scheme: str, bucket: str, place: str) -> None:
    # These messages leave the URI out: what is wrong with it may be a secret in it.
    if ":" in bucket or "@" in place:
        raise ValueError(
            f"a {scheme}:// URI holds credentials or a port: write {scheme}://bucket/path; "
            f"credentials come from {CREDENTIALS}"
        )
    if "?" in place:
        raise ValueError(
            f"a {scheme}:// URI holds a '?': set endpoint and region in the config's [storage]"
        )
    if not bucket:
        raise ValueError(f"a {scheme}:// URI has no bucket: write {scheme}://bucket/path")


class _S3(pafs.S3FileSystem):
    """pyarrow's S3, except that its copies in other processes keep the number of attempts.

    pyarrow 26 leaves the retry strategy out when it pickles, so workers would fall back to three.
    """

    max_attempts: int

    def __reduce__(self) -> tuple[Any, ...]:
        _, (options,) = super().__reduce__()
        return _connect, (options, self.max_attempts)


def _connect(options: dict[str, Any], max_attempts: int) -> _S3:
    # Not AwsStandardS3RetryStrategy: its budget of 500 tokens, 5 a retry, is meant to be refilled
    # by successes, but pyarrow forwards the spending alone, so a filesystem stops retrying for
    # good after its hundredth retry. This one counts retries, hence the minus one.
    strategy = pafs.AwsDefaultS3RetryStrategy(max_attempts=max_attempts - 1)
    filesystem = _S3(**options, retry_strategy=strategy)
    filesystem.max_attempts = max_attempts
    return filesystem


@functools.lru_cache(maxsize=64)
def _open_s3(bucket: str, config: StorageConfig) -> pafs.FileSystem:
    """One client a bucket, so that its connections are used again."""
    given = {"endpoint_override": config.endpoint, "region": config.region}
    query = urlencode({name: value for name, value in given.items() if value})
    # Only from_uri asks AWS_ENDPOINT_URL and the bucket's own region, and only the constructor
    # takes time-outs and retries: its options go through what pyarrow pickles.
    found, _ = pafs.FileSystem.from_uri(f"s3://{quote(bucket)}?{query}")
    _, (options,) = found.__reduce__()
    options["connect_timeout"] = config.connect_timeout_s
    options["request_timeout"] = config.request_timeout_s
    return _connect(options, config.max_attempts)


@functools.lru_cache(maxsize=64)
def _open_gcs(bucket: str, config: StorageConfig) -> pafs.FileSystem:
    uri = f"gs://{quote(bucket)}?retry_limit_seconds={config.retry_limit_s}"
    return pafs.FileSystem.from_uri(uri)[0]


_CLOUDS = {"s3": _open_s3, "gs": _open_gcs}


@contextmanager
def storage_errors(place: str, num_bytes: int | None = None) -> Iterator[None]:
    """Turn every OSError within into a StorageError that names `place`.

    `num_bytes` is how much is being written, for the message of a full disk.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{place}: {_explain(error, num_bytes)} ({error})") from error


def _explain(error: OSError, num_bytes: int | None) -> str:
    if error.errno in NO_ROOM:
        needed = "" if num_bytes is None else f" for {num_bytes} bytes"
        return f"no room{needed}: free the disk or raise the quota, then run the same again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the system does not permit it: change the file's permissions or the place"
    if isinstance(error, FileNotFoundError):
        return "there is no such file or bucket: check the name"
    found = (advice for pattern, advice in CAUSES if re.search(pattern, str(error)))
    return next(found, "reading or writing failed")


def list_files(uri: str) -> list[pafs.FileInfo]:
    """Every file below `uri`, by path; none where there is nothing. S3 tells 1000 a request.

    Raises:
        StorageError: it cannot be listed, or there is no such bucket.
    """
    fs, root = filesystem(uri)
    with storage_errors(uri):
        found = fs.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
        bucket = root.split("/")[0]
        if not found and bucket and fs.get_file_info(bucket).type == pafs.FileType.NotFound:
            raise FileNotFoundError(f"no bucket '{bucket}'")
    return sorted((info for info in found if info.is_file), key=lambda info: info.path)


def read_bytes(uri: str) -> bytes:
    """The whole content of a file.

    Raises:
        StorageError: it cannot be read.
    """
    fs, path = filesystem(uri)
    with storage_errors(uri), fs.open_input_file(path) as stream:
        return stream.read()


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file: whole, or not at all.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    fs, path = filesystem(uri)
    with storage_errors(uri, len(content)):
        if isinstance(fs, pafs.LocalFileSystem):
            with _whole(Path(path)) as partial:
                partial.write_bytes(content)
        else:
            with fs.open_output_stream(path) as stream:
                stream.write(content)


def upload(local: Path, uri: str) -> None:
    """Copy a local file of any size to `uri`.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    fs, path = filesystem(uri)
    with storage_errors(uri, local.stat().st_size), local.open("rb") as source:
        if isinstance(fs, pafs.LocalFileSystem):
            with _whole(Path(path)) as partial, partial.open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK)
        else:
            # Not pyarrow.fs.copy_files: it leaves the closing to a destructor, and so takes a
            # last part that S3 refused for a success.
            with fs.open_output_stream(path) as target:
                shutil.copyfileobj(source, target, CHUNK)


def download(uri: str, local: Path) -> None:
    """Copy the file at `uri`, of any size, to a local path.

    Raises:
        StorageError: it cannot be read, or the disk is full; nothing is left of it.
    """
    with open_stream(uri) as source, _whole(local) as partial, partial.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK)


@contextmanager
def open_stream(uri: str) -> Iterator[pa.NativeFile]:
    """The file at `uri` from its beginning, `CHUNK` bytes a request.

    Raises:
        StorageError: it cannot be read, also when that shows within the context.
    """
    fs, path = filesystem(uri)
    with storage_errors(uri), fs.open_input_stream(path, buffer_size=CHUNK) as stream:
        yield stream


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end, and is removed if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of this writer alone: a task that Ray runs twice may write one file in two processes.
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
