"""The documents of requests for work: their fields, types and limits.

Leaves reading them to `bodies`, and what they mean to `native`. Invariant: an unknown field is an error.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from converter.core.order import Format, Metadata
from converter.core.workflow import MAX_DEPTH, UI_EXPORT, is_deep

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _take_whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_take_whole)
"""For integers: 64.0 is one (JSON Schema 2020-12 section 6.1.1). Comes after the limits, which pydantic would else not
put into the schema.
"""


def _check_depth(value: dict[str, Any]) -> dict[str, Any]:
    if is_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    return value


ExtraData = Annotated[dict[str, Any], AfterValidator(_check_depth)]
"""What is handed to the engine beside a workflow."""


def lacking(instead: str) -> BeforeValidator:
    """For a field of somebody else's API that is refused by name; `instead` says what there is. None is no value."""

    def refuse(value: object) -> None:
        if value is not None:
            raise ValueError(f"is not supported here: {instead}")

    return BeforeValidator(refuse)


class Storage(BaseModel):
    """`outputs.delivery` to a destination in object storage."""

    model_config = ConfigDict(extra="forbid", strict=True)

    storage: Annotated[str, Field(min_length=1, max_length=64)]


Url = Annotated[str, Field(min_length=1, max_length=8192)]

HEADER = r"^(?i:content-type|content-disposition|cache-control|x-(amz|goog|ms)-[a-z0-9-]+)$"
"""Of a PUT: what object storage lets, or makes, a caller say beside the bytes."""


class Puts(BaseModel):
    """`outputs.delivery` to URLs of the caller's, such as presigned ones: one for each output that is no text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    put: Annotated[
        Annotated[Url, Tag("(one)")] | Annotated[list[Url], Field(min_length=1, max_length=1000), Tag("(several)")],
        Discriminator(lambda value: "(several)" if isinstance(value, list) else "(one)"),
    ]
    headers: Annotated[
        dict[Annotated[str, Field(pattern=HEADER)], Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,1022}[!-~])?$")]],
        Field(max_length=16, json_schema_extra={"additionalProperties": False}),
    ] = {}


Named = Literal["inline", "raw", "multipart", "zip", "url"]


def _take_named(value: object) -> object:
    if value not in get_args(Named):
        names = ", ".join(f"'{name}'" for name in get_args(Named))
        raise ValueError(f'must be {names}, {{"storage": NAME}} or {{"put": URL}}')
    return value


def _tell_delivery(value: object) -> str:
    if isinstance(value, str):
        return "(name)"
    return "(put)" if isinstance(value, dict) and "put" in value else "(storage)"


Delivery = Annotated[
    Annotated[Named, BeforeValidator(_take_named), Tag("(name)")]
    | Annotated[Storage, Tag("(storage)")]
    | Annotated[Puts, Tag("(put)")],
    Discriminator(_tell_delivery),
]


class Outputs(BaseModel):
    """`outputs` of a request: which are answered, and how."""

    model_config = ConfigDict(extra="forbid", strict=True)

    nodes: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    format: Format | None = None
    quality: Annotated[int, Field(ge=1, le=100), WHOLE] | None = None
    metadata: Metadata = "keep"
    delivery: Delivery = "inline"


class Common(BaseModel):
    """The fields that every request for work has."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id | None = None
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31), WHOLE] = 0
    outputs: Outputs = Outputs()
    extra_data: ExtraData = Field(default_factory=dict)
    webhook: Annotated[str, Field(max_length=8192)] | None = None


class RunRequest(Common):
    """The body of `POST /v1/run`."""

    workflow: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _refuse_bare_workflow(cls, document: dict[str, Any]) -> dict[str, Any]:
        """A file that was exported and sent as it is: one sentence instead of one for each node."""
        if "workflow" not in document and document.keys() >= {"nodes", "links"}:
            raise ValueError(UI_EXPORT)
        nodes = (value for value in document.values() if isinstance(value, dict))
        if "workflow" not in document and any("class_type" in node for node in nodes):
            raise ValueError('this is a workflow itself: send it as {"workflow": ...}')
        return document


class TemplateRequest(Common):
    """The body of `POST /v1/workflows/NAME`."""

    inputs: dict[str, Any] = Field(default_factory=dict)
