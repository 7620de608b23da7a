#!/usr/bin/env python3
"""Writes golden cases computed by independent implementations (PyTorch, nflows, torchdiffeq).

Needs: pip install torch nflows torchdiffeq numpy safetensors
  python make_golden.py OUT_DIR [--seed 0] [--size 16 --channels 3 --patch 4 --layers 5 --dim 6]

Every file's metadata has "kind" and "meta" (JSON). Tensor names and meanings: tests/golden/README.md.
"""
import argparse, json, math, os
import torch
from safetensors.torch import save_file
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform, MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline as rqs
from torchdiffeq import odeint
from torch_glow import Glow
from torch_jet import Jet, TokenNet
from torch_mixerflow import MixerFlow

F64 = torch.float64


def save(path, kind, tensors, **meta):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path, {"kind": kind, "meta": json.dumps(meta)})
    print(path, kind, meta)


def lu(m):
    lower, upper = m._create_lower_upper()
    return {"lower": lower, "upper": upper, "bias": m.bias}


def row_flow(prefix, f):
    act, lin, cpl = f.parts
    out = {"actnorm.log_scale": act.log_scale, "actnorm.shift": act.shift}
    out |= {f"lu.{k}": v for k, v in lu(lin).items()}
    net = cpl.net
    for name, layer in (("initial", net.initial_layer), ("final", net.final_layer)):
        out |= {f"coupling.net.{name}.weight": layer.weight, f"coupling.net.{name}.bias": layer.bias}
    for k, block in enumerate(net.blocks):
        for j, layer in enumerate(block.linear_layers):
            out |= {f"coupling.net.blocks.{k}.{j}.weight": layer.weight, f"coupling.net.blocks.{k}.{j}.bias": layer.bias}
    return {f"{prefix}.{k}": v for k, v in out.items()}


def mixerflow(path, a):
    model = MixerFlow(a.channels, a.size, a.patch, a.layers, hidden=32, blocks=2, shift_every=2)
    x = torch.rand(3, a.channels, a.size, a.size) - 0.5
    with torch.no_grad():
        model(x)
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    model.eval()
    lp = model.log_prob(x)
    names = {f"conv.{k}": v for k, v in lu(model.conv).items()}
    names["conv.permutation"] = model.conv.permutation._permutation
    grad_of = {}
    for i, layer in enumerate(model.layers):
        names |= row_flow(f"layers.{i}.channel", layer.channel) | row_flow(f"layers.{i}.patch", layer.patch)
    # gradients of the mean negative log-likelihood, for the parameters that are tensors of the model itself
    (-lp.mean()).backward()
    for k, v in names.items():
        if v.grad_fn is None and getattr(v, "grad", None) is not None:
            grad_of["grad." + k] = v.grad
    z, ld = model(x)
    save(path, "mixerflow", names | grad_of | {"x": x, "z": z, "logdet": ld, "log_prob": lp}, channels=a.channels, size=a.size,
         patch=a.patch, layers=a.layers, hidden=32, blocks=2, shift_every=2,
         coupling="halves; odd layers keep the second half; s = 2 tanh(r/2); y_b = x_b exp(s) + t")


def glow_case(path, a, **sizes):
    model = Glow(**sizes).to(F64)
    x = torch.rand(3, *model.shape, dtype=F64) - 0.5
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    names = model.named()
    lp = model.log_prob(x)
    (-lp.mean()).backward()
    z, ld = model(x)
    print("  glow round trip", (model.inverse(z) - x).abs().max().item())
    grads = {"grad." + k: v.grad for k, v in names.items() if v.grad is not None}
    save(path, "glow", names | grads | {"x": x, "z": z, "logdet": ld, "log_prob": lp}, **sizes)


def glow(path, a):
    glow_case(path, a, channels=2, size=8, levels=2, steps=2, hidden=8, bins=0, network="three")


def glow_spline(path, a):
    glow_case(path, a, channels=1, size=8, levels=2, steps=2, hidden=6, bins=4, network="residual")


