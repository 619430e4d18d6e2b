"""Tracking: what a run logs beyond its own metrics.jsonl, to CSV files, TensorBoard or Weights & Biases."""

from wanedit.runtime.settings import TrackingSettings
from wanedit.tracking.backends import TRACKERS, RunInfo, Tracker
from wanedit.tracking.guard import Tracking, check_tracking, identify, open_tracker

__all__ = [
    "TRACKERS",
    "RunInfo",
    "Tracker",
    "Tracking",
    "TrackingSettings",
    "check_tracking",
    "identify",
    "open_tracker",
]
