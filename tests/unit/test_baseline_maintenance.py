"""Finding, comparing, pruning and promoting saved sessions, on files of the real format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.baseline_command.location import choose_device, find_baselines
from pytest_inference_gate.baseline_command.maintenance import compare_sessions, find_session, read_all
from pytest_inference_gate.baseline_command.promotion import find_candidate, objections, promote
from pytest_inference_gate.baseline_command.pruning import PruneRule, plan_pruning, prune, superfluous_sessions
from pytest_inference_gate.baseline_command.tables import difference_lines
from pytest_inference_gate.baselines import (
    BaselineCase,
    BaselineSession,
    list_session_files,
    read_session,
    read_sessions,
    save_session,
    session_lock,
)
from pytest_inference_gate.errors import BaselineError
from pytest_inference_gate.machine.condition_text import condition_differences, condition_figures

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
DEVICE = "board-2core-aarch64-0123abcd"


def document(
    *ids: str,
    days: float = 1,
    software: dict[str, str] | None = None,
    scale: float = 1.0,
    broken: tuple[str, ...] = (),
    verdict: str = "pass",
    **block: Any,
) -> dict[str, Any]:
    """A session of the cases `ids`, taken `days` before NOW."""
    benchmarks = []
    for case_id in ids or ("a",):
        replicates = [scale * value / 1000 for value in (1.0, 1.01, 1.02, 1.03, 1.04)]
        case = {"schema": "inference-gate-case/1", "id": case_id, "replicates": replicates, "verdict": verdict}
        benchmarks.append(
            {"name": case_id, "fullname": f"test_x.py::{case_id}", "extra_info": {"inference_gate": case}, "stats": {}}
        )
    return {
        "benchmarks": benchmarks,
        "datetime": (NOW - timedelta(days=days)).isoformat(),
        "inference_gate": {
            "schema": "inference-gate-session/1",
            "device": {"id": DEVICE, "identity": {"machine": "aarch64", "online_cores": 2}},
            "software": {"python": "3.11.7"} if software is None else software,
            "condition": {"before": {"load_average": [0.5, 0, 0]}, "after": {}},
            "broken": [{"id": case_id, "outcome": {"kind": "crash", "stage": "load"}} for case_id in broken],
            **block,
        },
    }


def plain_document() -> dict[str, Any]:
    return {
        "benchmarks": [{"name": "test_mine", "fullname": "test_mine", "extra_info": {}, "stats": {}}],
        "datetime": "2020-01-01T00:00:00",
    }


@pytest.fixture
def device(tmp_path: Path) -> Path:
    return tmp_path / "baselines" / DEVICE


def candidate(device: Path, *ids: str, **changes: Any) -> Path:
    return save_session(device / "candidates", "try", document(*ids, **{"left_out": [], **changes}))


def names(directory: Path) -> list[str]:
    return [path.name for path in list_session_files(directory)]


# Where baselines are


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", "[pytest]\ngate_baselines = kept/here\n"),
        (".pytest.ini", "[pytest]\ngate_baselines = kept/here\n"),
        ("tox.ini", "[tox]\n[pytest]\ngate_baselines = kept/here\n"),
        ("setup.cfg", "[tool:pytest]\ngate_baselines = kept/here\n"),
        ("pyproject.toml", '[tool.pytest.ini_options]\ngate_baselines = "kept/here"\n'),
        ("pytest.toml", '[pytest]\ngate_baselines = "kept/here"\n'),
    ],
)
def test_the_ini_file_above_says_where_baselines_are(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    assert find_baselines(below) == tmp_path / "kept" / "here"


def test_files_that_say_nothing_to_pytest_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ngate_baselines = /elsewhere\n")
    below = tmp_path / "part"
    below.mkdir()
    for name, text in (("tox.ini", "[tox]\n"), ("setup.cfg", "[metadata]\n"), ("pyproject.toml", "[project]\n")):
        (below / name).write_text(text)
    assert find_baselines(below) == Path("/elsewhere")


def test_an_ini_file_that_names_no_folder_has_it_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("")
    (tmp_path / "part").mkdir()
    assert find_baselines(tmp_path / "part") == tmp_path / "baselines"


@pytest.mark.parametrize(("name", "text"), [("pyproject.toml", "a = = b"), ("tox.ini", "no section"), ("setup.cfg", "[a\n")])
def test_an_ini_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BaselineError, match=f"{name}.*--baselines=DIR"):
        find_baselines(tmp_path)


def test_the_device_is_the_only_one_or_must_be_named(tmp_path: Path, device: Path) -> None:
    root = tmp_path / "baselines"
    with pytest.raises(BaselineError, match="--benchmark-save=NAME"):
        choose_device(root, None)
    save_session(device, "x", document())
    assert choose_device(root, None) == device
    save_session(root / "other", "x", document())
    with pytest.raises(BaselineError, match=f"has {DEVICE}, other; name it with --device=ID"):
        choose_device(root, None)
    assert choose_device(root, "other") == root / "other"
    with pytest.raises(BaselineError, match=f"'third'.*{DEVICE}, other"):
        choose_device(root, "third")


def test_among_several_devices_this_machine_is_meant(tmp_path: Path) -> None:
    from pytest_inference_gate.devices import local_identity

    for name in ("other", local_identity().id):
        save_session(tmp_path / name, "x", document())
    assert choose_device(tmp_path, None) == tmp_path / local_identity().id


# Finding one session


def test_a_session_is_found_as_benchmark_compare_finds_it(device: Path) -> None:
    for name in ("jp6", "jp6.1", "quiet"):
        save_session(device, name, document())
    save_session(device / "candidates", "try", document())
    for text, name in (
        ("1", "jp6"),
        ("0003", "quiet"),
        ("qui", "quiet"),
        ("jp6", "jp6"),
        ("0002_jp6.1", "jp6.1"),
        ("candidates/1", "try"),
    ):
        assert find_session(device, text).name == name
    assert find_session(device, str(device / "0002_jp6.1.json")).name == "jp6.1"
    with pytest.raises(BaselineError, match="'jp' names 2 sessions .0001_jp6, 0002_jp6.1.; name one"):
        find_session(device, "jp")
    with pytest.raises(BaselineError, match="holds 0001_jp6"):
        find_session(device, "9")


def test_a_damaged_file_is_noted_and_the_others_are_read(device: Path) -> None:
    save_session(device, "x", document())
    (device / "0002_y.json").write_text("{")
    save_session(device, "z", document())
    found = read_all(device)
    assert [session.name for session in found.sessions] == ["x", "z"]
    assert "it was cut" in found.unreadable[device / "0002_y.json"]


def test_which_sessions_count_is_what_a_run_reads(device: Path) -> None:
    for number in range(13):
        save_session(device, f"s{number}", plain_document() if number == 11 else document())
    assert read_all(device).compared == {session.path for session in read_sessions(device)}


# Comparing two


def test_two_sessions_are_described(device: Path) -> None:
    before = read_session(save_session(device, "x", document("a", "gone", "failing", software={"python": "3.11.7"})))
    condition = {"before": {"load_average": [3.0, 0, 0]}, "after": {}}
    after = read_session(
        save_session(
            device, "y", document("a", "new", scale=1.1, software={"python": "3.12"}, broken=("failing",), condition=condition)
        )
    )
    found = compare_sessions(before, after)
    assert found.software == ("python 3.11.7 -> 3.12",)
    assert found.condition == ("load 0.50 -> 3.00",)
    assert found.identity == ()
    assert (found.only_before, found.only_after, found.newly_broken) == (("gone", "failing"), ("new",), ("failing",))
    (case,) = found.cases
    assert case.ratio == pytest.approx(1.1)
    assert case.interval is not None
    assert case.interval[0] < 1.1 < case.interval[1]


def test_the_energy_of_an_inference_is_set_side_by_side(device: Path) -> None:
    def session(name: str, millijoules: float | None, *, total: str | None = "VDD_IN") -> BaselineSession:
        found = read_session(save_session(device, name, document()))
        rail = {"joules_per_inference": (millijoules or 0) / 1000, "mean_milliwatts": 1.0, "peak_milliwatts": 1.0}
        taken = (
            None if millijoules is None else {"source": "sysfs", "total_rail": total, "rails": {"VDD_IN": rail, "VDD_SOC": rail}}
        )
        cases = {key: replace(case, extra={**case.extra, "telemetry": [taken, None]}) for key, case in found.cases.items()}
        return replace(found, cases=cases)

    def lines(before: BaselineSession, after: BaselineSession) -> str:
        return "\n".join(difference_lines(before, after, compare_sessions(before, after)))

    before, after, without = session("x", 12.1), session("y", 13.0), session("z", None)
    text = lines(before, after)
    assert "mJ, VDD_IN" in text
    assert "12.1 -> 13.0" in text
    assert "VDD_SOC" not in text
    assert "no verdict rests on it" in text
    assert "VDD_SOC" in lines(before, session("parts", 13.0, total=None))
    assert "mJ" not in lines(before, without) + lines(without, after)


def test_another_device_is_named(device: Path) -> None:
    before = read_session(save_session(device, "x", document()))
    after = read_session(
        save_session(device, "y", document(device={"id": "other", "identity": {"machine": "aarch64", "online_cores": 4}}))
    )
    assert compare_sessions(before, after).identity == ("online cores 2 -> 4",)
    bare = read_session(
        save_session(device, "z", document(device={"id": "other", "identity": {"machine": "aarch64", "online_cores": 2}}))
    )
    assert compare_sessions(before, bare).identity == (f"device {DEVICE} -> other",)


def test_a_condition_in_words() -> None:
    before = {
        "load_average": [0.2, 0.1, 0.1], "online": [0, 1], "governors": {"policy0": "schedutil", "policy1": "schedutil"}, "turbo": False,
        "minimum_khz": {"policy0": 300_000}, "current_khz": {"cpu0": 1_400_000, "cpu1": 1_500_000},
        "thermal_zones": [{"name": "cpu", "celsius": 51.2}, {"name": "gpu", "celsius": 40.0}], "memory_available_bytes": 4.2e9,
    }  # fmt: skip
    canary = {"compute": 0.0003, "compute_spread": 0.012, "memory": True, "load_by_others": 0.1, "stolen": 0.03}
    assert condition_figures({"before": before, "after": {**before, "load_average": [1.1, 0.2, 0.1]}, "canary": canary}) == {
        "load": "0.20, then 1.10",
        "cores online": "0,1",
        "governor": "schedutil",
        "lowest frequency": "300 MHz",
        "frequency": "1400 to 1500 MHz",
        "boost": "off",
        "temperature": "51 degrees Celsius",
        "free memory": "4.2 GB",
        "canary, computing": "0.3 ms (standard deviation 1.2%)",
        "load by others": "0.10 cores",
        "time taken by the hypervisor": "3.0%",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(-1e9, 1e9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["load_average", "online", "governors", "minimum_khz", "turbo", "thermal_zones", "compute", "stolen"])


@given(st.dictionaries(st.sampled_from(["before", "after", "canary"]), JSON | st.dictionaries(KEYS, JSON)))
def test_no_condition_stops_the_report(condition: dict[str, Any]) -> None:
    condition_figures(condition)
    assert condition_differences(condition, condition) == []


# Pruning


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (PruneRule(), "1 2 3 4"),
        (PruneRule(keep=2), "3 4"),
        (PruneRule(keep=9), "1 2 3 4"),
        (PruneRule(older_than=timedelta(days=90)), "2 3 4"),
        (PruneRule(older_than=timedelta(0)), "4"),
        (PruneRule(older_than=timedelta(0), everything=True), ""),
        (PruneRule(other_software=True), "2 4"),
        (PruneRule(keep=3, other_software=True), "2 3 4"),
        (PruneRule(everything=True), ""),
        (PruneRule(keep=1, everything=True), "4"),
    ],
)
def test_what_a_rule_lets_go(device: Path, rule: PruneRule, left: str) -> None:
    for days, version in ((100, "1"), (80, "2"), (40, "1"), (1, "2")):
        save_session(device, "x", document(days=days, software={"python": version}))
    save_session(device, "of-other-people", plain_document())
    (device / "notes.txt").write_text("mine")
    others = device / "candidates" / "0001_try.json"
    save_session(others.parent, "try", document(days=500))
    planned = [session.path for session in plan_pruning(device, rule, NOW)]
    assert [session.path for session in prune(device, rule, NOW, planned)] == planned
    assert names(device) == [*(f"000{number}_x.json" for number in left.split()), "0005_of-other-people.json"]
    assert others.exists() and (device / "notes.txt").exists()


def test_a_session_without_a_date_is_not_old(device: Path) -> None:
    save_session(device, "x", {**document(), "datetime": "long ago"})
    save_session(device, "y", document())
    assert plan_pruning(device, PruneRule(older_than=timedelta(0)), NOW) == []


@given(
    st.lists(st.tuples(st.floats(-10, 400), st.sampled_from("AB"), st.booleans()), max_size=12),
    st.none() | st.integers(1, 12),
    st.none() | st.integers(0, 400),
    st.booleans(),
)
def test_pruning_keeps_the_newest_and_what_is_not_the_gates(
    rows: list[tuple[float, str, bool]], keep: int | None, days: int | None, other_software: bool
) -> None:
    sessions = [
        BaselineSession(
            Path(f"{number:04}_x.json"), "x", (NOW - timedelta(days=age)).isoformat(), DEVICE if own else None,
            {"python": version}, {"a": BaselineCase("a", (1.0,), {})} if own else {}, {},
        )
        for number, (age, version, own) in enumerate(rows)
    ]  # fmt: skip
    rule = PruneRule(keep, None if days is None else timedelta(days=days), other_software)
    gone = superfluous_sessions(sessions, rule, NOW)
    own = [session for session in sessions if session.device_id]
    assert all(session in own for session in gone)
    assert not own or own[-1] not in gone
    stays = [session for session in own if session not in gone]
    assert len(stays) >= min(len(own), keep or 1)
    # Applied again, the rule finds nothing more.
    assert superfluous_sessions(stays, rule, NOW) == []


def test_what_was_saved_after_the_question_stays(device: Path) -> None:
    for name in ("x", "y"):
        save_session(device, name, document())
    planned = plan_pruning(device, PruneRule(keep=1), NOW)
    save_session(device, "z", document())
    assert [session.name for session in prune(device, PruneRule(keep=1), NOW, [one.path for one in planned])] == ["x"]
    assert names(device) == ["0002_y.json", "0003_z.json"]


def test_a_damaged_file_stops_pruning(device: Path) -> None:
    save_session(device, "x", document())
    (device / "0002_y.json").write_text("{")
    save_session(device, "z", document())
    with pytest.raises(BaselineError, match="0002_y"):
        prune(device, PruneRule(keep=1), NOW, list_session_files(device))
    assert len(names(device)) == 3


def test_pruning_waits_for_a_run_that_is_saving(device: Path) -> None:
    for name in ("x", "y"):
        save_session(device, name, document())
    pruning = threading.Thread(target=prune, args=(device, PruneRule(keep=1), NOW, list_session_files(device)))
    with session_lock(device):
        pruning.start()
        pruning.join(0.2)
        assert pruning.is_alive() and len(names(device)) == 2
    pruning.join(60)
    assert names(device) == ["0002_y.json"]


def test_runs_that_save_while_it_prunes_lose_nothing(device: Path) -> None:
    save_session(device, "first", document())

    def save(number: int) -> Path:
        return save_session(device, f"s{number}", document())

    def clean(_: int) -> list[Path]:
        planned = [session.path for session in plan_pruning(device, PruneRule(keep=2), NOW)]
        return [session.path for session in prune(device, PruneRule(keep=2), NOW, planned)]

    with ThreadPoolExecutor(4) as pool:
        saving = [pool.submit(save, number) for number in range(12)]
        cleaning = [pool.submit(clean, number) for number in range(6)]
        saved = [future.result() for future in saving]
        removed = [path for future in cleaning for path in future.result()]
    assert sorted(path.name[:4] for path in saved) == [f"{number:04}" for number in range(2, 14)]  # no number was given out twice
    assert len(set(removed)) == len(removed)
    assert set(list_session_files(device)) == {device / "0001_first.json", *saved} - set(removed)


# Promoting


def test_a_candidate_becomes_the_next_session(device: Path) -> None:
    save_session(device, "before", document())
    source = candidate(device, "a", "b")
    content = json.loads(source.read_text())
    done = promote(find_candidate(device, "try").path, device, accept_slower=False, now=NOW)
    assert (done.path, done.already) == (device / "0002_try.json", False)
    assert names(device / "candidates") == []
    promoted = json.loads(done.path.read_text())
    origin = promoted["inference_gate"].pop("promoted_from")
    assert origin["file"] == "0001_try.json"
    assert promoted == content
    assert [session.name for session in read_sessions(device)] == ["before", "try"]


@pytest.mark.parametrize("verdict", ["slower", "inconclusive", "ungateable"])
@pytest.mark.parametrize("left_out", [False, True])
def test_a_slower_candidate_is_promoted_only_if_that_is_accepted(device: Path, verdict: str, left_out: bool) -> None:
    save_session(device, "before", document("a", "b"))
    changes = {"left_out": [{"id": "b", "verdict": verdict}]} if left_out else {"verdict": verdict}
    source = candidate(device, "a" if left_out else "b", **changes)
    with pytest.raises(BaselineError, match=rf"b \({verdict}\).*--accept-slower"):
        promote(source, device, accept_slower=False, now=NOW)
    assert source.exists() and names(device) == ["0001_before.json"]
    assert promote(source, device, accept_slower=True, now=NOW).path.name == "0002_try.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "inaccurate"}, "a is inaccurate"),
        ({"verdict": "invalid"}, "a is invalid"),
        ({"verdict": "fallback"}, "a is fallback"),
        ({"verdict": "over_limit"}, "a is over a limit of its card.* once its card allows"),
        ({"verdict": "splendid"}, "a has no verdict that is known"),
        ({"left_out": [{"id": "b", "verdict": "pass"}]}, "b had a failed test"),
        ({"broken": ("b",)}, "b is broken, which the baseline does not know"),
    ],
)
def test_what_is_red_for_more_than_latency_is_never_promoted(device: Path, changes: dict[str, Any], message: str) -> None:
    save_session(device, "before", document("a", "b", broken=("c",)))
    source = candidate(device, "a", **changes)
    with pytest.raises(BaselineError, match=message):
        promote(source, device, accept_slower=True, now=NOW)
    assert source.exists() and names(device) == ["0001_before.json"]


def test_what_the_baseline_has_as_broken_may_be_so(device: Path) -> None:
    save_session(device, "before", document("a", broken=("c",)))
    save_session(device, "part", document("a"))  # a run of some cases only knows nothing of the others
    assert promote(candidate(device, "a", broken=("c",)), device, accept_slower=False, now=NOW).path.name == "0003_try.json"


def test_what_worked_again_in_between_is_not_known_as_broken(device: Path) -> None:
    save_session(device, "before", document("a", broken=("c",)))
    save_session(device, "fixed", document("a", "c"))
    with pytest.raises(BaselineError, match="c is broken"):
        promote(candidate(device, "a", broken=("c",)), device, accept_slower=True, now=NOW)


def test_a_file_that_does_not_tell_what_was_left_out_is_noted(device: Path) -> None:
    found = objections(read_session(save_session(device / "candidates", "old", document())), [])
    assert found.records_left_out is False
    assert not found.slower and not found.severe


def test_only_candidates_of_this_device_are_found(device: Path) -> None:
    baseline = save_session(device, "before", document())
    with pytest.raises(BaselineError, match="holds no candidate"):
        find_candidate(device, "1")
    candidate(device, "a")
    assert find_candidate(device, "candidates/1").path == find_candidate(device, "1").path
    with pytest.raises(BaselineError, match="is not in"):
        find_candidate(device, str(baseline))
    save_session(device / "candidates", "foreign", document(device={"id": "other"}))
    with pytest.raises(BaselineError, match="of the device other"):
        find_candidate(device, "foreign")


def test_promoting_at_once_from_many_sides_makes_one_session(device: Path) -> None:
    source = candidate(device, "a")

    def attempt(_: int) -> bool | None:
        try:
            return promote(source, device, accept_slower=False, now=NOW).already
        except BaselineError:
            return None  # the candidate is gone

    with ThreadPoolExecutor(4) as pool:
        assert sorted(map(str, pool.map(attempt, range(4)))) == ["False", "None", "None", "None"]
    assert names(device) == ["0001_try.json"]


KILLED = """
import os, signal, sys
from datetime import datetime, timezone
from pathlib import Path
from pytest_inference_gate.baseline_command.promotion import promote
from pytest_inference_gate.baseline_command.pruning import PruneRule, prune
from pytest_inference_gate.baselines import list_session_files

