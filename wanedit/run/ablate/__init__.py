"""Ablations: a grid file expands into runs, each of them an ordinary run of `wanedit edit` or `wanedit generate`."""
