"""Comfy API v2 (`/api/v2`): the API of Comfy Cloud and comfy-api-proxy, which comfy-sdk and @comfyorg/sdk speak."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from converter import ledger, vault
from converter.api.comfyapi.assets import Assets
from converter.api.comfyapi.cases import Cases
from converter.api.comfyapi.dialect import ComfyApi
from converter.api.comfyapi.outputs import Outputs
from converter.api.dialects import Hall
from converter.core.comfyapi import LOST
from converter.database import open_database
from converter.ledger import Ledger
from converter.vault import open_vault

TABLES = (*ledger.TABLES, *vault.TABLES)


@asynccontextmanager
async def open_dialect(hall: Hall) -> AsyncIterator[ComfyApi]:
    """The dialect, with its database. Raises CannotStart."""
    async with open_database(hall.state_dir, "comfyapi", TABLES) as database:
        book = Ledger(database)
        await book.end_all(LOST, time.time())
        if hall.url_secret is None:
            secret = await book.secret("outputs", secrets.token_bytes(32))
        else:  # which other replicas have, too, whose engines have other files of the same names
            secret = hall.jobs.tag.encode() + b":" + hall.url_secret
        outputs = Outputs(hall.jobs, book, secret)
        cases = Cases(hall.jobs, book, outputs, hall.keep_jobs)
        async with open_vault(database, hall.state_dir, hall.asset_bytes) as assets, cases.followed():
            yield ComfyApi(hall, book, cases, Assets(hall, book, assets, outputs, hall.keep_assets))
