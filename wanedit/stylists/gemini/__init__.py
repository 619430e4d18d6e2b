"""Keyframes restyled by Google's Gemini: settings and prices, faults, the client, messages, pictures, the stylist."""
