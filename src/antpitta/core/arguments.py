"""The arguments of the library's functions, checked against their annotations.

:func:`checked` decorates every public function: what does not fit an annotation is a UserError that
names the parameter, the value and what is allowed. So a mistake never surfaces as an AttributeError
from inside, and no wrong value becomes a default in silence.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial, wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError

from antpitta.core.errors import UserError, cut_name

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

LONGEST_NAME = 255  # bytes: the limit of all common file systems


def _path(value: Any) -> Any:
    """A path as it was given, text for subclasses of text; URLs and their objects stay."""
    if hasattr(value, "url"):  # files.remote.RemotePath
        return value
    if not isinstance(value, str | bytes | os.PathLike):
        raise ValueError("give a path, as text or pathlib.Path")
    text = os.fsdecode(value)
    if not text.strip() or "\0" in text:
        raise ValueError("give a path that is not empty and holds no NUL")
    if max(len(os.fsencode(part)) for part in text.split("/")) > LONGEST_NAME:
        raise ValueError(f"give a path whose names have at most {LONGEST_NAME} bytes")
    return value if isinstance(value, Path) else text


def as_paths(value: Any) -> tuple[Any, ...]:
    """Several paths; a single one stands for itself.

    Parameters
    ----------
    value : a path, or paths in any order that can be iterated

    Returns
    -------
    tuple
        The paths, as they were given.

    Raises
    ------
    ValueError
        For anything else.
    """
    if isinstance(value, str | bytes | os.PathLike) or hasattr(value, "url"):
        return (_path(value),)
    if not isinstance(value, Iterable):
        raise ValueError("give a path or a list of paths")
    return tuple(_path(path) for path in value)


def as_words(value: Any) -> tuple[str, ...]:
    """Several words; a single text stands for itself.

    Parameters
    ----------
    value : a text, or texts

    Returns
    -------
    tuple of str
        The texts.

    Raises
    ------
    ValueError
        For anything else.
    """
    if isinstance(value, str):
        return (str(value),)
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        raise ValueError("give text or a list of text")
    words = tuple(value)
    if not all(isinstance(word, str) for word in words):
        raise ValueError("give text or a list of text")
    return tuple(str(word) for word in words)


def _split_words(value: Any) -> tuple[str, ...]:
    """Several words; commas in a single text separate them."""
    parts = (part.strip() for word in as_words(value) for part in word.split(","))
    words = tuple(part for part in parts if part)
    if not words:
        raise ValueError("give one at least")
    return words


PathArgument = Annotated[Path | str, PlainValidator(_path)]
PathArguments = Annotated[Sequence[Path | str] | Path | str, PlainValidator(as_paths)]
Words = Annotated[Sequence[str] | str, PlainValidator(as_words)]
SplitWords = Annotated[Sequence[str] | str, PlainValidator(_split_words)]
Number = Annotated[int, Field(ge=1, le=10_000)]  # of workers, processes, channels
Finite = Annotated[float, Field(allow_inf_nan=False)]


def show_value(value: object) -> str:
    """A value for a message, cut where it is long.

    Parameters
    ----------
    value : of any type

    Returns
    -------
    str
        Its representation, or the name of its type if it has none.
    """
    try:
        return cut_name(repr(value), 60)
    except Exception:  # such as of a number with more digits than Python converts
        return f"a value of type {type(value).__name__}"


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Check the arguments of a function when it is called.

    Parameters
    ----------
    function : its parameters have annotations that pydantic or ``isinstance`` can check

    Returns
    -------
    Callable
        The function, which raises UserError ``E_OPTION`` for arguments that do not fit.
    """
    signature = inspect.signature(function)

    @cache
    def adapters() -> dict[str, TypeAdapter[Any]]:
        return {name: TypeAdapter(part.annotation) for name, part in signature.parameters.items()}

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            name = function.__name__
            raise UserError("E_OPTION", f"{name}: {error}", f"see help({name})") from None
        for name, value in bound.arguments.items():
            check = partial(_check, adapters()[name], name)
            if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(check(part) for part in value)
            else:
                bound.arguments[name] = check(value)
        return function(*bound.args, **bound.kwargs)

    return call


def _check(adapter: TypeAdapter[Any], name: str, value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        # Of a union, one message for each of its types: the last is that of the most general one.
        message = error.errors()[-1]["msg"].removeprefix("Value error, ")
        what = f"{name} is {show_value(value)}, which is not allowed"
        remedy = message.replace("Input should", "it should")
        raise UserError("E_OPTION", what, remedy) from None
