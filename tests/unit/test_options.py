"""Options: what each value means, how a bad one is told, and that every option has a twin in the ini file."""

import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate import options
from pytest_inference_gate.options import (
    DEFAULT_TIMEOUTS,
    OPTIONS,
    parse_count,
    parse_counts,
    parse_python,
    parse_relaxed,
    parse_seconds,
    parse_seed,
    parse_share,
    parse_size,
    parse_timeout,
)
from pytest_inference_gate.streams.option import StreamOption
from pytest_inference_gate.targets.ssh_address import SshAddress

PARSERS = (
    parse_share,
    parse_size,
    parse_count,
    parse_counts,
    parse_seed,
    parse_seconds,
    parse_timeout,
    parse_relaxed,
    parse_python,
)
ALMOST = st.one_of(
    st.text(),
    st.from_regex(r"\s*[0-9]+(\.[0-9]+)?\s*(%|[KMGT]?i?B)?\s*", fullmatch=True),
    st.from_regex(r"[0-9]{1,400}(,[0-9]{0,3}){0,3}", fullmatch=True),
    st.from_regex(r"(probe|convert|load|predict|measure|fly)=-?[0-9]{1,400}(\.[0-9]+)?", fullmatch=True),
    st.lists(st.sampled_from([*options.RELAXABLE, "slower", ""])).map(",".join),
)


@pytest.mark.parametrize("parse", PARSERS)
@given(text=ALMOST)
def test_a_parser_gives_a_value_or_the_end_of_a_sentence(parse, text):
    try:
        value = parse(text)
    except options._BadValue as error:
        sentence = str(error)
    else:
        check(parse, value)
        return
    assert re.fullmatch(r"(is not|must be|names) [^\n]*", sentence)


def check(parse, value):
    if parse is parse_share:
        assert 0 < value < 10
    elif parse in (parse_count, parse_size):
        assert isinstance(value, int) and value >= 1
    elif parse is parse_counts:
        assert value and all(isinstance(number, int) and number >= 1 for number in value)
    elif parse is parse_seed:
        assert isinstance(value, int) and value >= 0
    elif parse is parse_seconds:
        assert 0 <= value <= 600
    elif parse is parse_timeout:
        assert value[0] in DEFAULT_TIMEOUTS and 0 < value[1] * 1000 < 2**31  # milliseconds, as poll takes them
    elif parse is parse_relaxed:
        assert set(value) <= set(options.RELAXABLE)
    else:
        assert os.access(value, os.X_OK) and Path(value).is_absolute()


@given(st.floats(0.001, 999, allow_nan=False).map(lambda value: round(value, 3)), st.sampled_from(["", " "]))
def test_a_percentage_is_its_share(percent, space):
    assert parse_share(f"{percent}{space}%") == pytest.approx(percent / 100)


@given(st.integers(1, 2**30), st.sampled_from(["", "B", "K", "k", "KB", "KiB", "MiB", "GiB", " GiB", "TiB"]))
def test_sizes_are_in_powers_of_1024(count, unit):
    power = " KMGT".index(unit.strip().upper()[:1].replace("B", "") or " ")
    assert parse_size(f"{count}{unit}") == count * 1024**power


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_share, "2.5 %", 0.025),
        (parse_share, "0.05", 0.05),
        (parse_size, "1.5GiB", 3 * 2**29),
        (parse_counts, "1, 8,32", (1, 8, 32)),
        (parse_seconds, "0", 0.0),
        (parse_timeout, "convert=90", ("convert", 90.0)),
        (parse_relaxed, " inconclusive , invalid,", ("inconclusive", "invalid")),
        (parse_seed, "0", 0),
    ],
)
def test_what_values_mean(parse, text, value):
    assert parse(text) == value


def test_an_interpreter_is_a_path_a_name_or_an_environment_and_its_link_is_kept(tmp_path, monkeypatch):
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    own = str(environment / "bin" / "python")
    assert parse_python(own) == own
    assert parse_python(str(environment)) == own
    monkeypatch.setenv("PATH", str(environment / "bin"))
    assert parse_python("python") == own


# ---------------------------------------------------------------- sessions

IDLE = "def test_nothing():\n    pass\n"


def run(pytester, *arguments):
    """A session of a project that has the plugin and no case."""
    if not list(pytester.path.glob("test_*.py")):
        pytester.makepyfile(test_nothing=IDLE)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


