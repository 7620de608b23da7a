#!/usr/bin/env python3
"""Runs this toolkit and PyTorch in turn on one machine and prints medians, ratios and goals as a table in Markdown.

  python3 benches/beside_torch.py --python .peers/bin/python [--runs 5] [--only NAME ...] [--compile] [--json FILE] [--chart FILE.svg] [--peers FOLDER]

The other side is `benches/peers` (whose README says how to set up Python) or another FOLDER with `torch_mixerflow.py` (`bench --channels … --layers …`),
`torch_glow.py` and `torch_jet.py` (`bench`) and `torch_families.py` (`residual`, `ffjord`, `autoregressive`), each of which prints one JSON line; PEERS and PEER_PYTHON in the environment do as well. Needs `cargo`; run it on an idle machine. A ratio is PyTorch's median over ours: above 1, we are faster.
"""
import argparse, json, os, pathlib, platform, statistics, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def shape(channels=3, size=32, patch=4, layers=30, hidden=128, batch=64, threads=2):
    return dict(channels=channels, size=size, patch=patch, layers=layers, hidden=hidden, batch=batch, threads=threads)


# Name -> (arguments of both sides, ours alone, [(what, PyTorch's key, our key, goal)]).
TRAIN, SCORE, SAMPLE = ("training step", "train_s", "train_s"), ("log p", "log_prob_s", "log_prob_s"), ("sampling", "sample_s", "sample_s")
MIXER = {
    "30 layers, Store": (shape(), {"memory": "store"}, [(*TRAIN, 1.8), (*SCORE, 1.6), (*SAMPLE, 2.2)]),
    "30 layers, Recompute": (shape(), {"memory": "recompute"}, [(*TRAIN, 1.4)]),
    "30 layers, Invert": (shape(), {"memory": "invert"}, [(*TRAIN, None)]),
    "30 layers, one thread": (shape(threads=1), {}, [(*TRAIN, None)]),
    "28×28×1, 30 layers, batch 16": (shape(channels=1, size=28, batch=16), {}, [(*TRAIN, 4), (*SCORE, None), (*SAMPLE, None)]),
    "8×8×1, 8 layers, batch 128": (shape(channels=1, size=8, patch=2, layers=8, hidden=64, batch=128), {}, [(*TRAIN, 6), (*SCORE, None), (*SAMPLE, None)]),
    "6 layers": (shape(layers=6), {}, [(*TRAIN, None)]),
    "15 layers": (shape(layers=15), {}, [(*TRAIN, None)]),
    "60 layers": (shape(layers=60), {}, [(*TRAIN, None)]),
    "32 pixels, 8 layers": (shape(layers=8, batch=64), {}, [(*TRAIN, None)]),
    "64 pixels, 8 layers": (shape(layers=8, size=64, patch=8, batch=16), {}, [(*TRAIN, None)]),
    "128 pixels, 8 layers": (shape(layers=8, size=128, patch=16, batch=4), {}, [(*TRAIN, None)]),
    "256 pixels, 8 layers": (shape(layers=8, size=256, patch=16, batch=1), {}, [(*TRAIN, None)]),
}
# Calls of some milliseconds: more of them, for a steady mean.
SHORT = {"28×28×1, 30 layers, batch 16": 4, "8×8×1, 8 layers, batch 128": 10, "residual flow": 4}
# Of Glow the two sides have other names for the same.
GLOW = {
    "Glow, 3 × 8 steps": (dict(channels=3, size=32, levels=3, batch=64, threads=2), 8, dict(hidden=128), {"memory": "store"}, [(*TRAIN, 1), (*SCORE, 1.2), (*SAMPLE, 1.2)]),
    "Glow, 3 × 8 steps, Invert": (dict(channels=3, size=32, levels=3, batch=64, threads=2), 8, dict(hidden=128), {"memory": "invert"}, [(*TRAIN, None)]),
    "Glow, 8×8×1, 2 × 8 steps": (dict(channels=1, size=8, levels=2, batch=128, threads=2), 8, dict(hidden=64), {}, [(*TRAIN, 1), (*SCORE, 1.2), (*SAMPLE, 1.2)]),
}
# Of Jet both sides have the same names.
JET = {
    "Jet, 10 couplings": (dict(channels=3, size=32, patch=4, couplings=10, width=128, blocks=2, heads=4, batch=64, threads=2), {}, [(*TRAIN, 1), (*SCORE, 1), (*SAMPLE, 1)]),
    "Jet, 10 couplings, Invert": (dict(channels=3, size=32, patch=4, couplings=10, width=128, blocks=2, heads=4, batch=64, threads=2), {"memory": "invert"}, [(*TRAIN, None)]),
    "Jet by mixers, 10 couplings": (dict(channels=3, size=32, patch=4, couplings=10, width=128, blocks=2, network="mixer", batch=64, threads=2), {}, [(*TRAIN, 1), (*SCORE, 1), (*SAMPLE, 1)]),
    "Jet, 8×8×1, 30 couplings": (dict(channels=1, size=8, patch=2, couplings=30, width=32, blocks=1, heads=4, batch=128, threads=2), {}, [(*TRAIN, 1), (*SCORE, 1), (*SAMPLE, 1)]),
}
FAMILIES = {
    "residual flow": ("residual", dict(dim=48, hidden=128, rows=4096, threads=2), {}, [(*TRAIN, 2.5), ("inverse", "inverse_s", "inverse_s", 2)]),
    "autoregressive flows": ("autoregressive", dict(dim=48, hidden=128, rows=4096, threads=2), {}, [(*TRAIN, 3), (*SCORE, None), (*SAMPLE, 3)]),
    "FFJORD": ("ffjord", dict(dim=48, hidden=64, rows=4096, threads=2), {"seminorm": "false"}, [(*TRAIN, 4), (*SAMPLE, 3)]),
}


