"""Compile the kernels for an NVIDIA architecture, without a GPU: registers, spills, wide loads.

Example, for an H200 and 128 channels: TRITON_INTERPRET=0 python tools/compile_kernels.py 90 128
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pixloc_ros.alignment.cuda import linearize_kernels, step_kernels
from pixloc_ros.alignment.cuda.schedule import BLOCK_POINTS, CHUNK_TILES, WARPS

INTEGERS = ["width", "height", "capacity", "tiles", "min_points"]
REALS = ["robust_scale", "cost_unit", "floor", "max_step_m", "max_step_rad", "stop_motion_px"]
TYPES = {
    **dict.fromkeys(INTEGERS, "i32"),
    **dict.fromkeys([*REALS, "merge_m2", "merge_chord2", "min_agreement_share"], "fp32"),
    **dict.fromkeys(("rows", "reference"), "*fp16"),
}
# Lens, rolling shutter, whether each point's numbers are written out
VARIANTS = ((0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (2, 0, 0), (2, 1, 1))
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def compile_kernel(kernel, architecture: int, warps: int, **constants: int) -> None:
    types = {name: TYPES.get(name, "*fp32") for name in kernel.arg_names}
    types["count"] = "i32" if kernel is step_kernels.best_distinct else "*i32"
    types |= dict.fromkeys(constants, "constexpr")
    # As at run time: torch aligns buffers to 16 bytes.
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if types[name].startswith("*")
    }
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    types = {name: types[name] for name in kernel.arg_names}
    source = ASTSource(kernel, types, values, aligned)
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    wide = len(re.findall(r"ld\.global[a-z0-9.:_]*v[24]", compiled.asm["ptx"]))
    print(f"{kernel.__name__} {constants}: {usage(compiled.asm['cubin'])}, {wide} wide loads")


def usage(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [CUOBJDUMP, "-res-usage", file.name]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", shown))
    return f"{counts['REG']} registers, {counts['STACK']} bytes of stack"


def main() -> None:
    architecture, *channels = (int(argument) for argument in sys.argv[1:])
    for C in channels or (128, 64, 32):
        # lens, rolling shutter, numbers of each point written out
        for lens, rolling, emit in (
            (0, 0, 0),
            (1, 0, 0),
            (1, 0, 1),
            (1, 1, 1),
            (2, 0, 0),
            (2, 1, 1),
        ):
            flags = {"LENS": lens, "ROLLING": bool(rolling), "EMIT": bool(emit)}
            constants = {"C": C, "BLOCK": BLOCK_POINTS, **flags}
            compile_kernel(linearize_kernels.linearize, architecture, WARPS, **constants)
    compile_kernel(step_kernels.step, architecture, 1, BLOCK=BLOCK_POINTS, CHUNK=CHUNK_TILES)
    compile_kernel(step_kernels.best_distinct, architecture, 1, LANES=64, KEEP=12)


if __name__ == "__main__":
    main()
