"""Benchmarks: spaces with labels, how their networks are built, loaded, cached and split."""