def jet(path, a):
    """Both networks, both scales, couplings of channels and of an odd number of places, all given a condition."""
    condition = 3
    vit = lambda *sizes: TokenNet(*sizes, width=8, blocks=2, hidden=12, heads=2, condition=condition)
    mixer = lambda *sizes: TokenNet(*sizes, width=6, blocks=1, hidden=10, token_hidden=5, condition=condition)
    networks = {"VisionTransformer(width: 8, blocks: 2, heads: 2, hidden: 12)": vit,
                "Mixer(width: 6, blocks: 1, token_hidden: 5, hidden: 10)": mixer}
    scales, splits = {"SigmoidAffine()": "sigmoid", "Affine()": "affine"}, {"Channels(Halves)": "channels", "Checkerboard": "checkerboard", "Rows": "rows"}
    cycle = [("Channels(Halves)", 0, "SigmoidAffine()"), ("Checkerboard", 1, "Affine()"), ("Rows", 0, "SigmoidAffine()"), ("Channels(Halves)", 1, "Affine()")]
    texts, couplings = ["Squeeze()"], []
    for i, (split, network, scale) in enumerate(cycle):
        text, net = list(networks.items())[network]
        texts.append(f"TokenCoupling(split: {split}, network: {text}, transformer: {scale}, condition: {condition})")
        couplings.append((splits[split], i % 2 == 1, scales[scale], net))
    model = Jet(1, 6, 2, couplings).to(F64)
    x, c = torch.rand(3, 1, 6, 6, dtype=F64) - 0.5, torch.randn(3, condition, dtype=F64)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    names = {f"{i + 1}.net.{name}": p for i, coupling in enumerate(model.couplings) for name, p in coupling.net.named().items()}
    lp = model.log_prob(x, c)
    (-lp.mean()).backward()
    z, ld = model(x, c)
    print("  jet round trip", (model.inverse(z, c) - x).abs().max().item())
    save(path, "jet", names | {"grad." + k: v.grad for k, v in names.items()} | {"x": x, "condition": c, "z": z, "logdet": ld, "log_prob": lp},
         channels=1, size=6, spec=f"ImageFlow(flows: [{', '.join(texts)}])")


