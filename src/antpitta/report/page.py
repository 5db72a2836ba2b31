"""report.html: one file that can be mailed, printed and opened in ten years.

- The page is self-contained: its style is inside, its pictures are data, and it has no script. A
  content security policy forbids the network, so that a species named ``<img src=http://...>``
  cannot load anything.
- The template escapes every text from outside (names, findings, settings). Only the pictures are
  marked as safe, and they are made here.
- A section without content states what it would show.
- The page stays small enough to be mailed: examples that would exceed the limit are counted.
"""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest

import jinja2
import numpy as np
import pandas as pd

from antpitta.core.errors import printable_lines
from antpitta.report.canvas import ROWS, count_nouns, format_count, format_number, format_share
from antpitta.report.results import Example, LearningCurve, RunReport
from antpitta.report.rounds import draw_learning_curve, drawn_species, list_rounds
from antpitta.report.species import draw_curves, draw_species, drawn_curves
from antpitta.report.spectrograms import draw_example
from antpitta.report.stages import METRICS, draw_stages, draw_training, tidy_log
from antpitta.report.supervision import count_supervision, draw_supervision
from antpitta.report.tables import (
    describe_metrics,
    describe_training,
    format_metrics,
    list_sources,
    list_species,
    list_stages,
    list_thresholds,
    pseudo_table,
)
from antpitta.scores.learning_curve import MEAN

MAX_CHARACTERS = 4_800_000  # of the page: mail servers accept an attachment of this size
MARKUP = 800  # characters around an example's picture
GROUPS = ("Detected", "Missed", "False alarms", "Rejected")
HIGH_SCORE = 0.5  # from which an example counts as detected
MAX_FINDINGS = 500  # that are listed; the others are counted


@dataclass(frozen=True)
class PageImage:
    """A picture inside the page, and a text in its place."""

    source: str
    alt: str


