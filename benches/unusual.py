#!/usr/bin/env python3
"""How well each score of `mixerflow score` tells unusual pictures from usual ones: the table of docs/scores.md.

Trains one model a data set, makes sets of other pictures, none of which any rule was chosen by, and asks `mixerflow eval --against`
for the area under the ROC curve of every score. Then one picture of every set is hidden among the usual ones, and its rank by `unusual`
is told. Needs numpy and Pillow. The digits are those that are built in; Fashion-MNIST (Debian's `dataset-fashion-mnist`) and
photographs (`mate-backgrounds`) take part where they are installed, CIFAR-10, MNIST and emoji where their files are given.

    python3 benches/unusual.py --program target/release/mixerflow --out target/unusual \\
      --cifar cifar-10-batches-bin --mnist t10k-images-idx3-ubyte --emoji NotoEmoji-Regular.ttf
"""
import argparse
import csv
import gzip
import json
import pathlib
import subprocess

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGITS = ROOT / "crates/flow-train/data/optdigits-images-idx3-ubyte.gz"
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
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


def coloured(digits, rng):
    """Digits in one colour on another, as house numbers are, three bytes a pixel."""
    ink = np.pad(digits, ((0, 0), (2, 2), (2, 2)))[:, None] / 255
    colour = lambda: rng.integers(0, 256, (len(digits), 3, 1, 1))
    noise = rng.normal(0, 6, (len(digits), 3, 32, 32))
    return np.clip(np.round(ink * colour() + (1 - ink) * colour() + noise), 0, 255).astype(np.uint8)


def textures(count, rng):
    """Sums of three plane waves in two colours."""
    y, x = np.mgrid[0:32, 0:32]
    turns = lambda: rng.uniform(-0.25, 0.25, (count, 3, 1, 1))
    waves = np.cos(2 * np.pi * (turns() * x + turns() * y) + rng.uniform(0, 2 * np.pi, (count, 3, 1, 1))).mean(1, keepdims=True)
    share, colour = (waves + 1) / 2, lambda: rng.integers(0, 256, (count, 3, 1, 1))
    return np.round(share * colour() + (1 - share) * colour()).astype(np.uint8)


def skies(count, rng):
    """A blue that grows lighter downwards, with white clouds of smooth noise."""
    clouds = blurred(rng.integers(0, 256, (count, 1, 32, 32)).astype(np.uint8), 6).astype(float)
    low, high = clouds.min((2, 3), keepdims=True), clouds.max((2, 3), keepdims=True)
    share = np.clip((clouds - low) / (high - low) * 2 - 1, 0, 1) * rng.uniform(0, 1, (count, 1, 1, 1))
    down = np.linspace(0, 1, 32)[:, None] * np.ones((32, 32))
    blue = np.array([70, 130, 200])[:, None, None] + np.array([110, 80, 40])[:, None, None] * down
    blue = blue[None] + rng.normal(0, 12, (count, 3, 1, 1)) + rng.normal(0, 1.5, (count, 3, 32, 32))
    return np.clip(np.round(share * 245 + (1 - share) * blue), 0, 255).astype(np.uint8)


def emoji(font, count):
    """Emoji in black on white, smoothed by drawing them four times as large."""
    font = ImageFont.truetype(str(font), 104)
    signs = [chr(c) for c in (*range(0x1F300, 0x1F6C6), *range(0x1F900, 0x1FA00))]
    out = []
    for sign in signs:
        card = Image.new("L", (128, 128), 255)
        draw = ImageDraw.Draw(card)
        box = draw.textbbox((0, 0), sign, font=font)
        if box[2] - box[0] < 20:
            continue
        draw.text((64 - (box[0] + box[2]) / 2, 64 - (box[1] + box[3]) / 2), sign, font=font, fill=0)
        out.append(np.asarray(card.resize((32, 32), Image.Resampling.BOX)))
    return np.repeat(np.stack(out[:count])[:, None], 3, 1)


