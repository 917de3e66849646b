"""The OpenAPI document against the service itself: what it says is what is there, and what is there it says."""

import base64
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData, web
from openapi_spec_validator import validate

from converter import entrance
from converter.api.openapi import OpenApi
from converter.api.operations import SAMPLE_IMAGE
from converter.api.server import make_app
from tests.converter.api.document import Document, read_events
from tests.converter.api.templates import copy_templates
from tests.converter.faults.graphs import passed_through, picture, text, two_pictures
from tests.converter.faults.replica import Caller, Reply
from tests.converter.faults.replica import converter as running
from tests.fakes.engine import FakeEngine
from tests.fakes.faults import Faults

CONTRACT = {
    400: {"invalid_request"},
    401: {"unauthorized"},
    403: {"forbidden"},
    404: {"not_found"},
    405: {"method_not_allowed"},
    406: {"not_acceptable"},
    408: {"request_timeout"},
    409: {"canceled", "id_in_use"},
    410: {"expired"},
    413: {"too_large"},
    415: {"unsupported_media_type"},
    416: {"range_not_satisfiable"},
    422: {"invalid_workflow", "invalid_input", "execution_failed", "idempotency_mismatch"},
    429: {"queue_full", "shed", "deadline_unmeetable", "rate_limited"},
    500: {"internal"},
    502: {"engine_failed", "delivery_failed"},
    503: {"starting", "draining", "engine_down"},
    504: {"deadline_exceeded"},
    507: {"out_of_memory"},
}
"""Every code of the public contract, by status."""

ANYWHERE = {"unauthorized", "method_not_allowed", "rate_limited", "internal"}
"""Codes that belong to no route, or to those of a guarded service."""


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    return copy_templates(tmp_path)


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
async def caller(engine: FakeEngine, templates: Path) -> AsyncIterator[Caller]:
    async with running(engine.url, workflows_dir=templates, shipped_workflows=False) as caller:
        yield caller


@pytest.fixture
async def document(caller: Caller) -> Document:
    return Document((await caller.get("/openapi.json")).document)


def examples(document: Document) -> Iterable[tuple[str, str, Any]]:
    """Path, name and body of every example of a request."""
    for method, path, operation in document.operations():
        media = operation.get("requestBody", {"content": {}})["content"].get("application/json", {})
        for name, example in media.get("examples", {}).items():
            assert method == "POST"
            yield path, name, example["value"]


# The document itself -----------------------------------------------------------------------------------------------


async def test_it_is_valid(document: Document) -> None:
    validate(document.document)
    assert document.document["openapi"].startswith("3.1.")


