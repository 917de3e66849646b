"""A store is opened by its URL without a packet, or it is said in one line why not."""

import sys
from pathlib import Path

import obstore
import pytest

from converter.media.storage import StorageError, open_store, refusals


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://bucket/a/prefix", {"region": "eu-central-1"}),
        ("s3://bucket", {"endpoint": "http://127.0.0.1:9", "access_key_id": "x", "secret_access_key": "y"}),
        ("gs://bucket/a", {}),
        ("az://container/a", {"account_name": "x"}),
    ],
)
def test_a_store_is_opened_by_its_url_alone(url: str, options: dict[str, str]) -> None:
    assert open_store(url, options) is not None


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("ftp://bucket", {}, "ftp"),
        ("s3://bucket", {"regoin": "x"}, "regoin"),
        ("az://container", {}, "Account"),
        ("file:///proc/none/of/these", {}, "No such file"),
        ("no url", {}, "URL"),
    ],
)
def test_what_is_no_store_is_said_in_one_line(url: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(StorageError, match=said) as raised:
        open_store(url, options)
    assert "\n" not in str(raised.value)


def test_a_folder_is_made_and_what_leads_out_of_it_refused(tmp_path: Path) -> None:
    store = open_store((tmp_path / "new").as_uri(), {})
    obstore.put(store, "a/b.txt", b"text")
    assert (tmp_path / "new" / "a" / "b.txt").read_bytes() == b"text"
    with pytest.raises(StorageError), refusals():
        obstore.put(store, "../b.txt", b"text")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(StorageError, match='extra "storage"'):
        open_store("s3://bucket", {})
