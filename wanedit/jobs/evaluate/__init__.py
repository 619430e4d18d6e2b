"""Measuring a finished video. Here the groups of measures by name, without importing any."""

from typing import Any

from wanedit.registry import Registry

METRICS: Registry[Any] = Registry(
    "metric",
    "wanedit.jobs.evaluate.groups",
    "wanedit.jobs.evaluate.five",
    base="wanedit.jobs.evaluate.metric:Metric",
)
