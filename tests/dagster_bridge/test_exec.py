"""`comity exec`: a program of any language is asked for, begun, held to its permit, promoted or discarded."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.dagster_bridge.files import kept_versions, sidecar_of
from comity.dagster_bridge.process_measurement import is_this_python, measure_process
from comity.dagster_bridge.process_plan import read_plan
from comity.node.client import ReadForm, StartAnswer, StartForm, TermForm
from comity.node.toml_document import toml_document
from comity.protocol.errors import ConfigError
from exec_runs import INTENT, PATIENTS, Bench, ended
from fake_node import MEMBER, FakeNode, Refusal, deferred, execute, refused, restricted, ungoverned

COLUMNS = ["time", "sex"]


@pytest.fixture
def bench(node: FakeNode, tmp_path: Path) -> Bench:
    (node.home / "node.toml").write_text("")
    node.otherwise = execute
    bench = Bench(tmp_path, node.home)
    vouch(node, bench.patients, "patients")
    return bench


def vouch(node: FakeNode, file: Path, asset: str) -> None:
    """Have a file be what the node has recorded."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    actuation = "ac" * 32
    node.ledger[f"{MEMBER}/{asset}", ""] = (digest, actuation)
    said = {"asset": f"{MEMBER}/{asset}", "digest": digest, "actuation": actuation}
    sidecar_of(file).write_text(json.dumps(said))


# What is permitted


def test_what_the_command_wrote_is_promoted_with_what_vouches_for_it(node: FakeNode, bench: Bench) -> None:
    done = bench.run("--json")
    assert done.status == 0, done.errors
    assert bench.released.read_text() == PATIENTS
    (form,) = node.steps
    assert (form.orchestrator, form.step, form.purpose) == ("comity-exec", "release", "survival_study")
    assert [each.asset for each in form.inputs] == ["patients"]
    (made,) = node.actuations
    digest = hashlib.sha256(PATIENTS.encode()).hexdigest()
    assert (made.digest, made.rows, made.columns, made.media_type) == (digest, 3, COLUMNS, "text/csv")
    assert json.loads(sidecar_of(bench.released).read_text())["digest"] == digest
    report = done.json
    assert (report["outcome"], report["status"], report["inputs"]) == ("execute", 0, {"patients": "ac" * 32})
    assert report["outputs"]["released"]["became"] == "promoted"
    assert bench.left_over() == []


def test_the_start_is_recorded_before_the_command_runs(node: FakeNode, bench: Bench) -> None:
    marker = bench.folder / "ran"
    bench.work.write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    seen: list[bool] = []

    def started(form: StartForm) -> StartAnswer:
        seen.append(marker.exists())
        return StartAnswer("57" * 32, 1)

    node.starts = [started]
    done = bench.run()
    assert (seen, marker.exists()) == ([False], True)
    assert done.status == 1
    assert "released: not made" in done.errors


def test_what_breaks_its_restriction_is_discarded_and_what_was_there_stays(
    node: FakeNode, bench: Bench
) -> None:
    assert bench.run().status == 0
    before = bench.released.read_bytes()
    node.otherwise = restricted(["time"])
    bench.work.write_text(bench.work.read_text().replace("(rows)", "(rows + '4,4\\n')"))
    done = bench.run("--json")
    assert done.status == 1
    made = done.json["outputs"]["released"]
    assert (made["became"], made["causes"][0]["code"]) == ("discarded", "staged_column_not_permitted")
    (said,) = node.discards
    assert [cause.code for cause in said.causes] == ["staged_column_not_permitted"]
    assert (bench.released.read_bytes(), len(node.actuations), bench.left_over()) == (before, 1, [])


def test_a_group_that_is_too_small_is_discarded(node: FakeNode, bench: Bench) -> None:
    node.otherwise = restricted(COLUMNS, TermForm("min_group_rows", {"column": "sex", "rows": 2}))
    done = bench.run("--json")
    assert done.json["outputs"]["released"]["causes"][0]["code"] == "staged_rows_not_permitted"
    assert not bench.released.exists()


def test_the_command_is_told_what_its_permit_allows_and_can_keep_to_it(node: FakeNode, bench: Bench) -> None:
    node.otherwise = restricted(["time"])
    bench.work.write_text(
        "import json, os, pandas\n"
        "allowed = json.loads(os.environ['COMITY_PERMITTED'])['released']['columns']\n"
        "table = pandas.read_csv(os.environ['COMITY_INPUT_PATIENTS'])\n"
        "table[allowed].to_csv(os.environ['COMITY_OUTPUT_RELEASED'], index=False)\n"
    )
    done = bench.run()
    assert done.status == 0, done.errors
    assert bench.released.read_text() == "time\n1\n2\n3\n"


