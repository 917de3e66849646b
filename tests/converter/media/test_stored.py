"""Objects are read from a store as they are, within their bounds, and what a caller may not read is not asked for."""

import asyncio
from collections.abc import Iterator

import pytest

from converter.core.address import Refused
from converter.core.sources import Source
from converter.media.fetch import Allowance, Unfetched
from converter.media.spool import Spool
from converter.media.storage import StorageError
from converter.media.stored import Stores
from tests.fakes.bucket import Bucket, serve_bucket
from tests.fakes.origin import Origin

DATA = bytes(range(256)) * 8192


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serve_bucket() as bucket:
        for key in ("in/a.png", "in/b/ü c.png", "secret.png"):
            bucket.client.put_object(Bucket="results", Key=key, Body=DATA)
        yield bucket


def stores(bucket: Bucket, timeout: float = 30.0) -> Stores:
    return Stores({"photos": Source("s3://results/in", bucket.options)}, timeout)


async def take(stores: Stores, url: str, each: int = 2**30) -> bytes:
    with Spool() as spool:
        content = await stores.fetch(url, spool, Allowance(each, 2**30))
        with content.open() as stream:
            return await asyncio.to_thread(stream.read)


@pytest.mark.parametrize("key", ["a.png", "b/ü c.png"])
async def test_an_object_is_read_as_it_is(bucket: Bucket, key: str) -> None:
    assert await take(stores(bucket), f"s3://results/in/{key}") == DATA


async def test_what_is_not_there_or_too_large_is_said(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unfetched, match="not there") as raised:
        await take(stores(bucket), "s3://results/in/nothing.png")
    assert not raised.value.passing
    with pytest.raises(Unfetched, match=f"more than the {len(DATA) - 1} bytes"):
        await take(stores(bucket), "s3://results/in/a.png", each=len(DATA) - 1)
    assert "hidden-secret" not in caplog.text


@pytest.mark.parametrize("url", ["s3://results/secret.png", "s3://results/in/../secret.png", "gs://results/in/a.png"])
async def test_what_is_elsewhere_is_not_asked_for(bucket: Bucket, url: str) -> None:
    with pytest.raises(Refused):
        stores(bucket).vet(url)
    with pytest.raises(Refused):
        await take(stores(bucket), url)


async def test_a_store_that_refuses_or_is_silent(bucket: Bucket) -> None:
    elsewhere = Stores({"x": Source("s3://nowhere", bucket.options)}, 30.0)
    with pytest.raises(Unfetched, match=r"not there|can't be read"):
        await take(elsewhere, "s3://nowhere/a.png")
    async with Origin() as origin:
        silent = Stores({"x": Source("s3://silent", bucket.options | {"endpoint": origin.url})}, 0.3)
        with pytest.raises(Unfetched, match=r"within 0\.3 s"):
            await take(silent, "s3://silent/a.png")


async def test_an_object_that_breaks_off_is_no_object(bucket: Bucket) -> None:
    async with Origin() as origin:
        origin.headers = {"Last-Modified": "Fri, 27 Nov 2026 00:00:00 GMT", "ETag": '"x"'}
        origin.files |= {"/whole/a.png": DATA, "/a.png": DATA}
        lying = bucket.options | {"endpoint": origin.url}
        both = {name: Source(f"s3://{name}", lying) for name in ("whole", "short", "stalling")}
        with pytest.raises(Unfetched, match="more than the 5 bytes"):
            await take(Stores(both, 30.0), "s3://stalling/a.png", each=5)
        assert await take(Stores(both, 30.0), "s3://whole/a.png") == DATA
        with pytest.raises(Unfetched, match=r"can't be read|broke off") as raised:
            await take(Stores(both, 30.0), "s3://short/a.png")
        assert raised.value.passing


def test_a_store_that_can_not_be_opened_is_named(bucket: Bucket) -> None:
    with pytest.raises(StorageError, match=r"photos: .*regoin"):
        Stores({"photos": Source("s3://results", {"regoin": "x"})}, 1.0)
