"""The kernel's counters of processes killed for memory."""

from __future__ import annotations

from pathlib import Path

from pytest_inference_gate.kernel_memory import oom_kills


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_machine_and_the_group_of_version_2(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/vmstat": "nr_free_pages 5\noom_kill 2\n",
            "proc/self/cgroup": "0::/user.slice/run.scope\n",
            "sys/fs/cgroup/user.slice/run.scope/memory.events": "low 0\noom 4\noom_kill 3\noom_group_kill 9\n",
        },
    )
    assert oom_kills(root) == (2, 3)


def test_the_group_of_version_1(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/a\n4:hugetlb,memory:/a\n",
            "sys/fs/cgroup/memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
        },
    )
    assert oom_kills(root) == (7,)


def test_in_a_container_the_group_is_the_root_of_the_mount(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/docker/1234\n", "sys/fs/cgroup/memory.events": "oom_kill 1\n"})
    assert oom_kills(root) == (1,)


def test_where_nothing_can_be_read_nothing_is_counted(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) == ()