async def test_it_has_the_routes_that_are_registered_and_no_others(
    engine: FakeEngine, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: set[tuple[str, str]] = set()

    def note(routes: Iterable[web.RouteDef], *rest: Any) -> web.Application:
        listed = list(routes)
        registered.update((route.method, route.path) for route in listed)
        return make_app(listed, *rest)

    monkeypatch.setattr(entrance, "make_app", note)
    async with running(
        engine.url, workflows_dir=templates, shipped_workflows=False, dialects="none", page=False
    ) as caller:
        document = Document((await caller.get("/openapi.json")).document)
    described = {(method, path) for method, path, _ in document.operations()}
    typed = {(method, f"/v1/workflows/{name}") for method in ("GET", "POST") for name in ("txt2img", "img2img")}
    assert described == registered | typed


def test_a_route_without_a_description_is_found_at_the_start() -> None:
    async def hidden(request: web.Request) -> web.Response:
        raise AssertionError(request)

    with pytest.raises(KeyError, match="/hidden"):
        OpenApi([web.get("/hidden", hidden)], dict, "", guarded=False)


async def test_it_has_every_fault(document: Document) -> None:
    problem = document.document["components"]["schemas"]["Problem"]["properties"]
    codes = set().union(*CONTRACT.values())
    assert set(problem["code"]["enum"]) == codes
    assert set(problem["status"]["enum"]) == set(CONTRACT)
    assert all(f"`{code}`" in problem["code"]["description"] for code in codes)
    told: dict[int, set[str]] = {}
    for _, _, operation in document.operations():
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/Fault"}
        for status, reference in operation["responses"].items():
            media = document.resolve(reference).get("content", {}).get("application/problem+json")
            if media is not None and status != "default":
                narrowed = media["schema"]["allOf"][1]["properties"]
                assert narrowed["status"]["const"] == int(status)
                told.setdefault(int(status), set()).update(narrowed["code"]["enum"])
    expected = {status: codes - ANYWHERE for status, codes in CONTRACT.items()}
    assert told == {status: codes for status, codes in expected.items() if codes}


async def test_it_has_a_meaning_for_every_field_of_a_request(document: Document) -> None:
    schemas = document.document["components"]["schemas"]
    for name in ("RunRequest", "TemplateRequest", "Outputs", "Storage"):
        assert all(field["description"] for field in schemas[name]["properties"].values())


async def test_a_copy_that_is_up_to_date_is_not_sent_again(caller: Caller, document: Document) -> None:
    first = await caller.get("/openapi.json")
    again = await caller.get("/openapi.json", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    document.judge("GET", "/openapi.json", again)
    other = await caller.get("/openapi.json", If_None_Match='"other"')
    assert (other.status, other.body) == (200, first.body)


async def test_a_template_is_shown_where_it_is_run(document: Document) -> None:
    """A path without braces counts before one with them (OpenAPI 3.1 section 4.8.8.1), so it must have its methods."""
    generic = document.document["paths"]["/v1/workflows/{name}"].keys()
    for name in ("txt2img", "img2img"):
        assert document.document["paths"][f"/v1/workflows/{name}"].keys() == generic


async def test_links_are_to_the_public_address(engine: FakeEngine) -> None:
    async with running(engine.url, public_url="https://pictures.example/a") as caller:
        served = (await caller.get("/openapi.json")).document
    assert served["servers"] == [{"url": "https://pictures.example/a"}]


# Its examples, and what is answered --------------------------------------------------------------------------------


async def test_every_example_runs(caller: Caller, document: Document) -> None:
    ran = set()
    for path, name, body in examples(document):
        reply = await caller.post(path, body)
        assert reply.status == 200, (path, name, reply.body)
        document.judge("POST", path, reply)
        ran.add(path)
    assert ran == {"/v1/run", "/v1/workflows/txt2img", "/v1/workflows/img2img"}


async def test_examples_are_what_the_schemas_ask_for(document: Document) -> None:
    for path, name, body in examples(document):
        content = document.document["paths"][path]["post"]["requestBody"]["content"]
        assert not document.problems(content["application/json"]["schema"], body), (path, name)


async def test_every_kind_of_answer_is_described(caller: Caller, document: Document) -> None:
    path, _, body = next(iter(examples(document)))
    served = {}
    for media in document.document["paths"][path]["post"]["responses"]["200"]["content"]:
        reply = await caller.post(path, body, Accept=media)
        document.judge("POST", path, reply)
        served[media] = reply.status, reply.headers["Content-Type"].split(";")[0]
    assert served == {
        "application/json": (200, "application/json"),
        "image/*": (200, "image/png"),
        "video/*": (406, "application/problem+json"),
        "audio/*": (406, "application/problem+json"),
        "application/octet-stream": (200, "application/octet-stream"),
        "multipart/mixed": (200, "multipart/mixed"),
        "application/zip": (200, "application/zip"),
        "text/event-stream": (200, "text/event-stream"),
    }


async def test_no_header_is_sent_by_who_tries_the_api_and_enters_none(document: Document) -> None:
    headers = [each for each in document.document["components"]["parameters"].values() if each["in"] == "header"]
    assert headers
    for header in headers:  # what is an example or a default in a document, its page fills in and sends
        assert not {"example", "examples", "default"} & {*header, *header["schema"]}


async def test_what_goes_on_without_its_caller_can_be_followed(caller: Caller, document: Document) -> None:
    path, _, body = next(iter(examples(document)))
    for preference in ("respond-async", "wait=10"):
        reply = await caller.post(path, body, Prefer=preference)
        document.judge("POST", path, reply)
        assert reply.status == (202 if preference == "respond-async" else 200)
        if reply.status == 202:
            await _follow_links(caller, document, path, reply)


async def _follow_links(caller: Caller, document: Document, path: str, accepted: Reply) -> None:
    links = document.document["paths"][path]["post"]["responses"]["202"]["links"]
    assert list(links) == ["show_job", "watch_job", "cancel_job"]
    for link in links.values():
        assert link["parameters"] == {"id": "$response.body#/id"}
        method, template = document.path_of(link["operationId"])
        reply = await caller.ask(method, template.format(id=accepted.document["id"]))
        assert reply.status == 200
        document.judge(method, template, reply)
    await caller.until_job(accepted.document["id"], "succeeded")
    for media in ("application/json", "image/*", "text/event-stream"):
        reply = await caller.get(accepted.headers["Location"], Accept=media)
        assert reply.status == 200
        document.judge("GET", "/v1/jobs/{id}", reply)
    *_, last = read_events(reply.body.decode())
    for path in ("/v1/jobs/{id}", "/v1/jobs/{id}/events"):
        place = path.format(id=accepted.document["id"])
        reply = await caller.get(place, Accept="text/event-stream", Last_Event_ID=last["id"])
        assert reply.status == 204
        document.judge("GET", path, reply)


async def test_jobs_are_described_in_every_state(engine: FakeEngine, caller: Caller, document: Document) -> None:
    engine.hold()
    first = (await caller.run(picture(1), {"Prefer": "respond-async"})).document
    await engine.until_held()
    second = (await caller.run(passed_through("TestRaise", kind="ValueError"), {"Prefer": "respond-async"})).document
    seen = {}
    for job in (first, second):
        reply = await caller.get(f"/v1/jobs/{job['id']}")
        document.judge("GET", "/v1/jobs/{id}", reply)
        seen[reply.document["status"]] = reply.document
    assert seen["running"].keys() >= {"queue", "progress"}
    canceled = await caller.cancel(first["id"])
    document.judge("POST", "/v1/jobs/{id}/cancel", canceled)
    assert canceled.document["error"]["code"] == "canceled"
    engine.release()
    failed = await caller.until_job(second["id"], "failed")
    document.check(failed, "Job")
    assert failed["error"]["code"] == "execution_failed"


async def test_every_event_is_described(engine: FakeEngine, caller: Caller, document: Document) -> None:
    seen = set()
    for workflow in (
        passed_through("TestPreview", steps=3),
        text("words"),
        passed_through("TestRaise", kind="ValueError"),
    ):
        async with caller.events(workflow) as stream:
            await stream.last()
        for event in stream.heard:
            document.check({"id": str(event.id), "event": event.name, "data": json.dumps(event.data)}, "Event")
            seen.add(event.name)
        assert all("data" not in output for output in stream.all("output"))
    async with caller.events(picture(7)) as stream:
        engine.hold()
        await engine.until_held()
        await engine.crash()
        engine.release()
        await engine.restart()
        restarted = await stream.until("status", state="restarted")
        document.check(restarted.data, "Status")
        await stream.last()
    assert seen == {"status", "progress", "preview", "output", "result", "error"}


async def test_a_picture_that_is_not_converted_says_so(caller: Caller, document: Document) -> None:
    graph = two_pictures(0xFF0000, 0x0000FF)
    graph["4"] = {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["3", 0]}}
    options = {"filename_prefix": "a", "fps": 6.0, "lossless": True, "quality": 80, "method": "default"}
    graph["2"] = {"class_type": "SaveAnimatedWEBP", "inputs": {"images": ["4", 0], **options}}
    reply = await caller.run(graph, outputs={"format": "jpeg"})
    assert reply.document["outputs"][0]["warning"]
    document.judge("POST", "/v1/run", reply)


async def test_the_parts_of_a_form_are_as_described(caller: Caller, document: Document) -> None:
    graph = picture(1)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": {"part": "photo"}}}
    form = FormData()
    form.add_field("request", json.dumps({"workflow": graph}), content_type="application/json")
    photo = base64.b64decode(SAMPLE_IMAGE.partition(",")[2])
    form.add_field("photo", photo, filename="photo.png", content_type="image/png")
    reply = await caller.ask("POST", "/v1/run", data=form)
    assert reply.status == 200
    document.judge("POST", "/v1/run", reply)


async def test_templates_and_probes_are_as_described(caller: Caller, document: Document) -> None:
    names = document.document["components"]["parameters"]["name"]["schema"]["enum"]
    for method, path, operation in document.operations():
        if method == "GET" and operation["tags"] not in (["jobs"], ["outputs"]):
            for name in names if "{name}" in path else [""]:
                reply = await caller.get(path.format(name=name))
                assert reply.status == 200
                document.judge(method, path, reply)
                head = await caller.ask("HEAD", path.format(name=name))
                assert (head.status, head.body) == (200, b"")


# Faults ------------------------------------------------------------------------------------------------------------

BROKEN: dict[str, Any] = {
    "an unknown field": {"workflow": picture(1), "steps": 3},
    "no workflow": {"timeout": 3},
    "a timeout of text": {"workflow": picture(1), "timeout": "3"},
    "a timeout of nothing": {"workflow": picture(1), "timeout": 0},
    "an id with a slash": {"workflow": picture(1), "id": "a/b"},
    "an unknown format": {"workflow": picture(1), "outputs": {"format": "tiff"}},
    "a quality above all": {"workflow": picture(1), "outputs": {"quality": 101}},
    "no nodes": {"workflow": picture(1), "outputs": {"nodes": []}},
    "a node of text": {"workflow": {"1": "EmptyImage"}},
    "a node without inputs": {"workflow": {"1": {"class_type": "EmptyImage"}}},
    "an empty workflow": {"workflow": {}},
    "a list": [],
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
async def test_what_the_schema_refuses_the_service_refuses(body: Any, caller: Caller, document: Document) -> None:
    shape = {"$ref": "#/components/schemas/RunRequest"}
    assert document.problems(shape, body)
    reply = await caller.post("/v1/run", body)
    assert reply.status in (400, 422)
    document.judge("POST", "/v1/run", reply)


WRONG_INPUTS: dict[str, Any] = {
    "nothing": {},
    "an unknown input": {"prompt": "a", "size": 1},
    "a wrong type": {"prompt": 1},
    "too many steps": {"prompt": "a", "steps": 201},
    "a size between the steps": {"prompt": "a", "width": 131},
    "no such sampler": {"prompt": "a", "sampler": "magic"},
}


@pytest.mark.parametrize("inputs", WRONG_INPUTS.values(), ids=WRONG_INPUTS.keys())
async def test_inputs_are_judged_alike(inputs: Any, caller: Caller, document: Document) -> None:
    assert document.problems({"$ref": "#/components/schemas/TemplateRequest.txt2img"}, {"inputs": inputs})
    reply = await caller.post("/v1/workflows/txt2img", {"inputs": inputs})
    assert reply.code == "invalid_request"
    document.judge("POST", "/v1/workflows/txt2img", reply)


async def test_faults_of_workflows_are_as_described(engine: FakeEngine, caller: Caller, document: Document) -> None:
    unknown, missing = picture(1), picture(1)
    unknown["2"]["class_type"] = "NoSuchNode"
    del missing["1"]["inputs"]["width"]
    broken = {"class_type": "LoadImage", "inputs": {"image": "data:image/png;base64,AAAA"}}
    bodies = {
        "invalid_workflow": [{"workflow": unknown}, {"workflow": missing}, {"workflow": {"nodes": [], "links": []}}],
        "invalid_input": [
            {"workflow": picture(1) | {"1": broken}},
            {"workflow": picture(1) | {"1": broken, "7": broken}},
        ],
        "execution_failed": [{"workflow": passed_through("TestRaise", kind="ValueError")}],
        "out_of_memory": [{"workflow": passed_through("TestRaise", kind="OutOfMemoryError")}],
    }
    for code, requests in bodies.items():
        for body in requests:
            reply = await caller.post("/v1/run", body)
            assert reply.code == code, reply.body
            document.judge("POST", "/v1/run", reply)
    engine.hold()
    late = await caller.run(picture(2), timeout=0.3)
    engine.release()
    assert late.code == "deadline_exceeded"
    document.judge("POST", "/v1/run", late)


async def test_faults_of_requests_are_as_described(caller: Caller, document: Document) -> None:
    two = two_pictures(1, 2)
    named = {"workflow": picture(1), "id": "named"}
    assert (await caller.post("/v1/run", named, Idempotency_Key="a")).status == 200
    replies = {
        "idempotency_mismatch": await caller.post("/v1/run", {"workflow": picture(1)}, Idempotency_Key="a"),
        "invalid_request": await caller.ask("POST", "/v1/run", {"Content-Type": "application/json"}, data=b"{"),
        "unsupported_media_type": await caller.ask("POST", "/v1/run", {"Content-Type": "text/xml"}, data=b"<a/>"),
        "not_acceptable": await caller.run(two, {"Accept": "image/png"}),
        "id_in_use": await caller.post("/v1/run", named),
        "method_not_allowed": await caller.ask("DELETE", "/v1/run"),
    }
    for code, reply in replies.items():
        assert reply.code == code
        document.judge("POST", "/v1/run", reply)
    for operation_id in ("show_job", "watch_job", "cancel_job", "show_template"):
        method, path = document.path_of(operation_id)
        reply = await caller.ask(method, path.format(id="nobody", name="nothing"))
        assert reply.code == "not_found"
        document.judge(method, path, reply)


async def test_replays_are_as_described(caller: Caller, document: Document) -> None:
    failing = passed_through("TestRaise", kind="ValueError")
    requests = {"done": (picture(1), ""), "later": (picture(2), "respond-async"), "failed": (failing, "")}
    for key, (graph, prefer) in requests.items():
        for replayed in (None, "true"):
            reply = await caller.run(graph, {"Idempotency-Key": key, "Prefer": prefer})
            document.judge("POST", "/v1/run", reply)
            assert reply.headers.get("Idempotency-Replayed") == replayed
            await caller.until_empty()


async def test_a_result_that_does_not_fit_is_named_where_it_is(caller: Caller, document: Document) -> None:
    reply = await caller.run(picture(1, batch=2), {"Accept": "image/png"})
    assert reply.code == "not_acceptable"
    document.judge("POST", "/v1/run", reply)
    document.judge("GET", "/v1/jobs/{id}", await caller.get(reply.headers["Location"]))


async def test_links_are_as_described(caller: Caller, document: Document) -> None:
    reply = await caller.run(picture(1), outputs={"delivery": "url"})
    document.judge("POST", "/v1/run", reply)
    url = reply.document["outputs"][0]["url"]
    for asked, status in (("", 200), ("bytes=0-7", 206), ("bytes=9999-", 416)):
        reply = await caller.get(url, **({"Range": asked} if asked else {}))
        assert reply.status == status
        document.judge("GET", "/v1/outputs/{reference}", reply)


async def test_refusals_are_as_described(engine: FakeEngine) -> None:
    async with running(engine.url, capacity=1, max_body=10_000, keep_bytes=1) as caller:
        document = Document((await caller.get("/openapi.json")).document)
        engine.hold()
        task = caller.start(picture(1), id="first")
        await engine.until_held()
        replies = {"queue_full": await caller.run(picture(2))}
        document.judge("GET", "/readyz", await caller.get("/readyz"))
        await caller.cancel("first")
        replies["canceled"] = await task
        engine.release()
        await caller.until_empty()
        replies["too_large"] = await caller.run(picture(1, prefix="x" * 20_000))
        for code, reply in replies.items():
            assert reply.code == code
            document.judge("POST", "/v1/run", reply)
        assert (await caller.run(text("more than may be kept"), id="second")).status == 200
        await caller.until_empty()
        expired = await caller.get("/v1/jobs/second")
        assert expired.code == "expired"
        document.judge("GET", "/v1/jobs/{id}", expired)


async def test_a_replica_without_an_engine_is_as_described() -> None:
    async with FakeEngine(faults=Faults(refuse_connections=True)) as engine, running(engine.url, wait=False) as caller:
        document = Document((await caller.get("/openapi.json")).document)
        reply = await caller.run(picture(1))
        assert reply.code in ("starting", "engine_down")
        document.judge("POST", "/v1/run", reply)
        for path in ("/readyz", "/startupz", "/v2/health/ready"):
            probe = await caller.get(path)
            assert probe.status == 503
            document.judge("GET", path, probe)
