"""The command line as a caller: `converter run` sends one workflow to a running converter and writes what it makes.

It speaks the public contract only, as any other client could, and shares with the service no more than the format of
server-sent events.
"""
