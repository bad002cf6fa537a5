"""Fits and graphs of zELO: `make bench-zelo` or `python -m benches.zelo`.

How fast the batched fit is beside choix on the same comparisons, and how near the fitted scores
come to a known truth by graph, number of comparisons, kind of vote, noise and rater.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# One thread, so that the ratio is one of methods.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import choix
import numpy as np
from scipy.stats import kendalltau

from benches.lines import Panel, write_lines
from benches.report import Report
from benches.zelo_world import BROKEN, DOCUMENTS, GRAPHS, World, draw_worlds
from rerank.zelo.links import BRADLEY_TERRY, THURSTONE, Link
from rerank.zelo.pairing import graph_facts
from rerank.zelo.raters import calibrated_consensus, plain_consensus
from rerank.zelo.scoring import DEFAULT_RIDGE, Preferences, ZeloScores, fit_scores

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
DEGREES = (2, 4, 8, 16, 32)
NOISES = ("as fitted", "unlike the fit")
WANTED_RATIO = 20.0
ROUNDS = 4
GRAPH_PART = "Error by graph and number of comparisons"
RATER_PART = "Raters, cycles, k = 8: all believed alike, and weighed by calibration"
UNCERTAINTY_PART = "Stated uncertainty, hard votes of three raters, cycles"
RIDGES = (0.01, 0.1, 0.3, 1.0, 3.0)
ABOUT = (
    "One run of `make bench-zelo`, one thread. Synthetic queries of 100 documents with a known "
    "worth each. tau: Kendall's tau of fitted scores and truth, mean over queries; rmse: root mean "
    "squared error after the best line through (score, truth), in standard deviations of the "
    "truth. Noise *as fitted* flips votes as the Thurstone model says, which is optimistic. Noise "
    "*unlike the fit* does not: few documents are good and many equally bad, each rater has "
    "lasting wrong opinions of single documents, errors have heavy tails, and 5 % of answers are "
    "dice. ± is the standard error over queries; gains are paired by query. Where order is never "
    "swapped, calibration can tell bias from preference only because these documents are in no "
    "order; candidates of a search are."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--timed", type=int, default=5, help="queries choix is timed on")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    report = Report(options.output, "zelo", "zELO: fits, graphs and raters", ABOUT, _machine())
    speed(report, options.timed)
    curves = by_graph(report, options.queries)
    by_rater(report, options.queries)
    by_ridge(report, options.queries)
    uncertainty(report, options.queries)
    shapes(report)
    options.output.mkdir(parents=True, exist_ok=True)
    write_lines(
        options.output / "zelo.svg",
        "Kendall's tau to the truth by comparisons per query (100 documents, 3 raters)",
        "comparisons",
        [degree * DOCUMENTS // 2 for degree in DEGREES],
        curves,
    )
    report.about += "\n\n" + findings(report)
    report.write()


def findings(report: Report) -> str:
    """What the tables say, in sentences."""
    graphs = report.parts[GRAPH_PART]

    def tau(graph: str, degree: int) -> str:
        """The four taus: soft and hard as fitted, soft and hard unlike the fit."""
        rows = [row for row in graphs if (row["graph"], row["k"]) == (graph, degree)]
        return " / ".join(f"{row['tau']:.3f}" for row in rows)

    def within(noise: str, degree: int) -> str:
        rows = report.parts[UNCERTAINTY_PART]
        found = [row for row in rows if (row["noise"], row["k"]) == (noise, degree)]
        return f"{found[0]['truth_within_1.96_deviations']:.0%}"

    broken = [row for row in report.parts[RATER_PART] if ", one " in row["raters"]]
    gains = [row["tau_calibrated"] - row["tau_alike"] for row in broken]
    named = sum(1 for row in broken if row["suspected"] == 1)
    sentences = [
        "tau with soft / hard votes as fitted / soft / hard votes unlike the fit: "
        + "; ".join(
            f"{graph}, k = {degree}: {tau(graph, degree)}"
            for degree in (2, 8, 32)
            for graph in GRAPHS
        )
        + ".",
        "Cycles are ahead of random pairs while comparisons are few, and like them when there are "
        "many; a star is ahead only with the fewest.",
        f"One broken rater of three was named in {named} of {len(broken)} settings, and weighing "
        f"by calibration brought {min(gains):+.3f} to {max(gains):+.3f} tau.",
        f"Stated errors hold where the model does ({within(NOISES[0], 8)} of truths within 1.96 of "
        "them at k = 8; 95 % would be right). Unlike the fit they are too small: "
        f"{within(NOISES[1], 8)} at k = 8 and {within(NOISES[1], 32)} at k = 32, since a rater's "
        "lasting opinions do not average out.",
    ]
    return "\n".join(f"- {sentence}" for sentence in sentences)


# --- graphs ------------------------------------------------------------------------------------


def by_graph(report: Report, queries: int) -> list[Panel]:
    panels = []
    for noise in NOISES:
        for hard in (False, True):
            votes = "hard" if hard else "soft"
            lines: dict[str, list[tuple[float, float]]] = {}
            for graph in GRAPHS:
                for degree in DEGREES:
                    worlds = draw_worlds(queries, graph, degree, noise, ("good",) * 3, hard)
                    row = _quality(worlds, plain_consensus)
                    comparisons = statistics.fmean(len(world.pairs) for world in worlds)
                    lines.setdefault(graph, []).append((comparisons, row["tau"]))
                    report.add(
                        GRAPH_PART,
                        {
                            "noise": noise,
                            "votes": votes,
                            "graph": graph,
                            "k": degree,
                            "comparisons": round(comparisons),
                            **row,
                        },
                    )
            panels.append(Panel(f"{votes} votes, noise {noise}", lines))
    return panels


def shapes(report: Report) -> None:
    """What the graphs themselves look like, over 20 seeds."""
    for graph, draw in GRAPHS.items():
        for degree in DEGREES:
            facts = [graph_facts(DOCUMENTS, draw(degree, seed)) for seed in range(20)]
            joined = [each.diameter for each in facts if each.diameter is not None]
            report.add(
                "Shape of the graphs, 20 seeds",
                {
                    "graph": graph,
                    "k": degree,
                    "comparisons": facts[0].pairs,
                    "smallest_degree": min(each.smallest_degree for each in facts),
                    "largest_degree": max(each.largest_degree for each in facts),
                    "connected": f"{len(joined)} of 20",
                    "diameter": statistics.fmean(joined) if joined else "–",
                },
            )


# --- raters ------------------------------------------------------------------------------------


def by_rater(report: Report, queries: int) -> None:
    panels: dict[str, tuple[tuple[str, ...], bool]] = {
        "three good": (("good",) * 3, True),
        "two good": (("good",) * 2, True),
        **{f"two good, one {kind}": (("good", "good", kind), True) for kind in BROKEN},
        "three that hardly commit": (("mild",) * 3, True),
        "three that favour the first place": (("leaning",) * 3, True),
        "the same, order never swapped": (("leaning",) * 3, False),
        "good, noisy, favouring the first": (("good", "noisy", "leaning"), True),
    }
    for noise in NOISES:
        for hard in (False, True):
            for name, (kinds, swap) in panels.items():
                worlds = draw_worlds(queries, "cycles", 8, noise, kinds, hard, swap)
                plain, mixed = (
                    _taus(worlds, consensus)
                    for consensus in (plain_consensus, calibrated_consensus)
                )
                gain = mixed - plain
                found = calibrated_consensus(kinds, *_answers(worlds)).raters
                report.add(
                    RATER_PART,
                    {
                        "noise": noise,
                        "votes": "hard" if hard else "soft",
                        "raters": name,
                        "tau_alike": float(plain.mean()),
                        "tau_calibrated": float(mixed.mean()),
                        "gain": f"{gain.mean():+.3f} ± {_standard_error(gain):.3f}",
                        "reliability": ", ".join(f"{each.reliability:.2f}" for each in found),
                        "bias": ", ".join(f"{each.bias:+.2f}" for each in found),
                        "suspected": sum(1 for each in found if each.suspicion),
                    },
                )


# --- prior ---------------------------------------------------------------------------------------


def by_ridge(report: Report, queries: int) -> None:
    """tau / rmse for each strength of the prior."""
    for noise in NOISES:
        for hard in (False, True):
            for degree in DEGREES:
                worlds = draw_worlds(queries, "cycles", degree, noise, ("good",) * 3, hard)
                row = {"noise": noise, "votes": "hard" if hard else "soft", "k": degree}
                for ridge in RIDGES:
                    found = _quality(worlds, plain_consensus, ridge)
                    row[f"ridge_{ridge:g}"] = f"{found['tau']:.3f} / {found['rmse']:.3f}"
                report.add("Ridge: tau / rmse, cycles, three good raters", row)


# --- uncertainty -------------------------------------------------------------------------------


def uncertainty(report: Report, queries: int) -> None:
    """How often the truth lies within 1.96 stated standard errors; 0.95 would be honest."""
    for noise in NOISES:
        for degree in DEGREES:
            worlds = draw_worlds(queries, "cycles", degree, noise, ("good",) * 3, True)
            fits = _fits(worlds, plain_consensus)
            errors = np.concatenate(
                [
                    (fit.scores - _on_scale(world, fit)) / fit.deviations
                    for world, fit in zip(worlds, fits, strict=True)
                ]
            )
            report.add(
                UNCERTAINTY_PART,
                {
                    "noise": noise,
                    "k": degree,
                    "mean_deviation": float(np.mean([fit.deviations.mean() for fit in fits])),
                    "truth_within_1.96_deviations": float((np.abs(errors) < 1.96).mean()),
                },
            )


def _on_scale(world: World, fit: ZeloScores) -> np.ndarray[Any, Any]:
    """The truth on the scores' scale: as it is where the model holds, else by the best line."""
    centred = world.truth - world.truth.mean()
    if world.noise == NOISES[0]:
        return np.asarray(centred)
    return np.asarray(centred * (fit.scores @ centred) / (centred @ centred))


