"""Fails if what a crate with a flow of its own is built of has faer, RON or a feature of flow-api that it did not ask for."""

import subprocess
import sys

tree = subprocess.run(
    ["cargo", "tree", "-p", "flow-plug-in", "-e", "no-dev", "--prefix", "none", "-f", "{p}|{f}", "--locked"],
    check=True, capture_output=True, text=True,
).stdout
features = {}
for line in tree.splitlines():
    package, _, its = line.partition("|")
    features[package.split()[0]] = its.removesuffix(" (*)").strip()

heavy = [name for name in features if name == "ron" or name.split("-")[0] == "faer"]
asked = features["flow-api"]
if heavy or asked:
    sys.exit(f"a crate with a flow of its own is built of {', '.join(heavy) or 'nothing heavy'}; features of flow-api: {asked or 'none'}")
print(f"{len(features)} crates, none of them heavy")
