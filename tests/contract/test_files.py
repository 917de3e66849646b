"""Uploads and files: names, clashes, ranges, and what is not given out."""

from uuid import uuid4

import aiohttp
import pytest

from tests.contract.graphs import fresh_color, fresh_graph
from tests.fakes.pictures import color_of, encode, solid
from tests.fakes.talker import Talker, image_graph, labels


def picture(color: int) -> bytes:
    return encode(solid(color, 8, 8)[0])


async def images_of(talker: Talker, prompt_id: str, node: str = "2") -> list[dict[str, str]]:
    images: list[dict[str, str]] = (await talker.record(prompt_id))["outputs"][node]["images"]
    return images


async def test_same_bytes_keep_their_name_and_others_get_a_new_one(talker: Talker) -> None:
    stem = str(uuid4())
    answers = [await talker.upload(data, f"{stem}.png") for data in (picture(1), picture(1), picture(2), picture(2))]
    names = [answer["name"] for answer in answers]
    assert names == [f"{stem}.png", f"{stem}.png", f"{stem} (1).png", f"{stem} (1).png"]
    assert all((answer["subfolder"], answer["type"]) == ("", "input") for answer in answers)
    assert (await talker.upload(picture(2), f"{stem}.png", overwrite="true"))["name"] == f"{stem}.png"


async def test_an_upload_into_a_subfolder_is_loaded_from_there(talker: Talker) -> None:
    color, name = fresh_color(), f"{uuid4()}.png"
    answer = await talker.upload(picture(color), name, subfolder="contract/deep")
    assert (answer["name"], answer["subfolder"]) == (name, "contract/deep")
    graph = image_graph(0)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": f"contract/deep/{name}"}}
    prompt_id, _ = await talker.run(graph)
    [image] = await images_of(talker, prompt_id)
    status, data = await talker.view(image)
    assert (status, color_of(data)) == (200, color)


async def test_a_changed_upload_runs_again(talker: Talker) -> None:
    first, second, name = fresh_color(), fresh_color(), f"{uuid4()}.png"
    graph = image_graph(0)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    for color in (first, second):
        await talker.upload(picture(color), name, overwrite="true")
        prompt_id, heard = await talker.run(graph)
        assert labels(heard).count("executing") == 2
        [image] = await images_of(talker, prompt_id)
        assert color_of((await talker.view(image))[1]) == color


@pytest.mark.parametrize(
    ("part", "fields", "statuses"),
    [
        ("other", {}, {400}),
        ("image", {"subfolder": "../.."}, {400}),
        ("image", {"type": "bogus"}, {400, 500}),
    ],
)
async def test_bad_uploads_are_refused(talker: Talker, part: str, fields: dict[str, str], statuses: set[int]) -> None:
    form = aiohttp.FormData(fields)
    form.add_field(part, picture(1), filename="bad.png", content_type="image/png")
    async with talker.session.post(f"{talker.url}/upload/image", data=form) as answer:
        assert answer.status in statuses


async def test_an_upload_that_is_no_form_is_refused(talker: Talker) -> None:
    assert await talker.tell("/upload/image", {"x": 1}) == 400


async def test_a_batch_is_saved_in_order_under_counted_names(talker: Talker) -> None:
    prefix = f"contract/{uuid4()}"
    prompt_id, _ = await talker.run(fresh_graph(prefix=prefix, batch=3))
    images = await images_of(talker, prompt_id)
    stem = prefix.removeprefix("contract/")
    assert [image["filename"] for image in images] == [f"{stem}_{number:05}_.png" for number in (1, 2, 3)]
    assert {(image["subfolder"], image["type"]) for image in images} == {("contract", "output")}


async def test_previews_are_temporary_files(talker: Talker) -> None:
    color = fresh_color()
    prompt_id, _ = await talker.run(image_graph(color, save="PreviewImage"))
    [image] = await images_of(talker, prompt_id)
    assert image["type"] == "temp"
    status, data = await talker.view(image)
    assert (status, color_of(data)) == (200, color)


async def test_a_file_can_be_had_whole_in_part_and_by_its_head(talker: Talker) -> None:
    color = fresh_color()
    prompt_id, _ = await talker.run(image_graph(color))
    [image] = await images_of(talker, prompt_id)
    status, whole = await talker.view(image)
    assert (status, color_of(whole)) == (200, color)
    assert await talker.view(image, headers={"Range": "bytes=4-9"}) == (206, whole[4:10])
    query = {"filename": image["filename"], "subfolder": image["subfolder"], "type": image["type"]}
    async with talker.session.head(f"{talker.url}/view", params=query) as answer:
        assert answer.status == 200
        assert answer.content_length == len(whole)
        assert answer.content_type == "image/png"


async def test_a_file_can_be_recoded(talker: Talker) -> None:
    prompt_id, _ = await talker.run(fresh_graph())
    [image] = await images_of(talker, prompt_id)
    query = {"filename": image["filename"], "subfolder": image["subfolder"], "type": image["type"]}
    async with talker.session.get(f"{talker.url}/view", params={**query, "preview": "webp;80"}) as answer:
        assert (answer.status, answer.content_type) == (200, "image/webp")
        assert (await answer.read()).startswith(b"RIFF")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 404),
        ({"filename": "no-such-file.png"}, 404),
        ({"filename": "../x.png"}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "x.png", "subfolder": "../.."}, 403),
        ({"filename": "x.png", "type": "bogus"}, 400),
    ],
)
async def test_what_is_not_given_out(talker: Talker, query: dict[str, str], status: int) -> None:
    async with talker.session.get(f"{talker.url}/view", params=query) as answer:
        assert answer.status == status
        assert await answer.read() == b""


async def test_an_animation_is_one_file_that_is_told_to_move(talker: Talker) -> None:
    graph, stem = fresh_graph(batch=3), str(uuid4())
    settings = {"fps": 6.0, "lossless": True, "quality": 80, "method": "default"}
    graph["2"] = {
        "class_type": "SaveAnimatedWEBP",
        "inputs": {"images": ["1", 0], "filename_prefix": stem, **settings},
    }
    prompt_id, _ = await talker.run(graph)
    shown = (await talker.record(prompt_id))["outputs"]["2"]
    [image] = shown["images"]
    assert image == {"filename": f"{stem}_00001_.webp", "subfolder": "", "type": "output"}
    assert shown["animated"] == [True]
    status, data = await talker.view(image)
    assert (status, data[:4], data[8:12]) == (200, b"RIFF", b"WEBP")


async def test_a_latent_is_shown_as_such(talker: Talker) -> None:
    stem = str(uuid4())
    graph = {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": f"latents/{stem}"}},
    }
    prompt_id, _ = await talker.run(graph)
    shown = (await talker.record(prompt_id))["outputs"]["2"]
    [latent] = shown["latents"]
    assert latent == {"filename": f"{stem}_00001_.latent", "subfolder": "latents", "type": "output"}
    assert (await talker.view(latent))[0] == 200