action, call, device = sys.argv[1], sys.argv[2], Path(sys.argv[3])
left = 2 if action == "prune" else 1

def killing(original):
    def killing_call(path, *arguments, **options):
        global left
        if call == "link" or str(path).endswith(".json"):  # not the temporary files
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(path, *arguments, **options)
    return killing_call

if call == "link":
    os.link = killing(os.link)
else:
    Path.unlink = killing(Path.unlink)
now = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
if action == "promote":
    promote(device / "candidates" / "0001_try.json", device, accept_slower=False, now=now)
else:
    prune(device, PruneRule(keep=1), now, list_session_files(device))
"""


def kill_during(action: str, call: str, device: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, action, call, str(device)], capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr.decode()


def test_a_promotion_that_was_killed_is_finished_by_the_next(device: Path) -> None:
    save_session(device, "before", document())
    source = candidate(device, "a")
    kill_during("promote", "unlink", device)
    assert source.exists()
    assert names(device) == ["0001_before.json", "0002_try.json"]
    done = promote(source, device, accept_slower=False, now=NOW)
    assert (done.path, done.already) == (device / "0002_try.json", True)
    assert not source.exists()
    assert names(device) == ["0001_before.json", "0002_try.json"]


def test_a_promotion_that_was_killed_before_its_file_was_there_has_done_nothing(device: Path) -> None:
    source = candidate(device, "a")
    kill_during("promote", "link", device)
    assert source.exists()
    assert names(device) == []
    assert promote(source, device, accept_slower=False, now=NOW).already is False
    assert names(device) == ["0001_try.json"]


def test_pruning_that_was_killed_has_removed_the_oldest_only(device: Path) -> None:
    for name in ("a", "b", "c"):
        save_session(device, name, document())
    kill_during("prune", "unlink", device)
    assert names(device) == ["0002_b.json", "0003_c.json"]
    assert len(prune(device, PruneRule(keep=1), NOW, list_session_files(device))) == 1
    assert names(device) == ["0003_c.json"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_explained(device: Path) -> None:
    for name in ("a", "b"):
        save_session(device, name, document())
    planned = [one.path for one in plan_pruning(device, PruneRule(keep=1), NOW)]
    device.chmod(0o555)
    try:
        with pytest.raises(BaselineError, match="no permission"):
            prune(device, PruneRule(keep=1), NOW, planned)
    finally:
        device.chmod(0o755)
