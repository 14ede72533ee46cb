"""docs/architecture.md: pictures and tables match the code, and named functions exist."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from waiting import PATIENCE_S

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mpisweep"
sys.path.insert(0, str(ROOT / "docs"))

import write_architecture as architecture  # noqa: E402
from drawing.modules import House  # noqa: E402
from drawing.source import Source  # noqa: E402
from drawing.spoken import spoken  # noqa: E402

PAGE = architecture.PAGE.read_text(encoding="utf-8")
PROCESSES, MODULES = architecture.PICTURES
#: ``module:function`` or ``module:Class.method``, below the package.
REFERENCE = re.compile(r"`([a-z_][a-z0-9_.]*):([A-Za-z_][A-Za-z0-9_.]*)`")
SVG = "{http://www.w3.org/2000/svg}"


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def without_tables(text: str) -> str:
    return architecture.BLOCK.sub("", text)


def test_the_page_and_its_pictures_are_up_to_date():
    for path, text in architecture.made(PACKAGE, PAGE).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make reference`"


def test_the_page_has_every_table_and_every_picture():
    assert sorted(architecture.blocks_of(PAGE)) == sorted(architecture.BLOCKS)
    shown = re.findall(r"!\[[^]]+\]\((.+?)\)", PAGE)
    assert [(architecture.PAGE.parent / name).resolve() for name in shown] == [PROCESSES, MODULES]


# ------------------------------------------------------------------------------------- drawn from the code


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    made = tmp_path / "mpisweep"
    shutil.copytree(PACKAGE, made, ignore=shutil.ignore_patterns("__pycache__"))
    return made


def drawn(package: Path, path: Path) -> str:
    """One generated file, drawn from this package."""
    source = Source(package)
    if path in architecture.PICTURES:
        return architecture.PICTURES[path](source)
    return "\n".join(make(source) for make in architecture.BLOCKS.values())


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file}: {old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def texts_of(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def words_of(svg: str) -> set[str]:
    return {word for text in texts_of(svg) for word in text.split()}


@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        ("messages.py", "ToWorker = Give |", "ToWorker = Pause | Give |", "Pause"),
        ("messages.py", "ToMaster = Hello |", "ToMaster = Hello | Slowed |", "Slowed"),
        ("messages.py", "ToWorker | Lead |", "ToWorker | Lead | Ping |", "Ping"),
        ("processes/channel.py", "READY = 1\n", "READY = 1\nWARM = 10\n", None),
        ("processes/shared_page.py", "_STOP, ", "_STOP, _PAUSED, ", "paused"),
        ("processes/forkserver.py", "watch=silence_s", "guard=silence_s", "guard"),
        ("processes/fork_loop.py", "Notice = Died | Stays", "Notice = Died | Stays | Born", "Born"),
        ("processes/child.py", "workloads.serve:serve", "workloads.serve:labour", "labour"),
        ("master/snapshotter.py", '{"ask": "gather"', '{"ask": "unite"', "unite"),
        ("master/lease_client.py", '{"ask": "leave"', '{"ask": "part"', "part"),
        ("results/shares/lease_agent.py", "revoked=revoked", "taken=revoked", "taken"),
        ("results/__init__.py", '".journal"', '".log"', "NAME.h5.log/"),
        ("batch/variables.py", '"MPISWEEP_BEGUN"', '"MPISWEEP_RESUMED"', "MPISWEEP_RESUMED"),
        ("master/vigil.py", 'name="vigil"', 'name="lookout"', "lookout"),
    ],
)  # fmt: skip
def test_a_change_in_the_protocols_between_processes_changes_their_picture(copy, file, old, new, word):
    before = PROCESSES.read_text(encoding="utf-8")
    edit(copy / file, old, new)
    after = drawn(copy, PROCESSES)
    if word is None:
        # The picture leaves out a kind of frame that is never sent.
        assert after == before
        edit(copy / "workloads/serve.py", "self._line.send(READY)", "self._line.send(WARM)")
        after, word = drawn(copy, PROCESSES), "WARM"
    assert word not in words_of(before)
    assert word in words_of(after)


def test_a_process_that_is_missing_from_the_picture_is_an_error(copy):
    edit(
        copy / "batch" / "launch.py",
        "def mpi_environment",
        'def extra(server):\n    server.spawn("mpisweep.batch.launch:launch", [], {})\n\n\ndef mpi_environment',
    )
    with pytest.raises(AssertionError, match=r"batch\.launch starts a process"):
        drawn(copy, PROCESSES)


def test_a_path_without_a_known_writer_is_an_error(copy):
    with (copy / "results" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(
            '\n\ndef notes_folder(path):\n    """Notes."""\n    return path.with_name(path.name + ".notes")\n'
        )
    with pytest.raises(LookupError, match=r"NAME\.h5\.notes"):
        drawn(copy, architecture.PAGE)


def test_a_path_whose_writer_no_longer_names_it_is_an_error(copy):
    edit(copy / "results" / "compaction.py", "damaged_folder(path)", "path")
    with pytest.raises(LookupError, match=r"results\.compaction does not call damaged_folder"):
        drawn(copy, PROCESSES)


@pytest.mark.parametrize(
    ("file", "line"),
    [("records.py", r"    #: It has not ended yet\.\n"), ("master/closing.py", r"``CLAIM``  .*\n")],
)
def test_an_end_or_a_stage_without_a_description_is_an_error(copy, file, line):
    text = (copy / file).read_text(encoding="utf-8")
    less, count = re.subn(line, "", text)
    assert count == 1
    (copy / file).write_text(less, encoding="utf-8")
    with pytest.raises(LookupError, match="has no"):
        drawn(copy, architecture.PAGE)


def test_a_new_import_is_a_new_arrow(copy):
    house = House(Source(copy))
    edit(copy / "devices" / "gpus.py", "from __future__ import annotations\n",
         "from __future__ import annotations\n\nfrom mpisweep.bounds import kept_names\n")  # fmt: skip
    changed = House(Source(copy))
    assert changed.arrows == house.arrows | {("devices", "bounds"): 1}
    assert ("devices", "bounds") in changed.drawn
    assert drawn(copy, MODULES) != MODULES.read_text(encoding="utf-8")
    assert "`bounds` 1, `dataclass` 2, `errors` 1, `records` 1" in drawn(copy, architecture.PAGE)


def test_a_new_module_stands_in_its_room(copy):
    (copy / "devices" / "tpus.py").write_text('"""TPUs."""\n', encoding="utf-8")
    assert "tpus" in words_of(drawn(copy, MODULES))


def test_rooms_that_import_each_other_are_not_drawn(copy):
    edit(copy / "records.py", "from __future__ import annotations\n",
         "from __future__ import annotations\n\nimport mpisweep.blocks\n")  # fmt: skip
    with pytest.raises(AssertionError, match="circle"):
        drawn(copy, MODULES)


@pytest.mark.parametrize(
    ("file", "old", "new", "row"),
    [
        (
            "scheduling/trials.py",
            "(TrialState.RUNNING, TrialState.WAITING): ",
            '(TrialState.PRUNED, TrialState.WAITING): "forgiven", (TrialState.RUNNING, TrialState.WAITING): ',
            "| pruned | forgiven |",
        ),
        ("records.py", "    LOST = 3\n", "    LOST = 3\n    #: Gone for good.\n    GONE = 8\n", "| gone | Gone for good. |"),
        ("master/closing.py", "self.stage = Stage.CLAIM", "self.stage = Stage.OVER", "| `SHARE` | .* | `OVER` |"),
        ("master/closing.py", "        self._journal.close()\n", "", r"\| `snapshotter.compact_and_close` \| `SNAPSHOT`"),
        ("scheduling/rules/retries.py", "move(number, WAITING)", "move(number, FAILED)",
         "`scheduling.rules.retries:wait_again` | failed"),
    ],
)  # fmt: skip
def test_a_change_in_states_or_stages_changes_the_tables(copy, file, old, new, row):
    pattern = row if ".*" in row or "\\" in row else re.escape(row)
    pattern = pattern.replace("| ", r"\| ").replace(" |", r" \|") if ".*" in row else pattern
    assert not re.search(pattern, PAGE)
    edit(copy / file, old, new)
    assert re.search(pattern, drawn(copy, architecture.PAGE))


# ------------------------------------------------------------------------------------- the pictures


@pytest.mark.parametrize("picture", architecture.PICTURES, ids=lambda path: path.stem)
def test_a_picture_has_a_white_background_and_no_text_leaves_it(picture):
    root = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
    assert float(root.attrib["width"]) <= 1200
    ground = root.find(f"{SVG}rect")
    assert ground is not None
    assert (ground.attrib["width"], ground.attrib["height"], ground.attrib["fill"]) == (
        root.attrib["width"], root.attrib["height"], "#ffffff",
    )  # fmt: skip
    for text in root.iter(f"{SVG}text"):
        left, _, right, bottom = extent(text)
        assert left >= 0
        assert right <= float(root.attrib["width"]), text.text
        assert bottom <= float(root.attrib["height"]), text.text


def extent(text: ElementTree.Element) -> tuple[float, float, float, float]:
    """An upper bound of a text's box: names in their own font, other text in a wide one."""
    size, x, y = (float(text.attrib[name]) for name in ("font-size", "x", "y"))
    wide = 0.603 if text.attrib.get("class") == "m" else 0.62 if "font-weight" in text.attrib else 0.53
    width = wide * size * len(text.text or "")
    left = x - width / 2 if text.attrib.get("text-anchor") == "middle" else x
    return left, y - 0.8 * size, left + width, y + 0.25 * size


