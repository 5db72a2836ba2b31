"""MODEL_CARD.md: what somebody who finds a model must know before using it.

The headings are those of Mitchell et al. 2019 ("Model Cards for Model Reporting"), with the front
matter that model hubs read. The limits come from the data: which species rest on a few boxes, what
share of the sound has no label, what was not measured.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from antpitta.core.errors import printable_lines
from antpitta.core.thresholds import SpeciesThreshold
from antpitta.report.canvas import count_nouns, format_count, format_share
from antpitta.report.results import RunReport
from antpitta.report.stages import METRICS
from antpitta.report.supervision import count_supervision
from antpitta.report.tables import (
    FEW,
    describe_metrics,
    describe_training,
    list_species,
    list_stages,
    list_thresholds,
    weak_species,
)

PrecisionRow = tuple[str, float, float, bool]  # name, macro AP, loss of it, part of the model
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def render_card(
    run_report: RunReport,
    *,
    licence: str = "",
    model: str = "model",
    precisions: Sequence[PrecisionRow] = (),
) -> str:
    """Write the card of a run's model, in Markdown.

    Parameters
    ----------
    run_report
        The content of the card.
    licence
        A short name such as ``cc-by-4.0``, or a sentence. If it is empty, the card states that the
        licence is unknown: a card without the heading would read as free.
    model
        The model's path in the examples.
    precisions
        Precisions of ``predict``, the exact one first.

    Returns
    -------
    str
        The text of the card.
    """
    parts = (
        _front_matter(run_report, licence),
        f"# {escape(run_report.title)}\n",
        f"{escape(run_report.subtitle)}\n" if run_report.subtitle else "",
        _details(run_report),
        _intended_use(run_report),
        _training_data(run_report),
        _evaluation(run_report),
        threshold_section(run_report.thresholds),
        _precisions(precisions),
        _limits(run_report),
        _usage(run_report, model),
        _section(
            "Licence",
            escape(licence) or "Not stated: ask before you use the model.",
            "The embedding model is not part of this model. It has a licence of its own."
            if run_report.needs
            else "",
        ),
        _provenance(run_report),
    )
    card = "\n".join(part for part in parts if part)
    return printable_lines(card)  # see render_page


def escape(text: str) -> str:
    """Escape a text for Markdown: one line, no emphasis, no table bars, no tags.

    Parameters
    ----------
    text : any text

    Returns
    -------
    str
        The escaped text.
    """
    return _MARKS.sub(r"\\\1", " ".join(str(text).split()))


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], text_columns: int = 1
) -> str:
    """Write a table whose first columns are text and whose others are numbers.

    Parameters
    ----------
    header : the names of the columns
    rows : the cells, which are escaped
    text_columns : the number of text columns

    Returns
    -------
    str
        The lines of the table.
    """
    lines = [header, ["---"] * text_columns + ["---:"] * (len(header) - text_columns)]
    lines += [[escape(str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _section(name: str, *paragraphs: str) -> str:
    return "\n\n".join([f"## {name}", *(text for text in paragraphs if text)]) + "\n"


def _front_matter(run_report: RunReport, licence: str) -> str:
    # JSON strings are YAML strings: a title with a colon or a quote stays one.
    lines = ["---", "library_name: antpitta", f"model_name: {json.dumps(run_report.title)}"]
    if licence:
        # Hubs know licences by their short names, and refuse a sentence.
        short_name = re.fullmatch(r"[\w.+-]+", licence)
        lines.append(f"license: {licence if short_name else 'other'}")
    lines += ["pipeline_tag: audio-classification", "tags:"]
    lines += [f"- {tag}" for tag in ("bioacoustics", "sound-event-detection", "antpitta")]
    return "\n".join([*lines, "---", ""])


def _details(run_report: RunReport) -> str:
    kind = (
        "A detector of species in field recordings: it gives the probability that each species "
        "calls, for each frame. It was trained with antpitta on validated boxes, in which a "
        "species is present or absent; everything else is unknown."
    )
    stages = [
        f"{number}. {escape(stage.name)}: {escape(stage.description)}"
        for number, stage in enumerate(run_report.stages, 1)
    ]
    return _section(
        "Model details", kind, "Training stages:\n\n" + "\n".join(stages) if stages else ""
    )


def _intended_use(run_report: RunReport) -> str:
    species = "the species below"
    if run_report.supervision is not None:
        species = f"its {len(run_report.supervision.classes.names):,} species"
    return _section(
        "Intended use",
        f"To find {species} in recordings that resemble the training recordings in place, season, "
        "recorder and distance, and to choose which recordings a person checks next.",
        "Not intended: to prove that a species is missing from a place; to count individuals; to "
        "detect species that are not in the list, whose calls may be taken for one that is; or to "
        "decide anything about a protected species before a person has checked the recording.",
    )


def _training_data(run_report: RunReport) -> str:
    if run_report.supervision is None:
        return _section("Training data", "Not described: the labels were not given.")
    table = count_supervision(run_report.supervision)
    rows = [
        (
            row["species"],
            format_count(row["present"] + row["both"]),
            format_count(row["absent"] + row["both"]),
            format_share(row["present_share"]),
            format_share(row["absent_share"]),
            format_share(row["unknown_share"]),
        )
        for row in table.to_dict("records")
    ]
    header = (
        *("species", "recordings with present boxes", "with absent boxes"),
        *("frames present", "frames absent", "frames unknown"),
    )
    findings = len(run_report.left_out)
    note = f"{count_nouns(findings, 'finding', 'findings')} about the data: see the report."
    return _section(
        "Training data",
        describe_training(run_report),
        markdown_table(header, rows),
        note if findings else "",
    )


def _evaluation(run_report: RunReport) -> str:
    if run_report.final is None:
        return _section("Evaluation", "The model was not evaluated: its quality is unknown.")
    stages = markdown_table(
        (
            *("stage", "evaluated on"),
            *(label for _, label in METRICS),
            *("recordings", "labelled cells"),
        ),
        [
            (
                *(row.name, row.reference, *row.metrics),
                *(format_count(row.report.recordings), format_count(row.report.cells)),
            )
            for row in list_stages(run_report)
        ],
        text_columns=2,
    )
    species = markdown_table(
        ("species", "present", "absent", "chance", "AP", "AUC", "LWLRAP", "note"),
        [
            (
                *(row.species, row.present, row.absent, row.chance),
                *(row.ap, row.auc, row.lwlrap, row.note),
            )
            for row in list_species(run_report.final)
        ],
    )
    return _section(
        "Evaluation",
        describe_metrics(run_report.final.report),
        "In brackets: 95 % intervals, by resampling recordings.",
        stages,
        escape(run_report.choice),
        f"### Per species, stage {escape(run_report.final.name)}",
        species,
        "Average precision depends on the number of absent boxes: compare it with the chance "
        "level of the species (the share of present boxes), not between species.",
    )


def threshold_section(thresholds: Mapping[str, SpeciesThreshold]) -> str:
    """Write the section of a card about thresholds.

    Parameters
    ----------
    thresholds : of each species

    Returns
    -------
    str
        The section; nothing without thresholds.
    """
    if not thresholds:
        return ""
    rows = [
        (
            *(row.species, row.present, row.absent),
            *(row.threshold, row.precision, row.recall, row.support),
        )
        for row in list_thresholds(thresholds)
    ]
    return _section(
        "Thresholds",
        "predict calls a score at or above the threshold a detection. A supported threshold has "
        "the best F1 of those that reach a precision of 0.9 on the species' own boxes, out of "
        "fold. An unsupported one is conservative and shared: it reaches that precision on the "
        "boxes of all species, and lies above what this species usually scores. A dash means that "
        "no score is high enough to be trusted, so the species is not found by default. In "
        "brackets: 95 % intervals, by resampling recordings.",
        markdown_table(
            ("species", "present", "absent", "threshold", "precision", "recall", "support"), rows
        ),
    )


def _precisions(precisions: Sequence[PrecisionRow]) -> str:
    if not precisions:
        return ""
    rows = [
        (name, f"{macro_ap:.4f}", f"{loss:+.4f}", "yes" if kept else "no")
        for name, macro_ap, loss, kept in precisions
    ]
    return _section(
        "Precision of predict",
        "Macro average precision of each inference mode and precision, on boxes out of fold, and "
        "its loss compared with the first row (a negative loss is a gain). A precision that loses "
        "too much is not part of the model.",
        markdown_table(("inference, precision", "macro AP", "loss", "part of the model"), rows),
    )


def _limits(run_report: RunReport) -> str:
    lines = [f"{escape(line[:1].upper() + line[1:])}." for line in run_report.warnings]
    if run_report.supervision is not None:
        unknown = np.asarray(run_report.supervision.unknown, dtype=float).sum()
        labelled = sum(
            np.asarray(frames, dtype=float).sum()
            for frames in (run_report.supervision.present, run_report.supervision.absent)
        )
        if unknown + labelled > 0:
            share = format_share(unknown / (unknown + labelled))
            lines.append(f"{share} of the training data (species x frames) have no label.")
    if run_report.final is not None:
        for problem, names in weak_species(run_report.final.report):
            lines.append(f"{problem}: {', '.join(escape(name) for name in names)}.")
        if run_report.final.truth is None:
            lines.append(
                "The metrics use validated boxes only. Calls that were never proposed for "
                "validation are in no metric, so the real recall may be lower."
            )
    lines.append(
        "Scores are not calibrated for other places: choose thresholds on labelled boxes from "
        "your own recordings."
    )
    lines.append(f"Metrics of a species with fewer than {FEW} present boxes change with each box.")
    return _section("Limits", "\n".join(f"- {line}" for line in lines))


def _usage(run_report: RunReport, model: str) -> str:
    path = model if re.fullmatch(r"[\w./-]+", model) else json.dumps(model)
    return _section(
        "How to use",
        escape(run_report.needs),
        f"```\npip install antpitta\nantpitta predict {path} RECORDINGS -o OUT\n```",
        f"```python\nimport antpitta\n\nscores = antpitta.predict({json.dumps(model)}, "
        '"RECORDINGS")\n```',
    )


def _provenance(run_report: RunReport) -> str:
    def listed(name: str, pairs: Mapping[str, str]) -> str:
        return markdown_table((name, "value"), pairs.items(), text_columns=2) if pairs else ""

    tables = [listed("item", run_report.provenance), listed("setting", run_report.settings)]
    if not any(tables):
        return _section("Provenance", "Not given: versions, recipe, data digest and seed.")
    return _section("Provenance", *tables)
