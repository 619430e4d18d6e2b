"""Tracking: what a run logs beyond its own metrics.jsonl, to CSV files, TensorBoard or Weights & Biases."""

from wanedit.tracking.handle import Tracking
from wanedit.tracking.opening import check_tracking, identify, open_tracker
from wanedit.tracking.tracker import RunInfo, Tracker, TrackingSettings

__all__ = [
    "RunInfo",
    "Tracker",
    "Tracking",
    "TrackingSettings",
    "check_tracking",
    "identify",
    "open_tracker",
]
