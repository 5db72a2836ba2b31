"""The report: one file that a person can mail, print and open in ten years.

- Self-contained: style inside, pictures as data, no script. The page even forbids itself the
  network, so that a species named ``<img src=http://...>`` cannot call home.
- Everything from outside (names, findings, settings) is escaped by the template; nothing is
  marked safe but the pictures, which are made here.
- A section with nothing to show says what it would have shown and why it is empty.
- The page stays small enough to mail: examples beyond the room are counted, not drawn.
"""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest

import jinja2
import numpy as np
import pandas as pd

from antpitta.report.canvas import ROWS, count_nouns, format_count, format_number, format_share
from antpitta.report.results import Example, RunReport, StageResult
from antpitta.report.species import draw_curves, draw_species, drawn_curves
from antpitta.report.spectrograms import draw_example
from antpitta.report.stages import METRICS, draw_gain, draw_training, tidy_log
from antpitta.report.supervision import count_supervision, draw_supervision
from antpitta.report.tables import (
    describe_figures,
    describe_training,
    list_species,
    list_stages,
    list_teachers,
    tabulate_pseudo,
)

__all__ = ["Example", "RunReport", "StageResult", "render_page"]

MOST = 4_800_000  # characters of a page that still passes as an attachment
MARKUP = 800  # characters around an example's picture
GROUPS = ("Heard", "Missed", "False alarms", "Rightly passed over")
LINES = 500  # findings that are written out; the rest is counted


@dataclass(frozen=True)
class PageImage:
    """A picture inside the page, and what it says to those who cannot see it."""

    source: str
    alt: str


def render_page(run_report: RunReport) -> str:
    """The whole of report.html."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("antpitta.report", package_path="."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    parts = _show_parts(run_report)
    without = len(template.render(**parts, groups={}, undrawn=len(run_report.examples)))
    groups, undrawn = _show_examples(run_report.examples, MOST - without)
    page = template.render(**parts, groups=groups, undrawn=undrawn)
    # File names may hold bytes that are no UTF-8; the page must still be writable.
    return page.encode("utf-8", "replace").decode("utf-8")


def _show_parts(run_report: RunReport) -> dict[str, object]:
    """Everything that the template asks for, but the examples."""
    return {
        "run_report": run_report,
        "final": run_report.final,
        "metrics": [label for _, label in METRICS],
        "training": describe_training(run_report),
        "meaning": describe_figures(run_report.final.report) if run_report.final else "",
        "rows": list_stages(run_report.stages),
        "gain": _show_gain(run_report),
        "supervision": _show_supervision(run_report),
        "species": _show_species(run_report),
        "curves": _show_curves(run_report),
        "log": _show_log(run_report.log),
        "pseudo": _show_pseudo(run_report.pseudo),
        "left_out": run_report.left_out[:LINES],
        "uncounted": max(0, len(run_report.left_out) - LINES),
        "count": format_count,
        "nouns": count_nouns,
        "share": format_share,
    }


def _picture(svg: bytes, alt: str) -> PageImage:
    return PageImage(f"data:image/svg+xml;base64,{b64encode(svg).decode('ascii')}", alt)


def _say_most(species: int, by: str) -> str:
    """The end of a caption, where a picture cannot hold all species."""
    return f" Of {species:,} species, the {ROWS} {by}; the table has all." if species > ROWS else ""


def _show_gain(run_report: RunReport) -> PageImage | None:
    if not run_report.stages:
        return None
    ends = [
        f"{stage.name}: LWLRAP {format_number(stage.report.lwlrap.value)}, "
        f"macro AP {format_number(stage.report.macro_ap.value)}"
        for stage in run_report.stages
    ]
    alt = f"Dots with intervals, one row a stage. {'; '.join(ends)}."
    return _picture(draw_gain(run_report.stages), alt)


def _show_supervision(run_report: RunReport) -> dict[str, object] | None:
    if run_report.supervision is None or not len(run_report.supervision.recordings):
        return None
    table = count_supervision(run_report.supervision)
    if table.empty:
        return None
    alt = (
        f"Grid of {len(table)} species and {len(run_report.supervision.recordings):,} recordings, "
        "coloured by whether the species was judged present, absent, both or not at all, and "
        "bars of the shares of frames. The table below has the counts."
    )
    return {
        "picture": _picture(draw_supervision(run_report.supervision, most=ROWS), alt),
        "rows": table.to_dict("records"),
        "most": _say_most(len(table), "present in the most recordings"),
    }


def _show_species(run_report: RunReport) -> dict[str, object] | None:
    if run_report.final is None or run_report.final.report.per_species.empty:
        return None
    rows = list_species(run_report.final)
    alt = (
        f"Horizontal bars: average precision of {count_nouns(len(rows), 'species', 'species')}, "
        f"best {rows[0].species} with {rows[0].ap}. The table below has every value."
    )
    return {
        "picture": _picture(draw_species(run_report.final.report, most=ROWS), alt),
        "rows": rows,
        "most": _say_most(len(rows), "with the most present boxes"),
    }


def _show_curves(run_report: RunReport) -> dict[str, object] | None:
    drawn = drawn_curves(run_report.final.report) if run_report.final else []
    if run_report.final is None or not drawn:
        return None
    others = [str(n) for n in run_report.final.report.per_species["species"] if str(n) not in drawn]
    alt = (
        f"Precision against recall, one panel for each of {len(drawn)} species, "
        "in the order of the bars above."
    )
    return {"picture": _picture(draw_curves(run_report.final.report), alt), "others": others}


def group_example(example: Example) -> str:
    """The example's own heading, or the one that verdict and score put it under."""
    if example.group:
        return example.group
    return GROUPS[(0 if example.score >= 0.5 else 1) if example.present else _absent(example)]


