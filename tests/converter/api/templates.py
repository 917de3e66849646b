"""The templates that ship, on a checkpoint that the scripted engine has."""

from pathlib import Path

from converter.template_files import SHIPPED


def copy_templates(folder: Path) -> Path:
    """Write them into the folder; the folder."""
    for path in SHIPPED.glob("???2img.*"):
        (folder / path.name).write_text(path.read_text().replace('"demo"', '"sd15-tiny.safetensors"'))
    return folder
