"""A job that a test kills: `python job.py ADDRESS CALLS OUTPUT ITEMS`."""

from __future__ import annotations

import json
import sys
from functools import partial

import ray
from rows import smart

from langchain_smart import smart_dataset


def main(address, calls, output, items):
    ray.init(address=address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"n": item} for item in range(int(items))]
    done = smart_dataset(
        ray.data.from_items(rows, override_num_blocks=3),
        smart=partial(smart, calls, latency=0.05, min_saving=0.0),
        prompt="Sort item {n}",
        output=output,
        concurrency=2,
        batch_size=10,
    )
    rows = done.dataset.take_all()
    print(json.dumps([done.certificate.model_dump_json(), rows]))


main(*sys.argv[1:])
