"""Archives in remote stores: s3://, gs://, and whatever else fsspec supports.

- A recording is downloaded to a temporary file, read like any other, and deleted when nothing
  refers to its path any more. Decoders seek, and seeking over the network costs more than the
  minute of sound that it saves.
- Whether an object changed is seen from its ETag, or from the time of its last change where a store
  gives none. Both come with the listing, so an unchanged archive needs no request per file.
- An object that is gone or may not be read is a problem of that recording. Every other error (no
  network, expired credentials, no space) would hit every later file: it stops the run, which
  continues with --resume.
- The manifest of an output (files/manifest.py) is uploaded, too: only an object whose content has a
  digest of it is ever replaced or deleted.
- Credentials and endpoints are those of the store's own tools (AWS_*, GOOGLE_*, roles) and of
  fsspec (FSSPEC_S3_*, FSSPEC_GS_*).
"""

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from antpitta.core.errors import UserError
from antpitta.files.audio import UnreadableAudio
from antpitta.files.cache import cache_folder, check_cache
from antpitta.files.manifest import (
    MANIFEST,
    Digests,
    digest_of,
    manifest_text,
    parse_manifest,
    read_digests,
)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,3}(?=[^/])")  # pathlib leaves one slash
# Error codes that concern one object only.
_OBJECT_CODES = ("AccessDenied", "Forbidden", "InvalidObjectState", "NoSuchKey")
_CHANGE_KEYS = ("ETag", "etag", "mtime", "LastModified", "updated", "last_modified", "created")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role; FSSPEC_S3_ANON=true for a"
    " public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login;"
    " FSSPEC_GS_TOKEN=anon for a public bucket",
}
_ENDPOINTS = {"s3": " and AWS_ENDPOINT_URL", "gs": " and STORAGE_EMULATOR_HOST"}


@dataclass(frozen=True, order=True)
class RemotePath:
    """An object in a store, or a folder of objects, with the parts of Path that are needed."""

    url: str
    stamp: tuple[int, int] = field(default=(-1, -1), compare=False)  # bytes, hash of the change key

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> "RemotePath":
        """The folder that it is in."""
        return RemotePath(self.url.rstrip("/").rsplit("/", 1)[0])


Location = Path | RemotePath


class _TemporaryCopy(type(Path())):  # type: ignore[misc]  # weakref needs a subclass of Path
    """The path of a downloaded file, which is deleted with this object."""


def location_of(root: str | Location) -> Location:
    """The RemotePath of a URL, or the Path of anything else.

    Parameters
    ----------
    root : a path or a URL; a folder that exists is never read as a URL

    Returns
    -------
    The location; ``file://`` is a path.
    """
    if isinstance(root, RemotePath):
        return root
    text = str(root)
    if not (scheme := _SCHEME.match(text)) or (isinstance(root, Path) and root.exists()):
        return Path(root)
    name, rest = scheme[0].rstrip("/:").lower(), text[scheme.end() :]
    return Path("/" + rest.lstrip("/")) if name == "file" else RemotePath(f"{name}://{rest}")


def list_objects(root: RemotePath) -> list[tuple[RemotePath, str]]:
    """List the objects below a URL, or the single object there.

    Parameters
    ----------
    root : a folder or an object

    Returns
    -------
    Each object, and its key below ``root``.

    Raises
    ------
    UserError
        E_REMOTE_* where there is nothing or it may not be listed.
    """
    with _explain_errors(root.url):
        store, path = _open_store(root.url)
        objects = store.find(path, detail=True)
        if not objects or set(objects) == {path}:
            info = store.info(path)
            objects = {} if info["type"] == "directory" else {info["name"]: info}
            home = path.rpartition("/")[0]
        else:
            home = path.rstrip("/")
    scheme = root.url.partition("://")[0]
    listed = []
    for key, info in objects.items():
        if info.get("type") == "directory" or key.endswith("/"):
            continue
        url = key if "://" in key else f"{scheme}://{key.lstrip('/')}"
        listed.append((RemotePath(url, _stamp(info)), key.removeprefix(home).lstrip("/")))
    return listed


