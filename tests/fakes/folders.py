"""The fake engine's three folders, on disk so that a test can share them with the converter.

Names follow ComfyUI 0.3.64: counters of saved files, variables in a prefix, " [output]" tags, and upload names that
count up when other bytes have taken the name. Leaves pictures to `nodes` and HTTP to `routes`.
"""

import re
import shutil
import time
from pathlib import Path

TYPES = ("output", "input", "temp")


class Folders:
    """`root` holds `output`, `input` and `temp`; nothing outside is read or written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind in TYPES:
            (root / kind).mkdir(exist_ok=True)

    def clear_temp(self) -> None:
        """ComfyUI empties this folder at each start."""
        shutil.rmtree(self.root / "temp")
        (self.root / "temp").mkdir()

    def locate(self, name: str, *, kind: str = "output", subfolder: str = "") -> Path:
        """The path of a file that may not exist; raises PermissionError where it leaves the folder of its kind."""
        base = self.root / kind
        path = (base / subfolder / name).resolve()
        if not path.is_relative_to(base.resolve()):
            raise PermissionError(name)
        return path

    def annotated(self, name: str) -> Path:
        """The path of a name as LoadImage takes it: in `input`, or in the folder that a tag names."""
        plain, kind = untag(name, "input")
        return self.locate(plain, kind=kind)

    def next_names(
        self, prefix: str, count: int, size: tuple[int, int], kind: str, suffix: str = ".png"
    ) -> list[tuple[str, str]]:
        """`(file name, subfolder)` of `count` files to save under `prefix`; the subfolder is made.

        Raises ValueError (as ComfyUI does at run time) if the prefix leaves the folder.
        """
        moment = time.strftime("%Y %m %d %H %M %S").split()
        values = dict(zip(("year", "month", "day", "hour", "minute", "second"), moment, strict=True))
        values |= {"width": str(size[0]), "height": str(size[1])}
        for field, value in values.items():
            prefix = prefix.replace(f"%{field}%", value)
        subfolder, _, stem = prefix.rpartition("/")
        try:
            folder = self.locate(".", kind=kind, subfolder=subfolder)
        except PermissionError as error:
            raise ValueError("Saving image outside the output folder is not allowed.") from error
        folder.mkdir(parents=True, exist_ok=True)
        taken = [re.match(re.escape(stem) + r"_(\d+)", path.name) for path in folder.iterdir()]
        counter = 1 + max((int(match[1]) for match in taken if match), default=0)
        return [
            (f"{stem.replace('%batch_num%', str(index))}_{counter + index:05}_{suffix}", subfolder)
            for index in range(count)
        ]

    def store_upload(self, name: str, data: bytes, *, kind: str, subfolder: str, overwrite: bool) -> str:
        """Writes an upload and returns the name it got; the same bytes under the same name are kept."""
        path = self.locate(name, kind=kind, subfolder=subfolder)
        path.parent.mkdir(parents=True, exist_ok=True)
        number = 0
        while not overwrite and path.exists() and path.read_bytes() != data:
            number += 1
            path = path.with_name(f"{Path(name).stem} ({number}){Path(name).suffix}")
        path.write_bytes(data)
        return path.name


def untag(name: str, kind: str) -> tuple[str, str]:
    """`("a.png", "output")` for "a.png [output]"; the given kind where there is no tag."""
    for tag in TYPES:
        if name.endswith(f"[{tag}]"):
            return name[: -len(tag) - 3], tag
    return name, kind
