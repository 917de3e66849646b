"""Comfy API v2 (`/api/v2`): the API of Comfy Cloud and comfy-api-proxy, which comfy-sdk and @comfyorg/sdk speak."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from converter.api.comfyapi.assets import Assets
from converter.api.comfyapi.cases import Cases
from converter.api.comfyapi.dialect import ComfyApi
from converter.api.comfyapi.outputs import Outputs
from converter.api.dialects import Hall
from converter.core.comfyapi import LOST
from converter.database import open_database
from converter.ledger import TABLES, Ledger


@asynccontextmanager
async def open_dialect(hall: Hall) -> AsyncIterator[ComfyApi]:
    """The dialect, with its database. Raises CannotStart."""
    async with open_database(hall.state_dir, "comfyapi", TABLES) as database:
        ledger = Ledger(database)
        await ledger.end_all(LOST, time.time())
        outputs = Outputs(hall.jobs, ledger, await ledger.secret("outputs", secrets.token_bytes(32)))
        cases = Cases(hall.jobs, ledger, outputs, hall.keep_jobs)
        async with cases.followed():
            yield ComfyApi(hall, ledger, cases, Assets(outputs, hall.public_url))
