"""A client of the converter, which does its part: asynchronous (`Client`), and for code that is not (`SyncClient`).

Knows the public contract and nothing of the service's inside. What a call may raise: the faults of `converter.errors`,
and `CallError` where the converter could not be asked or did not answer as one.
"""

from converter.client.answers import Event, Output, Preview, Progress, Result, Status
from converter.client.blocking import SyncClient
from converter.client.client import Client
from converter.client.failures import CallError, UnexpectedAnswer, Unreachable
from converter.client.requests import Options, Outputs, Template

__all__ = [
    "CallError",
    "Client",
    "Event",
    "Options",
    "Output",
    "Outputs",
    "Preview",
    "Progress",
    "Result",
    "Status",
    "SyncClient",
    "Template",
    "UnexpectedAnswer",
    "Unreachable",
]
