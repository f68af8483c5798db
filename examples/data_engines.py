"""One callable for every data engine: pandas, Dask, Daft, Spark and Ray.

`RowCaller` answers a batch of rows, each by the model that its column `model` names, or
all by one. It promises nothing: it is for a policy that was decided elsewhere. On Ray,
`smart_dataset` decides it, and keeps the guarantee (see the guide).

    python examples/data_engines.py                 # pandas
    python examples/data_engines.py --engine dask   # pip install 'dask[dataframe]'
    python examples/data_engines.py --engine daft   # pip install daft
    python examples/data_engines.py --engine spark  # pip install pyspark, and Java
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
from langchain_core.language_models import FakeListChatModel

from langchain_smart import Price, RowCaller, SmartChatModel

TEXTS = ["Win a prize now!", "Lunch at noon?", "Cheap pills", "The minutes of Monday"]


def smart() -> SmartChatModel:
    """Return the smart model; each worker makes its own."""
    return SmartChatModel(
        reference=FakeListChatModel(responses=["ham"], name="big"),
        candidates=[FakeListChatModel(responses=["spam"], name="small")],
        prices={"big": Price.free(), "small": Price.free()},
    )


def caller() -> RowCaller:
    return RowCaller(smart, prompt="Is this spam? {mail}", model="small")


def with_pandas(mails: pd.DataFrame) -> pd.DataFrame:
    answered: pd.DataFrame = caller()(mails)
    return answered


def with_dask(mails: pd.DataFrame) -> pd.DataFrame:
    import dask.dataframe as dd

    answer = caller()
    parts = dd.from_pandas(mails, npartitions=2)
    # Dask asks for the columns beforehand: those that an empty frame gets.
    answered: pd.DataFrame = parts.map_partitions(answer, meta=answer(mails[:0]))
    return answered.compute()


def with_daft(mails: pd.DataFrame) -> pd.DataFrame:
    import daft

    @daft.func.batch(return_dtype=daft.DataType.string())  # type: ignore[untyped-decorator]
    def answers(mail: Any) -> list[Any]:
        told: list[Any] = caller()({"mail": mail.to_pylist()})["answer"]
        return told

    frame = daft.from_pydict(mails.to_dict("list"))
    answered: pd.DataFrame = frame.with_column(
        "answer", answers(daft.col("mail"))
    ).to_pandas()
    return answered


def with_spark(mails: pd.DataFrame) -> pd.DataFrame:
    from pyspark.sql import SparkSession

    def answers(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        answer = caller()  # once for each partition
        for frame in frames:
            yield answer(frame)[["mail", "model", "answer", "error", "cost"]]

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # for its workers
    spark = SparkSession.builder.master("local[2]").getOrCreate()
    columns = "mail string, model string, answer string, error string, cost double"
    answered: pd.DataFrame = (
        spark.createDataFrame(mails).mapInPandas(answers, columns).toPandas()
    )
    return answered


ENGINES = {
    "pandas": with_pandas,
    "dask": with_dask,
    "daft": with_daft,
    "spark": with_spark,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=list(ENGINES), default="pandas")
    engine = ENGINES[parser.parse_args().engine]
    answered = engine(pd.DataFrame({"mail": TEXTS * 3}))
    print(answered[["mail", "answer"]].head(4).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
