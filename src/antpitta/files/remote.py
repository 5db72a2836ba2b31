"""Archives that are no folder of this machine: s3://, gs://, and whatever else fsspec knows.

- A recording is fetched whole to a temporary file under its own name, read like any other, and
  deleted once nobody holds its path: decoders seek, and a seek over the network costs more than
  the minute of sound it saves.
- What says that an object is still the same is its ETag, or the time of its last change where a
  store gives none; both come with the listing, so an unchanged archive is not asked file by file.
- An object that is gone, or may not be read, is the recording's trouble. Anything else (no
  network, credentials that ran out, no room) would be every later file's trouble too: it stops the
  run, which goes on with --resume.
- Credentials and endpoints are those of the store's own tools (AWS_*, GOOGLE_*, roles) and
  fsspec's (FSSPEC_S3_*, FSSPEC_GS_*).
"""

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from antpitta.core.errors import UserError
from antpitta.files.audio import UnreadableAudio

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,3}(?=[^/])")  # pathlib leaves one slash
_KEPT = ("AccessDenied", "Forbidden", "InvalidObjectState", "NoSuchKey")  # one object's trouble
_CHANGE = ("ETag", "etag", "mtime", "LastModified", "updated", "last_modified", "created")
_KEYS = {  # of each store, and what leads to another one in its place
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role; FSSPEC_S3_ANON=true for a"
    " public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login;"
    " FSSPEC_GS_TOKEN=anon for a public bucket",
}
_ENDPOINTS = {"s3": " and AWS_ENDPOINT_URL", "gs": " and STORAGE_EMULATOR_HOST"}
_HELD_BACK = "journal.sqlite"  # of no use elsewhere, and still open


@dataclass(frozen=True, order=True)
class RemotePath:
    """An object in a store, or a folder of them; as much of a path as others ask for."""

    url: str
    stamp: tuple[int, int] = field(default=(-1, -1), compare=False)  # bytes, and what tells change

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self.url.rstrip("/").rsplit("/", 1)[0])


Location = Path | RemotePath


class _Fetched(type(Path())):  # type: ignore[misc]  # a plain Path can neither be watched nor hold
    """The path of a copy that lives as long as it does."""


def location_of(root: str | Location) -> Location:
    """Where that is: a URL, or a path on this machine."""
    if isinstance(root, RemotePath):
        return root
    text = str(root)
    if not (scheme := _SCHEME.match(text)) or (isinstance(root, Path) and root.exists()):
        return Path(root)
    name, rest = scheme[0].rstrip("/:").lower(), text[scheme.end() :]
    return Path("/" + rest.lstrip("/")) if name == "file" else RemotePath(f"{name}://{rest}")


def list_objects(root: RemotePath) -> list[tuple[RemotePath, str]]:
    """Every object under a URL with its key below it, or the one object there.

    Raises UserError for what is not there or may not be listed.
    """
    with _explain(root.url):
        store, path = _store(root.url)
        found = store.find(path, detail=True)
        if not found or set(found) == {path}:
            info = store.info(path)
            found = {} if info["type"] == "directory" else {info["name"]: info}
            home = path.rpartition("/")[0]
        else:
            home = path.rstrip("/")
    scheme = root.url.partition("://")[0]
    listed = []
    for key, info in found.items():
        if info.get("type") == "directory" or key.endswith("/"):
            continue
        url = key if "://" in key else f"{scheme}://{key.lstrip('/')}"
        listed.append((RemotePath(url, _stamp(info)), key.removeprefix(home).lstrip("/")))
    return listed


def fetch(place: RemotePath) -> Path:
    """A copy on this machine, which is deleted once the path is no longer held.

    Raises UnreadableAudio for an object that is gone or may not be read, UserError where the
    store itself cannot be reached, or breaks off.
    """
    folder = tempfile.mkdtemp(prefix="antpitta-")
    path: Path = _Fetched(folder, place.name)
    weakref.finalize(path, shutil.rmtree, folder, ignore_errors=True)
    with _explain(place.url):
        store, key = _store(place.url)
        try:
            store.get_file(key, str(path))
            held = path.stat().st_size
            if held != place.stamp[0] and held != store.info(key)["size"]:
                raise ConnectionError(f"broke off after {held} bytes")
        except OSError as trouble:
            gone = isinstance(trouble, FileNotFoundError)
            if not gone and not (_refused(trouble) and _code(trouble) in _KEPT):
                raise
            said = "is gone" if gone else "may not be read"
            raise UnreadableAudio(f"{place}: {said} ({_line(trouble)})") from None
    return path


def check_writable(url: RemotePath) -> None:
    """Raises UserError where nothing can be put: better now than after days of listening."""
    with _explain(url.url, "written"):
        store, path = _store(url.url)
        mark = f"{path.rstrip('/')}/.antpitta"
        store.pipe_file(mark, b"antpitta writes here\n")
        store.rm_file(mark)


def upload(folder: Path, url: RemotePath) -> None:
    """Put the finished tables there, run.json last: where it is, everything is."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if not path.name.startswith((".", _HELD_BACK))]
    with _explain(url.url, "written"):
        store, home = _store(url.url)
        for path in sorted(files, key=lambda path: (path.name == "run.json", path)):
            store.put_file(str(path), f"{home.rstrip('/')}/{path.relative_to(folder).as_posix()}")


def _store(url: str) -> tuple[Any, str]:
    import fsspec

    # Listings are not kept: an archive's is read once, and is a gigabyte at a million files.
    store, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return store, str(path)


def _stamp(info: dict[str, Any]) -> tuple[int, int]:
    told = next((info[key] for key in _CHANGE if info.get(key)), "")
    digest = blake2b(str(told).encode(), digest_size=8).digest()
    return int(info.get("size") or 0), int.from_bytes(digest) >> 1  # SQLite's numbers have a sign


@contextmanager
def _explain(url: str, done: str = "read") -> Iterator[None]:
    """Turn what a store says into a line for the user."""
    try:
        yield
    except (UserError, UnreadableAudio):
        raise
    except Exception as trouble:  # every store has exceptions of its own
        raise UserError("E_TODO", f"{url}: {_remedy(trouble, url, done)}") from None


def _remedy(trouble: Exception, url: str, done: str) -> str:
    said, kind, store = _line(trouble), type(trouble).__name__, url.partition(":")[0]
    if isinstance(trouble, ImportError):
        return f"needs a package that is not there ({said}); pip install 'antpitta[remote]'"
    if isinstance(trouble, ValueError) and "rotocol" in said:
        return f"{said}; give a folder, or s3:// or gs://"
    if isinstance(trouble, FileNotFoundError):
        return f"there is no such bucket, folder or object ({said}); check the address"
    if _refused(trouble) or "redential" in kind:
        keys = f" ({_KEYS[store]})" if store in _KEYS else ""
        return f"may not be {done} ({said}); check the credentials{keys}"
    return (
        f"cannot be {done} ({said}); check the network{_ENDPOINTS.get(store, '')}, then give the "
        "same command with --resume: what was heard so far is kept"
    )


def _refused(trouble: BaseException) -> bool:
    """Whether the store does not know us, or does not let us: gcsfs has plain errors for it."""
    told = str(trouble).startswith("Forbidden:") or getattr(trouble, "code", None) in (401, 403)
    return isinstance(trouble, PermissionError) or told


def _code(trouble: BaseException) -> str:
    """The store's own word for it."""
    response = getattr(trouble.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", "AccessDenied"))


def _line(trouble: BaseException) -> str:
    said = " ".join(str(trouble).split()) or type(trouble).__name__
    return said if len(said) < 200 else f"{said[:197]}..."
