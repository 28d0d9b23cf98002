"""Container and CI files, which are not run here: what they name exists, and they can be read."""

import json
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yaml"


def test_what_the_image_copies_is_there() -> None:
    text = DOCKERFILE.read_text()
    copied = [line.split()[1] for line in text.splitlines() if line.startswith("COPY")]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert "docker/entrypoint.sh" in copied
    assert not re.search(r"pip install(?!.*--no-cache-dir)", text)


def test_the_entrypoint_is_a_script() -> None:
    script = ROOT / "docker" / "entrypoint.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_compose_devcontainer_and_workflow_refer_to_what_exists() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    build = compose["services"]["demo"]["build"]
    assert (ROOT / "docker" / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == DOCKERFILE
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {word for run in runs for word in re.findall(r"^make (\w+)", run)}
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert any("colcon test " in run for run in runs)


def test_scripts_of_the_workflow_are_bash() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    for job in jobs.values():
        for step in job["steps"]:
            script = re.sub(r"\$\{\{.*?\}\}", "x", step.get("run", ""))
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)
