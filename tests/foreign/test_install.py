"""The commands of docs/models.md on a fresh machine: an environment of its own, with the torch that is pinned."""

import re
import shlex
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, torch, onnx
from onnx import helper, numpy_helper, TensorProto
from danskin.foreign import check_model, open_model
w = torch.rand(3, 64)
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 1, 8, 8]), ("y", [1, 3]))]
nodes = [helper.make_node("Flatten", ["x"], ["a"]), helper.make_node("Gemm", ["a", "w"], ["y"], transB=1)]
graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(w.numpy(), "w")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net.onnx")
x = torch.rand(5, 1, 8, 8)
found = check_model(open_model("net.onnx", device=torch.device("cpu")), x)
assert found.differentiable and torch.allclose(found.model(x), x.flatten(1) @ w.t(), atol=1e-5), found.note
assert "torchvision" not in sys.modules
print(torch.__version__, found.note)
"""


def commands():
    """The command for ONNX as the table of the page gives it."""
    (line,) = re.findall(r"an ONNX network .*`(pip install [^`]+)` \|", (ROOT / "docs/models.md").read_text())
    return line


def test_the_page_names_what_the_extra_holds():
    extra = re.search(r"^onnx = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert {re.match(r"[\w-]+", part)[0] for part in re.findall(r'"([^"]+)"', extra)} == set(commands().split()[2:])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the page", "the extra"])
def test_onnx_installs_beside_the_pinned_torch(tmp_path, how):
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env/bin/python")

    def run(*words):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    pip = [python, "-m", "pip", "install", "--quiet"]
    if how == "the extra":
        run(*pip, "-c", str(ROOT / "constraints.txt"), f"{ROOT}[onnx]")
    else:
        run(*pip, "-c", str(ROOT / "constraints.txt"), str(ROOT))
        run(*pip, *shlex.split(commands())[2:])  # without constraints, as people do
    pinned = re.search(r"torch==([\d.]+)", (ROOT / "constraints.txt").read_text())[1]
    told = run(python, "-c", SCRIPT)
    assert told.split("+")[0].split()[0] == pinned and "translated to torch" in told
    listed = run(python, "-m", "pip", "list")
    assert "torchvision" not in listed
    run(python, "-m", "pip", "check")
