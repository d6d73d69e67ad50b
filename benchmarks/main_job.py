"""How long the main job takes: the embedded models on this machine's CPU, with an empty store and with a warm one.

    python benchmarks/main_job.py

Runs ``pytest -m cpu`` twice with a store of its own, in the environment of the interpreter that runs this script (with the extras
``all``), and prints both wall times and where they went, as the result files say.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(folder, name):
    result = folder / f"{name}.json"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cpu", f"--gate-store={folder / 'store'}", f"--gate-json={result}"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"the {name} run failed:\n{done.stdout}{done.stderr}")
    document = json.loads(result.read_text())
    phases = ", ".join(f"{phase} {spent:.1f} s" for phase, spent in document["phases"].items())
    print(f"{name} store: {seconds:.1f} s for {len(document['cases'])} cases ({phases})")
    return seconds


def main():
    with tempfile.TemporaryDirectory() as folder:
        cold = run(Path(folder), "empty")
        warm = run(Path(folder), "warm")
    print(f"warm / empty: {warm / cold:.2f}")


if __name__ == "__main__":
    main()
