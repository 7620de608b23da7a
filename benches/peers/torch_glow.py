#!/usr/bin/env python3
"""Glow in PyTorch: the peer of the toolkit's `Glow(…)`, written with PyTorch's own convolutions.

Needs: pip install torch nflows numpy
  python torch_glow.py bench [--channels 3 --size 32 --levels 3 --steps 8 --hidden 128 --batch 64 --coupling affine
                              --network three --repeats 5 --threads 2]

`bench` prints one JSON line: seconds per training step (forward, backward, Adam), per log_prob batch and per sampled batch, parameter
count, and the process's peak resident memory.

The architecture (this file is the definition used for comparisons):
  per level: squeeze 2 x 2 (channels ordered (channel, row, column)) -> steps -> but for the last level: the second half of the channels
  leaves, moved first by the affine map that one 3 x 3 convolution of the first half gives (the learned prior)
  step: ActNorm -> 1 x 1 convolution y = L U x[permutation] + b -> coupling on halves of the channels, odd steps the other way round
  coupling: parameters from a network, feature by feature. Affine: (r, t), s = 2 tanh(r / 2), y = x exp(s) + t. Spline: nflows'
  rational-quadratic splines with linear tails, (widths, heights, derivatives) of a feature one after the other
  networks: `three`: 3x3, ReLU, 1x1, ReLU, 3x3. `residual`: 1x1; per block h += 3x3(ReLU(3x3(ReLU(h)))); 1x1
  base: standard normal; the latent is put back into the order of the image
"""
import argparse, json, math, resource, time
import torch
from torch import nn
from torch.nn.functional import relu
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline as rqs

MIN = 1e-3
# Where an unnormalised derivative of zero is a slope of one.
SLOPE_OFFSET = math.log(math.expm1(1 - MIN))


def squeeze(x):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def unsqueeze(x):
    b, c, h, w = x.shape
    return x.reshape(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)


class ActNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.log_scale, self.shift = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return x * self.log_scale.exp()[:, None, None] + self.shift[:, None, None], self.log_scale.sum() * x[0, 0].numel()

    def inverse(self, y):
        return (y - self.shift[:, None, None]) * (-self.log_scale).exp()[:, None, None]


class Conv1x1(nn.Module):
    def __init__(self, channels):
        super().__init__()
        zeros = lambda n: nn.Parameter(torch.zeros(n))
        triangle = channels * (channels - 1) // 2
        self.lower, self.upper, self.log_diagonal, self.bias = zeros(triangle), zeros(triangle), zeros(channels), zeros(channels)
        self.register_buffer("permutation", torch.randperm(channels))

    def matrix(self):
        d = len(self.bias)
        below, above = torch.tril_indices(d, d, -1), torch.triu_indices(d, d, 1)
        lower = torch.eye(d, dtype=self.bias.dtype).index_put(tuple(below), self.lower)
        upper = torch.diag(self.log_diagonal.exp()).index_put(tuple(above), self.upper)
        return lower @ upper

    def forward(self, x):
        y = nn.functional.conv2d(x[:, self.permutation], self.matrix()[:, :, None, None], self.bias)
        return y, self.log_diagonal.sum() * x[0, 0].numel()

    def inverse(self, y):
        b, c, h, w = y.shape
        x = torch.linalg.solve(self.matrix(), (y - self.bias[:, None, None]).reshape(b, c, h * w)).reshape(b, c, h, w)
        return x[:, torch.argsort(self.permutation)]


class ThreeLayers(nn.Module):
    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(inputs, hidden, 3, padding=1), nn.Conv2d(hidden, hidden, 1), nn.Conv2d(hidden, outputs, 3, padding=1)])

    def forward(self, x):
        return self.layers[2](relu(self.layers[1](relu(self.layers[0](x)))))

    def named(self):
        return {str(i): layer for i, layer in enumerate(self.layers)}


class Residual(nn.Module):
    def __init__(self, inputs, hidden, outputs, blocks=2):
        super().__init__()
        conv = lambda: nn.Conv2d(hidden, hidden, 3, padding=1)
        self.initial, self.final = nn.Conv2d(inputs, hidden, 1), nn.Conv2d(hidden, outputs, 1)
        self.blocks = nn.ModuleList([nn.ModuleList([conv(), conv()]) for _ in range(blocks)])

    def forward(self, x):
        h = self.initial(x)
        for first, second in self.blocks:
            h = h + second(relu(first(relu(h))))
        return self.final(h)

    def named(self):
        blocks = {f"blocks.{k}.{j}": layer for k, block in enumerate(self.blocks) for j, layer in enumerate(block)}
        return {"initial": self.initial} | blocks | {"final": self.final}


class Prior(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x):
        return self.conv(x)

    def named(self):
        return {"0": self.conv}


