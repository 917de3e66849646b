"""The command line as a caller: `converter run` has one workflow run by a converter and writes what it makes.

It leaves the public contract to `converter.client`, as any other program could.
"""
