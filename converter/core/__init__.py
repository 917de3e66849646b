"""Decisions only: no I/O, no clock, no chance; the standard library and the fault tree."""
