"""Make open3d, which reads clouds and meshes, loadable without an installed libusb.

Its wheel links to the system's libusb, for cameras that we do not use. If there is none, the one
of libusb-package replaces it. Run with the virtual environment's Python; repeating is harmless.
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
