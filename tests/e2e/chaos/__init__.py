"""Chaos: a service under more load than it bears while everything around it goes wrong, and a verdict from its logs.

`python -m tests.e2e.chaos` is the long form, `tests/e2e/test_chaos.py` the short one. What is asked (`orders`) and
what goes wrong (`strikes`) follow from a seed; `scene` has the processes, `callers` and `mischief` act on them,
`rounds` puts them together, `verdict` and `figures` judge the log that comes of it.
"""