def _absent(example: Example) -> int:
    return 2 if example.score >= 0.5 else 3


def _show_examples(examples: Iterable[Example], room: int) -> tuple[dict[str, list[object]], int]:
    """Headings with their pictures in the given order, and how many found no room.

    The headings take turns, so that the last of them, the false alarms, get their share.
    """
    waiting: dict[str, list[Example]] = {}
    for example in examples:
        waiting.setdefault(group_example(example), []).append(example)
    groups: dict[str, list[object]] = {name: [] for name in (*GROUPS, *waiting) if name in waiting}
    undrawn = 0
    turns = chain.from_iterable(zip_longest(*([(g, e) for e in waiting[g]] for g in groups)))
    for name, example in filter(None, turns):
        if room > 0:
            picture = _picture(draw_example(example), _describe(example))
            room -= len(picture.source) + MARKUP
        if room > 0:
            groups[name].append({"example": example, "picture": picture})
        else:
            undrawn += 1
    return {name: shown for name, shown in groups.items() if shown}, undrawn


def _describe(example: Example) -> str:
    verdict = "present" if example.present else "absent"
    return (
        f"Spectrogram of {example.recording} from {example.image_start:.1f} to "
        f"{example.image_stop:.1f} s; {example.species} judged {verdict} from "
        f"{example.start:.1f} to {example.stop:.1f} s, scored {example.score:.2f}."
    )


def _show_log(log: pd.DataFrame | None) -> dict[str, object] | None:
    if log is None or log.empty:
        return None
    counted = tidy_log(log)
    stages = dict.fromkeys(str(stage) for stage in counted["stage"])
    epochs = count_nouns(len(counted), "epoch", "epochs")
    minutes = float(np.nansum(counted["seconds"].to_numpy(float))) / 60
    alt = f"Training loss against epoch for {', '.join(stages)}; thin lines are folds."
    return {
        "picture": _picture(draw_training(log), alt),
        "says": f"{epochs} over all stages and folds took {minutes:,.1f} minutes.",
    }


def _show_pseudo(pseudo: pd.DataFrame | None) -> dict[str, object] | None:
    if pseudo is None or pseudo.empty:
        return None
    return {"table": tabulate_pseudo(pseudo), "teachers": list_teachers(pseudo)}
