# MixerFlow: a toolkit for normalizing flows in Rust

MixerFlow ([arXiv:2310.16777](https://arxiv.org/abs/2310.16777)) is an MLP-Mixer made invertible: image patches form a matrix whose rows (the numbers of a patch) and columns (one number of
all patches) are transformed in turn by flows that all rows, or all columns, share. This is that model as a toolkit: any bijection of R^d plugs into the mixing skeleton, an
architecture is a readable RON file, and to compare kinds of flows is to list files.

![Samples of the spline model after 1,200 steps on handwritten digits](docs/images/samples-digits-spline.png)

## Two commands

On a machine with Rust 1.95 and a C compiler. The main job: train every digit-size architecture of `specs/` on the bundled handwritten digits and compare them.

```sh
cargo run --release --example compare_flows
```

The tests:

```sh
cargo test --workspace
```

The first prints this table (2 cores of an Intel Xeon with AVX-512, shared with other work, so that the speeds are lower bounds) and writes curves, samples and a page to
`target/compare_flows`:

```text
@TABLE@
```

Loss is in bits per dimension on 297 held-out images, averaged over 4 draws of uniform dequantisation noise; 17 grey levels; ± is the standard error over images. For scale: a uniform
density has 4.087, a full Gaussian 2.947, an independent histogram of each pixel 2.364 (many pixels are always blank, which makes a histogram strong here).

![Training loss over steps](docs/images/curves.png)

## In Rust

```rust
use mixerflow_toolkit::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec: Spec<dyn ModelSpec> = from_ron(&std::fs::read_to_string("specs/digits-affine.ron")?)?;
    let split = flow_train::data::digits()?;
    let digits = EventShape::Image { channels: 1, height: 8, width: 8 };
    let model = f32::model(spec.0.as_ref(), digits, &BuildScope::new(DefaultDevice::default(), 7))?;
    let settings = flow_train::Settings { steps: 3, ..Default::default() };
    let mut trainer = flow_train::Trainer::new(model, split.train, settings)?;
    trainer.run(&mut flow_train::Silent, &Default::default())?;
    let samples: Vec<f32> = trainer.model().sample(16, 1.0, &Context::new(1))?;
    assert_eq!(samples.len(), 16 * 64);
    Ok(())
}
```

## In RON

```ron
// Different flows on the two sides: affine between the numbers of a patch, splines between patches.
MixerFlow(
    patch: 2,
    layers: 8,
    shift: (every: 4),
    channel: [ActNorm(), LuLinear(), AffineCoupling(hidden: 64, blocks: 1)],
    patches: [ActNorm(), LuLinear(), SplineCoupling(hidden: 64, blocks: 1, bins: 8, tail_bound: 3.0)],
)
```

A misspelt name, an unknown field or a wrong type is an error with line, column and what was expected; sizes that do not divide or layers that do not meet are errors that name both.
`examples/custom_flow.rs` defines a flow of its own, outside the toolkit's crates, and names it in a spec.

## Flows

| in RON | map | log-det | inverse |
|---|---|---|---|
| `AffineCoupling` | one part of the row scales (bounded) and shifts the other | exact | closed form |
| `AdditiveCoupling` | one part shifts the other | exact | closed form |
| `SplineCoupling` | monotone rational-quadratic splines with linear tails | exact | closed form |
| `LuLinear` | y = LUx\[π\] + b, the identity at the start; on pixels, an invertible 1×1 convolution | exact | closed form |
| `ActNorm` | scale and shift per feature, initialised from data | exact | closed form |
| `Permutation` | a fixed order of the features | exact | closed form |

Models: `MixerFlow` for images, `VectorFlow` for vectors. Bases: standard normal, diagonal normal with learned mean and scale.

## What it holds itself to

- **Every log-det is checked against a Jacobian.** `flow_api::testkit` is public: one call runs a bijection, yours too, through finite differences in f64 in both directions, gradients,
  round trips, saving and loading, threads and precision. Bijections with falsified log-dets must fail it, and do.
- **Numbers agree with other implementations.** The whole model, latents, likelihoods and gradients, agrees with PyTorch and nflows (`tests/golden.rs`). Trained for 2,000 steps on the same schedule, `specs/digits-affine.ron`
  reaches 2.416, 2.419 and 2.469 bits/dim with seeds 0–2, where PyTorch's model reaches 2.425, 2.424 and 2.440; ours is reproduced by
  `cargo run --release --example compare_flows -- --spec specs/digits-affine.ron --steps 2000 --seed 0`.
- **Training needs no tape.** A layer's gradient needs its input, and a bijection can recover it from its output: `Memory::Store` keeps activations, `Recompute` one input a layer, `Invert` nothing at all.
- **A seed is a run.** Data order, dequantisation and estimators are functions of seed, step and item alone: results are bit-equal at any number of threads, and a resumed run is the run that never stopped.
- **Nothing panics on input.** Errors are typed and name the layer, what was expected and what came; there is no `unsafe` code.

## Limits

- Coupling flows alone so far: residual-Lipschitz and continuous (FFJORD) flows have their contract, networks and estimator machinery (`InverseKind`, standard errors of log-dets,
  `flow_nets::smooth` with second derivatives), but are not in this version.
- No command-line program yet; training from the library, or by `compare_flows`.
- The CUDA path is type-checked (`--features cuda,ci-check`) but has never run: there it uses plain dfdx operations, and splines run on the host.
- Inference on a single large image uses one thread: batches are spread over threads by image.
- The digits' bits/dim are of a set with 17 levels and 64 pixels: they say nothing about natural images. Hidden sizes, and the order of parts within a layer, are our choice where the
  paper could not be read.

Licensed under MIT or Apache-2.0, at your option. The bundled digits are by E. Alpaydin and C. Kaynak (UCI, CC BY 4.0).
