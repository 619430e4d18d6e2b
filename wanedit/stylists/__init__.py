"""Stylists make edited keyframes: one that needs no key, one over Gemini, and the workflow between them."""
