"""What the service says of a template: asked for like an order, with the same patience, and nothing is done for it.

Asks `core.retries` whether to try again. Invariant: what is given out is a JSON object, or the call has raised.
"""

import asyncio
import math
import random
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
from pydantic import TypeAdapter, ValidationError

from converter.client.failures import CallError, UnexpectedAnswer, explain_loss, explain_refusal
from converter.client.stream import Terms
from converter.core import retries
from converter.core.retries import IN_VAIN, Tries
from converter.errors import DeadlineExceeded, Fault

_OBJECT = TypeAdapter(dict[str, Any])


async def look_up(session: aiohttp.ClientSession, url: str, terms: Terms, name: str) -> Mapping[str, Any]:
    """`GET /v1/workflows/NAME`. Raises Fault and CallError."""
    loop, tries = asyncio.get_running_loop(), Tries()
    deadline = None if terms.timeout is None else loop.time() + terms.timeout
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                try:
                    return await _ask(session, f"{url}/v1/workflows/{quote(name, safe='')}")
                except (Fault, CallError) as error:
                    tries, delay = retries.judge(
                        tries,
                        retries.from_fault(error) if isinstance(error, Fault) else error.failure,
                        loop.time(),
                        patience=math.inf if terms.patience is None else terms.patience,
                        deadline=math.inf if deadline is None else deadline,
                        chance=random.random(),
                    )
                    if delay is None:
                        raise
                    if terms.on_retry is not None:
                        terms.on_retry(error, delay)
                await terms.sleep(delay)
    except TimeoutError:
        raise DeadlineExceeded(f"no answer within {terms.timeout:g} s") from None


async def _ask(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    try:
        async with session.get(url, headers={"Accept": "application/json"}, allow_redirects=False) as response:
            if response.status != HTTPStatus.OK:
                raise await explain_refusal(response)
            return _OBJECT.validate_json(await response.read())
    except ValidationError:
        detail = f"{response.url.origin()} does not answer as a converter does"
        raise UnexpectedAnswer(detail, IN_VAIN, HTTPStatus.OK) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise explain_loss(error, url.partition("/v1/")[0]) from None
