"""The review page's server: one FastAPI app over a queue and its audio folders.

Everything that is stored is an event (review/events.py), and the answer comes after the commit. A
verdict with moved edges carries its box; the region of these edges is made here, and the same edges
give the same region, so that sending an event again changes nothing.

The page itself is a few files of the package, which are read once at the start: no request names a
file. The app is always inside a :class:`~antpitta.review.security.Guard`.
"""

import csv
import io
import json
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from antpitta.core.errors import UserError, printable
from antpitta.files.audio import UnreadableAudio
from antpitta.review import media
from antpitta.review.agreement import agreement_rows
from antpitta.review.audits import species_threshold
from antpitta.review.events import NO_NUL
from antpitta.review.library import AudioLibrary
from antpitta.review.lookups import filter_choices, latest_verdict, reference_calls
from antpitta.review.media import Cut, ImageSize, RegionPainter, View, cut_region, cut_sound
from antpitta.review.security import REVIEWER, Access, Guard, SignedIn, csrf_key
from antpitta.review.store import Store

PAGE_SIZE = 48  # items of a page of the grid
MAX_ITEMS = 500  # of one answer
REFERENCES = 4  # calls beside a candidate
KEPT = {"Cache-Control": "private, max-age=3600"}  # a region never changes
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATUS = {
    "E_NO_DRAW": 404,
    "E_NO_REGION": 404,
    "E_AUDIO_MISSING": 404,
    "E_AUDIO_OUTSIDE": 403,
    "E_REVIEW_ROLE": 403,
    "E_AUDIO_CHANGED": 409,
    "E_AUDIT_MODEL": 409,
    "E_ROUND_RUNNING": 409,
    "E_QUEUE_UNREACHABLE": 503,
    "E_MACHINE": 503,
}
_COLUMNS = (
    *("recording", "start_time", "end_time", "low_freq", "high_freq", "species", "verdict"),
    *("status", "reviewers", "site", "recorded_at"),
)
logger = logging.getLogger(__name__)

MAX_ID = 2**63 - 1  # of a row of the database
MAX_EDGE = 1e9  # of a box, s or Hz
Id = Annotated[int, Path(ge=0, le=MAX_ID)]
Margin = Annotated[float, Query(ge=0, le=10)]
Score = Annotated[float | None, Query(ge=-1e9, le=1e9)]
Hour = Annotated[int | None, Query(ge=0, le=23)]
Date = Annotated[str | None, Query(pattern=r"^\d{4}-\d\d-\d\d$")]
Text = Annotated[str | None, Query(max_length=500, pattern=NO_NUL)]


@dataclass(frozen=True)
class ReviewPage:
    """What the page is made of.

    Parameters
    ----------
    store : the queue
    library : the audio folders
    painter : draws the pictures
    access : who may use the page
    queue : a name of the queue, which keeps unsent verdicts of several queues apart in a browser
    start_round : trains the next model from the agreed verdicts; None where no run is named
    round_status : of the round that runs or ran last
    superseded : digests of models that a round has replaced, whose audits give no threshold now
    """

    store: Store
    library: AudioLibrary
    painter: RegionPainter
    access: Access
    queue: str
    start_round: Callable[[], dict[str, Any]] | None = None
    round_status: Callable[[], dict[str, Any]] | None = None
    superseded: Callable[[], Collection[str]] = tuple


class EventList(BaseModel):
    """The body of ``POST /api/events``."""

    events: list[dict[str, Any]] = Field(max_length=1000)


class NewSpecies(BaseModel):
    """The body of ``POST /api/species``."""

    name: str = Field(min_length=1, max_length=200)


class Filters(BaseModel):
    """The filters of items, as the address of a request has them."""

    species: Text = None
    site: Text = None
    source: Text = None
    state: Literal["open", "done", "second"] | None = None
    date_from: Date = None
    date_to: Date = None
    hour_from: Hour = None
    hour_to: Hour = None
    score_from: Score = None
    score_to: Score = None
    disagreement_from: Score = None


