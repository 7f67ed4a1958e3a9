"""Where bytes are: local paths, `s3://` and `gs://`, with bounded retries and errors that say why.

Trouble with S3 is met at two levels: the client makes a request again a few times within less than
a second, which a single bad answer needs; if that was not enough, `retried` does the whole
operation again after a random wait, so that workers told to slow down do not return in step.

Settings are the process's own, as those of logging are: `configure_storage` is called once where
a process starts (by the driver, by Ray's `worker_process_setup_hook` in every worker, by a
replica's constructor), and whatever opens a URI after that follows them. So a URI alone says
where an artifact is, and no function between the command line and a file hands settings on.
"""

from __future__ import annotations

import errno
import functools
import io
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs as pafs
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from recsys.config import StorageConfig

log = logging.getLogger(__name__)

CREDENTIALS = "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), a profile or a role"
CHUNK = 8 << 20
"""Bytes a request when a file is streamed; S3's guide advises 8 to 16 MB."""
REQUESTS = 5
"""How often the client makes a request by itself, after waits of 0, 0.05, 0.1 and 0.2 s."""
STEADY_REQUESTS = 12
"""The same where nobody does the operation again: its waits double up to 51 s together."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 20.0
"""Between tries of an operation, limits of the first random wait and, doubling, of any."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LASTING = {
    "ExpiredToken|REQUEST_EXPIRED|TokenRefreshRequired": (
        f"the credentials have expired: renew them in {CREDENTIALS}"
    ),
    "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID"
    "|UNRECOGNIZED_CLIENT|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED": (
        "access is denied, or the credentials have expired: check what they may do, or renew "
        f"them in {CREDENTIALS}"
    ),
    "REQUEST_TIME_TOO_SKEWED": "this machine's clock is wrong: set it",
    "NO_SUCH_BUCKET|Bucket '.*' not found": "there is no such bucket: create it or correct it",
    "HTTP status 301": ("the bucket is in another region: correct storage.region or leave it out"),
}
PASSING = {
    "SLOW_DOWN|SERVICE_UNAVAILABLE|THROTTLING|HTTP status (429|503)": (
        "the service asks to slow down and did so at the last attempt too: use fewer workers, or "
        "raise storage.max_attempts"
    ),
    "curlCode: 28|REQUEST_TIMEOUT|DEADLINE_EXCEEDED": (
        "no answer in time at the last attempt either: check the network, or raise "
        "storage.request_timeout_s"
    ),
    "curlCode: 18": (
        "the answer broke off in the middle, at the last attempt too: check the network"
    ),
    "NETWORK_CONNECTION|UNAVAILABLE": (
        "the service cannot be reached: check storage.endpoint and the network"
    ),
    "INTERNAL_FAILURE|HTTP status 5": "the service failed at the last attempt too: try later",
}
"""What pyarrow's message holds, and what that means to the user; the first that fits counts.
`PASSING` are worth another try."""

T = TypeVar("T")

_settings = StorageConfig()


class StorageError(ValueError):
    """A place could not be read or written; the message names it, the cause and what to do."""


def configure_storage(config: StorageConfig) -> None:
    """Follow these settings whenever this process opens a URI from now on."""
    global _settings
    _settings = config


