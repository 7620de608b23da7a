#!/usr/bin/env python3
"""Runs every command of the README, as it stands there, in order.

A command is a line of a fenced block marked `sh`. Blocks marked otherwise (`rust`, `ron`, `text`) are not run here: doc tests and the spec tests read those.
"""
import pathlib
import re
import subprocess
import sys
import time

root = pathlib.Path(__file__).resolve().parent.parent
blocks = re.findall(r"^```sh\n(.*?)^```", (root / "README.md").read_text(), re.M | re.S)
commands = [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]
if not commands:
    sys.exit("the README has no commands")
for command in commands:
    print(f"\n$ {command}", flush=True)
    began = time.monotonic()
    code = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=root).returncode
    print(f"({time.monotonic() - began:.0f} s)", flush=True)
    if code != 0:
        sys.exit(f"`{command}` exited with {code}")
print(f"\n{len(commands)} commands of the README ran")