class Kan(torch.nn.Module):
    """Edges b silu(x) + s sum(c B(x)), B-splines by the recursion of Cox and de Boor on explicit knots."""

    def __init__(self, sizes, grid, order, reach):
        super().__init__()
        self.order = order
        self.register_buffer("knots", torch.linspace(-reach, reach, grid + 1, dtype=F64)[0] + 2 * reach / grid * torch.arange(-order, grid + order + 1))
        shapes = [(o, i) for i, o in zip(sizes, sizes[1:])]
        parameter = lambda *shape: torch.nn.Parameter(torch.randn(*shape, dtype=F64) / math.sqrt(shape[1]))
        self.layers = torch.nn.ModuleList([torch.nn.ParameterDict(dict(
            base=parameter(*shape), scale=parameter(*shape), coefficients=parameter(*shape, grid + order))) for shape in shapes])

    def splines(self, x):
        t, x = self.knots, x[..., None]
        b = ((x >= t[:-1]) & (x < t[1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            b = (x - t[:-k - 1]) / (t[k:-1] - t[:-k - 1]) * b[..., :-1] + (t[k + 1:] - x) / (t[k + 1:] - t[1:-k]) * b[..., 1:]
        return b

    def forward(self, x):
        for layer in self.layers:
            x = (torch.nn.functional.silu(x) @ layer["base"].T
                 + torch.einsum("bik,oik,oi->bo", self.splines(x), layer["coefficients"], layer["scale"]))
        return x


def kan(path, a):
    """Two affine couplings of R^5, one half each; some inputs are outside of the grid."""
    d, sizes = 5, dict(grid=4, order=3, reach=1.5)
    nets = [Kan((2, 4, 4, 6), **sizes) for _ in range(2)]
    halves = [(slice(0, 2), slice(2, 5)), (slice(3, 5), slice(0, 3))]
    x = torch.randn(8, d, dtype=F64)

    def log_prob():
        z, ld = x, 0
        for net, (kept, moved) in zip(nets, halves):
            r, t = net(z[:, kept]).unflatten(-1, (-1, 2)).unbind(-1)
            s, y = 2 * torch.tanh(r / 2), z.clone()
            y[:, moved] = z[:, moved] * torch.exp(s) + t
            z, ld = y, ld + s.sum(1)
        return z, ld, -0.5 * (z * z).sum(1) - 0.5 * d * math.log(2 * math.pi) + ld
    z, ld, lp = log_prob()
    (-lp.mean()).backward()
    names = {f"{i}.net.{k}.{name}": p for i, net in enumerate(nets) for k, layer in enumerate(net.layers) for name, p in layer.items()}
    coupling = "AffineCoupling(network: Kan(hidden: 4, layers: 2, grid: 4, order: 3, range: 1.5))"
    save(path, "kan", names | {"grad." + k: v.grad for k, v in names.items()} | {"x": x, "z": z, "logdet": ld, "log_prob": lp},
         dim=d, spec=f"VectorFlow(flows: [{coupling}, {coupling}])")


def spline(path, a):
    n, d, k, bound = 64, a.dim, 8, 3.0
    x = 2.5 * torch.randn(n, d, dtype=F64)
    w, h, dv = (torch.randn(n, d, j, dtype=F64) * 1.5 for j in (k, k, k - 1))
    for t in (x, w, h, dv):
        t.requires_grad_()
    y, ld = rqs(x, w, h, dv, inverse=False, tails="linear", tail_bound=bound)
    g = torch.autograd.grad((y * torch.linspace(-1, 1, n * d, dtype=F64).reshape(n, d)).sum() + ld.sum(), (x, w, h, dv))
    back, _ = rqs(y, w, h, dv, inverse=True, tails="linear", tail_bound=bound)
    print("  spline round trip", (back - x).abs().max().item())
    save(path, "rq_spline", {"x": x, "widths": w, "heights": h, "derivatives": dv, "y": y, "logdet": ld, "grad.x": g[0],
         "grad.widths": g[1], "grad.heights": g[2], "grad.derivatives": g[3]}, bins=k, tail_bound=bound, min_bin_width=1e-3,
         min_bin_height=1e-3, min_derivative=1e-3, grad_of="sum(y * linspace(-1,1,n*d)) + sum(logdet)")


def mlp(d_in, h, d_out):
    return [torch.randn(o, i, dtype=F64) / math.sqrt(i) for i, o in ((d_in, h), (h, h), (h, d_out))], \
           [0.3 * torch.randn(o, dtype=F64) for o in (h, h, d_out)]


def residual(path, a):
    d, h, coeff = a.dim, 24, 0.9
    ws, bs = mlp(d, h, d)
    ws = [w * (coeff / torch.linalg.matrix_norm(w, 2)) for w in ws]
    beta = torch.tensor(0.5, dtype=F64)
    ps = [p.requires_grad_() for p in ws + bs]
    act = lambda v: v * torch.sigmoid(torch.nn.functional.softplus(beta) * v) / 1.1

    def g(x):
        for i in range(3):
            x = torch.nn.functional.linear(x, ws[i], bs[i])
            x = act(x) if i < 2 else x
        return x
    x = torch.randn(16, d, dtype=F64)
    jac = torch.func.vmap(torch.func.jacrev(g))(x)
    ld = torch.linalg.slogdet(torch.eye(d, dtype=F64) + jac)[1]
    grads = torch.autograd.grad(ld.sum(), ps, materialize_grads=True)  # the output bias does not enter
    names = ["w1", "w2", "w3", "b1", "b2", "b3"]
    save(path, "residual", dict(zip(names, ps)) | {"x": x, "y": x + g(x), "logdet": ld} |
         {"grad_logdet." + n: v for n, v in zip(names, grads)}, lipschitz_per_layer=coeff, beta_raw=0.5,
         activation="LipSwish: x sigmoid(softplus(beta_raw) x) / 1.1", grad_of="sum(logdet), exact")


def ffjord(path, a):
    d, h = a.dim, 24
    ws, bs = mlp(d + 1, h, d)
    ps = [p.requires_grad_() for p in ws + bs]

    def f(z, t):
        v = torch.cat([z, t.expand(1)])
        for i in range(3):
            v = torch.nn.functional.linear(v, ws[i], bs[i])
            v = torch.tanh(v) if i < 2 else v
        return v

    def field(t, state):
        z, _ = state
        dz = torch.func.vmap(lambda v: f(v, t))(z)
        tr = torch.func.vmap(lambda v: torch.trace(torch.func.jacrev(lambda q: f(q, t))(v)))(z)
        return dz, tr
    x = torch.randn(8, d, dtype=F64, requires_grad=True)
    z, ld = odeint(field, (x, torch.zeros(8, dtype=F64)), torch.tensor([0.0, 1.0], dtype=F64), rtol=1e-10, atol=1e-10, method="dopri5")
    z, ld = z[-1], ld[-1]
    lp = -0.5 * (z * z).sum(1) - 0.5 * d * math.log(2 * math.pi) + ld
    grads = torch.autograd.grad(lp.mean(), ps + [x], materialize_grads=True)
    names = ["w1", "w2", "w3", "b1", "b2", "b3"]
    save(path, "ffjord", dict(zip(names, ps)) | {"x": x, "z": z, "logdet": ld, "log_prob": lp} |
         {"grad." + n: v for n, v in zip(names + ["x"], grads)}, t0=0.0, t1=1.0, rtol=1e-10, atol=1e-10,
         field="W3 tanh(W2 tanh(W1 [z, t] + b1) + b2) + b3, t is the last input", grad_of="mean(log_prob)", trace="exact")


class BoundedAffine(MaskedAffineAutoregressiveTransform):
    """nflows' transform with the scale of the toolkit's affine transformer, exp(2 tanh(r / 2)), in place of softplus(r) + 1e-3."""

    def _log_scale_and_shift(self, params):
        r, t = self._unconstrained_scale_and_shift(params)
        return 2 * torch.tanh(r / 2), t

    def _elementwise_forward(self, x, params):
        s, t = self._log_scale_and_shift(params)
        return x * torch.exp(s) + t, s.sum(1)

    def _elementwise_inverse(self, y, params):
        s, t = self._log_scale_and_shift(params)
        return (y - t) * torch.exp(-s), -s.sum(1)


def autoregressive(path, kind, flow, a, **meta):
    """Hidden units are written in the order of their degrees: another numbering of the same network."""
    net = flow.double().autoregressive_net
    x = (1.5 * torch.randn(12, a.dim, dtype=F64)).requires_grad_()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    y, ld = flow(x)
    back, _ = flow.inverse(y)
    print("  round trip", (back - x).abs().max().item())
    loss = (y * torch.linspace(-1, 1, x.numel(), dtype=F64).reshape(x.shape)).sum() + ld.sum()
    loss.backward()
    units = torch.argsort(net.initial_layer.degrees, stable=True)
    layers = {"initial": (net.initial_layer, units, None), "final": (net.final_layer, None, units)}
    for k, block in enumerate(net.blocks):
        layers |= {f"blocks.{k}.{j}": (layer, units, units) for j, layer in enumerate(block.linear_layers)}
    out = {"x": x, "y": y, "logdet": ld, "grad.x": x.grad}
    for name, (layer, rows, columns) in layers.items():
        for prefix, (weight, bias) in {"": (layer.weight, layer.bias), "grad.": (layer.weight.grad, layer.bias.grad)}.items():
            weight = weight if rows is None else weight[rows]
            out[f"{prefix}net.{name}.weight"] = weight if columns is None else weight[:, columns]
            out[f"{prefix}net.{name}.bias"] = bias if rows is None else bias[rows]
    save(path, kind, out, dim=a.dim, hidden=len(units), blocks=len(net.blocks), activation="relu",
         grad_of="sum(y * linspace(-1,1,n*d)) + sum(logdet)", **meta)


def autoregressive_affine(path, a):
    flow = BoundedAffine(a.dim, 4 * (a.dim - 1), num_blocks=2)
    autoregressive(path, "autoregressive_affine", flow, a, transformer="y = x exp(2 tanh(r / 2)) + t; (r, t) of a feature together")


def autoregressive_spline(path, a):
    flow = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(a.dim, 3 * (a.dim - 1), num_blocks=1, num_bins=5, tails="linear",
                                                                   tail_bound=3.0)
    autoregressive(path, "autoregressive_spline", flow, a, bins=5, tail_bound=3.0,
                   transformer="rational-quadratic spline; widths, heights, derivatives of a feature together")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    for flag, default in dict(seed=0, size=16, channels=3, patch=4, layers=5, dim=6).items():
        ap.add_argument(f"--{flag}", type=int, default=default)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    torch.manual_seed(a.seed)
    for make in (mixerflow, spline, residual, ffjord, autoregressive_affine, autoregressive_spline, glow, glow_spline, jet, kan):
        make(os.path.join(a.out, make.__name__ + ".safetensors"), a)


if __name__ == "__main__":
    main()
