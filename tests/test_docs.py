"""The commands that README and docs show are run as they stand; links and pictures exist; packaged files are there."""

import importlib
import importlib.resources
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobile_avatar.quantization.recipe import MixedRecipe
from tests.cli.runner import run
from tests.models.bilayer.official import random_model, write_runs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The `mobile-avatar ...` lines of a page's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("mobile-avatar ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """What the pages assume a reader has: a photo, a film of a face, keypoints, a recipe, official runs."""
    import av
    from PIL import Image

    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("desk")
    photo = data.astronaut()
    Image.fromarray(photo).save(folder / "me.jpg", quality=95)
    np.save(folder / "track.npy", np.random.default_rng(0).uniform(-0.5, 0.5, (5, 136)).astype(np.float32))
    with av.open(str(folder / "drive.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 512, 512, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(photo, format="rgb24")))
        container.mux(stream.encode())
    write_runs(folder, random_model())
    (folder / "quantization" / "me").mkdir(parents=True)
    MixedRecipe(("heads",)).save(folder / "quantization" / "me" / "recipe.json")
    return folder


LONG = ("train", "personalize", "quantize-report")
"""Commands that take minutes."""


def check_options(line: list[str]) -> None:
    """Whether a command takes these arguments, without running it."""
    command = importlib.import_module(
        f"mobile_avatar.cli.commands.{line[0].replace('-', '_').replace('import', 'import_')}"
    ).command
    numbers = ["2" if word.isupper() else word for word in line[1:]]
    assert command.make_context(line[0], numbers)


def run_lines(lines: list[list[str]], capfd) -> int:
    """Run commands in order, each once; returns how many there were."""
    seen = set()
    for line in lines:
        key = shlex.join(line)
        if key in seen:
            continue
        seen.add(key)
        # Once ExecuTorch is loaded into this process LiteRT cannot be; phones and accounts are not here.
        if line[0] in LONG or "--on" in line:
            check_options(line)
            continue
        done = run(capfd, *line)
        if line[0] in ("export", "create", "report") and "--force" in done.err:  # another page made the same thing
            done = run(capfd, *line, "--force")
        assert done.code == 0, f"mobile-avatar {key}: {done.err}"
    return len(seen)


def test_the_commands_of_the_readme_run_and_all_others_take_their_options(desk, capfd, monkeypatch):
    monkeypatch.chdir(desk)
    assert run_lines(commands(ROOT / "README.md"), capfd) >= 5
    others = [line for page in PAGES for line in commands(page)]
    assert len(others) >= 30
    for line in others:
        check_options(line)


@pytest.mark.slow
def test_every_command_of_the_docs_runs(desk, capfd, monkeypatch):
    """In the order of the pages; commands that take minutes only have their options checked."""
    monkeypatch.chdir(desk)
    create = [line for line in commands(ROOT / "docs" / "create.md") if line[0] == "create"]
    assert run_lines(create + [line for page in PAGES for line in commands(page)], capfd) >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_continuous_integration_runs_the_command_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    line = next(line for line in readme.splitlines() if line.endswith(".venv/bin/pytest"))
    script = (ROOT / ".ci" / "run").read_text().replace("eval ", "echo RUN ").replace("rm -rf", "true")
    # Read from standard input, the script has no place of its own, so it is told where it is.
    script = re.sub(r'cd "\$\(dirname.*', lambda _: f"cd {shlex.quote(str(ROOT))}", script)
    shown = subprocess.run(["bash", "-s"], input=script, capture_output=True, text=True, check=True)
    assert f"RUN {line.replace('.venv', '.ci/venv')}" in shown.stdout


def test_files_of_the_package():
    def sizes(package: str) -> dict[str, int]:
        folder = importlib.resources.files(package)
        return {item.name: len(item.read_bytes()) for item in folder.iterdir() if item.is_file()}

    assets = sizes("mobile_avatar.assets")
    assert {"compact.safetensors", "mobile.safetensors", "default.avatar"} <= set(assets)
    assert sum(assets.values()) < 45e6
    assert {"snapdragon-855.yaml", "desktop.yaml"} <= set(sizes("mobile_avatar.recipes"))
    assert {"composite.frag", "composite.vert"} <= set(sizes("mobile_avatar.rendering.shaders"))


def test_no_file_is_longer_than_400_lines():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run([git, "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    long = {name: n for name in files.split() if (n := len((ROOT / name).read_text().splitlines())) > 400}
    assert long == {}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
