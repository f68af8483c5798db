"""How much disagreement is worth allowing? Replays of recorded answers show its price.

It needs no key and calls no model: the answers of three real models are replayed from
`data/`; use your own with `--trace answers.jsonl.gz`. The same on the command line:
`smart replay answers.jsonl.gz --strategy audit`.
"""

from __future__ import annotations

import argparse

from recorded_tasks import DATA, TASKS

from smart_engine import Equivalence, Guarantee, Normalized, Trace, replay

ALLOWED = (0.01, 0.02, 0.05, 0.10, 0.20)


def main() -> int:
    """Replay several guarantees; show each one's cost and differing answers."""
    arguments = _arguments()
    task = TASKS["tickets"]
    rule: Equivalence = Normalized() if arguments.trace else task.equivalence
    trace = Trace.read(arguments.trace or DATA / f"{task.name}.jsonl.gz")
    alone = sum(
        trace.outcome(item, trace.reference).cost for item in range(len(trace.rows))
    )
    print(f"{len(trace.rows):,} items; {trace.reference} alone costs {alone:.4f} USD\n")
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
    print("\nStop where the next step saves less than the answers it may change.")
    return 0


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", help="recorded answers of your own")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--trials", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
