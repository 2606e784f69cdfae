import hashlib
import http.server
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archgauge.datasets import download
from archgauge.datasets.download import fetch, problem_with, verify
from archgauge.encoders.errors import ConfigError, DataError, DownloadError

CONTENT = bytes(range(256)) * 2_000
KNOWN: dict[str, Any] = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT in the ways that the tests ask for, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.content = CONTENT
        self.break_after: list[int] = []  # bytes after which the next answers break off
        self.status = 200
        self.honours_ranges = True
        self.location = ""

    def url(self, path: str = "file.json") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.server.location:
            self.send_response(302)
            self.send_header("Location", self.server.location)
            self.end_headers()
            return
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        content, start = self.server.content, 0
        if wanted and self.server.honours_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + self.server.break_after.pop(0) if self.server.break_after else len(content)
        self.wfile.write(content[start:stop])
        self.wfile.flush()
        if stop < len(content):
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_fetches_into_new_folders_and_only_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file.json"
    assert fetch(server.url(), target, **KNOWN) == target
    assert target.read_bytes() == CONTENT
    assert fetch(server.url(), target, **KNOWN) == target
    assert server.ranges == [None]
    assert visible(target.parent) == ["file.json"]


def test_replaces_a_damaged_file(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    target.write_bytes(CONTENT[:-1] + b"x")
    fetch(server.url(), target, **KNOWN)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_wrong_content_is_refused_and_removed(server: Server, tmp_path: Path, content: bytes) -> None:
    server.content = content
    target = tmp_path / "file.json"
    target.write_bytes(b"what was there")
    with pytest.raises(DownloadError, match=r"file\.json.*expected") as caught:
        fetch(server.url(), target, **KNOWN)
    assert isinstance(caught.value, DataError)
    assert target.read_bytes() == b"what was there"
    server.content = CONTENT
    assert fetch(server.url(), target, **KNOWN).read_bytes() == CONTENT


def test_wrong_hash_says_expected_and_got(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"expected SHA-256 {'0' * 64}, got {KNOWN['sha256']}"):
        fetch(server.url(), tmp_path / "file.json", sha256="0" * 64, size=len(CONTENT))
    assert visible(tmp_path) == []


def test_broken_connection_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_000, 5_000]
    target = fetch(server.url(), tmp_path / "file.json", **KNOWN)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=6000-"]


def test_a_later_run_resumes(server: Server, tmp_path: Path) -> None:
    server.break_after = [3_000, 0]
    target = tmp_path / "file.json"
    with pytest.raises(DownloadError, match="3,000 of 512,000 bytes in 2 attempts"):
        fetch(server.url(), target, **KNOWN, attempts=2)
    assert not target.exists()
    fetch(server.url(), target, **KNOWN)
    assert server.ranges[-1] == "bytes=3000-"
    assert target.read_bytes() == CONTENT
    assert visible(tmp_path) == ["file.json"]


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.honours_ranges = False
    server.break_after = [1_000]
    assert fetch(server.url(), tmp_path / "file.json", **KNOWN).read_bytes() == CONTENT


def part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.{KNOWN['sha256'][:12]}.part")


@pytest.mark.parametrize("found", [b"not what the file starts with", b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_wrong_start_is_thrown_away(server: Server, tmp_path: Path, found: bytes) -> None:
    target = tmp_path / "file.json"
    part_of(target).write_bytes(found)
    assert fetch(server.url(), target, **KNOWN).read_bytes() == CONTENT
    assert visible(tmp_path) == ["file.json"]


def test_complete_start_needs_no_server(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    part_of(target).write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:1/file.json", target, **KNOWN).read_bytes() == CONTENT


def test_absent_file_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DownloadError, match="404"):
        fetch(server.url(), tmp_path / "file.json", **KNOWN)
    assert len(server.ranges) == 1


def test_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(DownloadError, match=r"503.*0 of 512,000 bytes in 3 attempts"):
        fetch(server.url(), tmp_path / "file.json", **KNOWN)
    assert len(server.ranges) == 3


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError, match=r"file\.json.*refused"):
        fetch("http://127.0.0.1:1/file.json", tmp_path / "file.json", **KNOWN)


def test_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DownloadError, match="timed out"):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "x", **KNOWN, timeout=0.05, attempts=2)


def test_threads_fetch_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    done: list[Path] = []
    threads = [threading.Thread(target=lambda: done.append(fetch(server.url(), target, **KNOWN))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [target] * 6
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None]


def test_processes_fetch_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=(server.url(), target), kwargs=KNOWN) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None]


def test_local_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    target = tmp_path / "file.json"
    part_of(target).write_bytes(CONTENT[:10])
    assert fetch((tmp_path / "source").as_uri(), target, **KNOWN).read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://example.org/x", "ftp://example.org/x", "x.json", "data:,x"])
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="https"):
        fetch(url, tmp_path / "x", **KNOWN)


@pytest.mark.parametrize("location", ["http://example.invalid/x", "ftp://example.invalid/x", "file:///etc/hostname"])
def test_server_cannot_lead_elsewhere(server: Server, tmp_path: Path, location: str) -> None:
    server.location = location
    with pytest.raises(DownloadError):
        fetch(server.url(), tmp_path / "x", **KNOWN)
    assert len(server.ranges) == 1 or location.startswith("file")


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    with pytest.raises(DataError, match=r"file\.json: cannot be read"):
        verify(path, **KNOWN)
    path.write_bytes(CONTENT)
    verify(path, **KNOWN)
    assert problem_with(path, sha256=KNOWN["sha256"].upper(), size=KNOWN["size"]) is None
    path.write_bytes(CONTENT[1:])
    with pytest.raises(DataError, match=r"file\.json.*expected 512,000 bytes, got 511,999.*download=True"):
        verify(path, **KNOWN)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch("https://example.invalid/x", tmp_path / "file" / "x", **KNOWN)


def test_progress_is_shown_on_stderr(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(server.url(), tmp_path / "quiet", **KNOWN, progress=False)
    assert capsys.readouterr() == ("", "")
    fetch(server.url(), tmp_path / "shown.json", **KNOWN, progress=True)
    shown = capsys.readouterr()
    assert "shown.json" in shown.err
    assert shown.out == ""


def test_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), download.locked(tmp_path / "x"):
        raise RuntimeError
    with download.locked(tmp_path / "x"):
        assert (tmp_path / ".x.lock").exists()
