"""The documents of requests: their fields, types and limits.

Leaves reading them to `bodies`. Invariant: an unknown field is an error, so that what is not there is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Label = Annotated[str, Field(min_length=1, max_length=64)]
Hash = Annotated[str, Field(pattern="^blake3:[0-9a-f]{64}$")]
FilePath = Annotated[str, Field(min_length=1, max_length=1024)]
Retention = Annotated[int, Field(ge=60, le=604_800)]
"""Seconds."""


class ExtraData(BaseModel):
    """`extra_data`, which is closed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    api_key_comfy_org: Annotated[str, Field(repr=False)]


class JobRequest(BaseModel):
    """The body of `POST /api/v2/jobs`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    workflow: dict[str, Any]
    extra_data: ExtraData | None = None
    metadata: Annotated[dict[Label, Annotated[str, Field(max_length=512)]], Field(max_length=32)] = Field(
        default_factory=dict
    )


class AssetForm(BaseModel):
    """The fields of `POST /api/v2/assets`, beside the file."""

    model_config = ConfigDict(extra="forbid")

    content_type: Annotated[str, Field(pattern=r"^[!-~]+/[ -~]+$", max_length=255)]
    file_path: FilePath
    expected_hash: Hash | None = None
    tags: list[str] = Field(default_factory=list)
    expires_in: Retention | None = None


class HashRequest(BaseModel):
    """The body of `POST /api/v2/assets/from-hash`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    hash: Hash
    file_path: FilePath | None = None
    tags: list[str] = Field(default_factory=list)
    expires_in: Retention | None = None


def read_fields(fields: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The fields of a form as a document: `tags` is a list, of others the last counts."""
    return {name: list(values) if name == "tags" else values[-1] for name, values in fields.items()}
