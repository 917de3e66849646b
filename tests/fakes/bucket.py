"""A server of S3's protocol on a real socket (moto's), with one bucket that is empty at the start."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

NAME = "results"


@dataclass(frozen=True)
class Bucket:
    """`options` are obstore's, to reach it."""

    options: dict[str, str]
    client: Any

    def objects(self) -> dict[str, tuple[str, bytes]]:
        """Content type and bytes, by key."""
        found = self.client.list_objects_v2(Bucket=NAME).get("Contents", [])
        answers = {each["Key"]: self.client.get_object(Bucket=NAME, Key=each["Key"]) for each in found}
        return {key: (answer["ContentType"], answer["Body"].read()) for key, answer in answers.items()}

    def unfinished(self) -> int:
        """Uploads that were begun and neither ended nor taken back."""
        return len(self.client.list_multipart_uploads(Bucket=NAME).get("Uploads", []))


@contextmanager
def serve_bucket() -> Iterator[Bucket]:
    """The server, for the length of the block."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # it tells of every client that leaves
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        secrets = {"access_key_id": "caller", "secret_access_key": "hidden-secret", "region": "us-east-1"}
        options = {"endpoint": f"http://{host}:{port}", **secrets}
        client = boto3.client(
            "s3",
            endpoint_url=options["endpoint"],
            aws_access_key_id="caller",
            aws_secret_access_key="hidden-secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=NAME)
        yield Bucket(options, client)
    finally:
        server.stop()
