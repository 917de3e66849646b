"""What the system says of something that it can't do."""

import errno
import socket

import pytest

from converter.causes import tell_cause


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ECONNREFUSED, "in other words"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("without a number"), None),
    ],
)
def test_the_system_has_words_for_its_own_numbers(error: OSError, words: str | None) -> None:
    assert tell_cause(error) == words
