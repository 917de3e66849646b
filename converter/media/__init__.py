"""Bytes on their way in and out: inputs that are staged, outputs that are opened and delivered."""
