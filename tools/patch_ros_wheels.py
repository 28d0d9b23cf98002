"""Replace the builder's Python paths in the CMake files of the ROS wheels by this interpreter's.

The wheels export the include and site-packages folders of the machine that built them; CMake
refuses folders that do not exist. Run with the virtual environment's Python; repeating is harmless.
"""

import re
import sys
import sysconfig
from pathlib import Path

BUILDER = rb"/opt/python/cp3\d+-cp3\d+"
REPLACEMENTS = {
    re.compile(BUILDER + rb"/include/python3\.\d+"): sysconfig.get_path("include"),
    re.compile(BUILDER + rb"/lib/python3\.\d+/site-packages"): sysconfig.get_path("purelib"),
}


def patch(path: Path) -> bool:
    """Rewrite one file; return whether it had one of the builder's paths."""
    content = changed = path.read_bytes()
    for pattern, folder in REPLACEMENTS.items():
        changed = pattern.sub(folder.encode().replace(b"\\", rb"\\"), changed)
    if changed != content:
        path.unlink()  # a hard link into a shared package cache must not be written through
        path.write_bytes(changed)
    return changed != content


def main() -> None:
    files = (Path(sys.prefix) / "share").rglob("*.cmake")
    print(f"patched {sum(patch(path) for path in files)} CMake files of the ROS wheels")


if __name__ == "__main__":
    main()
