"""Keyframes restyled offline: colours by optimal transport, a brush, ink lines, paper."""
