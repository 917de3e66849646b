"""Assets: what callers have uploaded, and outputs of jobs under the references that they carry.

Leaves keeping uploads to `vault`, and opening outputs to `outputs`. Invariant: what is another key's is not there; a
hash is always one that was computed here.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from converter.api.answers import KEY_NAME, REQUEST_ID
from converter.api.bodies import MAX_PARTS, read_document, read_form, validate
from converter.api.comfyapi.answers import answer, origin, send_content
from converter.api.comfyapi.outputs import Outputs
from converter.api.comfyapi.requests import AssetForm, HashRequest, read_fields
from converter.api.dialects import Hall
from converter.api.files import Upload
from converter.api.turnstile import Turnstile
from converter.core import comfyapi
from converter.core.comfyapi import MOUNT
from converter.core.idempotency import read_key
from converter.core.order import Content, Part
from converter.database import Unkept
from converter.errors import EngineFailed, Fault, IdempotencyMismatch, Internal, InvalidRequest, NotFound, TooLarge
from converter.ledger import KEYS, Ledger
from converter.media.outputs import Broken
from converter.media.spool import NoRoom, Spool
from converter.vault import Asset, NoSpace, Vault

log = logging.getLogger(__name__)

UPLOADS = 8
"""Uploads that are read at once."""


class Assets:
    """The handlers. `keep`: seconds for which an upload is kept, unless its caller says otherwise."""

    def __init__(self, hall: Hall, ledger: Ledger, vault: Vault, outputs: Outputs, keep: float) -> None:
        self._hall = hall
        self._ledger = ledger
        self._vault = vault
        self._outputs = outputs
        self._keep = keep
        self._uploads = Turnstile(hall.gate, UPLOADS, "too many assets are uploaded at once")

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.post(f"{MOUNT}/assets", self.upload),
            web.post(f"{MOUNT}/assets/from-hash", self.mint),
            web.head(f"{MOUNT}/assets/by-hash/{{hash}}", self.probe),
            web.get(f"{MOUNT}/assets/{{id}}", self.show, allow_head=False),
            web.delete(f"{MOUNT}/assets/{{id}}", self.remove),
            web.get(f"{MOUNT}/assets/{{id}}/content", self.send, allow_head=False),
        ]

    # Uploads --------------------------------------------------------------------------------------------------------

    async def upload(self, request: web.Request) -> web.Response:
        """`POST /assets`: 201 for a content that the caller did not have, 200 for one that it did."""
        scope, key = request.get(KEY_NAME, ""), read_key(request.headers.getall("Idempotency-Key", []))
        now = time.time()
        if key is not None and not await self._ledger.claim(scope, f"asset {key}", now, now + KEYS):
            raise IdempotencyMismatch("the Idempotency-Key was used before, for an asset that is there")
        kept = False
        try:
            asset, fresh = await self._upload(request, scope)
            kept = True
        finally:
            if key is not None and not kept:
                await asyncio.shield(self._ledger.release(scope, f"asset {key}"))
        document = self._show(request, asset) | {"created_new": fresh}
        return answer(request, document, status=201 if fresh else 200)

    async def _upload(self, request: web.Request, scope: str) -> tuple[Asset, bool]:
        from blake3 import blake3

        hasher = blake3()
        with self._uploads.passed():
            fields, files = await read_form(request, self._hall.bounds, ("file",), hasher.update)
            if len(files) != 1:
                raise InvalidRequest([{"pointer": "", "detail": 'the bytes must be in one part named "file"'}])
            content = files[0][1].content
            form = validate(AssetForm, read_fields(fields))
            hash = f"blake3:{hasher.hexdigest()}"
            if form.expected_hash not in (None, hash):
                raise comfyapi.hash_mismatch(hash)
            asset = self._name(scope, hash, form.content_type, form.file_path, form.expires_in, content.size)
            try:
                return asset, await self._vault.add(asset, content, asset.created)
            except NoSpace as error:
                raise TooLarge("the asset is larger than the room that there is for all of them") from error
            except Unkept as error:
                log.error("an asset was not kept: %s", error)
                raise Internal("the service has no room on its disk for the asset") from error

    async def mint(self, request: web.Request) -> web.Response:
        """`POST /assets/from-hash`: another record over a content that the caller has."""
        scope = request.get(KEY_NAME, "")
        body = validate(HashRequest, (await read_document(request, self._hall.bounds))[0])
        wanted = self._name(scope, body.hash, "", body.file_path or "", body.expires_in, 0)
        asset = await self._vault.mint(wanted, wanted.created)
        if asset is None:
            raise comfyapi.blob_not_found()
        return answer(request, self._show(request, asset) | {"created_new": False}, status=201)

    async def probe(self, request: web.Request) -> web.Response:
        """`HEAD /assets/by-hash/HASH`."""
        known = await self._vault.knows(request.get(KEY_NAME, ""), request.match_info["hash"], time.time())
        return web.Response(status=200 if known else 404, headers={"X-Comfy-Request-Id": request[REQUEST_ID]})

    def _name(self, scope: str, hash: str, content_type: str, path: str, seconds: int | None, size: int) -> Asset:
        now = time.time()
        expires = now + (self._keep if seconds is None else seconds)
        return Asset(self._hall.jobs.name(), scope, hash, content_type, path, now, expires, size)

    # One asset ------------------------------------------------------------------------------------------------------

    async def show(self, request: web.Request) -> web.Response:
        """`GET /assets/ID`."""
        id, scope = request.match_info["id"], request.get(KEY_NAME, "")
        if comfyapi.is_named(id):
            named = self._outputs.read(id, scope)
            address = self._outputs.address(named, id, origin(request, self._hall.public_url))
            return answer(request, comfyapi.show_named(named, id, *address))
        return answer(request, self._show(request, await self._find(scope, id)))

    async def remove(self, request: web.Request) -> web.Response:
        """`DELETE /assets/ID`: outputs stay, since their jobs refer to them."""
        id, scope = request.match_info["id"], request.get(KEY_NAME, "")
        if comfyapi.is_named(id):
            self._outputs.read(id, scope)
            raise comfyapi.asset_in_use()
        if not await self._vault.remove(scope, id, time.time()):
            raise _unknown(id)
        return web.Response(status=204, headers={"X-Comfy-Request-Id": request[REQUEST_ID]})

    async def send(self, request: web.Request) -> web.StreamResponse:
        """`GET /assets/ID/content`."""
        id, scope = request.match_info["id"], request.get(KEY_NAME, "")
        if not comfyapi.is_named(id):
            asset = await self._find(scope, id)
            content = await self._read(asset)
            name = asset.file_path.rpartition("/")[2] or asset.id
            return await send_content(request, Upload(content), content.size, asset.content_type, name)
        named = self._outputs.read(id, scope)
        async with AsyncExitStack() as stack:
            source = await self._outputs.open(named, stack)
            size = named.size if source.size is None else source.size
            return await send_content(request, source, size, named.content_type, named.name)

    async def _find(self, scope: str, id: str) -> Asset:
        asset = await self._vault.find(scope, id, time.time())
        if asset is None:
            raise _unknown(id)
        return asset

    async def _read(self, asset: Asset) -> Content:
        content = await self._vault.content(asset)
        if content is None:
            raise _unknown(asset.id)
        return content

    def _show(self, request: web.Request, asset: Asset) -> dict[str, Any]:
        address = f"{origin(request, self._hall.public_url)}{MOUNT}/assets/{asset.id}/content"
        return {
            "id": asset.id,
            "hash": asset.hash,
            "size_bytes": asset.size,
            "content_type": asset.content_type,
            "file_path": asset.file_path,
            "created_at": comfyapi.show_time(asset.created),
            "url": address,
            "url_expires_at": comfyapi.show_time(asset.expires),
            "expires_at": comfyapi.show_time(asset.expires),
        }

    # For workflows --------------------------------------------------------------------------------------------------

    async def resolve(self, workflow: Mapping[str, Any], scope: str) -> Mapping[str, Part]:
        """The contents that references in a workflow stand for, by id; raises InvalidWorkflow naming all others, and
        TooLarge: they are bounded as parts of a body are.
        """
        found, problems = comfyapi.find_references(workflow)
        if len(found) > MAX_PARTS:
            raise TooLarge(f"the workflow refers to more than {MAX_PARTS} assets")
        spool = Spool()  # which the parts keep open
        parts: dict[str, Part] = {}
        left = self._hall.bounds.size
        for id in found:
            try:
                if comfyapi.is_named(id):
                    parts[id] = await self._read_output(id, scope, spool, left)
                    left -= parts[id].content.size
                else:
                    asset = await self._find(scope, id)
                    parts[id] = Part(asset.content_type, await self._read(asset))
            except NotFound as fault:
                problems.append(fault.detail)
        if problems:
            raise comfyapi.missing_assets(problems)
        return parts

    async def _read_output(self, id: str, scope: str, spool: Spool, left: int) -> Part:
        named = self._outputs.read(id, scope)
        try:
            async with AsyncExitStack() as stack:
                source = await self._outputs.open(named, stack)
                async for piece in source.chunks():
                    await spool.write(piece)
                    if spool.size > left:
                        raise TooLarge("the outputs that the workflow refers to are larger than a body may be")
            return Part(named.content_type, await spool.end())
        except Broken as error:
            raise EngineFailed("an output that the workflow refers to could not be read from the engine") from error
        except NoRoom as error:
            raise Internal("the service has no room on its disk for the inputs of the workflow") from error


def _unknown(id: str) -> Fault:
    return NotFound(f"there is no asset {id[:64]} here")