def filesystem(uri: str | Path) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path or URI, and the path within it, for use within `retried`.

    A key is taken as it is written: `s3://shop/a b%20` has a space and a percent sign.

    Raises:
        ValueError: the URI has no bucket, holds credentials or settings, or is of an unknown kind.
        StorageError: the region of the bucket cannot be found out.
    """
    return _open(uri, REQUESTS)


def steady_filesystem(uri: str | Path) -> tuple[pafs.FileSystem, str]:
    """The same for who does no operation again, such as Ray: the client alone is patient.

    It makes a request `storage.max_attempts` times, at most `STEADY_REQUESTS`, without jitter.

    Raises:
        ValueError: as `filesystem` does.
    """
    return _open(uri, STEADY_REQUESTS)


def _open(uri: str | Path, requests: int) -> tuple[pafs.FileSystem, str]:
    text = str(uri)
    if "://" not in text:
        return pafs.LocalFileSystem(), str(Path(text).absolute())
    scheme, place = text.rstrip("/").split("://", 1)
    if scheme not in _CLOUDS:
        return _open_other(scheme, text.rstrip("/"))
    bucket = place.split("/")[0]
    _check_place(scheme, bucket, place)
    requests = min(requests, _settings.max_attempts)
    config = _settings.model_copy(update={"max_attempts": requests})
    with storage_errors(f"{scheme}://{bucket}"):
        # A frozen pydantic model has a hash, which pyright does not see.
        return retried(lambda: _CLOUDS[scheme](bucket, config)), place  # pyright: ignore[reportArgumentType]


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


def retried(operation: Callable[[], T]) -> T:
    """What a whole operation returns; it is done again after trouble with S3 that may pass.

    The client has made each request `REQUESTS` times by then, so the operation is tried as often
    as `storage.max_attempts` needs. The wait before is random between 0 and a limit that doubles:
    "full jitter", AWS Architecture Blog, "Exponential Backoff and Jitter". Google's client waits
    with jitter by itself.

    Raises:
        OSError: the last try's, or the first that no other try would mend.
    """
    again = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(math.ceil(_settings.max_attempts / REQUESTS)),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        sleep=sleep,
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    return again(operation)


def _may_pass(error: BaseException) -> bool:
    if not isinstance(error, OSError) or "AWS Error" not in str(error):
        return False
    return _explain(error, None) in PASSING.values()


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
    causes = (LASTING | PASSING).items()
    found = (advice for pattern, advice in causes if re.search(pattern, str(error)))
    return next(found, "reading or writing failed")


def list_files(uri: str) -> list[pafs.FileInfo]:
    """Every file below `uri`, by path; none where there is nothing. S3 tells 1000 a request.

    Raises:
        StorageError: it cannot be listed, or there is no such bucket.
    """
    fs, root = filesystem(uri)
    with storage_errors(uri):
        found = retried(lambda: _list_below(fs, root))
    return sorted((info for info in found if info.is_file), key=lambda info: info.path)


def _list_below(fs: pafs.FileSystem, root: str) -> list[pafs.FileInfo]:
    found = fs.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    bucket = root.split("/")[0]
    if not found and bucket and fs.get_file_info(bucket).type == pafs.FileType.NotFound:
        raise FileNotFoundError(f"no bucket '{bucket}'")
    return found


def has_file(uri: str) -> bool:
    """Whether there is a file at `uri`.

    Raises:
        StorageError: that cannot be found out.
    """
    fs, path = filesystem(uri)
    with storage_errors(uri):
        return retried(lambda: fs.get_file_info(path).is_file)


def read_bytes(uri: str) -> bytes:
    """The whole content of a file.

    Raises:
        StorageError: it cannot be read.
    """
    fs, path = filesystem(uri)

    def read() -> bytes:
        with fs.open_input_file(path) as stream:
            return stream.read()

    with storage_errors(uri):
        return retried(read)


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file: whole, or not at all.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    _put(io.BytesIO(content), uri, len(content))


def upload(local: Path, uri: str) -> None:
    """Copy a local file of any size to `uri`.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    with local.open("rb") as source:
        _put(source, uri, local.stat().st_size)


def _put(source: BinaryIO, uri: str, num_bytes: int) -> None:
    fs, path = filesystem(uri)
    with storage_errors(uri, num_bytes):
        if isinstance(fs, pafs.LocalFileSystem):
            _save(source, Path(path))
        else:
            retried(lambda: _put_object(source, fs, path))


def _put_object(source: BinaryIO, fs: pafs.FileSystem, path: str) -> None:
    source.seek(0)
    # Not pyarrow.fs.copy_files: it leaves the closing to a destructor, and so takes a last part
    # that S3 refused for a success.
    with fs.open_output_stream(path) as target:
        shutil.copyfileobj(source, target, CHUNK)


def download(uri: str, local: Path) -> None:
    """Copy the file at `uri`, of any size, to a local path.

    Raises:
        StorageError: it cannot be read, or the disk is full; nothing is left of it.
    """
    read_stream(uri, lambda source: _save(source, local))


def read_stream(uri: str, read: Callable[[pa.NativeFile], T]) -> T:
    """What `read` makes of the file at `uri`, which it gets from its beginning.

    It is read `CHUNK` bytes a request. Where it breaks off, `read` is called anew.

    Raises:
        StorageError: it cannot be read, or `read` has trouble with a file of its own.
    """
    fs, path = filesystem(uri)

    def read_all() -> T:
        with fs.open_input_stream(path, buffer_size=CHUNK) as stream:
            return read(stream)

    with storage_errors(uri):
        return retried(read_all)


def _save(source: BinaryIO | pa.NativeFile, path: Path) -> None:
    """Fill a file beside `path` that takes its place at the end, or is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of this writer alone: a task that Ray runs twice may write one file in two processes.
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
