//! A flow of one's own that runs on the device: a map of every number, with two functions in CUDA C beside its Rust.
//!
//! `cargo run --release -p flow-cuda --example own_map` trains it on scanned digits, on the device and on the host, and
//! prints both losses: they are the same to rounding.

use flow_api::device::Snippet;
use flow_api::register_row_flow;
use flow_api::rows::{ElementMap, Number};
use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
use flow_cuda::Cuda;
use flow_train::data::DataSource;
use flow_train::{Settings, Silent, Trainer};
use flows_coupling as _;
use mixerflow as _;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;

/// y = x + e^w tanh x with a weight w that is learned for every feature: it draws a dense middle apart.
///
/// `map` is the flow: its kernel on the host, gradients included, follows from it. `snippet` is the same for the
/// device, where the inverse is solved for as on the host, since the text brings none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spread {}
register_row_flow!(Spread);

impl ElementMap for Spread {
    const KIND: &'static str = "Spread";

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("log_weight", -1.0)]
    }

    fn map<N: Number>(&self, x: N, parameters: &[N]) -> (N, N) {
        let (weight, tanh) = (parameters[0].exp(), x.tanh());
        (x + weight * tanh, (N::of(1.0) + weight * (N::of(1.0) - tanh * tanh)).ln())
    }

    fn snippet(&self) -> Option<Snippet> {
        let text = "
            __device__ float forward(float x, const float* p, const float* s, float& log_slope) {
                const float weight = expf(p[0]), tanh = tanhf(x);
                log_slope = log1pf(weight * (1.0f - tanh * tanh));
                return x + weight * tanh;
            }
            __device__ float pullback(float x, const float* p, const float* s, float for_y, float for_log_slope, float* for_p) {
                const float weight = expf(p[0]), tanh = tanhf(x), steep = 1.0f - tanh * tanh, slope = 1.0f + weight * steep;
                for_p[0] = weight * (for_y * tanh + for_log_slope * steep / slope);
                return for_y * slope - 2.0f * for_log_slope * weight * tanh * steep / slope;
            }";
        Some(Snippet { kind: Self::KIND, text: text.into(), parameters: 1, settings: Vec::new(), inverse: false })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec: Spec<dyn ModelSpec> = from_ron(
        "MixerFlow(patch: 4, layers: 2, channel: [ActNorm(), LuLinear(), Spread(), AffineCoupling(hidden: 16, blocks: 1)], \
         patches: [ActNorm(), AdditiveCoupling(hidden: 8, blocks: 1)])",
    )?;
    let data = "digits".parse::<DataSource>()?.open(1)?.train;
    let event = EventShape::Image { channels: 1, height: 8, width: 8 };
    let trainer = || {
        let settings = Settings { steps: 20, batch: 16, initial_batch: 256, report_every: 5, ..Settings::default() };
        Trainer::new(spec.build::<f32>(event, 3)?, data.clone(), settings)
    };
    let (mut host, mut there, stop) = (trainer()?, trainer()?.on(&Cuda::open(0)?)?, AtomicBool::new(false));
    for trainer in [&mut host, &mut there] {
        trainer.run(&mut Silent, &stop)?;
    }
    println!("step   host (bits/dim)   device");
    for (a, b) in host.history().iter().zip(there.history()) {
        println!("{:4}   {:.6}          {:.6}", a.step, a.train, b.train);
    }
    Ok(())
}