def test_code_that_was_changed_while_it_ran_makes_nothing(node: FakeNode, bench: Bench) -> None:
    with bench.work.open("a") as work:
        work.write("open(__file__, 'a').write('# more')\n")
    done = bench.run("--json")
    assert done.json["outputs"]["released"]["causes"][0]["code"] == "context_drifted"
    assert (len(node.discards), bench.released.exists()) == (1, False)


def test_the_version_before_is_kept(bench: Bench) -> None:
    for added in ("", " + '4,4\\n'"):
        bench.work.write_text(bench.work.read_text().replace("(rows)", f"(rows{added})"))
        assert bench.run().status == 0
    (version,) = kept_versions(bench.released)
    assert version.read_text() == PATIENTS


def test_bytes_that_are_no_table_are_made_whole_or_not_at_all(node: FakeNode, bench: Bench) -> None:
    text = INTENT.replace('format = "csv"', 'format = "file"\nmedia_type = "application/pdf"')
    bench.intent.write_text(text)
    assert bench.run().status == 0
    (made,) = node.actuations
    assert (made.media_type, made.rows, made.columns) == ("application/pdf", 0, [])
    node.otherwise = restricted(["time"])
    done = bench.run("--json")
    assert (done.status, done.json["status"]) == (1, None)
    assert done.json["causes"][0]["code"] == "restriction_not_enforceable"
    assert len(node.said("/v1/starts", object)) == 1


def test_without_a_policy_the_files_are_put_in_place_and_no_record_is_made(
    node: FakeNode, bench: Bench
) -> None:
    node.otherwise = ungoverned
    sidecar_of(bench.patients).unlink()
    node.ledger.clear()
    done = bench.run("--json")
    # A node that does not say which inputs are governed has all of them verified.
    assert (done.status, done.json["causes"][0]["code"]) == (1, "lineage_missing")
    node.otherwise = nothing_governed
    done = bench.run("--json")
    assert done.json["outputs"]["released"]["became"] == "ungoverned"
    assert (bench.released.read_text(), node.actuations) == (PATIENTS, [])


def nothing_governed(form: Any) -> Any:
    return replace(ungoverned(form), governed_inputs=[])


# What is not


def test_what_is_refused_is_not_started_and_says_why(node: FakeNode, bench: Bench) -> None:
    node.otherwise = refused
    done = bench.run()
    assert done.status == 1
    assert "not started: refuse" in done.errors
    assert "the purpose is not allowed" in done.errors
    assert node.said("/v1/starts", object) == []


def test_what_is_deferred_says_how_to_go_on_and_goes_on_under_the_same_run(
    node: FakeNode, bench: Bench
) -> None:
    node.otherwise = deferred
    done = bench.run("--run", "night-7")
    assert done.status == 75
    assert "needs an approval by health/dpo" in done.errors
    assert "--run night-7" in done.errors
    node.otherwise = execute
    assert bench.run("--run", "night-7").status == 0
    assert [form.run for form in node.steps] == ["night-7", "night-7"]


def test_it_waits_as_long_as_it_is_told(node: FakeNode, bench: Bench) -> None:
    node.decisions["release"] = [deferred, deferred, execute]
    done = bench.run("--wait", 60)
    assert done.status == 0, done.errors
    assert "waits for an approval by health/dpo" in done.errors


def test_an_input_that_was_changed_is_not_shown_to_the_command(node: FakeNode, bench: Bench) -> None:
    bench.patients.write_text(PATIENTS.replace("1,1", "1,2"))
    done = bench.run("--json")
    assert (done.status, done.json["status"]) == (1, None)
    assert done.json["causes"][0]["code"] == "digest_differs"
    assert node.said("/v1/starts", object) == []


def test_what_the_command_reads_is_what_was_verified(node: FakeNode, bench: Bench) -> None:
    def swap(form: ReadForm) -> None:
        bench.patients.write_text("time,sex\n9,9\n")

    node.on_read = swap
    assert bench.run().status == 0
    assert bench.released.read_text() == PATIENTS


def test_a_command_that_fails_makes_nothing_and_its_status_is_carried_through(
    node: FakeNode, bench: Bench
) -> None:
    with bench.work.open("a") as work:
        work.write("raise SystemExit(7)\n")
    done = bench.run()
    assert done.status == 7
    assert "nothing is promoted" in done.errors
    assert (node.actuations, node.discards, bench.released.exists(), bench.left_over()) == ([], [], False, [])


@pytest.mark.parametrize(
    "planted",
    ["link", "folder", "pipe"],
)
def test_what_is_staged_is_a_file_and_no_way_to_another(node: FakeNode, bench: Bench, planted: str) -> None:
    secret = bench.folder / "secret.csv"
    secret.write_text(PATIENTS)
    made = {"link": f"os.symlink({str(secret)!r}, p)", "folder": "os.mkdir(p)", "pipe": "os.mkfifo(p)"}[
        planted
    ]
    bench.work.write_text(f"import os\np = os.environ['COMITY_OUTPUT_RELEASED']\n{made}\n")
    done = bench.run()
    assert done.status == 1
    assert (node.actuations, bench.released.exists()) == ([], False)


