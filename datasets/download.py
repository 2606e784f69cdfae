"""Fetching published files: resumed where it broke off, verified by SHA-256, and put in place in one step."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import IO, Any

from ..encoders.errors import ConfigError, DataError, DownloadError

ATTEMPTS = 3
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""

_BLOCK = 1 << 16
_LOCAL = ("127.0.0.1", "localhost", "::1")


def fetch(
    url: str,
    target: str | os.PathLike[str],
    *,
    sha256: str,
    size: int,
    progress: bool | None = None,
    timeout: float = TIMEOUT,
    attempts: int = ATTEMPTS,
) -> Path:
    """Fetches one file, unless `target` already holds the right bytes.

    What arrives goes to a hidden `.part` file beside `target`; it is renamed once its size and SHA-256 are right, so
    `target` is never half a file. A broken connection resumes where it stopped (HTTP Range), also in a later run.
    A lock keeps a second process from writing the same file: it waits, and then finds the file there.

    Args:
        url: `https:`, `file:`, or `http:` of this computer. A server may not lead elsewhere than to https.
        target: Where the file goes; folders are made.
        sha256: Expected SHA-256, 64 hexadecimal digits.
        size: Expected size in bytes; more is not read.
        progress: Show a bar on stderr; None: if stderr is a terminal.
        timeout: Seconds without a byte after which the connection counts as broken.
        attempts: How often a broken connection is taken up again.

    Returns:
        `target`.

    Raises:
        DownloadError: The file could not be fetched, or is not what was published.
        ConfigError: The URL is of another kind.
    """
    target = Path(target)
    _check_url(url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{sha256[:12]}.part")
        with locked(target), _bar(target.name, size, progress) as advance:
            if target.exists() and problem_with(target, sha256=sha256, size=size) is None:
                return target
            resumed = part.exists()
            _fill(url, part, size, timeout, attempts, advance)
            problem = problem_with(part, sha256=sha256, size=size)
            if problem and resumed:
                part.unlink()
                _fill(url, part, size, timeout, attempts, advance)
                problem = problem_with(part, sha256=sha256, size=size)
            if problem:
                part.unlink()
                raise DownloadError(
                    f"{url}: {problem}. What came was deleted; a proxy may have changed it, or the publisher the file: "
                    f"fetch it by hand and put it at {target}"
                )
            part.replace(target)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"{target}: cannot be written ({error})") from error
    return target


def problem_with(path: str | os.PathLike[str], *, sha256: str, size: int) -> str | None:
    """What is wrong with a file of known content: expected and got; None if nothing is."""
    path = Path(path)
    found = path.stat().st_size
    if found != size:
        return f"expected {size:,} bytes, got {found:,}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == sha256.lower() else f"expected SHA-256 {sha256.lower()}, got {digest}"


def verify(path: str | os.PathLike[str], *, sha256: str, size: int) -> None:
    """Checks that a file holds what was published.

    Raises:
        DataError: It does not, or cannot be read.
    """
    try:
        problem = problem_with(path, sha256=sha256, size=size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if problem:
        raise DataError(f"{path}: not the published file: {problem}; delete it and fetch it again (download=True)")


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keeps other processes and threads that ask for the same `target` waiting.

    The operating system holds the lock on a file `.<name>.lock` beside it and lets go when the process ends, however
    it ends.
    """
    with target.with_name(f".{target.name}.lock").open("a+b") as file:
        _lock(file)
        try:
            yield
        finally:
            _unlock(file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        while True:
            try:
                file.seek(0)
                return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                time.sleep(0.1)

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to where `fetch` would go itself, never from the net to a local file."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        stays = _is_local_server(req.full_url) and _is_local_server(newurl)
        if urllib.parse.urlsplit(newurl).scheme != "https" and not stays:
            raise DownloadError(f"{req.full_url}: leads to {newurl}, expected an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _is_local_server(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOCAL


def _check_url(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("https", "file") and not _is_local_server(url):
        raise ConfigError(f"{url!r}: expected an address that starts with https: (or file:, or http: of this computer)")


def _fill(url: str, part: Path, size: int, timeout: float, attempts: int, advance: Callable[[int], None]) -> None:
    """Brings `part` to its full length, with what it holds already as a start."""
    opener = urllib.request.build_opener(_Redirects)
    reason = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(min(2.0**attempt / 4, 8))
        reason = ""
        have = part.stat().st_size if part.exists() else 0
        if have > size:
            part.unlink()
            have = 0
        advance(have)
        if have == size:
            return
        headers = {"User-Agent": "archgauge", "Accept-Encoding": "identity"}
        if have and not url.startswith("file:"):
            headers["Range"] = f"bytes={have}-"
        try:
            with opener.open(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
                resumes = getattr(answer, "status", None) == 206 and _starts_at(answer.headers, have)
                with part.open("ab" if resumes else "wb") as file:
                    _copy(answer, file, have if resumes else 0, size, url, advance)
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code == 416:
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise DownloadError(f"{url}: {reason}; check that the address still exists") from error
        except DownloadError:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        have = part.stat().st_size if part.exists() else 0
        if have == size:
            return
        reason = reason or "the connection ended early"
    raise DownloadError(
        f"{url}: {reason}; got {have:,} of {size:,} bytes in {attempts} attempts. They are kept: try again to "
        "resume, or fetch the file by hand"
    )


def _starts_at(headers: Any, have: int) -> bool:
    return str(headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _copy(answer: Any, file: IO[bytes], have: int, size: int, url: str, advance: Callable[[int], None]) -> None:
    while block := answer.read(_BLOCK):
        have += len(block)
        if have > size:
            file.truncate(0)
            raise DownloadError(
                f"{url}: the file is longer than expected ({size:,} bytes): it is not what was published"
            )
        file.write(block)
        advance(have)


@contextmanager
def _bar(name: str, size: int, progress: bool | None) -> Iterator[Callable[[int], None]]:
    """A function that takes the number of bytes there are by now, and shows it if `progress` says so."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda have: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=size)
        yield lambda have: bar.update(task, completed=have)