def crops(files, each, rng):
    """Squares of 32 pixels from photographs, and whole squares of them made as small."""
    small, whole = [], []
    for path in files:
        file = Image.open(path).convert("RGB")
        for _ in range(each):
            x, y = rng.integers(0, file.width - 32), rng.integers(0, file.height - 32)
            small.append(np.asarray(file.crop((x, y, x + 32, y + 32))))
            side = int(rng.integers(256, min(file.size)))
            x, y = rng.integers(0, file.width - side + 1), rng.integers(0, file.height - side + 1)
            whole.append(np.asarray(file.resize((32, 32), Image.Resampling.BOX, (x, y, x + side, y + side))))
    return [np.ascontiguousarray(np.stack(out).transpose(0, 3, 1, 2)) for out in (small, whole)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/mixerflow")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/unusual"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--only", help="digits, fashion, cifar or photos")
    parser.add_argument("--mnist", type=pathlib.Path, help="MNIST's t10k-images-idx3-ubyte, plain or gzip, to be held against Fashion-MNIST and CIFAR-10")
    parser.add_argument("--cifar", type=pathlib.Path, help="folder of CIFAR-10's binary files")
    parser.add_argument("--photos", type=pathlib.Path, default="/usr/share/backgrounds/mate/nature", help="folder of photographs")
    parser.add_argument("--emoji", type=pathlib.Path, help="a font with emoji in one colour, to be held against CIFAR-10")
    parser.add_argument("--model", type=pathlib.Path, help="a run of the data set of --only, in place of training one; there is no background model then")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    cases = {"digits": ("specs/digits-affine.ron", [], "digits", idx(DIGITS)[1500:], 17)}
    if FASHION.is_dir():
        own = f"idx:{FASHION}/train-images-idx3-ubyte.gz,{FASHION}/train-labels-idx1-ubyte.gz"
        spec = ["--set", "image=(1,28,28)", "--set", "layers=8"]
        cases["fashion"] = ("specs/mixerflow-32x32.ron", spec, own, idx(FASHION / "t10k-images-idx3-ubyte.gz"), 256)
    if options.cifar:
        test = np.fromfile(options.cifar / "test_batch.bin", np.uint8).reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32)
        cases["cifar"] = ("specs/mixerflow-32x32.ron", ["--set", "layers=8"], f"cifar10:{options.cifar}", test, 256)
    photos = options.photos if options.photos.is_dir() else None
    if photos:
        own = f"images:{photos}?size=32&crop=random&crops=100&test=Wood.jpg,Storm.jpg,Garden.jpg"
        cases["photos"] = ("specs/mixerflow-32x32.ron", ["--set", "layers=8"], own, None, 256)
    threads = ["--threads", options.threads] if options.threads else []
    run = lambda *words: subprocess.run([options.program, *map(str, [*words, *threads])], check=True, stdout=subprocess.PIPE, text=True).stdout
    for name, (spec, more, data, test, levels) in cases.items():
        if options.only not in (None, name):
            continue
        folder, minus = (options.model, []) if options.model else (options.out / name, ["--minus", options.out / f"{name}-background"])
        for suffix, mutate in () if options.model else (("", []), ("-background", ["--mutate", "0.2"])):
            train = ["train", ROOT / spec, *more, "--data", data, "--batch", 64, "--steps", options.steps, "--validation", 0.1]
            run(*train, *mutate, "--resume", "--out", f"{folder}{suffix}")
        if test is None:
            # The run's own crops of photographs, as they are tested on.
            test, _ = crops([photos / file for file in ("Wood.jpg", "Storm.jpg", "Garden.jpg")], 167, rng)
        sets = situations(test, levels, rng)
        if name == "fashion":
            # Three times as large, in the middle.
            grown = np.pad(np.kron(idx(DIGITS)[:500], np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2)))
            sets["handwritten digits"] = np.round(grown * 255 / 16).astype(np.uint8)
            if options.mnist:
                sets["MNIST"] = idx(options.mnist)[:1000]
        if name == "cifar":
            sets |= {"waves of two colours": textures(500, rng), "skies": skies(500, rng)}
            if options.mnist:
                sets["digits in colour"] = coloured(idx(options.mnist)[:500], rng)
            if options.emoji:
                sets["emoji"] = emoji(options.emoji, 500)
            if photos:
                sets["crops of photographs"], sets["photographs made small"] = crops(sorted(photos.glob("*.jpg")), 40, rng)
        words, titles = [], {}
        for number, (title, pictures) in enumerate(sets.items()):
            path = options.out / f"{name}-{number}.npy"
            np.save(path, pictures)
            source = f"npy:{path}?layout=chw&levels={levels}"
            titles[str(path)] = title
            words += ["--against", source]
        # A thousand test pictures say enough of an area.
        usual = options.out / f"{name}-usual.npy"
        np.save(usual, test[:1000])
        usual = f"npy:{usual}?layout=chw&levels={levels}"
        found = json.loads(run("eval", folder, "--data", usual, *minus, *words, "--json"))
        print(f"\n### {name}: {found['all']['loss']:.3f} bits/dim\n")
        print("| " + " | ".join(["other pictures", *SCORES]) + " |")
        print("|---" * (len(SCORES) + 1) + "|")
        # By the file in its name: JSON has an order of its own.
        found_by_title = {titles[source.split(":", 1)[1].split("?")[0]]: scores for source, scores in found["against"].items()}
        for title in sets:
            scores = found_by_title[title]
            cell = lambda score: f"{scores[score]['separation']['auroc']['value']:.3f}" if score in scores else "–"
            print("| " + " | ".join([title, *map(cell, SCORES)]) + " |", flush=True)
        # One of each set among the test pictures: how many of these are called more unusual.
        odd = np.stack([pictures[len(pictures) // 3].reshape(test.shape[1:]) for pictures in sets.values()])
        np.save(options.out / f"{name}-hidden.npy", np.concatenate([test[: 5000 - len(odd)], odd]))
        hidden = f"npy:{options.out}/{name}-hidden.npy?layout=chw&levels={levels}"
        table = options.out / f"{name}-hidden.csv"
        run("score", folder, "--data", hidden, *minus, "--out", table)
        scores = np.array([float(row["unusual"]) for row in csv.DictReader(open(table))])
        usual, odd = scores[: -len(odd)], scores[-len(odd) :]
        ranks = ", ".join(f"{title} {int((usual > score).sum()) + 1}" for title, score in zip(sets, odd))
        print(f"\nRank of one picture of each among {len(usual)} test pictures: {ranks}.", flush=True)


if __name__ == "__main__":
    main()
