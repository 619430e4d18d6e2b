"""One HTML file that shows a run, or compares several: pictures that play together, figures, numbers, hashes."""

from wanedit.report.page import REPORT_NAME, write_comparison, write_report

__all__ = ["REPORT_NAME", "write_comparison", "write_report"]