BAD = {
    "batches": ["0", "1,", "two", "9" * 5000],
    "threads": ["-1", "1.5"],
    "convert-with": ["no-such-python", "/no/such/python", "~nobody-of-this-name/python"],
    "run-with": ["no-such-python"],
    "target": [
        "nano",
        "ssh://",
        "ssh://me:secret@nano",
        "ssh://nano:0",
        "ssh://nano/home",
        "ssh://nano?python=",
        "bundle:",
        "bundle: ",
    ],
    "against": ["no-such-python"],
    "budget": ["0", "-1", "2m", "9999999"],
    "replicates": ["0", "five"],
    "rebuilds": ["0", "thrice"],
    "rounds": ["0", "1e3"],
    "warm-up": ["-1", "1h", "601"],
    "stream": ["no/such/video.mp4", "camera:", "no/such/folder?frame_rate=0"],
    "sustained": ["0", "0.5", "ten", "-1", "9999999"],
    "tolerance": ["5", "0", "five per cent", "-5%", "1000%"],
    "relax": ["slower", "inconclusive,broken"],
    "jobs": ["0", "many"],
    "timeout": ["convert", "fly=3", "convert=0", "convert=ten", "convert=9999999"],
    "memory-limit": ["0", "much", "4 elephants"],
    "seed": ["-1", "x"],
    "table": ["pie", "grid,latency"],
}
EASY = {
    "models": "cards",
    "against-models": "older",
    "select": "*",
    "baselines": "elsewhere",
    "store": "elsewhere",
    "json": "elsewhere.json",
    "mirror": "https://example.org/",
}


def test_every_option_has_a_bad_value_here_or_takes_any_text():
    assert {option.name for option in OPTIONS} == {*BAD, *EASY, "offline"}


@pytest.mark.parametrize("name", [*BAD, *EASY])
def test_a_bad_value_ends_the_run_at_once_with_one_sentence_that_names_where_it_stands(pytester, name):
    key = "gate_" + name.replace("-", "_")
    for value in [*BAD.get(name, ()), ""]:
        result = run(pytester, f"--gate-{name}={value}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert [line for line in result.stderr.lines if line] == [
            line for line in result.stderr.lines if line.startswith(f"ERROR: --gate-{name}: ")
        ]
        assert len(result.stderr.str().splitlines()) <= 2
        assert "collected" not in result.stdout.str()
        if not value or "/" in value:
            continue  # an empty key of an ini file is one that is not there; a path is told as it is looked up
        pytester.makeini(f"[pytest]\n{key} = {value}\n")
        result = run(pytester)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: ini option {key}: *"])
        (pytester.path / "tox.ini").unlink()


def test_a_switch_of_the_ini_file_is_true_or_false(pytester):
    pytester.makeini("[pytest]\ngate_offline = maybe\n")
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: ini option gate_offline: the value is neither true nor false"])


def test_help_has_one_group_with_every_option_and_its_twin(pytester):
    result = pytester.runpytest_inprocess("--help")
    assert result.ret == 0
    lines = result.stdout.lines
    start = lines.index("inference-gate: performance regression gate for neural networks:")
    end = next(number for number in range(start + 1, len(lines)) if lines[number] and not lines[number].startswith(" "))
    group = " ".join(" ".join(lines[start:end]).split())
    for option in OPTIONS:
        metavar = "" if option.metavar is None else f"={option.metavar}"
        assert group.count(f"--gate-{option.name}{metavar} ") == 1
        # A long line is broken after a hyphen too, but a key has none.
        assert f"(ini: {option.destination})" in group
    assert "%%" not in group
    assert "such as 5%" in group
    outside = " ".join(lines[:start] + lines[end:])
    for option in OPTIONS:
        assert f"--gate-{option.name}" not in outside
        assert f"{option.destination} (" in outside  # pytest's own list of ini keys


VALUES = {  # name: (text in the ini file, on the command line), (the setting's value, the command line's)
    "stream": (("bin?frame_rate=15", "camera:1"), (("<ini>/bin", 15.0), ("camera:1", None))),
    "sustained": (("60", "600"), (60.0, 600.0)),
    "models": (("cards", "other"), (("<ini>/cards",), ("<cwd>/other",))),
    "select": (("a* b*", "c*"), (("a*", "b*"), ("c*",))),
    "batches": (("1,2", "4"), ((1, 2), (4,))),
    "threads": (("1,2", "4"), ((1, 2), (4,))),
    "convert_with": (("bin/python", "bin/python"), ("<ini>/bin/python", "<cwd>/bin/python")),
    "run_with": (("./bin/python", "../bin/python"), ("<ini>/bin/python", "<cwd>/../bin/python")),
    "target": (("ssh://nano", "ssh://me@orin:22"), ((SshAddress("nano"),), (SshAddress("orin", "me", 22),))),
    "against": (("bin/python", "../bin/python"), ("<ini>/bin/python", "<cwd>/../bin/python")),
    "against_models": (("older", "../older"), ("<ini>/older", "<cwd>/../older")),
    "replicates": (("2", "3"), (2, 3)),
    "budget": (("30", "2.5"), (30.0, 2.5)),
    "rebuilds": (("2", "3"), (2, 3)),
    "rounds": (("20", "30"), (20, 30)),
    "warm_up": (("0.5", "2"), (0.5, 2.0)),
    "relax": (("invalid", "inconclusive,ungateable"), ({"invalid"}, {"inconclusive", "ungateable"})),
    "baselines": (("kept", "../other"), ("<ini>/kept", "<cwd>/../other")),
    "store": (("store", "other"), ("<ini>/store", "<cwd>/other")),
    "json": (("out/result.json", "result.json"), ("<ini>/out/result.json", "<cwd>/result.json")),
    "mirror": (("https://a.example/", "https://b.example/"), ("https://a.example/", "https://b.example/")),
    "jobs": (("2", "3"), (2, 3)),
    "timeout": (
        ("load=5 measure=6", "load=7"),
        ({**DEFAULT_TIMEOUTS, "load": 5.0, "measure": 6.0}, {**DEFAULT_TIMEOUTS, "load": 7.0}),
    ),
    "memory_limit": (("1GiB", "2GiB"), (2**30, 2**31)),
    "seed": (("1", "2"), (1, 2)),
    "table": (("grid", "latency"), ("grid", "latency")),
}


