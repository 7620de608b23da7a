#!/usr/bin/env python3
"""How well each score of `mixerflow score` tells unusual pictures from usual ones: the table of docs/scores.md.

Trains one model a data set, makes sets of other pictures, none of which any rule was chosen by, and asks `mixerflow eval --against`
for the area under the ROC curve of every score. Needs numpy. The digits are those that are built in; Fashion-MNIST (Debian's
`dataset-fashion-mnist`) and photographs (`mate-backgrounds`) take part where they are installed.

    python3 benches/unusual.py --program target/release/mixerflow --out target/unusual
"""
import argparse
import gzip
import json
import pathlib
import subprocess

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGITS = ROOT / "crates/flow-train/data/optdigits-images-idx3-ubyte.gz"
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
PHOTOS = pathlib.Path("/usr/share/backgrounds/mate/nature")
SCORES = ["log_likelihood", "typicality", "p_complexity", "corrected", "p_corrected", "likelihood_ratio", "unusual"]


def idx(path):
    raw = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    rank = raw[3]
    shape = np.frombuffer(raw[4 : 4 + 4 * rank], dtype=">u4")
    return np.frombuffer(raw[4 + 4 * rank :], dtype=np.uint8).reshape(shape)


def blurred(pictures, times):
    """A box of three, so often, along both axes."""
    out = pictures.astype(float)
    for _ in range(times):
        for axis in (-2, -1):
            edge = [(0, 0)] * out.ndim
            edge[axis] = (1, 1)
            padded = np.pad(out, edge, mode="edge")
            take = lambda shift: np.take(padded, np.arange(shift, shift + out.shape[axis]), axis=axis)
            out = (take(0) + take(1) + take(2)) / 3
    return np.round(out).astype(np.uint8)


def situations(test, levels, rng):
    """Sets of other pictures of the shape of `test`, in its levels."""
    top, count, shape = levels - 1, min(len(test), 500), test.shape[1:]
    test = test[:count]
    level = np.arange(count) * levels // count
    spread = lambda value: np.broadcast_to(value.reshape(-1, *[1] * len(shape)), (count, *shape)).astype(np.uint8)
    smooth = blurred(rng.integers(0, levels, (count, *shape)).astype(np.uint8), 4).astype(float)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * top
    ramp = np.linspace(0, 1, shape[-1]) * np.ones(shape)
    flat = test.reshape(count, -1)
    return {
        "cards of one level": spread(level),
        "black cards": spread(np.zeros(count)),
        "white cards": spread(np.full(count, top)),
        "ramps": np.round(spread(level) * ramp).astype(np.uint8),
        "uniform noise": rng.integers(0, levels, (count, *shape)).astype(np.uint8),
        "two-level noise": (rng.integers(0, 2, (count, *shape)) * top).astype(np.uint8),
        "smooth noise": np.round(smooth).astype(np.uint8),
        "noise added": np.clip(np.round(test + rng.normal(0, 0.15 * top, test.shape)), 0, top).astype(np.uint8),
        "blurred": blurred(test, 2),
        "half the contrast": np.round(0.5 * test + 0.25 * top).astype(np.uint8),
        "negative": (top - test).astype(np.uint8),
        "upside down": np.ascontiguousarray(np.flip(test, axis=-2)),
        "pixels shuffled": flat[:, rng.permutation(flat.shape[1])].reshape(test.shape),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/mixerflow")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/unusual"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--only", help="digits, fashion or photos")
    parser.add_argument("--mnist", type=pathlib.Path, help="MNIST's t10k-images-idx3-ubyte, plain or gzip, to be held against Fashion-MNIST")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    cases = {"digits": ("specs/digits-affine.ron", [], "digits", idx(DIGITS)[1500:], 17)}
    if FASHION.is_dir():
        own = f"idx:{FASHION}/train-images-idx3-ubyte.gz,{FASHION}/train-labels-idx1-ubyte.gz"
        spec = ["--set", "image=(1,28,28)", "--set", "layers=8"]
        cases["fashion"] = ("specs/mixerflow-32x32.ron", spec, own, idx(FASHION / "t10k-images-idx3-ubyte.gz"), 256)
    if PHOTOS.is_dir():
        own = f"images:{PHOTOS}?size=32&crop=random&crops=100&test=Wood.jpg,Storm.jpg,Garden.jpg"
        cases["photos"] = ("specs/mixerflow-32x32.ron", ["--set", "layers=8"], own, None, 256)
    run = lambda *words: subprocess.run([options.program, *map(str, words)], check=True, capture_output=True, text=True).stdout
    for name, (spec, more, data, test, levels) in cases.items():
        if options.only not in (None, name):
            continue
        folder = options.out / name
        for suffix, mutate in (("", []), ("-background", ["--mutate", "0.2"])):
            train = ["train", ROOT / spec, *more, "--data", data, "--batch", 64, "--steps", options.steps, "--validation", 0.1]
            run(*train, *mutate, "--resume", "--out", f"{folder}{suffix}")
        if test is None:
            # The run's own crops of photographs, as they are tested on.
            from PIL import Image

            files = [Image.open(PHOTOS / file).convert("RGB") for file in ("Wood.jpg", "Storm.jpg", "Garden.jpg")]
            corners = [(file, rng.integers(0, file.width - 32), rng.integers(0, file.height - 32)) for file in files for _ in range(167)]
            test = np.stack([np.asarray(file.crop((x, y, x + 32, y + 32))).transpose(2, 0, 1) for file, x, y in corners])
        sets = situations(test, levels, rng)
        if name == "fashion":
            # Three times as large, in the middle.
            grown = np.pad(np.kron(idx(DIGITS)[:500], np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2)))
            sets["handwritten digits"] = np.round(grown * 255 / 16).astype(np.uint8)
            if options.mnist:
                sets["MNIST"] = idx(options.mnist)[:1000]
        words, titles = [], {}
        for number, (title, pictures) in enumerate(sets.items()):
            path = options.out / f"{name}-{number}.npy"
            np.save(path, pictures)
            source = f"npy:{path}?layout=chw&levels={levels}"
            titles[str(path)] = title
            words += ["--against", source]
        # A thousand test pictures say enough.
        usual = options.out / f"{name}-usual.npy"
        np.save(usual, test[:1000])
        usual = f"npy:{usual}?layout=chw&levels={levels}"
        found = json.loads(run("eval", folder, "--data", usual, "--minus", f"{folder}-background", *words, "--json"))
        print(f"\n### {name}: {found['all']['loss']:.3f} bits/dim\n")
        print("| " + " | ".join(["other pictures", *SCORES]) + " |")
        print("|---" * (len(SCORES) + 1) + "|")
        # By the file in its name: JSON has an order of its own.
        found_by_title = {titles[source.split(":", 1)[1].split("?")[0]]: scores for source, scores in found["against"].items()}
        for title in sets:
            scores = found_by_title[title]
            cell = lambda score: f"{scores[score]['separation']['auroc']['value']:.3f}" if score in scores else "–"
            print("| " + " | ".join([title, *map(cell, SCORES)]) + " |", flush=True)


if __name__ == "__main__":
    main()
