"""Finding, verifying and downloading data files, against a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from batchscope.data import data_folder, files
from batchscope.data.files import DataFile, read_verified
from batchscope.errors import DataError

CONTENT = b"what was published" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server, and the folder that it serves."""
    served = tmp_path / "served"
    served.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}/", served
        http.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> str:
    """An address at which nobody answers: connections are refused."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def test_a_file_that_is_there_is_read_without_a_network(tmp_path: Path, nobody: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.bin").write_bytes(CONTENT)
    content, path = read_verified(DataFile("x.bin", SHA256, (nobody,)), (tmp_path / "a", tmp_path / "b"))
    assert content == CONTENT
    assert path == tmp_path / "b" / "x.bin"


def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, nobody: str) -> None:
    damaged = tmp_path / "x.bin"
    damaged.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="is damaged") as caught:
        read_verified(DataFile("x.bin", SHA256, (nobody,)), (tmp_path,))
    message = str(caught.value)
    for part in (str(damaged), SHA256, hashlib.sha256(CONTENT[:-1]).hexdigest(), f"{nobody}x.bin", "curl"):
        assert part in message
    assert damaged.read_bytes() == CONTENT[:-1]


def test_downloads_once_from_the_first_mirror_that_has_it(
    tmp_path: Path, server: tuple[str, Path], nobody: str
) -> None:
    address, served = server
    (served / "x.bin").write_bytes(CONTENT)
    file = DataFile("x.bin", SHA256, (nobody, f"{address}absent/", address))
    content, path = read_verified(file, (tmp_path / "here", tmp_path / "there"))
    assert content == CONTENT
    assert path == tmp_path / "here" / "x.bin"
    (served / "x.bin").unlink()
    assert read_verified(file, (tmp_path / "here",)) == (content, path)


def test_a_download_that_is_not_what_was_published_is_refused(tmp_path: Path, server: tuple[str, Path]) -> None:
    address, served = server
    (served / "x.bin").write_bytes(b"<html>moved</html>")
    with pytest.raises(DataError, match=r"what came is not the published file \(sha256\)"):
        read_verified(DataFile("x.bin", SHA256, (address,)), (tmp_path / "here",))
    assert not list((tmp_path / "here").iterdir())


def test_no_network_fails_at_once_and_says_what_to_type(tmp_path: Path, server: tuple[str, Path], nobody: str) -> None:
    file = DataFile("x.bin", SHA256, (nobody, server[0]))
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        read_verified(file, (tmp_path / "here", tmp_path / "there"))
    assert time.monotonic() - start < 2
    message = str(caught.value)
    for part in (
        "x.bin",
        f"{tmp_path / 'here'} nor in {tmp_path / 'there'}",
        f"{nobody}x.bin: ConnectionError",
        f"{server[0]}x.bin: HTTP 404",
        "--data-dir",
        "BATCHSCOPE_DATA",
        f"curl -fL --create-dirs -o '{tmp_path / 'here' / 'x.bin'}' {nobody}x.bin",
    ):
        assert part in message


def test_a_server_that_never_answers_is_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        start = time.monotonic()
        with pytest.raises(DataError, match="ReadTimeout"):
            read_verified(DataFile("x.bin", SHA256, (address,)), (tmp_path,))
    assert time.monotonic() - start < 2


def test_mirrors_are_given_up_on_when_the_first_took_long(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "NEXT_MIRROR_WITHIN_SECONDS", -1.0)
    with pytest.raises(DataError) as caught:
        read_verified(DataFile("x.bin", SHA256, (nobody, f"{nobody}second/")), (tmp_path,))
    assert f"{nobody}x.bin: ConnectionError" in str(caught.value)
    assert f"{nobody}second/x.bin" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, server: tuple[str, Path]) -> None:
    (tmp_path / "here").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"here/x\.bin could not be written"):
        read_verified(DataFile("x.bin", SHA256, (server[0],)), (tmp_path / "here",))


def test_data_folder_argument_then_environment_then_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argument, environment, cache = tmp_path / "argument", tmp_path / "environment", tmp_path / "a" / "cache"
    argument.mkdir()
    environment.mkdir()
    monkeypatch.setattr(pooch, "os_cache", lambda _: cache)
    monkeypatch.setenv("BATCHSCOPE_DATA", str(environment))
    assert data_folder(argument) == argument
    assert data_folder() == environment
    monkeypatch.delenv("BATCHSCOPE_DATA")
    assert data_folder() == cache
    assert cache.is_dir()


def test_a_named_folder_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(DataError, match=rf"got --data-dir {absent}: make it with  mkdir -p {absent}"):
        data_folder(absent)
    monkeypatch.setenv("BATCHSCOPE_DATA", str(absent))
    with pytest.raises(DataError, match=f"got BATCHSCOPE_DATA {absent}"):
        data_folder()
    assert not absent.exists()
