"""Fetching the files of a known embedding model over HTTPS into the cache.

- Every byte goes through SHA-256 on its way, and a file gets its name only if the digest is right.
- A download that breaks off leaves a file ``*.part``, and the next one continues from there. The
  digest is of the whole, so nothing wrong can come of it.
- The licence is accepted once for each model; a file beside the model records which one, and when.
- urllib reads proxies from $HTTPS_PROXY and $NO_PROXY. $HF_ENDPOINT names a mirror of Hugging Face,
  as it does for Hugging Face's own tools.
"""

import errno
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPException, HTTPResponse
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.request import Request, build_opener

from antpitta.core.errors import UserError
from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.files.embedding_models import SEARCH_PATH, fetched_folder
from antpitta.files.known_models import Download, KnownModel
from antpitta.files.locks import lock_folder
from antpitta.files.texts import atomic_replace, is_regular_file, read_json, write_json

HUB = "https://huggingface.co"
ACCEPTED = "licence.json"
TIMEOUT = 60.0  # seconds without an answer
BLOCK = 1 << 20  # bytes


def fetch_model(
    model: KnownModel, *, accept_licence: bool = False, progress: ProgressCallback = no_progress
) -> Path:
    """Bring the files of a known model into the cache, unless they are there.

    Parameters
    ----------
    model : has downloads
    accept_licence : whether the user accepts its licence, where this was not recorded earlier
    progress : called with (bytes done, bytes in all, NaN)

    Returns
    -------
    The path of the model file.

    Raises
    ------
    UserError
        E_FETCH_LICENCE, E_FETCH_UNREACHABLE, E_FETCH_DIGEST, E_CACHE_NOT_WRITABLE, E_OUTPUT_LOCKED
        while another command fetches the same model.
    """
    folder = fetched_folder(model)
    if not accept_licence and not has_accepted(model):
        raise UserError(
            "E_FETCH_LICENCE",
            f"{model.name}: its licence {model.licence} ({model.licence_page}) is not accepted",
            f"read it, then run antpitta fetch {model.name} --accept-licence",
        )
    try:
        with lock_folder(folder):
            if not has_accepted(model):
                moment = datetime.now(UTC).isoformat(timespec="seconds")
                write_json({"licence": model.licence, "accepted": moment}, folder / ACCEPTED)
            before = 0
            for download in model.downloads:
                _fetch(download, folder, partial(_report, progress, before, model.size))
                before += download.size
    except UserError as error:
        _explain(error)
    return folder / model.file


def has_accepted(model: KnownModel) -> bool:
    """Whether the user has accepted a model's licence on this machine.

    Parameters
    ----------
    model : whose present licence counts

    Returns
    -------
    False where another licence was accepted.
    """
    try:
        return read_json(fetched_folder(model) / ACCEPTED).get("licence") == model.licence
    except UserError:  # a damaged record
        return False


def _explain(error: UserError) -> NoReturn:
    """Raise an error of an output folder as one of the cache."""
    if error.code == "E_OUTPUT_LOCKED":
        raise UserError(error.code, error.what, "wait until it ends, then run this again") from None
    if error.code == "E_OUTPUT_NOT_WRITABLE":
        remedy = "free disk space, or set ANTPITTA_CACHE to a folder that can be written"
        raise UserError("E_CACHE_NOT_WRITABLE", error.what, remedy) from None
    raise error


def _report(progress: ProgressCallback, before: int, total: int, done: int) -> None:
    progress(before + done, total, float("nan"))