def _plain(value):
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, StreamOption):
        return value.source, value.keys.get("frame_rate")
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def test_every_twin_works_and_the_command_line_wins(pytester, monkeypatch):
    """The ini file lies in one folder, and the user stands in another one below it."""
    assert {option.destination for option in OPTIONS} == {f"gate_{name}" for name in [*VALUES, "offline", "tolerance"]}
    here = pytester.mkdir("here")
    for folder in (pytester.path, here):
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(sys.executable)
    keys = "\n".join(f"gate_{name} = {texts[0]}" for name, (texts, _) in VALUES.items())
    pytester.makeini(f"[pytest]\n{keys}\ngate_offline = true\ngate_tolerance = 3%\n")
    monkeypatch.chdir(here)

    def expected(value):
        if isinstance(value, str):
            return value.replace("<ini>", str(pytester.path)).replace("<cwd>", str(here))
        return tuple(map(expected, value)) if isinstance(value, tuple) else value

    config = pytester.parseconfig()
    settings = options.read_settings(config)
    assert options.is_configured(config)
    for name, (_, (value, _)) in VALUES.items():
        assert _plain(getattr(settings, {"timeout": "timeouts", "target": "targets"}.get(name, name))) == expected(value), name
    assert settings.offline is True
    assert (settings.tolerance, settings.default_tolerance) == (None, 0.03)

    arguments = [f"--gate-{name.replace('_', '-')}={texts[1]}" for name, (texts, _) in VALUES.items()]
    settings = options.read_settings(pytester.parseconfig(*arguments, "--gate-tolerance=7%"))
    for name, (_, (_, value)) in VALUES.items():
        assert _plain(getattr(settings, {"timeout": "timeouts", "target": "targets"}.get(name, name))) == expected(value), name
    assert settings.tolerance == 0.07


def test_without_any_option_the_project_counts_as_one_that_does_not_use_the_gate(pytester):
    config = pytester.parseconfig()
    settings = options.read_settings(config)
    assert not options.is_configured(config)
    assert settings.baselines == config.rootpath / "baselines"
    assert (settings.store, settings.tolerance, settings.default_tolerance, settings.offline) == (None, None, 0.05, False)
    for argument in ("--gate-offline", "--gate-seed=0", "--gate-select=x"):
        assert options.is_configured(pytester.parseconfig(argument))
    pytester.makeini("[pytest]\ngate_offline = false\n")
    assert options.is_configured(pytester.parseconfig())


def test_options_that_may_be_given_again_add_up(pytester):
    settings = options.read_settings(
        pytester.parseconfig(
            "--gate-models=a",
            "--gate-models=b",
            "--gate-select=x",
            "--gate-select=y",
            "--gate-timeout=load=1",
            "--gate-timeout=measure=2",
        )
    )
    assert [path.name for path in settings.models] == ["a", "b"]
    assert settings.select == ("x", "y")
    assert settings.timeouts == {**DEFAULT_TIMEOUTS, "load": 1.0, "measure": 2.0}


def test_a_home_folder_is_found(pytester, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert options.read_settings(pytester.parseconfig("--gate-store=~/store")).store == tmp_path / "store"


@pytest.mark.parametrize(
    "line", ["gate_batches = [1, 4]", 'gate_relax = ["invalid"]', "gate_timeout = [5]", 'gate_models = [["a"]]']
)
def test_what_pyproject_can_say_and_an_option_cannot_take_is_told_in_one_sentence(pytester, line):
    pytester.makepyfile(test_idle=IDLE)
    pytester.path.joinpath("pyproject.toml").write_text(f"[tool.pytest.ini_options]\n{line}\n")
    result = pytester.runpytest_inprocess()
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: ini option {line.split()[0]}: * is not *"])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
