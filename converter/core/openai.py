"""OpenAI's Images API as templates: which ones are models, what its parameters fill in, and its words for faults.

Leaves reading requests and sending answers to the door. Invariant: what a model is asked for and has no input for is
refused by the parameter's name; every fault has an envelope.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from converter.core.offers import Offer
from converter.core.template import MEDIA, Template
from converter.core.workflow import clip
from converter.errors import Fault, InvalidRequest, NotFound, RateLimited, Unauthorized

MULTIPLE = 8
"""Both sides of a picture are multiples of it, as latents have it: others would be cut without a word."""

_FACTORS: Mapping[str, float] = {"low": 0.5, "medium": 1, "high": 2, "auto": 1, "standard": 1, "hd": 2}
"""How many of a template's steps a quality takes."""

_EFFECTIVE: Mapping[str, str] = {"auto": "medium", "standard": "medium", "hd": "high"}
"""The words of today for those that leave the choice or are of older models."""

_PARAMETERS: Mapping[str, str] = {"width": "size", "height": "size", "steps": "quality"}
"""The parameter that an input of a template is filled from, where it has another name."""


# Models ------------------------------------------------------------------------------------------------------------


def find_runnable(offers: Iterable[Offer], *, surely: bool = False) -> list[Template]:
    """The templates that the engine has all for, or may have; `surely` leaves out those of which that is not known."""
    return [offer.template for offer in offers if offer.available or (offer.available is None and not surely)]


def find_drawers(templates: Iterable[Template]) -> dict[str, Template]:
    """The templates that make pictures of a text and need nothing else, by name; `txt2img` first."""
    found = {template.name: template for template in templates if _takes(template, {"prompt"}, frozenset())}
    return dict(sorted(found.items(), key=lambda item: (item[0] != "txt2img", item[0])))


def find_editors(templates: Iterable[Template]) -> dict[str, Template]:
    """The templates that make pictures of a text and a picture, perhaps with a mask, by name; `img2img` first."""
    known = {"prompt", "image", "mask"}
    found = {
        template.name: template
        for template in templates
        if _takes(template, known, known - {"prompt"}) and "image" in _types(template)
    }
    return dict(sorted(found.items(), key=lambda item: (item[0] != "img2img", item[0])))


def _types(template: Template) -> dict[str, str]:
    return {hole.name: hole.type for hole in template.inputs}


def _takes(template: Template, given: Iterable[str], media: Iterable[str]) -> bool:
    """Whether it has a prompt, no media but these, and can do with what is given."""
    required = {hole.name for hole in template.inputs if hole.required}
    files = {hole.name: hole.type for hole in template.inputs if hole.type in MEDIA}
    fits = files.keys() <= set(media) and set(files.values()) <= {"image"}
    return fits and _types(template).get("prompt") == "string" and required <= set(given)


def choose(models: Mapping[str, Template], name: str | None, *, mask: bool = False) -> Template:
    """The model of this name, or without one the first that does with a mask, or without one. Raises NotFound."""
    if name is None:
        fitting = (model for model in models.values() if _does(model, mask=mask))
        found = next(fitting, None) or next(iter(models.values()), None)
    else:
        found = models.get(name)
    if found is None:
        asked = "no model" if name is None else f"no model {clip(name, 64)}"
        raise NotFound(f"there is {asked} here that does this; there is {', '.join(models) or 'none'}", param="model")
    return found


def _does(model: Template, *, mask: bool) -> bool:
    needed = {hole.name: hole.required for hole in model.inputs if hole.name == "mask"}
    return "mask" in needed if mask else not needed.get("mask", False)


# Parameters --------------------------------------------------------------------------------------------------------


def compose(
    template: Template, prompt: str, size: str, quality: str, media: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """The inputs of the template. `size`: `auto` or `WIDTHxHEIGHT`; `media`: references to files, by input.

    Raises InvalidRequest, which names every parameter that the template has no input for.
    """
    inputs: dict[str, Any] = {"prompt": prompt, **media}
    holes = {hole.name: hole for hole in template.inputs}
    problems = [_problem(name, f"the model {template.name} takes none") for name in media if name not in holes]
    if size != "auto":
        inputs |= dict(zip(("width", "height"), map(int, size.split("x")), strict=True))
        if not {"width", "height"} <= holes.keys():
            problems.append(_problem("size", f"the model {template.name} chooses its own, which is auto"))
    if _FACTORS[quality] != 1:
        steps = holes.get("steps")
        if steps is None or steps.default is None:
            problems.append(_problem("quality", f"the model {template.name} has one, which is auto"))
        else:
            least, most = steps.minimum or 1, steps.maximum or float("inf")
            inputs["steps"] = int(min(max(steps.default * _FACTORS[quality], least), most))
    if problems:
        raise InvalidRequest(problems)
    return inputs


def is_size(text: str) -> bool:
    """Whether it is a size that can be asked for."""
    found = re.fullmatch(r"auto|([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text, re.ASCII)
    return found is not None and all(int(side) % MULTIPLE == 0 for side in found.groups() if side)


def name_parameters(fault: InvalidRequest) -> InvalidRequest:
    """What is wrong with inputs of a template, said of the parameters that they were filled from."""
    return InvalidRequest([_rename(problem["pointer"], problem["detail"]) for problem in fault.problems])


def _rename(pointer: str, detail: str) -> dict[str, str]:
    name = pointer.removeprefix("/inputs/")
    if name in _PARAMETERS:
        return _problem(_PARAMETERS[name], f"{name} {detail}")
    return _problem(name, detail)


def _problem(name: str, detail: str) -> dict[str, str]:
    return {"pointer": f"/{name}", "detail": detail}


def describe(quality: str, output_format: str, used: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer says of its pictures. `used`: the inputs that the template was filled with."""
    sized = {"width", "height"} <= used.keys()
    return {
        "background": "opaque",
        "output_format": output_format,
        "quality": _EFFECTIVE.get(quality, quality),
        "size": f"{used['width']}x{used['height']}" if sized else "auto",
    }


def is_due(shown: int, wanted: int, step: int | None, steps: int | None) -> bool:
    """Whether to show a partial image after `step` of `steps`: they are spread evenly, none at the very end."""
    if shown >= wanted:
        return False
    return step is None or steps is None or step * (wanted + 1) >= steps * (shown + 1)


# Faults ------------------------------------------------------------------------------------------------------------


def envelope(fault: Fault) -> dict[str, Any]:
    """A fault as OpenAI's clients read it."""
    param = fault.extensions.get("param")
    if isinstance(fault, InvalidRequest) and fault.problems:
        param = fault.problems[0]["pointer"].strip("/").partition("/")[0] or None
    return {"error": {"message": fault.detail, "type": _type(fault), "param": param, "code": _code(fault, param)}}


def _type(fault: Fault) -> str:
    if fault.status == 429:
        return "rate_limit_error"
    return "server_error" if fault.status >= 500 else "invalid_request_error"


def _code(fault: Fault, param: object) -> str:
    """OpenAI's own code where its clients know one for this, else that of the fault."""
    match fault:
        case Unauthorized():
            return "invalid_api_key"
        case RateLimited():
            return "rate_limit_exceeded"
        case NotFound() if param == "model":
            return "model_not_found"
        case _:
            return fault.code
