#!/usr/bin/env python3
"""Jet in PyTorch: the peer of the toolkit's `TokenCoupling(…)`, written with PyTorch's own attention, layer norms and linear layers.

Needs: pip install torch numpy
  python torch_jet.py bench [--channels 3 --size 32 --patch 4 --couplings 10 --width 128 --blocks 2 --heads 4 --batch 64
                             --network vit --repeats 5 --threads 2]

`bench` prints one JSON line: seconds per training step (forward, backward, Adam), per log_prob batch and per sampled batch, parameter
count, and the process's peak resident memory.

The architecture (this file is the definition used for comparisons):
  squeeze patch x patch into channels (channel, row, column), then couplings on the grid of places
  a coupling of channels (halves; every other one the other way round): a token is a place with the channels that pass
  a coupling of places (checkerboard, rows, columns; flipped or not): the i-th place that passes and the i-th that is moved are one token;
  where one sort has more, tokens see zeros, or what they give is left
  network: h = W x + b, plus positions (attention alone), plus U c of a condition c; per block h += mix(norm h), h += W1 gelu(W0 norm(h) + b0) + b1
  with gelu in its tanh form; out = V norm(h) + v. mix is multi-head self-attention, or the same MLP over the tokens of every feature
  scale: `sigmoid`: y = (x + t) 2 sigmoid(r). `affine`: s = 2 tanh(r / 2), y = x exp(s) + t. (r, t) of a value lie together
  base: standard normal; the latent is put back into the order of the image
"""
import argparse, json, math, resource, time
import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.layers = heads, nn.ModuleList([nn.Linear(width, 3 * width), nn.Linear(width, width)])

    def forward(self, h):
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.layers[0](h).chunk(3, -1))
        return self.layers[1](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, width)])

    def forward(self, h):
        return self.layers[1](F.gelu(self.layers[0](h), approximate="tanh"))


class OverTokens(Mlp):
    def forward(self, h):
        return super().forward(h.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, width, hidden, mixing):
        super().__init__()
        self.mixing_norm, self.mixing = nn.LayerNorm(width, eps=1e-6), mixing
        self.norm, self.mlp = nn.LayerNorm(width, eps=1e-6), Mlp(width, hidden)

    def forward(self, h):
        h = h + self.mixing(self.mixing_norm(h))
        return h + self.mlp(self.norm(h))


class TokenNet(nn.Module):
    """heads of 0 is a mixer, whose MLPs over tokens have `token_hidden` units."""

    def __init__(self, tokens, inputs, outputs, width, blocks, hidden, heads=0, token_hidden=0, condition=0):
        super().__init__()
        self.embedding, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.positions = nn.Parameter(torch.randn(tokens, width) / math.sqrt(width)) if heads else None
        self.condition = nn.Parameter(torch.randn(width, condition) / math.sqrt(width)) if condition else None
        mixing = lambda: Attention(width, heads) if heads else OverTokens(tokens, token_hidden)
        self.blocks, self.norm = nn.ModuleList([Block(width, hidden, mixing()) for _ in range(blocks)]), nn.LayerNorm(width, eps=1e-6)
        nn.init.zeros_(self.last.weight), nn.init.zeros_(self.last.bias)

    def forward(self, x, c=None):
        h = self.embedding(x)
        if self.positions is not None:
            h = h + self.positions
        if self.condition is not None:
            h = h + (c @ self.condition.T)[:, None]
        for block in self.blocks:
            h = block(h)
        return self.last(self.norm(h))

    def named(self):
        """Parameters by the toolkit's names."""
        out = {}
        def layer(path, of):
            out[f"{path}.weight"], out[f"{path}.bias"] = of.weight, of.bias
        layer("embedding", self.embedding)
        out |= {name: p for name, p in (("positions", self.positions), ("condition", self.condition)) if p is not None}
        for k, block in enumerate(self.blocks):
            layer(f"blocks.{k}.mixing_norm", block.mixing_norm), layer(f"blocks.{k}.norm", block.norm)
            for i in range(2):
                layer(f"blocks.{k}.mixing.{i}", block.mixing.layers[i]), layer(f"blocks.{k}.mlp.{i}", block.mlp.layers[i])
        layer("norm", self.norm), layer("final", self.last)
        return out


