"""Where data files lie, what they must contain, and where to get them."""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from batchscope.errors import DataError

CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0
NEXT_MIRROR_WITHIN_SECONDS = 10.0


@dataclass(frozen=True)
class DataFile:
    """One published file: its name, the sha256 of its content, the address of its folder on every mirror."""

    name: str
    sha256: str
    mirrors: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a file that nobody could verify or get."""
        assert len(self.sha256) == 64 and self.mirrors

    @property
    def address(self) -> str:
        """The first place to get it from."""
        return self.mirrors[0] + self.name


def data_folder(data_dir: str | Path | None = None) -> Path:
    """``data_dir``, else the environment's ``BATCHSCOPE_DATA``, else the user cache directory.

    A cache directory is made if it is not there; a folder that the user names is not.

    Raises:
        DataError: If a folder is named that is not there.
    """
    named = data_dir or os.environ.get("BATCHSCOPE_DATA")
    if not named:
        import pooch  # here, because only the cache and downloads need it

        cache = Path(pooch.os_cache("batchscope"))
        cache.mkdir(parents=True, exist_ok=True)
        return cache
    folder = Path(named).expanduser()
    if not folder.is_dir():
        source = "--data-dir" if data_dir else "BATCHSCOPE_DATA"
        remedy = "that is a file" if folder.exists() else f"make it with  mkdir -p {shlex.quote(str(folder))}"
        raise DataError(f"the data folder must be there, got {source} {folder}: {remedy}")
    return folder


def read_verified(file: DataFile, folders: tuple[Path, ...]) -> tuple[bytes, Path]:
    """The content of ``file``, and its path in the first of ``folders`` that has it.

    Where none has it, it is downloaded to the first.

    Raises:
        DataError: If it is not to be had, or is not what was published.
    """
    path = next((folder / file.name for folder in folders if (folder / file.name).is_file()), None)
    if path is None:
        path = _download(file, folders)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the data file {path}: {error.strerror or error}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(
            f"the data file {path} is damaged ({len(content)} bytes): "
            f"its sha256 must be {file.sha256}, got {found}. "
            f"Delete it and run this again to download it, or get it with\n  {_command(file, path)}"
        )
    return content, path


def _command(file: DataFile, path: Path) -> str:
    return f"curl -fL --create-dirs -o '{path}' {file.address}"


def _download(file: DataFile, folders: tuple[Path, ...]) -> Path:
    import pooch  # here, because only downloads need it
    import requests  # here, because only downloads need it

    path = folders[0] / file.name
    # Some servers send a .gz as content in gzip encoding, which clients unpack; the checksum is of the .gz.
    downloader = pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS), headers={"Accept-Encoding": "identity"})
    failures = []
    start = time.monotonic()
    for mirror in file.mirrors:
        try:
            pooch.retrieve(
                mirror + file.name,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=folders[0],
                downloader=downloader,
            )
            return path
        except requests.RequestException as error:
            status = error.response.status_code if error.response is not None else None
            failures.append(f"{mirror}{file.name}: {f'HTTP {status}' if status else type(error).__name__}")
        except ValueError:
            failures.append(f"{mirror}{file.name}: what came is not the published file (sha256)")
        except OSError as error:
            failures.append(f"{path} could not be written: {error.strerror or error}")
            break
        if time.monotonic() - start > NEXT_MIRROR_WITHIN_SECONDS:
            break
    looked = " nor in ".join(str(folder) for folder in folders)
    raise DataError(
        f"the data file {file.name} is not in {looked}, and downloading it failed:\n"
        + "".join(f"  {failure}\n" for failure in failures)
        + "Name the data folder with --data-dir or BATCHSCOPE_DATA, or get the file with\n"
        + f"  {_command(file, path)}"
    )
