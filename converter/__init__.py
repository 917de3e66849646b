"""Synchronous, stateless HTTP in front of one asynchronous diffusion engine."""

__version__ = "0.1.0"