# --- speed -------------------------------------------------------------------------------------


def speed(report: Report, timed: int) -> None:
    """Queries per second at n = 100, k = 8, one hard vote a pair (choix takes no others), the same
    data for all. Processor time of one thread, in turns: whoever else is busy should not count."""
    worlds = draw_worlds(64, "cycles", 8, NOISES[0], ("good",), True)
    queries = _preferences(worlds, plain_consensus)
    wins = [_wins(query) for query in queries[:timed]]

    def ours(link: Link) -> Callable[[], object]:
        return lambda: fit_scores(queries, link=link)

    def theirs(solve: Callable[..., object], **settings: Any) -> Callable[[], object]:
        return lambda: [solve(DOCUMENTS, rows, **settings) for rows in wins]

    runs: dict[str, tuple[Callable[[], object], int]] = {
        "ours, Thurstone, with deviations": (ours(THURSTONE), len(queries)),
        "ours, Bradley-Terry, with deviations": (ours(BRADLEY_TERRY), len(queries)),
        "choix.opt_pairwise": (theirs(choix.opt_pairwise, alpha=DEFAULT_RIDGE / 2), timed),
        "choix.ilsr_pairwise": (theirs(choix.ilsr_pairwise, alpha=DEFAULT_RIDGE / 2), timed),
        "choix.ep_pairwise, probit": (
            theirs(choix.ep_pairwise, alpha=DEFAULT_RIDGE, model="probit"),
            timed,
        ),
    }
    fits = fit_scores(queries[:timed], link=BRADLEY_TERRY)
    apart = max(
        float(np.abs(fit.scores - (theirs_ - theirs_.mean())).max())
        for fit, theirs_ in zip(
            fits,
            (choix.opt_pairwise(DOCUMENTS, rows, alpha=DEFAULT_RIDGE / 2) for rows in wins),
            strict=True,
        )
    )
    rates = _rates(runs)
    base = rates["choix.opt_pairwise"]
    for name, rate in rates.items():
        report.add(
            "Speed at n = 100, k = 8",
            {"fit": name, "queries_per_cpu_second": rate, "times_opt_pairwise": rate / base},
        )
    ratio = rates["ours, Thurstone, with deviations"] / base
    report.add(
        "Targets",
        {
            "target": "times faster than choix.opt_pairwise",
            "limit": f">= {WANTED_RATIO:.0f}",
            "measured": ratio,
            "": "met" if ratio >= WANTED_RATIO else "missed",
        },
    )
    report.add(
        "Targets",
        {
            "target": "largest difference to choix.opt_pairwise, Bradley-Terry",
            "limit": "<= 1e-4",
            "measured": f"{apart:.1e}",
            "": "met" if apart <= 1e-4 else "missed",
        },
    )