def passes(split, height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return {"checkerboard": (y + x) % 2 == 0, "rows": y % 2 == 0, "columns": x % 2 == 0}[split].flatten()


class Coupling(nn.Module):
    """On (batch, places, channels)."""

    def __init__(self, height, width, channels, split, flipped, scale, net):
        super().__init__()
        self.of_channels, self.scale, places = split == "channels", scale, height * width
        if self.of_channels:
            half = channels // 2
            parts = [torch.arange(half), torch.arange(half, channels)]
            if flipped:
                parts = [torch.arange(channels - half, channels), torch.arange(channels - half)]
            self.tokens, inputs, outputs = places, len(parts[0]), len(parts[1])
        else:
            mask = passes(split, height, width) != flipped
            parts = [mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]]
            self.tokens, inputs, outputs = max(map(len, parts)), channels, channels
        self.passing, self.moved = parts
        self.net = net(self.tokens, inputs, 2 * outputs)

    def move(self, x, c, inverse):
        if self.of_channels:
            kept, b = x[:, :, self.passing], x[:, :, self.moved]
        else:
            kept, b = x[:, self.passing], x[:, self.moved]
            kept = F.pad(kept, (0, 0, 0, self.tokens - kept.shape[1]))
        r, t = self.net(kept, c)[:, :b.shape[1]].unflatten(-1, (-1, 2)).unbind(-1)
        if self.scale == "sigmoid":
            s = math.log(2) + F.logsigmoid(r)
            b = b * torch.exp(-s) - t if inverse else (b + t) * torch.exp(s)
        else:
            s = 2 * torch.tanh(r / 2)
            b = (b - t) * torch.exp(-s) if inverse else b * torch.exp(s) + t
        y = x.clone()
        if self.of_channels:
            y[:, :, self.moved] = b
        else:
            y[:, self.moved] = b
        return y, (-s if inverse else s).sum((1, 2))


class Jet(nn.Module):
    """`couplings`: one (split, flipped, scale, network) each, the network a function of tokens, inputs and outputs."""

    def __init__(self, channels, size, patch, couplings):
        super().__init__()
        self.shape, self.patch = (channels, size, size), patch
        side, c = size // patch, channels * patch * patch
        self.couplings = nn.ModuleList([Coupling(side, side, c, *coupling) for coupling in couplings])

    def patches(self, x):
        b, c, h, w = x.shape
        p = self.patch
        return x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(b, (h // p) * (w // p), c * p * p)

    def image(self, x):
        c, h, w = self.shape
        p = self.patch
        return x.reshape(len(x), h // p, w // p, c, p, p).permute(0, 3, 1, 4, 2, 5).reshape(len(x), c, h, w)

    def forward(self, x, c=None):
        x, ld = self.patches(x), 0
        for coupling in self.couplings:
            x, l = coupling.move(x, c, False)
            ld = ld + l
        return self.image(x), ld

    def inverse(self, z, c=None):
        z = self.patches(z)
        for coupling in reversed(self.couplings):
            z, _ = coupling.move(z, c, True)
        return self.image(z)

    def log_prob(self, x, c=None):
        z, ld = self(x, c)
        return -0.5 * (z * z).sum((1, 2, 3)) - 0.5 * math.log(2 * math.pi) * z[0].numel() + ld


def bench(a):
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    sizes = dict(width=a.width, blocks=a.blocks, hidden=4 * a.width)
    sizes |= dict(heads=a.heads) if a.network == "vit" else dict(token_hidden=a.width // 2)
    net = lambda tokens, inputs, outputs: TokenNet(tokens, inputs, outputs, **sizes)
    cycle = [("channels", False), ("channels", True), ("channels", False), ("channels", True), ("checkerboard", False),
             ("channels", True), ("channels", False), ("channels", True), ("channels", False), ("checkerboard", True)]
    model = Jet(a.channels, a.size, a.patch, [(*cycle[i % len(cycle)], "sigmoid", net) for i in range(a.couplings)])
    x = torch.rand(a.batch, a.channels, a.size, a.size) - 0.5
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)

    def step():
        optimiser.zero_grad(set_to_none=True)
        (-model.log_prob(x).mean()).backward()
        optimiser.step()

    def without_tape(f):
        with torch.no_grad():
            f()

    def seconds(f):
        f()
        times = []
        for _ in range(a.repeats):
            start = time.perf_counter()
            f()
            times.append(time.perf_counter() - start)
        return sorted(times)[len(times) // 2]
    z = torch.randn_like(x)
    print(json.dumps(dict(
        log_prob_s=seconds(lambda: without_tape(lambda: model.log_prob(x))), sample_s=seconds(lambda: without_tape(lambda: model.inverse(z))),
        train_s=seconds(step), parameters=sum(p.numel() for p in model.parameters()),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("mode", choices=["bench"])
    defaults = dict(channels=3, size=32, patch=4, couplings=10, width=128, blocks=2, heads=4, batch=64, repeats=5, threads=2)
    for flag, default in defaults.items():
        ap.add_argument(f"--{flag}", type=int, default=default)
    ap.add_argument("--network", choices=["vit", "mixer"], default="vit")
    bench(ap.parse_args())


if __name__ == "__main__":
    main()
