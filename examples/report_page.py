"""A day's work and its report: one batch, then single tickets, shown as a page.

    python examples/report_page.py --page report.html --pictures pictures

No key is needed: the models are simulated (see tickets.py). The pictures in
`examples/pictures` come from this program.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tickets import LABELS, tickets

from langchain_smart import Label, RecordedChatModel, SmartChatModel
from smart_engine.rendering.plots import KINDS


def main() -> int:
    """Do the work, then show what it cost and what is promised."""
    arguments = _arguments()
    trace = tickets(arguments.items)
    reference, *candidates = (
        RecordedChatModel(trace=trace, model=name)
        for name in (trace.reference, *trace.candidates)
    )
    smart = SmartChatModel(
        reference=reference,
        candidates=candidates,
        prices=trace.prices,
        equivalence=Label(list(LABELS)),
        task="tickets",
    )
    smart.batch([row.input or "" for row in trace.rows])
    for row in trace.rows[: arguments.singles]:
        smart.bind(smart_task="live tickets").invoke(row.input or "")
    report = smart.report()
    print(report)
    arguments.page.write_text(report.to_html(), encoding="utf-8")
    print(f"The page: {arguments.page}")
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            picture = arguments.pictures / f"{kind}.svg"
            picture.write_text(report.plot(kind).to_svg(), encoding="utf-8")
            print(f"{picture}: {report.plot(kind).says}")
    return 0


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--singles", type=int, default=3000)
    parser.add_argument("--page", type=Path, default=Path("report.html"))
    parser.add_argument("--pictures", type=Path, help="where to put them as SVG")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
