"""bench learn: every variant, for every training seed, on one data set; then one table.

Test figures are read and reported, and that is all: no choice is made here, and the order of
rows is that of the table of variants, those of all seeds last.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from antpitta.core.progress import Progress
from benchmarks.baseline import evaluate_baseline, evaluate_zero_shot
from benchmarks.figures import Commands
from benchmarks.tables import Bench, machine
from benchmarks.variants import BLEND, Variant
from benchmarks.work import ALL, Plan, Row, Work


def run_bench(plan: Plan, verbs: Commands, out: Path, progress: Progress) -> Bench:
    """Train, predict and judge whatever is not done yet, and gather all figures."""
    began = time.perf_counter()
    work = Work(plan, verbs, out, progress)
    rows: list[Row] = []
    labels: list[Row] = []
    for seed, variant in _turns(plan):
        which = "all seeds" if seed == ALL else f"seed {seed} of {plan.seeds}"
        progress.message(f"{which}, {variant.name}: {variant.says}")
        if variant.members:
            rows.append(work.blend(variant, seed, rows))
        elif variant.rescaled:
            rows.append(work.rescale(variant, seed, rows))
        else:
            fresh = work.train(variant, seed)
            progress.message(f"{variant.name}: {'trained' if fresh else 'found, trained before'}")
            rows += work.judge(variant, seed)
            labels += work.labels(variant, seed)
    untaught: list[str] = []
    for name, embed in plan.yardsticks.items():
        progress.message(f"yardstick {name}")
        judged = evaluate_baseline(plan.dataset, plan.exam, embed, plan.seeds, progress)
        rows += [{"variant": name, "stage": BLEND, **row} for row in judged]
        if embed.known is not None:
            untaught.append(f"{name}-untaught")
            judged = evaluate_zero_shot(plan.dataset, plan.exam, embed, plan.seeds, progress)
            rows += [{"variant": untaught[-1], "stage": BLEND, **row} for row in judged]
    facts = f"{machine()}; {time.perf_counter() - began:.0f} s in all"
    if work.found:
        facts += f", {work.found} of {work.found + work.trained} runs found trained before"
    says = {variant.name: variant.says for variant in plan.variants}
    return Bench(
        pd.DataFrame(rows),
        pd.DataFrame(labels),
        says,
        (*plan.yardsticks, *untaught),
        facts,
        plan.exam.notes,
    )


def _turns(plan: Plan) -> Iterator[tuple[int, Variant]]:
    """What is done, in its order: all of one seed, of the next, then what is of all of them."""
    late = {variant.name for variant in plan.variants if variant.seeds == "all"}
    late |= {variant.name for variant in plan.variants if variant.rescaled in late}
    for seed in range(1, plan.seeds + 1):
        yield from ((seed, variant) for variant in plan.variants if variant.name not in late)
    yield from ((ALL, variant) for variant in plan.variants if variant.name in late)