def fetch(remote: RemotePath) -> Path:
    """Download an object; the copy is deleted when the returned path is no longer used.

    Parameters
    ----------
    remote : the object

    Returns
    -------
    The path of the copy, in a temporary folder, with the name of the object.

    Raises
    ------
    UnreadableAudio
        For an object that is gone or may not be read.
    UserError
        E_REMOTE_* where the store cannot be reached, or the download breaks off.
    """
    folder = tempfile.mkdtemp(prefix="antpitta-")
    path: Path = _TemporaryCopy(folder, remote.name)
    weakref.finalize(path, shutil.rmtree, folder, ignore_errors=True)
    with _explain_errors(remote.url):
        store, key = _open_store(remote.url)
        try:
            store.get_file(key, str(path))
            size = path.stat().st_size
            if size != remote.stamp[0] and size != store.info(key)["size"]:
                raise ConnectionError(f"the download broke off after {size} bytes")
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            if not gone and not (_is_refusal(error) and _error_code(error) in _OBJECT_CODES):
                raise
            reason = "is gone" if gone else "may not be read"
            raise UnreadableAudio(f"{remote}: the file {reason} ({_one_line(error)})") from None
    return path


def check_writable(url: RemotePath) -> None:
    """Check before a long run that files can be written to a URL.

    Parameters
    ----------
    url : a folder

    Raises
    ------
    UserError
        E_REMOTE_* where they cannot.
    """
    with _explain_errors(url.url, "written"):
        store, path = _open_store(url.url)
        probe = f"{path.rstrip('/')}/.antpitta"
        store.pipe_file(probe, b"antpitta writes here\n")
        store.rm_file(probe)


def local_folder(out: Location, names: Iterable[str]) -> Path:
    """The folder in which an output is made: itself, or one in the cache for a URL.

    Parameters
    ----------
    out : the output folder
    names : paths below it that will be written

    Returns
    -------
    The folder, which may be missing.

    Raises
    ------
    UserError
        E_CACHE_NOT_WRITABLE, E_OUTPUT_EDITED, E_REMOTE_*.
    """
    if isinstance(out, Path):
        return out
    check_cache()
    check_writable(out)
    check_own_objects(out, names)
    digest = blake2b(out.url.rstrip("/").encode(), digest_size=8).hexdigest()
    return cache_folder() / "remote" / digest


def check_own_objects(url: RemotePath, names: Iterable[str]) -> None:
    """Refuse an output whose objects would be replaced and were edited or are others'.

    Parameters
    ----------
    url : the folder in the store
    names : keys below it that will be written, besides those of its manifest

    Raises
    ------
    UserError
        E_OUTPUT_EDITED; E_REMOTE_*.
    """
    with _explain_errors(url.url):
        store, home = _open_store(url.url)
        digests = _read_manifest(store, home)
        for name in sorted({*names, *digests}):
            if not _is_own(store, home, name, digests):
                raise _edited(url, name)


def upload(folder: Path, url: RemotePath) -> None:
    """Upload finished tables, run.json last: where it is, all others are.

    Objects that were edited or are others' are not replaced. The manifest goes first, with the
    digests of the old and the new objects, so that an upload that breaks off can be repeated.

    Parameters
    ----------
    folder : with the tables and their manifest
    url : the folder in the store

    Raises
    ------
    UserError
        E_OUTPUT_EDITED before anything is uploaded; E_REMOTE_*.
    """
    new = dict(read_digests(folder))
    check_own_objects(url, new)
    with _explain_errors(url.url, "written"):
        store, home = _open_store(url.url)
        earlier = _read_manifest(store, home)
        _write_manifest(
            store, home, {n: earlier.get(n, []) + new.get(n, []) for n in earlier | new}
        )
        for name in sorted(new, key=lambda name: (name == "run.json", name)):
            store.put_file(str(folder / name), f"{home}/{name}")
        for name in set(earlier) - set(new):
            if store.exists(f"{home}/{name}"):
                store.rm_file(f"{home}/{name}")
        _write_manifest(store, home, new)


