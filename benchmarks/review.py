"""``python -m benchmarks.review``: how fast the review page is, in a browser.

A queue of many candidates in simulated recordings is served by ``antpitta review``, and a headless
Chromium opens it. All times are of the browser's own clock, from the request or the key to the
picture on the screen:

- the first page, from the start of the navigation until every visible picture is drawn, in browsers
  that know nothing of the page;
- the next item, from the key of a verdict until the next picture is drawn, by a script that thinks
  before each key, and by one that presses it at once;
- a verdict, from the moment an item is shown until the next one is, with the thinking;
- single requests: pictures of many regions, and items far into the queue.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import typer

from antpitta import api
from antpitta.core.errors import UserError
from antpitta.files.audio import content_key
from antpitta.files.recordings import find_recordings
from antpitta.review.store import Store
from benchmarks.browser import chromium, chromium_path, serving
from benchmarks.cli import command_app, print_lines, print_table, run
from benchmarks.tables import describe_machine

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RECORDINGS, SECONDS, SAMPLE_RATE = 30, 60.0, 32_000
SPECIES = tuple(f"species {i}" for i in range(20))
VISITS = 5  # of new browsers
REQUESTS = 60  # of each kind
_FIRST_PAGE = """
const look = () => {
  const inside = [...document.querySelectorAll(".cell img")]
    .filter((image) => image.getBoundingClientRect().top < window.innerHeight);
  if (inside.length && inside.every((image) => image.complete && image.naturalWidth)) {
    window.firstPage = performance.now();
  } else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
_VERDICTS = """
async ([count, think]) => {
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const image = () => document.querySelector(".one section img");
  const number = () => document.querySelector(".details").textContent.split(" ")[1];
  const next = [], whole = [];
  for (let i = 0; i < count; i += 1) {
    const shown = performance.now();
    await new Promise((resolve) => setTimeout(resolve, think));
    const [before, source] = [number(), image().src];
    const pressed = performance.now();
    const key = i % 3 ? "y" : "n";
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    while (number() === before || image().src === source || !image().complete) await frame();
    next.push(performance.now() - pressed);
    whole.push(performance.now() - shown);
  }
  return [next, whole];
}
"""
_REQUESTS = """
async (addresses) => {
  const times = [];
  for (const address of addresses) {
    const began = performance.now();
    const answer = await fetch(address);
    await answer.arrayBuffer();
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    times.push(performance.now() - began);
  }
  return times;
}
"""


@dataclass(frozen=True)
class ReviewBenchmark:
    """The time of each step."""

    table: pd.DataFrame  # step, median and 95th percentile in ms, and how often it was timed
    lines: tuple[str, ...]  # sizes and machine


def make_queue(folder: Path, candidates: int) -> tuple[Path, Path]:
    """Simulate recordings, and a queue of candidates in them, all in one draw.

    Parameters
    ----------
    folder : a new one
    candidates : how many

    Returns
    -------
    queue, audio : their folders
    """
    plan = api.SimulationConfig(RECORDINGS, 1, SECONDS, SAMPLE_RATE, 4, 4)
    api.simulate_callers(folder / "data", plan)
    audio = folder / "data" / "train"
    recordings = find_recordings([audio]).recordings
    rng = np.random.default_rng(1)
    which = rng.integers(len(recordings), size=candidates)
    start = np.round(rng.uniform(0, SECONDS - 2, candidates), 3)
    table = pd.DataFrame(
        {
            "recording_id": [recordings[i].id for i in which],
            "recording_digest": np.array([content_key(r.path) for r in recordings])[which],
            "start_time": start,
            "end_time": start + np.round(rng.uniform(0.3, 2.0, candidates), 3),
            "low_freq": 1000.0,
            "high_freq": 5000.0,
            "species": rng.choice(SPECIES, candidates),
            "score": rng.random(candidates),
            "source": "benchmark",
            "source_digest": "benchmark",
            "site": [f"site {i % 7}" for i in which],
            "recorded_at": [f"2025-05-{1 + i % 28:02}T05:00:00" for i in which],
        }
    )
    with Store.open(folder / "queue", create=True) as store:
        store.add_candidates(table)
        items = list(store.candidates())
        store.create_draw("teach", "benchmark", 1, [items[i] for i in rng.permutation(len(items))])
    return folder / "queue", audio


def benchmark_review(
    folder: Path, *, candidates: int = 100_000, verdicts: int = 30, think: float = 1.5
) -> ReviewBenchmark:
    """Time the review page in a browser.

    Parameters
    ----------
    folder : a new one, for recordings and queue
    candidates : in the queue
    verdicts : to give, with and without thinking
    think : seconds before a key is pressed

    Returns
    -------
    ReviewBenchmark
        Milliseconds by step.

    Raises
    ------
    UserError
        E_NO_FILE without a Chromium.
    """
    program = chromium_path()
    if program is None:
        raise UserError("E_NO_FILE", "there is no Chromium", "run playwright install chromium")
    queue, audio = make_queue(folder, candidates)
    with chromium(program) as browser, serving(queue, audio, ["--reviewer", "ana"]) as server:
        address = server.addresses["ana"]
        rows = dict(_time_steps(browser, address, verdicts, think, candidates))
    table = pd.DataFrame(
        {
            "step": list(rows),
            "median (ms)": [f"{np.median(times):.0f}" for times in rows.values()],
            "95 % (ms)": [f"{np.percentile(times, 95):.0f}" for times in rows.values()],
            "times": [str(len(times)) for times in rows.values()],
        }
    )
    sizes = f"{candidates} candidates in {RECORDINGS} recordings of {SECONDS:g} s"
    return ReviewBenchmark(table, (sizes, describe_machine()))


def _time_steps(
    browser: "Browser", address: str, verdicts: int, think: float, candidates: int
) -> Iterator[tuple[str, Sequence[float]]]:
    first = [_visit(browser, address) for _ in range(1 + VISITS)]
    yield "first page, first visit after the start of the server", [first[0][1]]
    yield "first page, in other browsers", [time for _, time in first[1:]]
    page = first[-1][0]
    page.keyboard.press("Enter")
    page.wait_for_selector(".one section img[src]")
    page.keyboard.press("p")  # no sound by itself
    for seconds, name in ((think, f"{think:g} s of thought"), (0.0, "no thought")):
        page.wait_for_timeout(1000)
        following, whole = page.evaluate(_VERDICTS, [verdicts, 1000 * seconds])
        yield f"next item, after {name}", following
        yield f"a verdict, with {name}", whole
    yield from _time_requests(page, candidates)


def _visit(browser: "Browser", address: str) -> "tuple[Page, float]":
    """A page in a new browser, and the milliseconds until it is there."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.add_init_script(_FIRST_PAGE)
    page.goto(address)
    while not (time := page.evaluate("window.firstPage")):
        page.wait_for_timeout(20)
    page.wait_for_timeout(2000)  # the rest of the page is loaded
    return page, float(time)


def _time_requests(page: "Page", candidates: int) -> Iterator[tuple[str, Sequence[float]]]:
    rng = np.random.default_rng(2)
    items: list[dict[str, Any]] = page.evaluate(
        "async () => (await fetch('/api/draws/1/items?limit=500')).json()"
    )
    for view in ("full", "model"):
        for width, height in ((280, 150), (960, 460)):
            chosen = rng.choice(len(items), REQUESTS, replace=False)
            size = f"view={view}&width={width}&height={height}"
            addresses = [f"/api/regions/{items[i]['region']}/picture.png?{size}" for i in chosen]
            yield f"picture, {view}, {width} x {height}", page.evaluate(_REQUESTS, addresses)
    for name, query in (
        ("48 items anywhere", "limit=48"),
        ("48 open items anywhere", "limit=48&state=open"),
        (
            "48 open items of a species and site",
            "limit=48&state=open&species=species 3&site=site 2",
        ),
    ):
        places = np.linspace(0, 0.9 * candidates, REQUESTS // 3).astype(int)
        addresses = [f"/api/draws/1/items?{query}&after={place}" for place in places]
        yield name, page.evaluate(_REQUESTS, addresses)
    yield "number of open items", page.evaluate(_REQUESTS, 5 * ["/api/draws/1/count?state=open"])
    yield "progress of every species", page.evaluate(_REQUESTS, 5 * ["/api/progress"])


def review(
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
    candidates: Annotated[int, typer.Option("--candidates", help="In the queue.")] = 100_000,
    verdicts: Annotated[int, typer.Option("--verdicts", help="To give.")] = 30,
    think: Annotated[float, typer.Option("--think", help="Seconds before a key.")] = 1.5,
) -> None:
    """Time the review page in a headless Chromium.

    Example: `python -m benchmarks.review -o bench --candidates 100000`
    """
    result = benchmark_review(out, candidates=candidates, verdicts=verdicts, think=think)
    print_table(result.table, "the review page")
    print_lines(result.lines)


app = command_app(review)

if __name__ == "__main__":
    run(app)
