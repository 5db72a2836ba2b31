"""MODEL_CARD.md: what a stranger who finds the bundle must know before trusting it.

The headings are those of Mitchell et al. 2019 ("Model Cards for Model Reporting") in the order
that model hubs use, with the front matter that they read. The limits are worked out from the
data, not from a list of platitudes: which species rest on a handful of boxes, what share of
the sound nobody listened to, what could not be measured.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from antpitta.report.canvas import count_nouns, format_count, format_share
from antpitta.report.results import RunReport
from antpitta.report.stages import METRICS
from antpitta.report.supervision import count_supervision
from antpitta.report.tables import (
    FEW,
    describe_figures,
    describe_training,
    list_species,
    list_stages,
    name_weak_species,
)

Measured = tuple[str, float, float, bool]  # name, macro AP, what of it is lost, whether kept
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def render_card(
    run_report: RunReport,
    *,
    licence: str = "",
    citation: str = "",
    model: str = "model",
    contact: str = "",
    arithmetic: Sequence[Measured] = (),
) -> str:
    """The card of the run_report's last stage; ``model`` is the bundle's path in the example.

    ``arithmetic`` are the ways in which it may be computed, the exact one first.
    Whatever is empty is stated as missing: a card that leaves out the licence reads as free.
    """
    parts = (
        _front(run_report, licence),
        f"# {escape(run_report.title)}\n",
        f"{escape(run_report.subtitle)}\n" if run_report.subtitle else "",
        _details(run_report, contact),
        _use(run_report),
        _training_data(run_report),
        _evaluation(run_report),
        _arithmetic(arithmetic),
        _limits(run_report),
        _how(run_report, model),
        _section(
            "Licence",
            escape(licence) or "Not stated: ask before you use the model.",
            "The network that makes the embeddings is no part of this model and has a licence of "
            "its own, which whoever runs the model has to keep."
            if run_report.needs
            else "",
        ),
        _section("Citation", _quote(citation) if citation else "None was given."),
        _provenance(run_report),
    )
    card = "\n".join(part for part in parts if part)
    return card.encode("utf-8", "replace").decode("utf-8")  # see render_page


def escape(text: str) -> str:
    """Text that Markdown shows as it is: one line, no emphasis, table bars or tags."""
    return _MARKS.sub(r"\\\1", " ".join(str(text).split()))


def write_table(header: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A table whose first ``left`` columns are text and the others numbers."""
    lines = [header, ["---"] * left + ["---:"] * (len(header) - left)]
    lines += [[escape(str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _section(name: str, *paragraphs: str) -> str:
    return "\n\n".join([f"## {name}", *(p for p in paragraphs if p)]) + "\n"


def _front(run_report: RunReport, licence: str) -> str:
    # JSON strings are YAML strings: a title with a colon or a quote stays one.
    lines = ["---", "library_name: antpitta", f"model_name: {json.dumps(run_report.title)}"]
    if licence:
        # Hubs know licences by their short names, and take a sentence for a mistake.
        known = re.fullmatch(r"[\w.+-]+", licence)
        lines.append(f"license: {licence if known else 'other'}")
    lines += ["pipeline_tag: audio-classification", "tags:"]
    lines += [f"- {tag}" for tag in ("bioacoustics", "sound-event-detection", "antpitta")]
    return "\n".join([*lines, "---", ""])


def _details(run_report: RunReport, contact: str) -> str:
    kind = (
        "A detector of species in field recordings: for every frame, the probability that each "
        "species sounds. Made with antpitta from validated boxes; it tells present, absent and "
        "unknown apart."
    )
    stages = [f"{i}. {escape(s.name)}: {escape(s.says)}" for i, s in enumerate(run_report.stages, 1)]
    trained = "Training stages:\n\n" + "\n".join(stages) if stages else ""
    return _section(
        "Model details", kind, trained, f"Contact: {escape(contact)}" if contact else ""
    )


def _use(run_report: RunReport) -> str:
    species = "the species below"
    if run_report.supervision is not None:
        species = f"its {len(run_report.supervision.classes.names):,} species"
    return _section(
        "Intended use",
        f"To find {species} in recordings that resemble the training recordings in place, season, "
        "recorder and distance, and to choose what a person should listen to next.",
        "Not intended: to prove that a species is missing from a place, to count individuals, to "
        "name species that are not in the list (their calls may be taken for one that is), or to "
        "decide anything about a protected species without a person who listened.",
    )


def _training_data(run_report: RunReport) -> str:
    if run_report.supervision is None:
        return _section("Training data", "Not described: the listeners' judgements were not given.")
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
    header = ("species", "recordings present", "recordings absent", "frames present", "absent",
              "unknown")  # fmt: skip
    left_out = len(run_report.left_out)
    note = f"{count_nouns(left_out, 'finding', 'findings')} about the data: see the report."
    return _section(
        "Training data",
        describe_training(run_report),
        write_table(header, rows),
        note if left_out else "",
    )


def _evaluation(run_report: RunReport) -> str:
    if run_report.final is None:
        return _section("Evaluation", "Nothing was evaluated: nothing is known of its quality.")
    stages = write_table(
        ("stage", "judged against", *(label for _, label in METRICS), "recordings", "cells"),
        [
            (row.name, row.judged, *row.figures, format_count(row.report.recordings),
             format_count(row.report.cells))
            for row in list_stages(run_report.stages)
        ],
        left=2,
    )  # fmt: skip
    rows = list_species(run_report.final)
    species = write_table(
        ("species", "present", "absent", "chance", "AP", "AUC", "LWLRAP", "note"),
        [(r.species, r.present, r.absent, r.chance, r.ap, r.auc, r.lwlrap, r.note) for r in rows],
    )
    return _section(
        "Evaluation",
        describe_figures(run_report.final.report),
        "In brackets, 95 % intervals from resampling recordings.",
        stages,
        f"### Per species, after the last stage ({escape(run_report.final.name)})",
        species,
        "Average precision depends on how many absent boxes a species happens to have: compare it "
        "with its chance level (the share of present among the judged boxes), not between species.",
    )


def _arithmetic(ways: Sequence[Measured]) -> str:
    if not ways:
        return ""
    rows = [
        (name, f"{ap:.4f}", f"{loss:+.4f}", "yes" if kept else "no")
        for name, ap, loss, kept in ways
    ]
    return _section(
        "Arithmetic",
        "How `predict` may compute, and what of the macro average precision on boxes, out of fold, "
        "is lost by it. Minus is a gain. What is not offered lost too much.",
        write_table(("way", "macro AP", "lost", "offered"), rows),
    )


def _limits(run_report: RunReport) -> str:
    lines = []
    if run_report.supervision is not None:
        unknown = np.asarray(run_report.supervision.unknown, dtype=float).sum()
        judged = sum(
            np.asarray(part, dtype=float).sum()
            for part in (run_report.supervision.present, run_report.supervision.absent)
        )
        if unknown + judged > 0:
            share = format_share(unknown / (unknown + judged))
            lines.append(f"Never listened to: {share} of all species-frames of the training sound.")
    if run_report.final is not None:
        for says, names in name_weak_species(run_report.final.report):
            lines.append(f"{says}: {', '.join(escape(name) for name in names)}.")
        if run_report.final.truth is None:
            lines.append(
                "Judged on validated boxes only, which a matcher proposed: calls that it never "
                "proposed are in no figure, so real recall may be lower."
            )
    lines.append(
        "A score is not a probability that was checked at another place: set thresholds on some "
        "boxes of your own."
    )
    lines.append(f"Figures that rest on fewer than {FEW} present boxes move with every box.")
    return _section("Limits", "\n".join(f"- {line}" for line in lines))


def _how(run_report: RunReport, model: str) -> str:
    path = model if re.fullmatch(r"[\w./-]+", model) else json.dumps(model)
    return _section(
        "How to use",
        escape(run_report.needs),
        f"```\npip install antpitta\nantpitta predict {path} RECORDINGS -o OUT\n```",
        f"```python\nimport antpitta as ap\n\nscores = ap.predict({json.dumps(model)}, "
        '"RECORDINGS/")\n```',
    )


def _quote(text: str) -> str:
    """A block that holds the text as it is, BibTeX included."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{text.strip()}\n{fence}"


def _provenance(run_report: RunReport) -> str:
    def listed(name: str, pairs: Mapping[str, str]) -> str:
        return write_table((name, "value"), pairs.items(), left=2) if pairs else ""

    tables = [listed("of", run_report.provenance), listed("setting", run_report.settings)]
    if not any(tables):
        return _section("Provenance", "Not given: versions, recipe, data digest and seeds.")
    return _section("Provenance", *tables)