def _rates(runs: Mapping[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Queries a second of processor time, the median of some rounds after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(ROUNDS + 1):
            for name, (work, _queries) in runs.items():
                started = time.process_time()
                work()
                seconds[name].append(time.process_time() - started)
    return {
        name: queries / statistics.median(seconds[name][1:]) for name, (_, queries) in runs.items()
    }


def _wins(query: Preferences) -> list[tuple[int, int]]:
    rows: list[tuple[int, int]] = []
    for (a, b), value in zip(query.pairs.tolist(), query.values, strict=True):
        rows.append((a, b) if value > 0.5 else (b, a))
    return rows


# --- shared ------------------------------------------------------------------------------------


def _answers(worlds: Sequence[World]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    shown = np.concatenate([world.shown for world in worlds], axis=1)
    return shown, np.concatenate([world.swapped for world in worlds], axis=1)


def _preferences(worlds: Sequence[World], mix: Callable[..., Any]) -> list[Preferences]:
    """All worlds' raters are calibrated together, as in a run over many queries."""
    found = mix(worlds[0].kinds, *_answers(worlds))
    starts = np.cumsum([0, *(len(world.pairs) for world in worlds)])
    return [
        Preferences(
            DOCUMENTS,
            world.pairs,
            found.values[start : start + len(world.pairs)],
            found.weights[start : start + len(world.pairs)],
        )
        for world, start in zip(worlds, starts[:-1].tolist(), strict=True)
    ]


def _fits(
    worlds: Sequence[World], mix: Callable[..., Any], ridge: float = DEFAULT_RIDGE
) -> list[ZeloScores]:
    return fit_scores(_preferences(worlds, mix), ridge=ridge)


def _taus(worlds: Sequence[World], mix: Callable[..., Any]) -> np.ndarray[Any, Any]:
    fits = _fits(worlds, mix)
    return np.array(
        [
            kendalltau(world.truth, fit.scores).statistic
            for world, fit in zip(worlds, fits, strict=True)
        ]
    )


def _quality(
    worlds: Sequence[World], mix: Callable[..., Any], ridge: float = DEFAULT_RIDGE
) -> dict[str, Any]:
    fits = _fits(worlds, mix, ridge)
    taus, errors = [], []
    for world, fit in zip(worlds, fits, strict=True):
        taus.append(kendalltau(world.truth, fit.scores).statistic)
        correlation = np.corrcoef(world.truth, fit.scores)[0, 1]
        errors.append(float(np.sqrt(1 - correlation**2)))
    return {
        "tau": float(np.mean(taus)),
        "tau_±": _standard_error(np.array(taus)),
        "rmse": float(np.mean(errors)),
    }


def _standard_error(values: np.ndarray[Any, Any]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _machine() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "numpy": np.__version__,
        "choix": metadata.version("choix"),
    }


if __name__ == "__main__":
    main()
