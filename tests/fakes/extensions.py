"""Node classes of extensions, as far as what is uploaded for them is concerned: VideoHelperSuite's loader of a folder,
and a loader that nobody knows but by what it declares.
"""

from typing import Any

from PIL import Image

from tests.fakes.declarations import Done, NodeClass, Stage
from tests.fakes.folders import Folders


async def load_folder(inputs: dict[str, Any], stage: Stage) -> Done:
    """The pictures of a folder, in the order of their names."""
    pictures = []
    for path in sorted(stage.folders.annotated(inputs["directory"]).iterdir()):
        with Image.open(path) as picture:
            pictures.append(picture.convert("RGB"))
    return Done((pictures, None, len(pictures)))


def folder_missing(inputs: dict[str, Any], folders: Folders) -> dict[str, str]:
    name = inputs["directory"]
    found = isinstance(name, str) and folders.annotated(name).is_dir()
    return {} if found else {"directory": f"Directory '{name}' cannot be found."}


async def load_clip(inputs: dict[str, Any], stage: Stage) -> Done:
    with Image.open(stage.folders.annotated(inputs["clip"])) as picture:
        return Done(([picture.convert("RGB")],))


EXTENSIONS: dict[str, NodeClass] = {
    "VHS_LoadImages": NodeClass(
        load_folder,
        {"directory": ([], {})},
        returns=("IMAGE", "MASK", "INT"),
        reject=folder_missing,
        checks=("directory",),
    ),
    "CustomLoader": NodeClass(
        load_clip,
        {"clip": ([], {"video_upload": True})},
        returns=("IMAGE",),
        reject=lambda inputs, folders: {},
        checks=("clip",),
    ),
}