def words(arguments):
    return [w for key, value in arguments.items() for w in (f"--{key}", str(value))]


def last_json(command):
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def in_turn(sides, runs):
    """Medians per side and key, the sides run in turn."""
    found = {side: [] for side in sides}
    for _ in range(runs):
        for side, command in sides.items():
            found[side].append(last_json(command))
    keys = {side: [k for k, v in rows[0].items() if isinstance(v, (int, float))] for side, rows in found.items()}
    return {side: {k: statistics.median(row[k] for row in rows) for k in keys[side]} for side, rows in found.items()}


def cold_start(a, ours, runs):
    """Seconds from the start of the program to the first log p of one image."""
    peer = ("import sys; sys.path.insert(0, sys.argv[1]); import torch, torch_mixerflow as t; torch.manual_seed(0);"
            "m = t.MixerFlow(3, 32, 4, 30, 128, 1, 4); x = torch.rand(2, 3, 32, 32);\n"
            "with torch.no_grad(): m(x); print(m.log_prob(x[:1]))")
    sides = {"torch": [a.python, "-c", peer, a.peers], "ours": [ours, "mixerflow", "--cold"]}
    found = {side: [] for side in sides}
    for _ in range(runs):
        for side, command in sides.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[side].append(time.perf_counter() - start)
    return {side: {"cold_s": statistics.median(seconds)} for side, seconds in found.items()}