def _read_manifest(store: Any, home: str) -> Digests:
    try:
        return parse_manifest(store.cat_file(f"{home}/{MANIFEST}"), "prediction")
    except FileNotFoundError:
        return {}


def _write_manifest(store: Any, home: str, digests: Digests) -> None:
    store.pipe_file(f"{home}/{MANIFEST}", manifest_text("prediction", digests).encode())


def _is_own(store: Any, home: str, name: str, digests: Digests) -> bool:
    """Whether an object is missing, or is as antpitta wrote it."""
    try:
        with store.open(f"{home}/{name}", "rb") as file:
            return name in digests and digest_of(file) in digests[name]
    except (FileNotFoundError, IsADirectoryError):
        return True


def _edited(url: RemotePath, name: str) -> UserError:
    return UserError(
        "E_OUTPUT_EDITED",
        f"{url.url.rstrip('/')}/{name}: antpitta did not write this object, or it was changed",
        "choose another folder with -o, or move the object away",
    )


def _open_store(url: str) -> tuple[Any, str]:
    import fsspec

    # Listings are not cached: an archive is listed once, and a million files take a gigabyte.
    store, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return store, str(path).rstrip("/")


def _stamp(info: dict[str, Any]) -> tuple[int, int]:
    """The size of an object and a hash of its change key."""
    change = next((info[key] for key in _CHANGE_KEYS if info.get(key)), "")
    digest = blake2b(str(change).encode(), digest_size=8).digest()
    return int(info.get("size") or 0), int.from_bytes(digest) >> 1  # SQLite's integers are signed


@contextmanager
def _explain_errors(url: str, done: str = "read") -> Iterator[None]:
    """Turn the errors of a store into a UserError."""
    try:
        yield
    except (UserError, UnreadableAudio):
        raise
    except Exception as error:  # every store has exceptions of its own
        raise _user_error(error, url, done) from None


def _user_error(error: Exception, url: str, done: str) -> UserError:
    reason, kind, store = _one_line(error), type(error).__name__, url.partition(":")[0]
    if isinstance(error, ImportError):
        return UserError(
            "E_REMOTE_EXTRA",
            f"{url}: a package is missing ({reason})",
            "install it with `pip install 'antpitta[remote]'`",
        )
    if isinstance(error, ValueError) and "rotocol" in reason:
        return UserError(
            "E_REMOTE_SCHEME", f"{url}: {reason}", "give a folder, or a URL of s3:// or gs://"
        )
    if isinstance(error, FileNotFoundError):
        return UserError(
            "E_REMOTE_MISSING",
            f"{url}: there is no such bucket, folder or object ({reason})",
            "check the address",
        )
    if _is_refusal(error) or "redential" in kind:
        keys = f" ({_CREDENTIALS[store]})" if store in _CREDENTIALS else ""
        return UserError(
            "E_REMOTE_CREDENTIALS",
            f"{url}: it may not be {done} ({reason})",
            f"check the credentials{keys}",
        )
    return UserError(
        "E_REMOTE_UNREACHABLE",
        f"{url}: it cannot be {done} ({reason})",
        f"check the network{_ENDPOINTS.get(store, '')}, then run the same command with --resume",
    )


def _is_refusal(error: BaseException) -> bool:
    """Whether the store denies access; gcsfs raises plain errors for that."""
    forbidden = str(error).startswith("Forbidden:") or getattr(error, "code", None) in (401, 403)
    return isinstance(error, PermissionError) or forbidden


def _error_code(error: BaseException) -> str:
    """The store's own code of an error."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", "AccessDenied"))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f"{text[:197]}..."
