"""review: the page on which people judge the candidates of a queue."""

import hashlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from antpitta.api.round_process import RoundProcess
from antpitta.core.arguments import PathArgument, PathArguments, Words, as_paths, as_words, checked
from antpitta.core.config import Recipe, parse_recipe
from antpitta.core.errors import UserError
from antpitta.files.bundle import read_bundle
from antpitta.files.queue import is_url
from antpitta.files.recipes import read_recipe
from antpitta.review.library import AudioLibrary
from antpitta.review.media import RegionPainter
from antpitta.review.security import Access, SignedIn
from antpitta.review.server import ReviewPage, create_app
from antpitta.review.store import Role, Store

DEFAULT_PORT = 8765  # a fixed one: a browser keeps unsent verdicts by the address of the page
DEFAULT_RECIPE = "quick"  # whose pictures are shown where no model is given
Port = Annotated[int, Field(ge=0, le=65_535)]


@dataclass(frozen=True)
class ReviewServer:
    """The server of a review page, which listens already and answers once it is served.

    Parameters
    ----------
    addresses : where each reviewer opens the page, by name; the addresses hold tokens
    recordings : number of recordings in the audio folders
    """

    addresses: dict[str, str]
    recordings: int
    _server: Any
    _socket: socket.socket
    _store: Store
    _rounds: RoundProcess | None = None

    def serve(self) -> None:
        """Answer requests until the process is interrupted or :meth:`stop` is called."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._store.close()
            if self._rounds is not None:
                self._rounds.stop()

    def stop(self) -> None:
        """End :meth:`serve`, from another thread."""
        self._server.should_exit = True


@checked
def review(
    queue: PathArgument,
    audio: PathArguments,
    *,
    reviewers: Words = (),
    experts: Words = (),
    model: PathArgument | None = None,
    port: Port = DEFAULT_PORT,
) -> ReviewServer:
    """Open the review page of a queue on this machine.

    Parameters
    ----------
    queue : the folder of a queue, or the URL of its database
    audio : folders of the recordings
    reviewers : names, each with an address of its own. Without any name, the user of this process
        is an expert.
    experts : names of reviewers who may resolve conflicts
    model : a model or run whose view of the sound is shown beside the full spectrogram. From a run,
        the page can train the next model.
    port : to listen on; 0 for any that is free

    Returns
    -------
    ReviewServer
        To be started with its method ``serve``.

    Raises
    ------
    UserError
        ``E_PORT_IN_USE``, and the errors of opening the queue, the audio and the model.

    Examples
    --------
    >>> server = review("queue", "season")  # doctest: +SKIP
    >>> print(server.addresses)  # doctest: +SKIP
    >>> server.serve()  # doctest: +SKIP
    """
    import uvicorn

    names: list[tuple[str, Role]] = [(name, "reviewer") for name in as_words(reviewers)]
    names += [(name, "expert") for name in as_words(experts)]
    recipe = read_recipe(DEFAULT_RECIPE) if model is None else _recipe(Path(model))
    library = AudioLibrary([Path(root) for root in as_paths(audio)])
    store = Store.open(queue if is_url(queue) else Path(queue))
    bound_socket = _listen(port)
    access = Access(bound_socket.getsockname()[1])
    addresses = _sign_in(store, access, names or [(getuser(), "expert")])
    rounds = _rounds(model, queue, [Path(root) for root in as_paths(audio)])
    page = ReviewPage(
        store=store,
        library=library,
        painter=RegionPainter(recipe),
        access=access,
        queue=_queue_name(queue, store),
        start_round=rounds.start if rounds else None,
        round_status=rounds.status if rounds else None,
        superseded=rounds.superseded if rounds else tuple,
    )
    config = uvicorn.Config(
        create_app(page),
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    return ReviewServer(addresses, len(library), server, bound_socket, store, rounds)


def _rounds(
    model: Path | str | None, queue: Path | str, audio: Sequence[Path]
) -> RoundProcess | None:
    """What starts rounds, where the model is a run."""
    if model is None or not (Path(model) / "config.json").is_file():
        return None
    return RoundProcess(Path(model), queue, audio)


def _recipe(model: Path) -> Recipe:
    """The recipe of a model, or of the first member of an ensemble."""
    bundle = read_bundle(model)
    while parts := bundle.parts():
        bundle = parts[0]
    return parse_recipe(dict(bundle.recipe), str(bundle.path))


def _listen(port: int) -> socket.socket:
    # With the protocol named, asyncio sends small answers at once and not 40 ms later.
    bound_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound_socket.bind(("127.0.0.1", port))
    except OSError as error:
        bound_socket.close()
        what = f"port {port} cannot be listened on ({error.strerror})"
        raise UserError("E_PORT_IN_USE", what, "give another one with --port") from None
    return bound_socket


def _sign_in(store: Store, access: Access, names: Sequence[tuple[str, Role]]) -> dict[str, str]:
    for name, role in names:
        store.add_reviewer(name, role)
    by_name = {row["name"]: row for row in store.reviewers()}
    addresses = {}
    for name, _ in names:
        row = by_name[" ".join(name.split())]
        addresses[row["name"]] = access.grant(SignedIn(row["id"], row["name"], row["role"]))
    return addresses


def _queue_name(queue: Path | str, store: Store) -> str:
    """A name that a queue made anew in the same place does not have."""
    place = str(queue) if is_url(queue) else str(Path(queue).resolve())
    made = [draw["created_at"] for draw in store.draws()[:1]]
    return hashlib.blake2b(f"{place} {made}".encode(), digest_size=8).hexdigest()
