"""A job and its report: tickets, estimated, in one batch, then one by one, as a page.

    python examples/report_page.py --page report.html --pictures pictures

No key is needed: the answers of three real models are replayed from `data/`. The
pictures in `examples/pictures` come from this program.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recorded_tasks import DATA, TASKS

from langchain_smart import RecordedChatModel, SmartChatModel
from smart_engine import Trace, plot_savings, savings
from smart_engine.offline.estimate import CURVE
from smart_engine.report.plots import KINDS

SIZES = (100, 250, 500, 1000, 2500, 5250)
SHARES = (0.02, 0.05, 0.1, 0.2)


def main() -> int:
    """Run the job, then show the cost and the guarantee."""
    arguments = _arguments()
    task = TASKS["tickets"]
    trace = Trace.read(DATA / f"{task.name}.jsonl.gz")
    reference, *candidates = (
        RecordedChatModel(trace=trace, model=name)
        for name in (trace.reference, *trace.candidates)
    )
    smart = SmartChatModel(
        reference=reference,
        candidates=candidates,
        prices=trace.prices,
        equivalence=task.equivalence,
        max_disagreement=arguments.max_disagreement,
        task=task.name,
    )
    inputs = [{"text": row.input} for row in trace.rows]
    prompts = [task.prompt.invoke(one) for one in inputs]
    smart.estimate(prompts, sizes=CURVE)
    (task.prompt | smart).batch(inputs)
    for one in inputs[: arguments.singles]:
        (task.prompt | smart.bind(smart_task="one by one")).invoke(one)
    report = smart.report()
    print(report)
    report.to_html(arguments.page)
    print(f"The page: {arguments.page}")
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            picture = arguments.pictures / f"{kind}.svg"
            picture.write_text(report.plot(kind).to_svg(), encoding="utf-8")
            print(f"{picture}: {report.plot(kind).alt_text}")
        saved = plot_savings(savings(Trace.example(), SIZES, SHARES))
        picture = arguments.pictures / "savings.svg"
        picture.write_text(saved.to_svg(), encoding="utf-8")
        print(f"{picture}: {saved.alt_text}")
    return 0


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-disagreement", type=float, default=0.1)
    parser.add_argument("--singles", type=int, default=1000)
    parser.add_argument("--page", type=Path, default=Path("report.html"))
    parser.add_argument("--pictures", type=Path, help="where to put them as SVG")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