@pytest.mark.parametrize("picture", architecture.PICTURES, ids=lambda path: path.stem)
def test_no_text_lies_on_another(picture):
    texts = list(ElementTree.fromstring(picture.read_text(encoding="utf-8")).iter(f"{SVG}text"))
    for place, one in enumerate(texts):
        for other in texts[place + 1 :]:
            a, b = extent(one), extent(other)
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, f"{one.text!r} and {other.text!r}"


def test_no_text_leaves_its_box():
    for picture in architecture.PICTURES:
        root = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
        boxes = [
            tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            for rect in root.iter(f"{SVG}rect")
            if "x" in rect.attrib and rect.attrib.get("rx") == "6"
        ]
        for text in root.iter(f"{SVG}text"):
            left, top, right, bottom = extent(text)
            around = [
                b for b in boxes if b[0] < left < b[0] + b[2] and b[1] < (top + bottom) / 2 < b[1] + b[3]
            ]
            for x, y, width, height in around:
                assert right <= x + width, text.text
                assert y <= top
                assert bottom <= y + height, text.text


def test_the_picture_of_processes_names_every_message():
    from mpisweep import messages

    named = words_of(PROCESSES.read_text(encoding="utf-8"))
    said = spoken(Source(PACKAGE))
    assert {*said.to_master, *said.to_worker, *said.between_ranks} <= named
    for group, union in ((said.to_master, messages.ToMaster), (said.to_worker, messages.ToWorker)):
        assert group == [member.__name__ for member in union.__args__]
    assert {member.__name__ for member in messages.Message.__args__} == {
        *said.to_master, *said.to_worker, *said.between_ranks,
    }  # fmt: skip


