"""Let open3d, which reads the files of clouds and meshes, be loaded where no libusb is installed.

Its wheel links to the system's libusb, for cameras that we do not use. Where there is none, that
of libusb-package takes its place. Run with the virtual environment's Python; repeating is harmless.
"""

import ctypes
from importlib.util import find_spec
from pathlib import Path

NAME = "libusb-1.0.so.0"


def main() -> None:
    open3d, libusb = find_spec("open3d"), find_spec("libusb_package")
    if open3d is None or open3d.origin is None or libusb is None or libusb.origin is None:
        return
    link = Path(open3d.origin).with_name(NAME)
    try:
        ctypes.CDLL(NAME)
    except OSError:
        if not link.exists():
            link.symlink_to(Path(libusb.origin).with_name("libusb-1.0.so"))


if __name__ == "__main__":
    main()
