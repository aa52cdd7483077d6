"""The benchmarks run; how fast anything is, is nothing for a test to say."""

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "benchmarks" / "run.py"


def test_every_row_can_be_measured_on_every_backend() -> None:
    ran = subprocess.run([sys.executable, RUN, "--quick", "--markdown"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    lines = [line.strip("| ").split(" | ") for line in ran.stdout.splitlines()[2:]]
    assert {line[1] for line in lines} >= {"json", "sqlite", "sqlite relaxed", "postgres", "pydantic_ai", "-"}
    assert {line[-1] for line in lines} <= {"ok", "over"}