def test_every_arrow_of_the_picture_of_modules_points_down_and_every_import_has_a_path():
    house = House(Source(PACKAGE))
    floor = {room: height for height, rooms in enumerate(house.floors) for room in rooms}
    assert all(floor[upper] > floor[lower] for upper, lower in house.arrows)
    reached = {room: {room} for room in floor}
    for room in sorted(floor, key=lambda room: floor[room]):
        for upper, lower in house.drawn:
            if upper == room:
                reached[room] |= reached[lower]
    assert all(lower in reached[upper] for upper, lower in house.arrows)


# ------------------------------------------------------------------------------------- the text


def test_every_function_that_the_page_names_exists():
    named = REFERENCE.findall(PAGE)
    assert len(named) > 40
    for module, name in named:
        found = importlib.import_module(f"mpisweep.{module}")
        for part in name.split("."):
            found = getattr(found, part)


def test_every_room_has_its_row_and_every_module_named_there_is_in_it():
    rows = dict(
        re.findall(r"^\| `([a-z_/]+)` \| (.+) \|$", without_tables(section("Modules")), flags=re.MULTILINE)
    )
    source = Source(PACKAGE)
    house = House(source)
    assert {room.rstrip("/").partition("/")[0] for room in rows} == set(house.files) - {"", "__main__"}
    for room, text in rows.items():
        modules = {name.removeprefix(f"{room.rstrip('/').replace('/', '.')}.") for name in source.below(
            room.rstrip("/").replace("/", "."))}  # fmt: skip
        for name in re.findall(r"`([a-z_]+)`", text):
            assert name in modules, f"{room}: {name}"


