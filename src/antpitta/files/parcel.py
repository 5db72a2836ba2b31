"""A bundle as bytes, to send to machines that share no disk with this one."""

from pathlib import Path

from antpitta.files.bundle import Bundle, read_bundle

Parcel = dict[str, bytes]  # by path below the bundle's folder


def pack(bundle: Bundle) -> Parcel:
    """All files of the bundle, its members' included."""
    files = sorted(path for path in bundle.path.rglob("*") if path.is_file())
    return {path.relative_to(bundle.path).as_posix(): path.read_bytes() for path in files}


def unpack(parcel: Parcel, folder: Path) -> Bundle:
    """The bundle again, in an empty folder."""
    for name, content in parcel.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return read_bundle(folder)