def create_app(page: ReviewPage) -> ASGIApp:
    """The app of a review page, guarded.

    Parameters
    ----------
    page : what it is made of

    Returns
    -------
    app : for an ASGI server
    """
    app = FastAPI(title="antpitta review", docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_static(app)
    _add_session(app, page)
    _add_items(app, page)
    _add_media(app, page)
    _add_verdicts(app, page)
    _add_results(app, page)
    return Guard(app, page.access)


def _signed_in(request: Request) -> SignedIn:
    reviewer: SignedIn = request.scope[REVIEWER]
    return reviewer


Me = Annotated[SignedIn, Depends(_signed_in)]


def _add_errors(app: FastAPI) -> None:
    """One line and a code for every error, and never a traceback."""

    def answer(status: int, code: str, message: str) -> JSONResponse:
        return JSONResponse({"code": code, "message": printable(message)}, status)

    @app.exception_handler(UserError)
    def explain(_: Request, error: UserError) -> JSONResponse:
        return answer(_STATUS.get(error.code, 400), error.code, str(error))

    @app.exception_handler(UnreadableAudio)
    def explain_audio(_: Request, error: UnreadableAudio) -> JSONResponse:
        return answer(422, "E_AUDIO_UNREADABLE", f"{error}.")

    @app.exception_handler(RequestValidationError)
    def explain_request(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return answer(422, "E_REQUEST", f"{where}: {first['msg']}.")

    @app.exception_handler(HTTPException)
    def explain_http(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, "E_REQUEST", f"{error.detail}.")

    @app.exception_handler(Exception)
    def explain_unforeseen(_: Request, error: Exception) -> JSONResponse:
        logger.error("unforeseen error of the review page", exc_info=error)
        return answer(500, "E_UNFORESEEN", "Unforeseen error; the terminal of the server shows it.")


def _add_static(app: FastAPI) -> None:
    folder = files("antpitta") / "review" / "static"
    content = {
        entry.name: (entry.read_bytes(), TYPES[entry.name.rpartition(".")[2]])
        for entry in folder.iterdir()
        if entry.name.rpartition(".")[2] in TYPES
    }

    def serve(name: str) -> Response:
        if name not in content:
            return JSONResponse({"code": "E_REQUEST", "message": "There is no such file."}, 404)
        body, kind = content[name]
        return Response(body, media_type=f"{kind}; charset=utf-8")

    @app.get("/")
    def index() -> Response:
        return serve("index.html")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        return serve(name)


def _add_session(app: FastAPI, page: ReviewPage) -> None:
    store = page.store

    @app.get("/api/session")
    def session(request: Request, me: Me) -> dict[str, Any]:
        return {
            "reviewer": me.name,
            "role": me.role,
            "queue": page.queue,
            "key": csrf_key(request.scope["antpitta.token"]),
            "page_size": PAGE_SIZE,
            "axes": [media.LEFT, media.RIGHT, media.TOP, media.BOTTOM],
            "can_start_round": page.start_round is not None,
        }

    @app.get("/api/draws")
    def draws() -> list[dict[str, Any]]:
        return store.draws()

    @app.get("/api/species")
    def species() -> dict[str, Any]:
        return {"species": store.species(), "digest": store.species_list_digest()}

    @app.post("/api/species")
    def add_species(body: NewSpecies) -> dict[str, Any]:
        return {"name": store.add_species(body.name)}

    @app.get("/api/progress")
    def progress() -> list[dict[str, Any]]:
        return store.progress()


def _add_items(app: FastAPI, page: ReviewPage) -> None:
    store = page.store

    @app.get("/api/draws/{draw}/items")
    def items(
        draw: Id,
        me: Me,
        filters: Annotated[Filters, Depends()],
        after: Annotated[int | None, Query(ge=-1, le=MAX_ID)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ITEMS)] = PAGE_SIZE,
    ) -> list[dict[str, Any]]:
        chosen = filters.model_dump(exclude_none=True) | {"reviewer": me.id}
        listed = store.draw_items(draw, after, limit, chosen)
        for item in listed:  # edges that the reviewer moved
            own = item["own_verdict"]
            if own and own["region"] != item["region"]:
                own |= {"box": _box(store.region(own["region"]))}
        return listed

    @app.get("/api/draws/{draw}/count")
    def count(draw: Id, me: Me, filters: Annotated[Filters, Depends()]) -> int:
        return store.count_items(draw, filters.model_dump(exclude_none=True) | {"reviewer": me.id})

    @app.get("/api/draws/{draw}/choices")
    def choices(draw: Id) -> dict[str, Any]:
        return filter_choices(store, draw)

    @app.get("/api/references")
    def references(
        species: Annotated[str, Query(max_length=500, pattern=NO_NUL)],
    ) -> list[dict[str, Any]]:
        return reference_calls(store, species, REFERENCES)

    @app.get("/api/regions/{region}")
    def region(region: Id) -> dict[str, Any]:
        return store.region(region)


def _box(region: dict[str, Any]) -> list[float | None]:
    return [region[name] for name in ("start_time", "end_time", "low_freq", "high_freq")]


def _add_media(app: FastAPI, page: ReviewPage) -> None:
    def cut(region: int, margin: float) -> Cut:
        place = page.store.region(region)
        recording = page.library.find(place["recording_id"], place["recording_digest"])
        return cut_region(recording, place["start_time"], place["end_time"], margin)

    @app.get("/api/regions/{region}/picture.png")
    def picture(
        region: Id,
        view: View = "full",
        margin: Margin = 2.0,
        width: Annotated[int, Query(ge=media.MIN_WIDTH, le=media.MAX_WIDTH)] = 480,
        height: Annotated[int, Query(ge=media.MIN_HEIGHT, le=media.MAX_HEIGHT)] = 240,
        scale: Annotated[int, Query(ge=1, le=2)] = 1,
    ) -> Response:
        image = page.painter.draw(cut(region, margin), view, ImageSize(width, height, scale))
        axes = [image.start, image.stop, image.low, image.high, image.mel]
        return Response(image.png, headers=KEPT | {"X-Axes": json.dumps(axes)},
                        media_type="image/png")  # fmt: skip

    @app.get("/api/regions/{region}/sound.wav")
    def sound(
        region: Id,
        margin: Margin = 2.0,
        band: Annotated[str | None, Query(pattern=r"^\d{1,7}(\.\d+)?-\d{1,7}(\.\d+)?$")] = None,
        slow: Annotated[int, Query(ge=1, le=20)] = 1,
    ) -> Response:
        limits = None if band is None else tuple(map(float, band.split("-")))
        if limits is not None and not limits[0] < limits[1]:
            raise UserError("E_REQUEST", f"band {band} is empty", "give LOW-HIGH in Hz")
        segment = cut(region, margin)
        wav = cut_sound(segment, None if limits is None else (limits[0], limits[1]), slow)
        times = json.dumps([segment.start, segment.stop])
        return Response(wav, headers=KEPT | {"X-Times": times}, media_type="audio/wav")


def _add_verdicts(app: FastAPI, page: ReviewPage) -> None:
    store = page.store

    @app.post("/api/events")
    def events(body: EventList, me: Me) -> dict[str, Any]:
        prepared = [_with_region(store, event) for event in body.events]
        return {"acknowledged": store.append_events(prepared, me.id)}

    @app.get("/api/latest")
    def latest(me: Me) -> dict[str, Any]:
        return latest_verdict(store, me.id) or {}

    @app.get("/api/conflicts")
    def conflicts(me: Me) -> list[dict[str, Any]]:
        names = {row["id"]: row["name"] for row in store.reviewers()}
        rows = list(store.conflicts())
        for row in rows:
            row["verdicts"] = [
                verdict | {"reviewer": names.get(verdict["reviewer"], "")}
                for verdict in row["verdicts"]
            ]
        return rows


def _with_region(store: Store, event: dict[str, Any]) -> dict[str, Any]:
    """The event with the region of its box, where its reviewer moved the edges."""
    region, box = event.get("region"), event.pop("box", None)
    if region is not None and not (type(region) is int and 0 <= region <= MAX_ID):
        raise UserError("E_REVIEW_EVENT", "a region that is no id", "reload the page")
    if box is None:
        return event
    edges = box if isinstance(box, list) else []
    is_whole = len(edges) == 4 and all(map(_is_edge, edges[: 3 if edges[3] is None else 4]))
    if not is_whole or region is None:
        what = "a box that is not start, end, low and high"
        raise UserError("E_REVIEW_EVENT", what, "reload the page")
    return event | {"region": store.child_region(region, *box)}


def _is_edge(value: object) -> bool:
    """Whether a value of JSON can be an edge of a box, in seconds or Hz."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= MAX_EDGE


def _add_results(app: FastAPI, page: ReviewPage) -> None:
    store = page.store

    @app.get("/api/species/{species:path}/threshold")
    def threshold(
        species: str, precision: Annotated[float, Query(gt=0, le=1)] = 0.9
    ) -> dict[str, Any]:
        return species_threshold(store, species, precision, page.superseded())

    @app.get("/api/agreement")
    def agreement() -> list[dict[str, Any]]:
        return agreement_rows(store)

    @app.get("/api/rounds")
    def round_status() -> dict[str, Any]:
        return {} if page.round_status is None else page.round_status()

    @app.post("/api/rounds", status_code=202)
    def start_round() -> dict[str, Any]:
        if page.start_round is None:
            raise UserError("E_REVIEW_PART", "no run is named", "open the page with --model RUN")
        return page.start_round()

    @app.get("/api/export.csv")
    def export() -> StreamingResponse:
        name = {"Content-Disposition": 'attachment; filename="verdicts.csv"'}
        return StreamingResponse(_csv_lines(store), headers=name, media_type="text/csv")


def _csv_lines(store: Store) -> Iterator[str]:
    """The table of verdicts, some rows at a time."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, _COLUMNS, extrasaction="ignore")
    writer.writeheader()
    for number, row in enumerate(store.export_rows()):
        writer.writerow(row)
        if number % 1000 == 999:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
