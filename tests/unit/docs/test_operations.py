"""docs/operations.md names every metric of the operator, with its labels."""

import re
from pathlib import Path

from finetune_operator import metrics
from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| `(finetune_operator_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)


def test_every_metric_is_in_the_table_with_its_kind_and_labels() -> None:
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall((ROOT / "docs" / "operations.md").read_text())
    }
    defined = {}
    for collector in vars(metrics).values():
        if isinstance(collector, MetricWrapperBase):
            (metric,) = collector.describe()
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            defined[name] = metric.type, tuple(collector._labelnames)
    assert documented == defined
