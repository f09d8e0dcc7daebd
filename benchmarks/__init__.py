"""Benchmarks: each row measures a limit and our figure in one run, and reports the ratio."""
