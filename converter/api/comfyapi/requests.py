"""The documents of requests: their fields, types and limits.

Leaves reading them to `bodies`. Invariant: an unknown field is an error, so that what is not there is refused by name.
"""

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