class Coupling(nn.Module):
    """The parts that pass and that are moved by their channels; `bins` of 0 is the affine one."""

    def __init__(self, passing, moved, net, bins=0):
        super().__init__()
        self.passing, self.moved, self.bins = passing, moved, bins
        self.net = net(len(passing), len(moved) * (3 * bins - 1 if bins else 2))

    def move(self, x, inverse):
        kept, b = x[:, self.passing], x[:, self.moved]
        p = self.net(kept)
        if self.bins:
            n, c, h, w = b.shape
            p = p.reshape(n, c, 3 * self.bins - 1, h, w).permute(0, 1, 3, 4, 2)
            widths, heights, slopes = p.split([self.bins, self.bins, self.bins - 1], -1)
            b, ld = rqs(b, widths, heights, slopes + SLOPE_OFFSET, inverse=inverse, tails="linear", tail_bound=3.0)
        else:
            s, t = 2 * torch.tanh(p[:, 0::2] / 2), p[:, 1::2]
            b, ld = ((b - t) * torch.exp(-s), -s) if inverse else (b * torch.exp(s) + t, s)
        y = torch.empty_like(x)
        y[:, self.passing], y[:, self.moved] = kept, b
        return y, ld.sum((1, 2, 3))

    def forward(self, x):
        return self.move(x, False)

    def inverse(self, y):
        return self.move(y, True)[0]


class Glow(nn.Module):
    def __init__(self, channels=3, size=32, levels=3, steps=8, hidden=128, bins=0, network="three"):
        super().__init__()
        self.shape = (channels, size, size)
        net = lambda inputs, outputs: ThreeLayers(inputs, hidden, outputs) if network == "three" else Residual(inputs, hidden, outputs)
        self.levels, self.priors, c = nn.ModuleList(), nn.ModuleList(), channels
        for level in range(levels):
            c *= 4
            all_of, step_list = list(range(c)), []
            for step in range(steps):
                half = c // 2
                halves = (all_of[c - half:], all_of[:c - half]) if step % 2 else (all_of[:half], all_of[half:])
                step_list.append(nn.ModuleList([ActNorm(c), Conv1x1(c), Coupling(*halves, net, bins)]))
            self.levels.append(nn.ModuleList(step_list))
            if level + 1 < levels:
                self.priors.append(Coupling(all_of[:c // 2], all_of[c // 2:], Prior))
                c //= 2

    def forward(self, x):
        ld, left = torch.zeros(len(x), dtype=x.dtype), []
        for level, steps in enumerate(self.levels):
            x = squeeze(x)
            for part in (part for step in steps for part in step):
                x, l = part(x)
                ld = ld + l
            if level < len(self.priors):
                x, l = self.priors[level](x)
                ld, half = ld + l, x.shape[1] // 2
                left.append(x[:, half:])
                x = x[:, :half]
        x = unsqueeze(x)
        for half in reversed(left):
            x = unsqueeze(torch.cat([x, half], 1))
        return x, ld

    def inverse(self, z):
        left = []
        for _ in self.priors:
            z = squeeze(z)
            half = z.shape[1] // 2
            left.append(z[:, half:])
            z = z[:, :half]
        z = squeeze(z)
        for level in reversed(range(len(self.levels))):
            if level < len(self.priors):
                z = self.priors[level].inverse(torch.cat([z, left[level]], 1))
            for part in (part for step in reversed(self.levels[level]) for part in reversed(step)):
                z = part.inverse(z)
            z = unsqueeze(z)
        return z

    def log_prob(self, x):
        z, ld = self(x)
        return -0.5 * (z * z).sum((1, 2, 3)) - 0.5 * math.log(2 * math.pi) * z[0].numel() + ld

    def named(self):
        """Parameters and permutations by the toolkit's names."""
        out = {}
        def net(path, coupling):
            for name, layer in coupling.net.named().items():
                out[f"{path}.net.{name}.weight"], out[f"{path}.net.{name}.bias"] = layer.weight, layer.bias
        for i, steps in enumerate(self.levels):
            for k, (act, conv, coupling) in enumerate(steps):
                path = f"levels.{i}.steps.{k}"
                out |= {f"{path}.pixel.0.{name}": getattr(act, name) for name in ("log_scale", "shift")}
                out |= {f"{path}.pixel.1.{name}": getattr(conv, name) for name in ("lower", "upper", "log_diagonal", "bias", "permutation")}
                net(f"{path}.coupling", coupling)
            if i < len(self.priors):
                net(f"levels.{i}.prior", self.priors[i])
        return out


def bench(a):
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = Glow(a.channels, a.size, a.levels, a.steps, a.hidden, 8 if a.coupling == "spline" else 0, a.network)
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
    for flag, default in dict(channels=3, size=32, levels=3, steps=8, hidden=128, batch=64, repeats=5, threads=2).items():
        ap.add_argument(f"--{flag}", type=int, default=default)
    ap.add_argument("--coupling", choices=["affine", "spline"], default="affine")
    ap.add_argument("--network", choices=["three", "residual"], default="three")
    bench(ap.parse_args())


if __name__ == "__main__":
    main()
