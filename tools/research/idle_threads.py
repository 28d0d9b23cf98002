"""CPU time that idle threads of libraries use, with passive waiting and by default."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from pixloc_ros.common.process import PASSIVE_WAITING

# Each defines `work`, which the library does in several threads.
LIBRARIES = {
    "torch": """
import torch
torch.set_num_threads(2)
layer, image = torch.nn.Conv2d(64, 64, 3).requires_grad_(False), torch.rand(1, 64, 96, 96)
work = lambda: layer(image)
""",
    "numpy": """
import numpy as np
matrix = np.random.rand(500, 500)
work = lambda: matrix @ matrix
""",
    "scipy": """
import numpy as np, scipy.linalg
matrix = np.random.rand(300, 300)
work = lambda: scipy.linalg.lu_factor(matrix)
""",
    "opencv": """
import cv2, numpy as np
cv2.setNumThreads(2)
image = np.random.randint(0, 255, (1200, 1600, 3), np.uint8)
work = lambda: cv2.GaussianBlur(image, (9, 9), 2)
""",
    "onnxruntime": """
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
weights = numpy_helper.from_array(np.random.rand(64, 64, 3, 3).astype("f"), "w")
nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
graph = helper.make_graph(nodes, "conv", ends[:1], ends[1:], [weights])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
{option}
kind = {"providers": ["CPUExecutionProvider"], "sess_options": options}
session = onnxruntime.InferenceSession(model.SerializeToString(), **kind)
image = np.random.rand(1, 64, 96, 96).astype("f")
work = lambda: session.run(None, {"x": image})
""",
    "pycolmap": """
import numpy as np, pycolmap
image, extractor = np.random.rand(240, 320).astype("f"), pycolmap.Sift()
work = lambda: extractor.extract(image)
""",
}
NO_SPINNING = 'options.add_session_config_entry("session.intra_op.allow_spinning", "0")'
MEASURE = """
import time
for _ in range(5):
    work()
working_s = pause_s = 0.0
for _ in range(COUNT):
    begin_s = time.process_time()
    work()
    middle_s = time.process_time()
    time.sleep(0.05)
    working_s += middle_s - begin_s
    pause_s += time.process_time() - middle_s
print(f"{1e3 * working_s / COUNT:.1f} ms, {1e3 * pause_s / COUNT:.1f} ms")
"""


def idle_threads(
    count: Annotated[int, typer.Option(min=1, help="pieces of work, each with a pause")] = 40,
) -> None:
    """Print the CPU time of a piece of work and of the pause of 50 ms after it, per library.

    CPU time, not wall time, so other programs on the machine hardly affect it.
    """
    for library in LIBRARIES:
        print(f"{library:12} default {_measured(library, count, {}):24}", end="")
        print(f" PASSIVE_WAITING {_measured(library, count, PASSIVE_WAITING)}")
    quiet = _measured("onnxruntime", count, PASSIVE_WAITING, NO_SPINNING)
    print(f"{'onnxruntime':12} with session.intra_op.allow_spinning = 0: {quiet}")


def _measured(library: str, count: int, waiting: dict[str, str], option: str = "") -> str:
    program = LIBRARIES[library].replace("{option}", option) + MEASURE.replace("COUNT", str(count))
    own = (*PASSIVE_WAITING, "OMP_NUM_THREADS")
    others = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [sys.executable, "-c", program], env=others | waiting, capture_output=True, text=True
    )
    return done.stdout.strip() or (done.stderr.strip().splitlines() or ["nothing"])[-1]