def _fetch(download: Download, folder: Path, report: Callable[[int], None]) -> None:
    """Bring what lies at one address into a folder, unless its files are there."""
    if all(_is_at(folder / name, digest) for name, digest in download.files.items()):
        report(download.size)
        return
    part = folder / f"{download.sha256[:16]}.part"
    try:
        digest = _download(download, part, report)
        if digest != download.sha256:
            raise UserError(
                "E_FETCH_DIGEST",
                f"{_address(download)}: the content has the SHA-256 digest {digest} and not"
                f" {download.sha256}; nothing was kept",
                "run the command again; if it fails again, another file lies there now: report it",
            )
        _keep(download, part)
    except UserError as error:
        continues = error.code in ("E_FETCH_UNREACHABLE", "E_OPTION") and part.stat().st_size
        if not continues:
            part.unlink(missing_ok=True)
        raise
    except OSError:  # a full disk gets its space back
        part.unlink(missing_ok=True)
        raise
    part.unlink(missing_ok=True)


def _download(download: Download, part: Path, report: Callable[[int], None]) -> str:
    """Continue a file up to its end; the SHA-256 of the whole."""
    sha256, done = hashlib.sha256(), 0
    with part.open("r+b" if is_regular_file(part) else "w+b") as file:
        while (block := file.read(BLOCK)) and done < download.size:
            sha256.update(block)
            done += len(block)
        if done == download.size:
            return sha256.hexdigest()
        missing = download.size - done
        if shutil.disk_usage(part.parent).free < missing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        with _open(download, done) as response:
            if response.status != 206:  # from the beginning, whatever was asked for
                sha256, done = hashlib.sha256(), 0
            file.seek(done)
            file.truncate()
            for block in _blocks(download, response):
                file.write(block)
                sha256.update(block)
                done += len(block)
                report(min(done, download.size))
                if done > download.size:
                    break
        file.flush()
        os.fsync(file.fileno())
    if done < download.size:
        raise _unreachable(download, f"the connection broke off after {done} bytes")
    return sha256.hexdigest()


def _open(download: Download, done: int) -> Any:
    """The response to a request for what is missing."""
    headers = {"User-Agent": f"antpitta/{version('antpitta')}"}
    if done:
        headers["Range"] = f"bytes={done}-"
    address = _address(download)
    try:
        return build_opener().open(Request(address, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and done:  # there is less than what is here already
            return _open(download, 0)
        what = f"the server answers {error.code} {error.reason}"
        raise _unreachable(download, what, moved=error.code in (404, 410)) from None
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(download, str(getattr(error, "reason", error))) from None


def _blocks(download: Download, response: HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(BLOCK)
        except (OSError, HTTPException) as error:
            raise _unreachable(download, str(error) or type(error).__name__) from None
        if not block:
            return
        yield block


def _unreachable(download: Download, reason: str, *, moved: bool = False) -> UserError:
    address = _address(download)
    remedy = (
        f"look for a newer version of antpitta, or fetch the file yourself and set {SEARCH_PATH}"
        " to its path"
        if moved
        else "check the network (a proxy is read from HTTPS_PROXY), then run the command again: it"
        " continues from here"
    )
    return UserError("E_FETCH_UNREACHABLE", f"{address}: {' '.join(reason.split())}", remedy)


def _address(download: Download) -> str:
    """Where to fetch from: a mirror of Hugging Face, if one is named."""
    mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if not mirror or not download.url.startswith(f"{HUB}/"):
        return download.url
    if not mirror.startswith(("https://", "http://")):
        raise UserError(
            "E_OPTION",
            f"HF_ENDPOINT is {mirror}, which is no address",
            "unset it, or give https://...",
        )
    return mirror + download.url.removeprefix(HUB)


def _keep(download: Download, part: Path) -> None:
    """Give what was fetched its name, or unpack the members of an archive that are needed."""
    if not download.members:
        [name] = download.files
        part.replace(part.with_name(name))
        return
    with zipfile.ZipFile(part) as archive:
        for name, member in download.members.items():
            with atomic_replace(part.with_name(name)) as unfinished:
                _unpack(archive, member, unfinished)


def _unpack(archive: zipfile.ZipFile, member: str, path: Path) -> None:
    with archive.open(member) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK)


def _is_at(path: Path, digest: str) -> bool:
    if not is_regular_file(path):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest
