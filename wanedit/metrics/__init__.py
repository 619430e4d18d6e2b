"""Measures of videos. `functional` holds pure functions of arrays and tensors; nothing here reads a file."""