def test_every_file_that_the_page_names_exists():
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py)?)`", without_tables(PAGE))
    assert named
    for name in named:
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name


def test_the_steps_of_a_trial_are_numbered_in_order():
    numbers = re.findall(r"^(\d+)\. ", section("Life of a trial"), flags=re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, len(numbers) + 1))


TRACER = '''
"""Notes every call of the functions in CALLS, in whichever process, in the order of the clock."""
import json, os, sys, threading, time

if "CALLS" in os.environ:
    wanted = {tuple(one) for one in json.loads(os.environ["CALLS"])}
    names = {name.rpartition(".")[2] for _, name in wanted}
    log = os.open(os.environ["CALLS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_name in names:
            called = frame.f_globals.get("__name__"), frame.f_code.co_qualname
            if called in wanted:
                os.write(log, f"{time.monotonic_ns()} {called[0]}:{called[1]}\\n".encode())

    threading.setprofile(note)
    sys.setprofile(note)
'''

#: The last trial ends once a snapshot is requested after all earlier steps of another trial.  If a step is
#: missing, it ends nevertheless, so that the test says which.
WAITS = r"""
import json, os, time

LIFE = [f"{module}:{name}" for module, name in json.loads(os.environ["CALLS"])]
UNTIL = next(at for at, name in enumerate(LIFE) if name.endswith(":Snapshotter.compact"))


def asked_since_an_end():
    calls = sorted(line.split() for line in open(os.environ["CALLS_LOG"]) if line.endswith("\n"))
    called = iter([name for _, name in calls])
    return all(name in called for name in LIFE[: UNTIL + 1])


def train(trial):
    trial.report(0, loss=2.0)
    until = time.monotonic() + 200
    while trial.params["x"] == 8 and time.monotonic() < until and not asked_since_an_end():
        time.sleep(0.1)
    return {"loss": 1.0}
"""


@pytest.mark.mpi
def test_a_real_trial_goes_through_the_functions_of_its_life_in_the_order_of_the_page(
    folder: Path, environment: dict[str, str]
):
    """Two ranks and a figure: the numbered steps happen in that order across all processes."""
    life = [(f"mpisweep.{module}", name) for module, name in REFERENCE.findall(section("Life of a trial"))]
    (folder / "traced").mkdir()
    (folder / "traced" / "sitecustomize.py").write_text(TRACER, encoding="utf-8")
    log = folder / "calls.txt"
    (folder / "waits.py").write_text(WAITS, encoding="utf-8")
    (folder / "s.toml").write_text(
        'name = "s"\nworkload = "waits:train"\n[parameters]\nx = { from = 1, to = 8 }\n', encoding="utf-8"
    )
    traced = environment | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "traced"), str(ROOT)])),
        "CALLS": json.dumps(life),
        "CALLS_LOG": str(log),
    }
    draw = [str(ROOT / "analysis" / "loss_vs_batch_size.py"), "s.h5", "-o", "s.png"]
    for command in (["-m", "mpisweep", "run", "s.toml", "-n", "2"], draw):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=traced, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    calls = sorted(line.split(" ") for line in log.read_text(encoding="utf-8").splitlines())
    called = iter([name for _, name in sorted((int(at), name) for at, name in calls)])
    for module, name in life:
        # The search continues from the last match, so each step must follow the one before.
        assert f"{module}:{name}" in called, f"{module}:{name} is not called after the steps before it"
