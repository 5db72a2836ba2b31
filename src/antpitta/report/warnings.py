"""What a model is not good at, in the words that train prints and the report and the card show.

A line names one problem and the species that have it. No line is left out because it is
inconvenient, and none is written where there is no problem.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from antpitta.core.errors import list_names
from antpitta.core.thresholds import NOT_LEARNABLE, REASONS, SpeciesThreshold
from antpitta.report.results import StageResult
from antpitta.scores.bootstrap import Interval
from antpitta.scores.comparison import StageComparison

PLURALS = {"is": "are", "has": "have"}


@dataclass(frozen=True)
class StageChoice:
    """The stage that ships, and what it was compared with.

    Attributes
    ----------
    stage : its name
    names : of the stages that could have been chosen, in the order of training
    comparisons : of every later stage with the best one before it
    """

    stage: str
    names: tuple[str, ...]
    comparisons: tuple[StageComparison, ...] = ()


def describe_choice(choice: StageChoice) -> str:
    """Which stage ships, and why.

    Parameters
    ----------
    choice : the stage and the comparisons

    Returns
    -------
    str
        One or two sentences.
    """
    if not choice.comparisons:
        return f"The model is the only stage, {choice.stage}."
    parts = []
    for comparison in choice.comparisons:
        later, earlier = choice.names[comparison.later], choice.names[comparison.earlier]
        if np.isnan(comparison.difference.low):
            parts.append(f"{later} cannot be compared with {earlier} on these boxes")
        else:
            verdict = "is" if comparison.is_better else "is not"
            difference = _format_difference(comparison.difference)
            parts.append(
                f"{later} {verdict} better than {earlier} by more than the noise "
                f"(macro AP {difference}, recordings resampled in pairs)"
            )
    return f"The model is the stage {choice.stage}: {'; '.join(parts)}."


def list_warnings(
    stages: Sequence[StageResult], choice: StageChoice, thresholds: Mapping[str, SpeciesThreshold]
) -> tuple[str, ...]:
    """What the model is not good at, a line each.

    Parameters
    ----------
    stages : in the order of training
    choice : the stage that ships
    thresholds : of its species

    Returns
    -------
    tuple of str
        The lines; none where there is no problem.
    """
    lines = []
    report = next(stage.report for stage in stages if stage.name == choice.stage)
    if report.macro_auc.value < 0.5 and report.macro_auc.high <= 0.5:
        interval = f"{report.macro_auc.value:.3f} ({_format_range(report.macro_auc)})"
        lines.append(f"the model is worse than chance out of fold: macro AUC {interval}")
    table = report.per_species
    if worse := [str(name) for name in table["species"][table["auc_high"] < 0.5]]:
        lines.append(
            f"{_count(worse, 'is')} worse than chance out of fold (the interval of the AUC lies "
            f"under 0.5): {list_names(worse)}"
        )
    for comparison in choice.comparisons:
        if comparison.difference.value < 0:
            later, earlier = choice.names[comparison.later], choice.names[comparison.earlier]
            difference = _format_difference(comparison.difference)
            lines.append(f"stage {later} loses against {earlier}: macro AP {difference}")
    lines += warn_of_thresholds(thresholds)
    return tuple(lines)


def warn_of_thresholds(thresholds: Mapping[str, SpeciesThreshold]) -> list[str]:
    """Which species cannot be learnt, and which have no threshold of their own.

    Parameters
    ----------
    thresholds : of each species

    Returns
    -------
    list of str
        A line for each reason that occurs.
    """
    lines = []
    if blank := [name for name, own in thresholds.items() if not own.learnable]:
        lines.append(f"{_count(blank, 'is')} {NOT_LEARNABLE}: {list_names(blank)}")
    for reason, text in REASONS.items():
        names = [n for n, own in thresholds.items() if own.learnable and own.reason == reason]
        if names:
            lines.append(
                f"{_count(names, 'has')} an unsupported, conservative threshold ({text}): "
                f"{list_names(names)}"
            )
    return lines


def _count(names: Sequence[str], verb: str) -> str:
    """How many species, with the verb in the number that fits."""
    return f"{len(names)} species {verb if len(names) == 1 else PLURALS[verb]}"


def _format_difference(difference: Interval) -> str:
    return f"{difference.value:+.3f}, 95 % interval {_format_range(difference, '+')}"


def _format_range(interval: Interval, sign: str = "") -> str:
    return f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}"
