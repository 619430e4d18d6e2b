"""Tracking: what a run logs beyond its own metrics.jsonl, to CSV files, TensorBoard or Weights & Biases."""

from wanedit.tracking.backends import RunInfo, Tracker
from wanedit.tracking.guard import Tracking, TrackingSettings, check_tracking, identify, open_tracker

__all__ = [
    "RunInfo",
    "Tracker",
    "Tracking",
    "TrackingSettings",
    "check_tracking",
    "identify",
    "open_tracker",
]