def test_without_a_node_nothing_is_started(bench: Bench, node: FakeNode) -> None:
    marker = bench.folder / "ran"
    bench.work.write_text(f"open({str(marker)!r}, 'w')\n")
    node.status, node.raw = 503, b'{"code": "no_quorum", "message": "starting"}'
    assert bench.run().status == 1
    (bench.home / "node.sock").rename(bench.home / "gone.sock")
    try:
        assert bench.run().status == 3
    finally:
        (bench.home / "gone.sock").rename(bench.home / "node.sock")
    assert not marker.exists()


def test_a_program_that_is_not_there_is_said_before_anything_is_asked(node: FakeNode, bench: Bench) -> None:
    done = bench.run(command=("no-such-program",))
    assert (done.status, node.calls) == (2, [])
    assert "no-such-program" in done.errors


# Its output, its signals, its end


def test_the_output_is_the_commands_own(node: FakeNode, bench: Bench) -> None:
    with bench.work.open("a") as work:
        work.write("print('its own words')\n")
    done = bench.run()
    assert done.output == "its own words\n"
    done = bench.run("--json")
    assert len(done.output.splitlines()) == 1
    assert "its own words" in done.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_reaches_the_command_and_its_end_is_told(
    node: FakeNode, bench: Bench, number: signal.Signals
) -> None:
    bench.work.write_text(
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(40))\n"
        "print('ready', flush=True)\n"
        "while True:\n    signal.pause()\n"
    )
    process = bench.start()
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert ended(process).status == 40


def test_a_command_that_a_signal_ended_is_told_as_a_shell_does(node: FakeNode, bench: Bench) -> None:
    bench.work.write_text("import os\nos.kill(os.getpid(), 9)\n")
    assert bench.run().status == 128 + 9
    assert node.actuations == []


# Killed


