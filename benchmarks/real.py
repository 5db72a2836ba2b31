"""``python -m benchmarks.real``: one choice on real and on simulated recordings, side by side.

The real clips are NIPS4Bplus, scored out of fold and compared with their complete truth, which no
model sees. The simulated ones are soundscapes with a test set of other individuals.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from antpitta import api
from antpitta.cli.display import training_progress
from antpitta.core.progress import Progress
from benchmarks.cli import command_app, print_table, run


def train_real(
    folder: Path, out: Path, recipe: str, changes: Sequence[str], *, names: bool, progress: Progress
) -> tuple[float, float]:
    """Train on NIPS4Bplus, and compare its scores out of fold with the truth.

    Parameters
    ----------
    folder : with audio/, train_present.csv, train_absent.csv, truth.csv and species.csv
    out : the run's folder
    recipe : the name or path of a recipe
    changes : settings, as after ``--set``
    names : give the species' names
    progress : receives messages and progress

    Returns
    -------
    float, float
        LWLRAP and macro AP.
    """
    data = api.open_data(
        audio=[folder / "audio"],
        present=[folder / "train_present.csv"],
        absent=[folder / "train_absent.csv"],
        names=folder / "species.csv" if names else None,
    )
    trained = api.train(data, recipe, out, changes=changes, export=False, progress=progress)
    evaluation = api.evaluate(trained, folder / "truth.csv")
    report = evaluation.reports[evaluation.shipped]
    return report.lwlrap.value, report.macro_ap.value


def train_simulated(
    folder: Path,
    out: Path,
    recipe: str,
    changes: Sequence[str],
    *,
    names: Path | None,
    progress: Progress,
) -> tuple[float, float]:
    """Train on simulated soundscapes, and compare the scores of their test set with the truth.

    Parameters
    ----------
    folder : with train/, train_tp.csv, train_fp.csv, test/ and test_truth.csv
    out : the folder of the run and of the scores
    recipe : the name or path of a recipe
    changes : settings, as after ``--set``
    names : a table of the species' names
    progress : receives messages and progress

    Returns
    -------
    float, float
        LWLRAP and macro AP.
    """
    data = api.open_data(
        audio=[folder / "train"],
        present=[folder / "train_tp.csv"],
        absent=[folder / "train_fp.csv"],
        names=names,
    )
    trained = api.train(data, recipe, out / "run", changes=changes, export=False, progress=progress)
    api.predict_to(trained.model, [folder / "test"], out / "test")
    (report,) = api.evaluate(out / "test", folder / "test_truth.csv").reports
    return report.lwlrap.value, report.macro_ap.value


def main(
    real: Annotated[Path, typer.Option(help="The folder of NIPS4Bplus.")],
    simulated: Annotated[list[Path], typer.Option(help="Simulated soundscapes; may be repeated.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder of runs.")],
    recipe: Annotated[str, typer.Option(help="A recipe, or the path of one.")] = "quick",
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="Names of the simulated species; the real ones then have theirs too."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds 1 to this.")] = 1,
) -> None:
    """Train a recipe on both kinds of recordings, and print LWLRAP and macro AP side by side.

    Parameters
    ----------
    real, simulated : folders as :func:`train_real` and :func:`train_simulated` take them
    out : the folder of all runs
    recipe, changes : the recipe, and settings as after ``--set``
    names : names of the simulated species; the real ones then have theirs too
    seeds : their number
    """
    rows = []
    with training_progress() as progress:
        for seed in range(1, seeds + 1):
            given = [*(changes or ()), f"seed={seed}", f"split_seed={seed}"]
            home = out / f"seed{seed}"
            own = train_real(
                real, home / "real", recipe, given, names=names is not None, progress=progress
            )
            rows.append((real.name, seed, *own))
            for folder in simulated:
                place = home / folder.name
                scores = train_simulated(
                    folder, place, recipe, given, names=names, progress=progress
                )
                rows.append((folder.name, seed, *scores))
    table = pd.DataFrame(rows, columns=["recordings", "seed", "LWLRAP", "macro AP"])
    medians = table.groupby("recordings", sort=False)[["LWLRAP", "macro AP"]].median()
    shown = medians.round(3).astype(str).reset_index()
    print_table(shown, f"{recipe}: median of {seeds} training seeds")


app = command_app(main)

if __name__ == "__main__":
    run(app)
