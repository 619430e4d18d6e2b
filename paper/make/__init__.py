"""The paper's figures, tables and numbers, made from recorded results only: `python -m paper.make`."""
