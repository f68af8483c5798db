"""How much disagreement is worth allowing? Recorded answers show its price.

It needs no key and calls no model: the answers of three real models are replayed from
`data/`; use your own with `--trace answers.jsonl.gz`. The same on the command line:
`smart replay answers.jsonl.gz --strategy audit`; and before you have answers, from 50
rows: `smart estimate rows.csv … --also 0.02 --also 0.1`.
"""

from __future__ import annotations

import argparse

from recorded_tasks import DATA, TASKS

from smart_engine import Equivalence, Guarantee, Normalized, Trace, replay
from smart_engine.offline.estimate import SIZES, Choice, estimate

ALLOWED = (0.01, 0.02, 0.05, 0.10, 0.20)


def main() -> int:
    """Replay several guarantees; show what each costs, and what it would save again."""
    arguments = _arguments()
    task = TASKS["tickets"]
    rule: Equivalence = Normalized() if arguments.trace else task.equivalence
    trace = Trace.read(arguments.trace or DATA / f"{task.name}.jsonl.gz")
    items, promise = len(trace.rows), Guarantee(0.05, arguments.confidence)
    alone = sum(trace.outcome(item, trace.reference).cost for item in range(items))
    print(f"{items:,} items; {trace.reference} alone costs {alone:.4f} USD\n")
    columns = ("costs USD", "of that", "saved", "at least", "really differ")
    print("may differ   " + "   ".join(columns) + "   reference asked")
    for allowed in ALLOWED:
        result = replay(
            trace,
            Guarantee(max_disagreement=allowed, confidence=arguments.confidence),
            trials=arguments.trials,
            equivalence=rule,
        )
        ratio, differ = result.cost_ratio, 1 - result.agreement_mean
        print(
            f"{allowed:>10.0%}   {ratio * alone:>9.4f}   {ratio:>7.1%}   "
            f"{1 - ratio:>5.1%}   {1 - result.cost_ratio_max:>8.1%}   "
            f"{differ:>13.2%}   {result.reference_share:>15.1%}"
        )
    print(f"\nAnother {items:,} items like these:")
    print("may differ   expected to save   least   most   pays from, items")
    jobs = 3 * arguments.trials
    expected = estimate(
        trace.outcomes(0), items, promise, rule, sizes=SIZES, shares=ALLOWED, jobs=jobs
    )
    for choice in expected.choices:
        print(_line(choice))
    print("\nStop where the next step saves less than the answers it may change.")
    return 0


def _line(choice: Choice) -> str:
    """Return what a share that may differ would save, and from which size on."""
    saved = choice.saved_share
    pays = "no size" if choice.pays_from is None else f"{choice.pays_from:,}"
    return (
        f"{choice.max_disagreement:>10.0%}   {saved.mean:>16.0%}   {saved.low:>5.0%}   "
        f"{saved.high:>4.0%}   {pays:>16}"
    )


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", help="recorded answers of your own")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--trials", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