def machine():
    try:
        cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def chart(rows, path):
    """Bars of the ratios that have a goal, with the goal as a line on each."""
    rows = [r for r in rows if r["goal"]]
    width, height, left = 760, 34 * len(rows) + 40, 330
    most = max(max(r["ratio"], r["goal"]) for r in rows)
    unit = (width - left - 70) / min(most, 12)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="14">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           '<text x="10" y="22" font-weight="bold">times faster than PyTorch (line: the goal)</text>']
    for i, r in enumerate(rows):
        y, bar = 40 + 34 * i, min(r["ratio"], 12) * unit
        goal = left + min(r["goal"], 12) * unit
        out += [f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{r["case"]}: {r["what"]}</text>',
                f'<rect x="{left}" y="{y}" width="{bar:.1f}" height="20" fill="{"#2f6fb5" if r["ratio"] >= r["goal"] else "#c98a3b"}"/>',
                f'<line x1="{goal:.1f}" x2="{goal:.1f}" y1="{y - 3}" y2="{y + 23}" stroke="#222" stroke-width="2"/>',
                f'<text x="{max(left + bar, goal) + 8:.1f}" y="{y + 15}">{r["ratio"]:.1f}×</text>']
    pathlib.Path(path).write_text("\n".join(out + ["</svg>"]) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--peers", default=os.environ.get("PEERS", ROOT / "benches/peers"), help="folder of the PyTorch scripts")
    ap.add_argument("--python", default=os.environ.get("PEER_PYTHON", sys.executable))
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--only", action="append", help="part of a case's name")
    ap.add_argument("--compile", action="store_true", help="torch.compile on the other side of MixerFlow")
    ap.add_argument("--json")
    ap.add_argument("--chart")
    a = ap.parse_args()
    wanted = lambda name: not a.only or any(part in name for part in a.only)
    subprocess.run(["cargo", "build", "--release", "--example", "measure"], cwd=ROOT, check=True)
    ours = str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release/examples/measure")
    steps = ["--steps", str(a.steps)]
    rows = []

    def report(name, sides, measures):
        for what, theirs, own, goal in measures:
            torch, mine = sides["torch"][theirs], sides["ours"][own]
            ratio = torch / mine
            note = ""
            if "train_evaluations" in sides["torch"] and own == "train_s":
                # At equal evaluations.
                each = ratio * sides["ours"]["train_evaluations"] / sides["torch"]["train_evaluations"]
                note = f"; {sides['ours']['train_evaluations']:.0f} evaluations against {sides['torch']['train_evaluations']:.0f}: {each:.1f}× each"
            rows.append({"case": name, "what": what, "torch": torch, "ours": mine, "ratio": ratio, "goal": goal, "sides": sides})
            print(f"| {name} | {what} | {torch:.4f} | {mine:.4f} | {ratio:.2f}{note} | {'≥ %g' % goal if goal else '–'} |", flush=True)

    limit = last_json([ours, "product", *steps])["gflops"]
    print(f"{machine()}; matrix product 8192×512×512: {limit:.0f} GFLOP/s; medians of {a.runs} runs in turn\n")
    print("| case | what | PyTorch s | ours s | ratio | goal |\n|---|---|---|---|---|---|")
    for name, (both, own, measures) in MIXER.items():
        if wanted(name):
            calls = ["--steps", str(a.steps * SHORT.get(name, 1))]
            torch = [a.python, f"{a.peers}/torch_mixerflow.py", "bench", *words(both), *calls, *(["--compile"] if a.compile else [])]
            report(name, in_turn({"torch": torch, "ours": [ours, "mixerflow", *words(both | own), *calls]}, a.runs), measures)
    for name, (both, count, net, own, measures) in GLOW.items():
        if wanted(name):
            torch = [a.python, f"{a.peers}/torch_glow.py", "bench", *words(both | net | {"steps": count, "repeats": a.steps})]
            mine = [ours, "glow", *words(both | own | {"steps-a-level": count, "coupling": f"Affine(hidden: {net['hidden']})"}), *steps]
            report(name, in_turn({"torch": torch, "ours": mine}, a.runs), measures)
    for name, (both, own, measures) in JET.items():
        if wanted(name):
            torch = [a.python, f"{a.peers}/torch_jet.py", "bench", *words(both | {"repeats": a.steps})]
            report(name, in_turn({"torch": torch, "ours": [ours, "jet", *words(both | own), *steps]}, a.runs), measures)
    for name, (kind, both, own, measures) in FAMILIES.items():
        if wanted(name):
            torch = [a.python, f"{a.peers}/torch_families.py", kind, *words(both), *steps]
            report(name, in_turn({"torch": torch, "ours": [ours, kind, *words(both | own), *steps]}, a.runs), measures)
    if wanted("cold start"):
        report("cold start", cold_start(a, ours, a.runs), [("first log p", "cold_s", "cold_s", 50)])
    memory = {}
    if wanted("memory"):
        print("\n| layers | PyTorch peak MiB | ours, Store | Recompute | Invert |\n|---|---|---|---|---|")
    for layers in (6, 15, 30, 60):
        if wanted("memory"):
            both = shape(layers=layers)
            torch = last_json([a.python, f"{a.peers}/torch_mixerflow.py", "bench", *words(both), "--steps", "1"])
            key = next(k for k in torch if "rss" in k)
            own = [last_json([ours, "mixerflow", *words(both), "--memory", m, "--steps", "1"])["train_rss_mib"] for m in ("store", "recompute", "invert")]
            memory[layers] = [torch[key], *own]
            print(f"| {layers} | {torch[key]:.0f} | " + " | ".join(f"{m:.0f}" for m in own) + " |", flush=True)
    if memory:
        growth = [(memory[60][i] - memory[15][i]) / 45 for i in range(4)]
        print("| MiB a layer | " + " | ".join(f"{g:.2f}" for g in growth) + " |")
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({"machine": machine(), "gflops": limit, "rows": rows, "memory": memory}, indent=1))
    if a.chart:
        chart(rows, a.chart)


if __name__ == "__main__":
    main()