@pytest.mark.parametrize(
    "when", ["asked", "read", "started", "working", "before the record", "after the record"]
)
def test_whoever_is_killed_leaves_the_old_version_or_the_new_one_as_the_record_says(
    node: FakeNode, bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    assert bench.run().status == 0
    before = bench.released.read_text()
    script = bench.work.read_text().replace("(rows)", "(rows + '4,4\\n')")
    bench.work.write_text(script)
    victim: list[subprocess.Popen[str]] = []

    def kill() -> None:
        if victim:
            victim[0].kill()
            victim[0].wait()

    def dying(name: str, *, after: bool = False) -> None:
        answer = getattr(FakeNode, name)

        def act(self: FakeNode, form: Any) -> Any:
            if not victim:
                return answer(self, form)
            if after:
                answer(self, form)
            kill()
            raise Refusal(503, "no_quorum")

        monkeypatch.setattr(FakeNode, name, act)

    if when == "working":
        bench.work.write_text("import os\nos.kill(os.getppid(), 9)\n" + script)
    else:
        boundaries = {"asked": "_step", "read": "_read", "started": "_start"}
        dying(boundaries.get(when, "_actuate"), after=when == "after the record")
    process = subprocess.Popen(
        bench.words("--run", "night-1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    victim.append(process)
    process.wait(60)
    victim.clear()
    assert process.returncode == -signal.SIGKILL
    recorded = node.ledger[f"{MEMBER}/released", ""][0]
    new = hashlib.sha256((before + "4,4\n").encode()).hexdigest()
    assert (recorded == new) == (when == "after the record")
    assert bench.released.read_text() == before
    if when == "after the record":
        # Whoever asks next puts in place what was recorded, before anything else.
        node.otherwise = refused
        assert bench.run().status == 1
        assert bench.released.read_text() == before + "4,4\n"
        assert json.loads(sidecar_of(bench.released).read_text())["digest"] == new
        node.otherwise = execute
    bench.work.write_text(script)
    assert bench.run("--run", "night-1").status == 0
    assert bench.released.read_text() == before + "4,4\n"
    assert [each for each in bench.left_over() if each.name.startswith("work-")] == []


def test_the_work_folder_of_a_process_that_lives_is_left_alone(node: FakeNode, bench: Bench) -> None:
    bench.work.write_text("print('ready', flush=True)\ninput()\n" + bench.work.read_text())
    slow = subprocess.Popen(
        bench.words(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert slow.stdout is not None
    assert slow.stdout.readline() == "ready\n"
    other = bench.folder / "other.py"
    other.write_text(bench.work.read_text().partition("input()\n")[2])
    assert bench.run(command=(sys.executable, other)).status == 0
    _, errors = slow.communicate("go\n", timeout=60)
    assert slow.returncode == 0, errors


# What is measured


def test_the_code_is_the_command_and_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.R").write_text("1")
    (tmp_path / "lib" / ".hidden").mkdir()
    first = measure_process(["sh", "-c", "true"], tmp_path, ["lib"])
    assert (first.files, first.context) == (1, None)
    assert measure_process(["sh", "-c", "false"], tmp_path, ["lib"]).digest != first.digest
    (tmp_path / "lib" / "a.R").write_text("2")
    assert measure_process(["sh", "-c", "true"], tmp_path, ["lib"]).digest != first.digest
    with pytest.raises(ConfigError):
        measure_process(["sh"], tmp_path, ["nothing"])


def test_only_what_this_environment_runs_is_said_to_be_measured(node: FakeNode, bench: Bench) -> None:
    assert is_this_python(Path(sys.executable))
    assert not is_this_python(Path("/bin/sh"))
    bench.run()
    bench.run(command=("sh", "-c", 'cp "$COMITY_INPUT_PATIENTS" "$COMITY_OUTPUT_RELEASED"'))
    with_context, without = node.steps
    assert with_context.context is not None
    assert with_context.context.code == with_context.code
    assert without.context is None


def test_no_dagster_is_imported() -> None:
    code = "import sys, comity.dagster_bridge.governed_process as p\nsys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


# The intent file


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("step =", "stepp =", "stepp"),
        ('asset = "released"', "asset = 7", "outputs[...].asset"),
        ("[outputs.released]", "[outputs.Released]", "environment variable"),
        ("[outputs.released]", '[outputs."a=b"]', "environment variable"),
        ('"own/released.csv"', '"own/\\u0000"', "no name of a file"),
        ('"own/released.csv"', '"own/.."', "no name of a file"),
        ('"own/released.csv"', f'"{"x" * 300}"', "longer than"),
        ('format = "csv"', 'format = "xml"', "format"),
        ('format = "csv"', 'format = "file"', "media_type"),
        ('purpose = "survival_study"', 'home = "/"', "command line"),
        ("[inputs", "[[inputs", "inputs"),
        ('code = ["work.py"]', 'code = ["absent.py"]', "absent.py"),
    ],
)
def test_what_is_wrong_in_an_intent_file_is_named(
    node: FakeNode, bench: Bench, old: str, new: str, said: str
) -> None:
    text = bench.intent.read_text()
    assert old in text
    bench.intent.write_text(text.replace(old, new, 1))
    done = bench.run("--json")
    assert done.status == 2, done.errors
    assert done.json["error"]["code"] == "config_wrong"
    assert said in done.json["error"]["message"]
    assert node.calls == []


def test_an_intent_file_without_end_is_not_read(node: FakeNode, bench: Bench) -> None:
    bench.intent.write_text(INTENT + "#" * 300_000)
    assert bench.run().status == 2


GIVEN: dict[str, Any] = {"home": "/h", "folder": "/f", "run": "r", "command": ["true"]}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["step", "outputs", "inputs", "code", "job", "purpose", "wait_s", "ticket", "asset"])
OUTPUT = st.fixed_dictionaries(
    {"asset": st.text(max_size=300), "file": st.text(max_size=300)},
    optional={"format": VALUES, "columns": VALUES, "versions": VALUES, "partition": st.text()},
)


@given(
    st.dictionaries(KEYS, VALUES)
    | st.fixed_dictionaries(
        {
            "step": st.text(min_size=1, max_size=20),
            "outputs": st.dictionaries(st.text(max_size=8) | st.just("a"), OUTPUT),
        }
    )
)
def test_a_hostile_plan_is_a_plan_or_an_error_of_ours(values: dict[str, Any]) -> None:
    try:
        plan = read_plan(values | GIVEN, "intent.toml")
    except ConfigError:
        return
    for output in plan.outputs.values():
        path = plan.path(output.file)
        assert path.name not in ("", ".", "..")
        assert "\0" not in str(path)


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: (INTENT + text).encode("utf-8", "replace"))
)
def test_hostile_bytes_are_a_plan_or_an_error_of_ours(data: bytes) -> None:
    try:
        values = toml_document(data, 262_144, "intent.toml").values
        read_plan(values | GIVEN, "intent.toml")
    except ConfigError:
        return


def test_what_a_node_says_of_a_sidecar_is_not_believed(
    node: FakeNode, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comity.node.forms import ActuationAnswer

    def answer(self: FakeNode, form: Any) -> ActuationAnswer:
        return ActuationAnswer("aa" * 32, "no base64!")

    monkeypatch.setattr(FakeNode, "_actuate", answer)
    done = bench.run()
    assert done.status == 1
    assert not bench.released.exists()
    # The bytes stay beside: what was recorded is put in place when the node says so.
    assert [each for each in bench.left_over() if each.name.startswith("released.csv.")]
