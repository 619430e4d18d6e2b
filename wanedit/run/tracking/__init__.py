"""Tracking: what a run logs beyond its own metrics.jsonl, to CSV files, TensorBoard or Weights & Biases."""

from wanedit.run.tracking.handle import Tracking
from wanedit.run.tracking.opening import check_tracking, identify, open_tracker
from wanedit.run.tracking.tracker import JobType, RunInfo, Tracker, TrackingSettings

__all__ = [
    "JobType",
    "RunInfo",
    "Tracker",
    "Tracking",
    "TrackingSettings",
    "check_tracking",
    "identify",
    "open_tracker",
]
