"""Training and scorecard of wan-tiny: `python -m tiny.train`, `python -m tiny.scorecard`; see README.md here."""
