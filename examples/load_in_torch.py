#!/usr/bin/env python3
"""Loads an exported MixerFlow into PyTorch and checks that both score the same items alike.

  mixerflow export RUN --out model.safetensors
  mixerflow score RUN --data 'npy:events.npy?layout=chw' --out scores.csv
  python3 examples/load_in_torch.py model.safetensors events.npy scores.csv

The other side is `benches/peers/torch_mixerflow.py`, MixerFlow in PyTorch from nflows parts. The model has affine couplings on both sides, and real-valued images (float npy, N×C×H×W),
so that both sides see the same numbers. Needs: pip install torch nflows numpy safetensors. Fails unless every log p agrees to 1e-4, relative to the largest.
"""
import argparse, csv, pathlib, re, sys
import numpy as np
import torch
from safetensors import safe_open

# Ours -> PyTorch's, one rule a line; docs/weights.md has the table.
RULES = [
    (r"^bijector\.pixel\.0\.permutation$", "conv.permutation._permutation"),
    (r"^bijector\.pixel\.0\.", "conv."),
    (r"^bijector\.layers\.(\d+)\.(channel|patch)\.(\d)\.", r"layers.\1.\2.parts.\3."),
    (r"\.net\.initial\.", ".net.initial_layer."),
    (r"\.net\.final\.", ".net.final_layer."),
    (r"\.net\.blocks\.(\d+)\.(\d)\.", r".net.blocks.\1.linear_layers.\2."),
    (r"\.initialised$", ".initialized"),
    (r"\.(lower|upper)$", r".\1_entries"),
    (r"\.log_diagonal$", ".unconstrained_upper_diag"),
]


def torch_name(name):
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def torch_value(name, value):
    if name.endswith(".log_diagonal"):
        # nflows: diagonal = softplus(u) + 1e-3.
        return torch.log(torch.expm1(value.exp() - 1e-3))
    return value.reshape(()) if name.endswith(".initialised") else value


def number(text, field):
    return int(re.search(rf"\b{field}: (\d+)", text).group(1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--peers", default=pathlib.Path(__file__).resolve().parent.parent / "benches/peers", help="folder of torch_mixerflow.py")
    for name in ("model", "events", "scores"):
        ap.add_argument(name)
    a = ap.parse_args()
    sys.path.insert(0, str(a.peers))
    import torch_mixerflow as peer

    file = safe_open(a.model, "pt")
    spec = file.metadata()["spec.ron"]
    x = torch.from_numpy(np.load(a.events)).float()
    channels, size = x.shape[1], x.shape[2]
    every = number(spec, "every") if "every:" in spec else 0
    model = peer.MixerFlow(channels, size, number(spec, "patch"), number(spec, "layers"), number(spec, "hidden"), number(spec, "blocks"), every)
    tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert not any(name.startswith("preprocessing.") for name in tensors), "train with --set preprocessing.standardise=false"
    for name in [name for name in tensors if name.endswith(".middle")]:
        # Ours is y = e^s (x - middle) + shift.
        stem, middle = name.removesuffix("middle"), tensors.pop(name)
        tensors[stem + "shift"] = tensors[stem + "shift"] - middle * tensors[stem + "log_scale"].exp()
    weights = {torch_name(name): torch_value(name, value) for name, value in tensors.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith("permutation._permutation")]
    assert not missing and not unexpected, f"missing {missing}, unexpected {unexpected}"
    model.eval()
    with torch.no_grad():
        theirs = model.double().log_prob(x.double()).numpy()
    ours = np.empty(len(x))
    for row in csv.DictReader(open(a.scores)):
        ours[int(row["row"])] = float(row["log_likelihood"])
    worst = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"{len(x)} items, log p {theirs.min():.3f} to {theirs.max():.3f}: largest difference {np.abs(ours - theirs).max():.2e}, relative {worst:.2e}")
    sys.exit(0 if worst < 1e-4 else 1)


if __name__ == "__main__":
    main()
