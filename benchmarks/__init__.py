"""Benchmarks: small programs, each with its limit or its peer beside it."""
