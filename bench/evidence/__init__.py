"""Evidence: the paper's experiment and measured traces, lived through again; writes the tables of
docs/evidence.md.
"""
