"""Files that antpitta wrote earlier and reads again: every failure is one message.

A file can be truncated, emptied, edited, of another version, or replaced by a folder or a pipe. It
is never used then, and the message says what is safe to delete. Weights carry a checksum in their
header, Parquet tables one for each page.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
from pydantic import BaseModel

from antpitta.core.errors import UserError, cut_name, machine_failure
from antpitta.files.texts import atomic_replace

if TYPE_CHECKING:  # a run's tables can be read without PyTorch
    from torch import Tensor

Model = TypeVar("Model", bound=BaseModel)
RESUME = "delete this file, then continue with --resume, which makes it anew"
_TEXT_COLUMNS = ("recording", "species", "source")  # species may have these names, too
_CHECKSUM = "checksum"  # in the header of weights
_METADATA = "__metadata__"


@contextmanager
def explain_damage(path: Path, remedy: str = RESUME) -> Iterator[None]:
    """Turn every failure of reading a file into a UserError.

    Parameters
    ----------
    path : of the file that is read in the block
    remedy : what to do, and what is safe to delete

    Yields
    ------
    None.

    Raises
    ------
    UserError
        E_FILE_DAMAGED, E_MACHINE; another UserError of the block stays as it is.
    """
    if path.exists() and not path.is_file():  # a pipe that nobody writes to would never end
        raise damaged(path, "it is a folder, a pipe or a device", remedy)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if failure := machine_failure(error, path):  # the file is whole: nothing is to be deleted
            raise failure from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise damaged(path, cut_name(reason, 120), remedy) from error


def damaged(path: Path, reason: str, remedy: str = RESUME) -> UserError:
    """The error of a file that cannot be used.

    Parameters
    ----------
    path : of the file
    reason : in a few words
    remedy : what to do, and what is safe to delete

    Returns
    -------
    The error, E_FILE_DAMAGED.
    """
    return UserError(
        "E_FILE_DAMAGED", f"{path}: the file is damaged or was changed ({reason})", remedy
    )


def read_model(path: Path, schema: type[Model], remedy: str = RESUME) -> Model:
    """Read a JSON file of known content.

    Parameters
    ----------
    path : of the file
    schema : what it must hold
    remedy : what to do about a damaged file

    Returns
    -------
    The content.

    Raises
    ------
    UserError
        E_FILE_DAMAGED.
    """
    with explain_damage(path, remedy):
        return schema.model_validate_json(path.read_bytes())


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table with checksums.

    Parameters
    ----------
    table : whose index is left out
    path : of the file
    """
    table.attrs = {"columns": list(map(str, table.columns)), "rows": len(table)}
    with atomic_replace(path) as unfinished:
        table.to_parquet(unfinished, index=False, write_page_checksum=True)


def read_parquet(path: Path, columns: Sequence[str], remedy: str = RESUME) -> pd.DataFrame:
    """Read a table of :func:`write_parquet`.

    Parameters
    ----------
    path : of the file
    columns : which its first columns must be; all others hold scores
    remedy : what to do about a damaged file

    Returns
    -------
    The table.

    Raises
    ------
    UserError
        E_FILE_DAMAGED.
    """
    with explain_damage(path, remedy):
        table = pd.read_parquet(path, page_checksum_verification=True)
        names = [str(name) for name in table.columns]
        wanted = table.attrs.get("columns", names), table.attrs.get("rows", len(table))
        if (names, len(table)) != wanted or names[: len(columns)] != list(columns):
            raise ValueError(f"its columns are {', '.join(names)}")
        if len(set(names)) < len(names):
            raise ValueError("two columns have one name")
        for i, name in enumerate(names):
            is_text = i < len(columns) and name in _TEXT_COLUMNS
            _check_column(table[name], is_text=is_text)
        return table


def _check_column(column: "pd.Series[Any]", *, is_text: bool) -> None:
    if is_text and not all(isinstance(value, str) for value in column.unique()):
        raise ValueError(f"column {column.name} is no text")
    if not is_text and column.dtype.kind not in "fib":
        raise ValueError(f"column {column.name} holds no numbers")
    if column.isna().any():
        raise ValueError(f"column {column.name} has empty cells")


def save_tensors(
    state: "dict[str, Tensor]", path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write named tensors as safetensors.

    Parameters
    ----------
    state : tensors by name
    path : of the file
    metadata : kept in the file's header
    """
    from safetensors.torch import save

    tensors = {name: state[name].detach().contiguous().cpu() for name in sorted(state)}
    with atomic_replace(path) as unfinished:
        unfinished.write_bytes(_with_checksum(save(tensors, metadata=metadata)))


def load_tensors(path: Path, remedy: str = RESUME) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read a file of :func:`save_tensors`.

    Parameters
    ----------
    path : of the file
    remedy : what to do about a damaged file

    Returns
    -------
    The tensors by name, and the metadata.

    Raises
    ------
    UserError
        E_FILE_DAMAGED.
    """
    from safetensors.torch import load

    with explain_damage(path, remedy):
        content = path.read_bytes()
        header, tensors = _split(content)
        metadata: dict[str, str] = header.get(_METADATA, {})
        if metadata.pop(_CHECKSUM, None) not in (None, _checksum(header, tensors)):
            raise ValueError("its checksum is another one")
        return load(content), metadata


def check_tensors(path: Path, remedy: str = RESUME) -> None:
    """Compare a file of weights with its checksum, without PyTorch.

    Parameters
    ----------
    path : of the file
    remedy : what to do about a damaged file

    Raises
    ------
    UserError
        E_FILE_DAMAGED.
    """
    with explain_damage(path, remedy):
        header, tensors = _split(path.read_bytes())
        if header.get(_METADATA, {}).pop(_CHECKSUM, None) not in (
            None,
            _checksum(header, tensors),
        ):
            raise ValueError("its checksum is another one")


def _with_checksum(content: bytes) -> bytes:
    """The same safetensors file with a checksum, and its header in the order of its names.

    The package writes the metadata in random order, which would give equal weights other bytes.
    """
    header, tensors = _split(content)
    checksum = _checksum(header, tensors)
    header[_METADATA] = {**header.get(_METADATA, {}), _CHECKSUM: checksum}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + tensors


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and the bytes of its tensors."""
    size = int.from_bytes(content[:8], "little")
    if not 0 < size <= len(content) - 8:
        raise ValueError("it is cut short")
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    return header, content[8 + size :]


def _checksum(header: dict[str, Any], tensors: bytes) -> str:
    plain = {**header, _METADATA: header.get(_METADATA, {})}
    digest = blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16)
    digest.update(tensors)
    return digest.hexdigest()
