#!/usr/bin/env python3
"""Measures FFJORD here and in PyTorch (torchdiffeq) in turn on one machine, and prints medians and ratios.

  python beside_torch.py --peer torch_families.py [--python PYTHON_WITH_TORCH] [--runs 3] [--dim 48 --hidden 64 --rows 4096 --threads 2 --tol 1e-5]

`--peer` is a script that takes `ffjord --dim … --hidden … --rows … --threads … --steps … --tol …` and prints a JSON line with `train_s`, `train_evaluations` and
`sample_s`; PEER_SCRIPT and PEER_PYTHON in the environment do as well. Needs `cargo`; run it on an idle machine.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parents[3]


def last_json(command):
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--peer", default=os.environ.get("PEER_SCRIPT"))
    ap.add_argument("--python", default=os.environ.get("PEER_PYTHON", sys.executable))
    ap.add_argument("--runs", type=int, default=3)
    for flag, default in dict(dim=48, hidden=64, rows=4096, threads=2, steps=5).items():
        ap.add_argument(f"--{flag}", type=int, default=default)
    ap.add_argument("--tol", default="1e-5")
    a = ap.parse_args()
    if not a.peer:
        ap.error("--peer or PEER_SCRIPT has to name the PyTorch script")
    sizes = [w for flag in ("dim", "hidden", "rows", "threads", "steps", "tol") for w in (f"--{flag}", str(getattr(a, flag)))]
    subprocess.run(["cargo", "build", "--release", "-p", "flows-ffjord", "--example", "measure_ffjord"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    ours = [str(target / "release/examples/measure_ffjord"), *sizes]
    sides = {"torch": [a.python, os.path.abspath(a.peer), "ffjord", *sizes], "full norm": [*ours, "--seminorm", "false"],
             "seminorm": [*ours, "--seminorm", "true"]}
    results = {name: [] for name in sides}
    for _ in range(a.runs):
        for name, command in sides.items():
            results[name].append(last_json(command))
    median = lambda name, key: statistics.median(r[key] for r in results[name] if key in r)
    for name in sides:
        train, sample, evaluations = median(name, "train_s"), median(name, "sample_s"), median(name, "train_evaluations")
        line = f"{name:>10}: training step {train:.4f} s, {evaluations:g} evaluations; sampling {sample:.4f} s"
        if name != "torch":
            ratio = median("torch", "train_s") / train
            each = ratio * evaluations / median("torch", "train_evaluations")
            line += f", {median(name, 'sample_evaluations'):g} evaluations"
            line += f"; {ratio:.1f}x faster a step, {each:.1f}x an evaluation, {median('torch', 'sample_s') / sample:.1f}x sampling"
        print(line)


if __name__ == "__main__":
    main()