def render_page(run_report: RunReport) -> str:
    """Write the whole of ``report.html``.

    Parameters
    ----------
    run_report
        The content of the page.

    Returns
    -------
    str
        HTML that can be encoded as UTF-8, whatever the names in the report.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("antpitta.report", package_path="."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    context = _context(run_report)
    undrawn = len(run_report.examples)
    characters = len(template.render(**context, groups={}, undrawn=undrawn))
    groups, undrawn = _draw_examples(run_report.examples, MAX_CHARACTERS - characters)
    # Names may hold escape sequences, or bytes that are not UTF-8 and could not be written.
    return printable_lines(template.render(**context, groups=groups, undrawn=undrawn))


def _context(run_report: RunReport) -> dict[str, object]:
    """Every variable of the template, except the examples."""
    final = run_report.final
    return {
        "run_report": run_report,
        "final": final,
        "metrics": [label for _, label in METRICS],
        "training": describe_training(run_report),
        "truth": format_metrics(final.truth) if final and final.truth else (),
        "meaning": describe_metrics(final.report) if final else "",
        "rows": list_stages(run_report),
        "rounds": _rounds_section(run_report.rounds),
        "stages": _stages_section(run_report),
        "supervision": _supervision_section(run_report),
        "species": _species_section(run_report),
        "thresholds": list_thresholds(run_report.thresholds),
        "curves": _curves_section(run_report),
        "log": _training_section(run_report.log),
        "pseudo": _pseudo_section(run_report.pseudo),
        "left_out": run_report.left_out[:MAX_FINDINGS],
        "unlisted": max(0, len(run_report.left_out) - MAX_FINDINGS),
        "count": format_count,
        "nouns": count_nouns,
        "share": format_share,
    }


def _image(svg: bytes, alt: str) -> PageImage:
    return PageImage(f"data:image/svg+xml;base64,{b64encode(svg).decode('ascii')}", alt)


def _describe_selection(species: int, criterion: str) -> str:
    """The end of a caption, if a picture cannot hold all species."""
    if species <= ROWS:
        return ""
    return (
        f" The picture shows {ROWS} of {species:,} species, those {criterion}; the table has all."
    )


def _rounds_section(curve: LearningCurve | None) -> dict[str, object] | None:
    if curve is None or curve.table.empty:
        return None
    table = curve.table[curve.table["verdicts"] == "all"]
    rows = list_rounds(curve)
    drawn = drawn_species(table)
    means = [f"round {row.number}: {row.ap}" for row in rows if row.verdicts == "all"]
    panels = count_nouns(len(drawn), "panel", "panels")
    alt = (
        f"Average precision over rounds: the mean, then {panels} of species. "
        f"Mean of {'; '.join(means)}."
    )
    names = dict.fromkeys(str(name) for name in table["species"] if name != MEAN)
    return {
        "picture": _image(draw_learning_curve(table), alt),
        "rows": rows,
        "others": [name for name in names if name not in drawn],
        "sentences": curve.sentences(),
        "notes": curve.notes,
    }


def _stages_section(run_report: RunReport) -> PageImage | None:
    if not run_report.stages:
        return None
    metrics = [
        f"{stage.name}: LWLRAP {format_number(stage.report.lwlrap.value)}, "
        f"macro AP {format_number(stage.report.macro_ap.value)}"
        for stage in run_report.stages
    ]
    alt = f"Dots with intervals, one row a stage. {'; '.join(metrics)}."
    return _image(draw_stages(run_report.stages), alt)


def _supervision_section(run_report: RunReport) -> dict[str, object] | None:
    if run_report.supervision is None or not len(run_report.supervision.recordings):
        return None
    table = count_supervision(run_report.supervision)
    if table.empty:
        return None
    alt = (
        f"Grid of {len(table)} species and {len(run_report.supervision.recordings):,} recordings. "
        "The colour shows whether the species is labelled present, absent, both or not at all. "
        "Bars show the shares of frames. The table below has the counts."
    )
    return {
        "picture": _image(draw_supervision(run_report.supervision, most=ROWS), alt),
        "rows": table.to_dict("records"),
        "selection": _describe_selection(len(table), "present in the most recordings"),
    }


def _species_section(run_report: RunReport) -> dict[str, object] | None:
    final = run_report.final
    if final is None or final.report.per_species.empty:
        return None
    rows = list_species(final)
    alt = (
        f"Horizontal bars: average precision of {count_nouns(len(rows), 'species', 'species')}, "
        f"best {rows[0].species} with {rows[0].ap}. The table below has every value."
    )
    return {
        "picture": _image(draw_species(final.report, most=ROWS), alt),
        "rows": rows,
        "selection": _describe_selection(len(rows), "with the most present boxes"),
    }


def _curves_section(run_report: RunReport) -> dict[str, object] | None:
    final = run_report.final
    drawn = drawn_curves(final.report) if final else []
    if final is None or not drawn:
        return None
    names = [str(name) for name in final.report.per_species["species"]]
    alt = (
        f"Precision against recall, one panel for each of {len(drawn)} species, "
        "in the order of the bars above."
    )
    others = [name for name in names if name not in drawn]
    return {"picture": _image(draw_curves(final.report), alt), "others": others}


def group_example(example: Example) -> str:
    """The heading of an example: its own, or the one that verdict and score give it.

    Parameters
    ----------
    example : a labelled box

    Returns
    -------
    str
        The heading.
    """
    if example.group:
        return example.group
    rejected = example.score < HIGH_SCORE
    return GROUPS[rejected if example.present else 2 + rejected]


def _draw_examples(
    examples: Iterable[Example], characters: int
) -> tuple[dict[str, list[object]], int]:
    """The pictures under each heading, and the number of examples that exceed ``characters``.

    The headings take turns, so that the last of them get their share.
    """
    waiting: dict[str, list[Example]] = {}
    for example in examples:
        waiting.setdefault(group_example(example), []).append(example)
    groups: dict[str, list[object]] = {name: [] for name in (*GROUPS, *waiting) if name in waiting}
    undrawn = 0
    turns = chain.from_iterable(
        zip_longest(*([(name, example) for example in waiting[name]] for name in groups))
    )
    for name, example in filter(None, turns):
        if characters > 0:
            picture = _image(draw_example(example), _describe_example(example))
            characters -= len(picture.source) + MARKUP
        if characters > 0:
            groups[name].append({"example": example, "picture": picture})
        else:
            undrawn += 1
    return {name: shown for name, shown in groups.items() if shown}, undrawn


def _describe_example(example: Example) -> str:
    verdict = "present" if example.present else "absent"
    return (
        f"Spectrogram of {example.recording} from {example.image_start:.1f} to "
        f"{example.image_stop:.1f} s; {example.species} labelled {verdict} from "
        f"{example.start:.1f} to {example.stop:.1f} s, score {example.score:.2f}."
    )


def _training_section(log: pd.DataFrame | None) -> dict[str, object] | None:
    if log is None or log.empty:
        return None
    rows = tidy_log(log)
    stages = dict.fromkeys(str(stage) for stage in rows["stage"])
    epochs = count_nouns(len(rows), "epoch", "epochs")
    minutes = float(np.nansum(rows["seconds"].to_numpy(float))) / 60
    alt = f"Training loss against epoch for {', '.join(stages)}; thin lines are folds."
    return {
        "picture": _image(draw_training(log), alt),
        "duration": f"{epochs} over all stages and folds took {minutes:,.1f} minutes.",
    }


def _pseudo_section(pseudo: pd.DataFrame | None) -> dict[str, object] | None:
    if pseudo is None or pseudo.empty:
        return None
    return {"table": pseudo_table(pseudo), "sources": list_sources(pseudo)}
