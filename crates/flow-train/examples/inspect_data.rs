//! Opens a source of data and prints what it holds and how fast it is drawn.
//!
//! `cargo run --release -p flow-train --example inspect_data -- digits` should print, beside the speed:
//!
//! ```text
//! digits: items 1×8×8, Some(17) levels, 10 classes, Fixed
//! train:   1500 items, mean [0.3051], deviation [0.3750]
//! test:     297 items, mean [0.3060], deviation [0.3812]
//! ```
//!
//! Means and standard deviations are those of each channel, on a scale from 0 to 1 for discrete values.

use std::time::Instant;

use flow_train::data::{DataSource, ItemShape, Loader, Values, each_once};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source: DataSource = std::env::args().nth(1).unwrap_or_else(|| "digits".to_owned()).parse()?;
    let split = source.open(0)?;
    let (shape, levels, classes) = (split.train.shape(), split.train.levels(), split.train.classes().len());
    println!("{source}: items {shape}, {levels:?} levels, {classes} classes, {:?}", split.rule);
    for skipped in &split.skipped {
        println!("skipped: {}", skipped.reason);
    }
    for (name, set) in [("train", split.train), ("test", split.test)] {
        let channels = match set.shape() {
            ItemShape::Image { channels, .. } => channels,
            ItemShape::Vector { dims } => dims,
        };
        let (plane, scale) = (set.shape().dims() / channels, set.levels().map_or(1.0, |l| f64::from(l - 1)));
        let (mut sums, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
        let started = Instant::now();
        for batch in Loader::new(set.clone(), each_once(set.len(), 256), 2) {
            let values = match batch?.values {
                Values::Levels(v) => v.into_iter().map(f64::from).collect(),
                Values::Real(v) => v,
            };
            for (i, value) in values.into_iter().enumerate() {
                let channel = i / plane % channels;
                sums[channel] += value / scale;
                squares[channel] += (value / scale).powi(2);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let count = (set.len() * plane) as f64;
        let means: Vec<_> = sums.iter().map(|s| s / count).collect();
        let deviations: Vec<_> = squares.iter().zip(&means).map(|(s, m)| (s / count - m * m).max(0.0).sqrt()).collect();
        println!("{:<6} {:>6} items, mean {means:.4?}, deviation {deviations:.4?}", format!("{name}:"), set.len());
        println!("        {:.0} items a second", set.len() as f64 / seconds);
    }
    Ok(())
}
