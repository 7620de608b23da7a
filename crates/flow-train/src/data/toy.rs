//! Two-dimensional toy densities with known entropy, generated from a seed.

use std::f64::consts::{FRAC_1_SQRT_2, PI, TAU};
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use rand_distr::StandardNormal;

use super::random::{Purpose, stream};
use super::{DataError, Draw, InMemory, ItemShape, Labels, MAX_ITEMS, Result, Split, SplitRule, Values};

/// A density on ℝ², by the conventions of the set it is named after, so that figures can be compared.
///
/// The floor is the differential entropy, in nats: the lowest mean negative log-likelihood that any model can reach. It
/// holds for the default noise and for the scaling given here; figures under another scaling are not comparable.
///
/// Angles and positions are drawn independently for each point, where the originals space them evenly: the densities
/// are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToyKind {
    /// `make_moons` of scikit-learn: half circles (cos t, sin t) and (1 − cos t, ½ − sin t), t ∈ [0, π]; noise 0.1.
    /// Floor 1.0076.
    TwoMoons,
    /// `8gaussians` of FFJORD: centres on a circle of radius 4, noise 0.5, all divided by 1.414. Floor 2.8319.
    EightGaussians,
    /// `checkerboard` of FFJORD: uniform on eight squares of side 2 in [−4, 4]²; takes no noise. Floor ln 32 ≈ 3.4657.
    Checkerboard,
    /// `circles` of FFJORD: `make_circles` of scikit-learn, radii ½ and 1, noise 0.08, all times 3. Floor 3.2681.
    Circles,
    /// `rings` of FFJORD: radii ¼, ½, ¾ and 1, times 3; then noise 0.08. Floor 2.6232.
    Rings,
}

impl ToyKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::TwoMoons, Self::EightGaussians, Self::Checkerboard, Self::Circles, Self::Rings];

    /// The name in a source: `two-moons`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoMoons => "two-moons",
            Self::EightGaussians => "eight-gaussians",
            Self::Checkerboard => "checkerboard",
            Self::Circles => "circles",
            Self::Rings => "rings",
        }
    }

    /// Standard deviation of the noise by the set's convention.
    pub const fn default_noise(self) -> f64 {
        match self {
            Self::TwoMoons => 0.1,
            Self::EightGaussians => 0.5,
            Self::Checkerboard => 0.0,
            Self::Circles | Self::Rings => 0.08,
        }
    }

    /// What each point is multiplied by, after and before the noise.
    const fn scales(self) -> (f64, f64) {
        match self {
            Self::TwoMoons => (1.0, 1.0),
            Self::EightGaussians => (1.0 / 1.414, 4.0),
            Self::Checkerboard => (2.0, 1.0),
            Self::Circles => (3.0, 1.0),
            Self::Rings => (1.0, 3.0),
        }
    }

    /// Number of parts (moons, centres, circles) of equal probability: the classes.
    const fn parts(self) -> u32 {
        match self {
            Self::TwoMoons | Self::Circles => 2,
            Self::EightGaussians => 8,
            Self::Checkerboard => 1,
            Self::Rings => 4,
        }
    }

    /// The point of a part at `t` ∈ [0, 1), without noise and scales.
    fn point(self, part: u32, t: f64) -> [f64; 2] {
        let circle = |radius: f64| [radius * (TAU * t).cos(), radius * (TAU * t).sin()];
        match self {
            Self::TwoMoons => {
                let (sin, cos) = (PI * t).sin_cos();
                if part == 0 { [cos, sin] } else { [1.0 - cos, 0.5 - sin] }
            }
            Self::EightGaussians => {
                const D: f64 = FRAC_1_SQRT_2;
                [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [D, D], [D, -D], [-D, D], [-D, -D]]
                    .get(part as usize)
                    .copied()
                    .unwrap_or_default()
            }
            Self::Checkerboard => [0.0; 2],
            Self::Circles => circle(f64::from(part + 1) / 2.0),
            Self::Rings => circle(f64::from(part + 1) / 4.0),
        }
    }
}

/// A generated set: `n` points to train on and as many, from a stream of their own, to test on.
///
/// ```
/// use flow_train::data::{Toy, ToyKind};
///
/// let toy = Toy::new(ToyKind::Checkerboard);
/// assert_eq!(toy.open(7)?.train.len(), 10_000);
/// assert_eq!(toy.entropy(), Some(32f64.ln()));
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Toy {
    /// Which density.
    pub kind: ToyKind,
    /// Points in each part.
    pub n: usize,
    /// Standard deviation of the noise, in the units of the set's convention.
    pub noise: f64,
}

impl Toy {
    /// 10,000 points with the noise of the convention.
    pub const fn new(kind: ToyKind) -> Self {
        Self { kind, n: 10_000, noise: kind.default_noise() }
    }

    /// The differential entropy in nats, to four decimals, if the noise is that of the convention.
    pub fn entropy(&self) -> Option<f64> {
        let known = match self.kind {
            ToyKind::TwoMoons => 1.0076,
            ToyKind::EightGaussians => 2.8319,
            ToyKind::Checkerboard => 32f64.ln(),
            ToyKind::Circles => 3.2681,
            ToyKind::Rings => 2.6232,
        };
        (self.noise.to_bits() == self.kind.default_noise().to_bits()).then_some(known)
    }

    /// Generates both parts. Labels are the moon, centre or circle that a point belongs to; a checkerboard has none.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `n` is 0 or above [`MAX_ITEMS`], the noise is negative or not finite, or a
    /// checkerboard has any.
    pub fn open(&self, seed: u64) -> Result<Split> {
        if !(1..=MAX_ITEMS).contains(&self.n) {
            return Err(DataError::Setting { what: "n", expected: "1 to 100000000 points", got: self.n.to_string() });
        }
        let checkerboard = self.kind == ToyKind::Checkerboard;
        if !(0.0..=1e6).contains(&self.noise) || checkerboard && self.noise > 0.0 {
            let expected = if checkerboard { "none for a checkerboard" } else { "0 to 1e6" };
            return Err(DataError::Setting { what: "noise", expected, got: self.noise.to_string() });
        }
        let part = |purpose| self.generate(seed, purpose).map(Arc::new);
        Split::new(part(Purpose::ToyTrain)?, part(Purpose::ToyTest)?, SplitRule::Generated)
    }

    fn generate(&self, seed: u64, purpose: Purpose) -> Result<InMemory> {
        let mut rng = stream(seed, purpose, Draw { epoch: 0, index: 0 });
        let kind = self.kind;
        let (mut values, mut of_items) = (Vec::with_capacity(2 * self.n), Vec::with_capacity(self.n));
        for _ in 0..self.n {
            if kind == ToyKind::Checkerboard {
                values.extend(checkerboard(&mut rng));
                continue;
            }
            let part = rng.gen_range(0..kind.parts());
            let point = kind.point(part, rng.r#gen());
            let (after, before) = kind.scales();
            values.extend(point.map(|x| {
                let noise: f64 = rng.sample(StandardNormal);
                after * (before * x + self.noise * noise)
            }));
            of_items.push(Some(part));
        }
        let classes = (0..kind.parts()).map(|p| p.to_string()).collect();
        let labels = (kind != ToyKind::Checkerboard).then_some(Labels { of_items, classes });
        InMemory::new(Path::new(kind.name()), Values::Real(values), ItemShape::Vector { dims: 2 }, None, labels)
    }
}

/// FFJORD's: x₁ ~ U[−2, 2), x₂ = U[0, 1) − 2·Bernoulli(½) + (⌊x₁⌋ mod 2), both times 2.
fn checkerboard(rng: &mut impl Rng) -> [f64; 2] {
    let x1 = rng.gen_range(-2.0..2.0f64);
    let low = if rng.r#gen() { -2.0 } else { 0.0 };
    let x2 = rng.r#gen::<f64>() + low + x1.floor().rem_euclid(2.0);
    [2.0 * x1, 2.0 * x2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Batch, Dataset};

    type Points = (Vec<[f64; 2]>, Vec<Option<usize>>);

    fn points(set: &dyn Dataset) -> Result<Points> {
        let draws: Vec<_> = (0..set.len()).map(|index| Draw { epoch: 0, index }).collect();
        let Batch { values: Values::Real(values), labels, .. } = set.batch(&draws)? else { panic!("toys are continuous") };
        Ok((values.as_chunks::<2>().0.to_vec(), labels))
    }

    /// A mixture of equal Gaussians whose centres lie close together on the noiseless curve: independent of how the
    /// generator places and perturbs points.
    struct Mixture {
        centres: Vec<[f64; 2]>,
        sigma: f64,
    }

    impl Mixture {
        fn of(kind: ToyKind) -> Self {
            let (after, before) = kind.scales();
            let centres_a_part = if kind == ToyKind::EightGaussians { 1 } else { 400 };
            let centres = (0..kind.parts()).flat_map(|part| {
                let at = move |i: i32| (f64::from(i) + 0.5) / f64::from(centres_a_part);
                (0..centres_a_part).map(move |i| kind.point(part, at(i)).map(|x| after * before * x))
            });
            Self { centres: centres.collect(), sigma: kind.default_noise() * after }
        }

        fn density(&self, [x, y]: [f64; 2]) -> f64 {
            let two_variances = 2.0 * self.sigma * self.sigma;
            let kernel = |c: &[f64; 2]| (-((x - c[0]).powi(2) + (y - c[1]).powi(2)) / two_variances).exp();
            self.centres.iter().map(kernel).sum::<f64>() / (self.centres.len() as f64 * PI * two_variances)
        }

        /// ∫ p and −∫ p ln p by the trapezoidal rule, which converges faster than any power of the step for a density
        /// as smooth as its Gaussians.
        fn mass_and_entropy(&self) -> (f64, f64) {
            let step = 0.75 * self.sigma;
            let places = |axis: usize| {
                let all = || self.centres.iter().map(move |c| c[axis]);
                let low = all().fold(f64::INFINITY, f64::min) - 8.0 * self.sigma;
                let high = all().fold(f64::NEG_INFINITY, f64::max) + 8.0 * self.sigma;
                std::iter::successors(Some(low), move |x| Some(x + step)).take_while(move |x| *x < high).collect::<Vec<_>>()
            };
            let (xs, ys) = (places(0), places(1));
            let densities = xs.iter().flat_map(|&x| ys.iter().map(move |&y| self.density([x, y]))).filter(|p| *p > 0.0);
            let (mass, entropy) = densities.fold((0.0, 0.0), |(mass, entropy), p| (mass + p, entropy - p * p.ln()));
            (mass * step * step, entropy * step * step)
        }
    }

    #[test]
    fn floors_are_entropies_by_quadrature() {
        for kind in ToyKind::ALL.into_iter().filter(|&k| k != ToyKind::Checkerboard) {
            let (mass, entropy) = Mixture::of(kind).mass_and_entropy();
            let floor = Toy::new(kind).entropy().expect("default noise");
            assert!((mass - 1.0).abs() < 1e-9, "{}: {mass}", kind.name());
            assert!((entropy - floor).abs() < 6e-5, "{}: {entropy}, not {floor}", kind.name());
        }
    }

    /// The generator draws from the density whose floor it is.
    #[test]
    fn the_mean_negative_log_density_is_the_floor() -> Result<()> {
        for kind in ToyKind::ALL.into_iter().filter(|&k| k != ToyKind::Checkerboard) {
            let (toy, mixture) = (Toy { n: 6000, ..Toy::new(kind) }, Mixture::of(kind));
            let nll: Vec<f64> = points(&*toy.open(3)?.test)?.0.iter().map(|&point| -mixture.density(point).ln()).collect();
            let mean = nll.iter().sum::<f64>() / nll.len() as f64;
            let variance = nll.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / nll.len() as f64;
            let error = (variance / nll.len() as f64).sqrt();
            let floor = toy.entropy().expect("default noise");
            assert!((mean - floor).abs() < 4.0 * error, "{}: {mean} ± {error}, not {floor}", kind.name());
        }
        Ok(())
    }

    /// Every point lies in one of eight squares of side 2, and each square has an eighth of them: entropy ln(8·4).
    #[test]
    fn the_checkerboard_is_uniform_on_its_squares() -> Result<()> {
        let toy = Toy { n: 16_000, ..Toy::new(ToyKind::Checkerboard) };
        let mut counts = std::collections::BTreeMap::new();
        for [x, y] in points(&*toy.open(1)?.train)?.0 {
            let square = [x, y].map(|v| num_traits::cast::<f64, i32>((v / 2.0).floor()).expect("small"));
            *counts.entry(square).or_insert(0) += 1;
        }
        let squares: Vec<_> = counts.keys().copied().collect();
        let expected: Vec<_> =
            (-2..2).flat_map(|i: i32| (-2..2).map(move |j| [i, j])).filter(|[i, j]| (i + j).rem_euclid(2) == 0).collect();
        assert_eq!(squares, expected);
        // 2,000 expected in each, standard deviation 42.
        assert!(counts.values().all(|n| (1830..=2170).contains(n)), "{counts:?}");
        Ok(())
    }

    /// First points with the noise off lie on the curves of the conventions.
    #[test]
    fn points_without_noise_lie_on_their_curves() -> Result<()> {
        for kind in [ToyKind::TwoMoons, ToyKind::EightGaussians, ToyKind::Circles, ToyKind::Rings] {
            let (points, labels) = points(&*Toy { kind, n: 500, noise: 0.0 }.open(5)?.train)?;
            for ([x, y], part) in points.into_iter().zip(labels.into_iter().map(|label| label.expect("labelled"))) {
                let radius = x.hypot(y);
                let off = match kind {
                    ToyKind::TwoMoons if part == 0 => (radius - 1.0).abs() + y.min(0.0).abs(),
                    ToyKind::TwoMoons => ((x - 1.0).hypot(y - 0.5) - 1.0).abs() + (y - 0.5).max(0.0),
                    ToyKind::EightGaussians => (radius - 4.0 / 1.414).abs(),
                    ToyKind::Circles => (radius - 1.5 * (part + 1) as f64).abs(),
                    _ => (radius - 0.75 * (part + 1) as f64).abs(),
                };
                assert!(off < 1e-12, "{} part {part}: ({x}, {y})", kind.name());
            }
        }
        Ok(())
    }

    #[test]
    fn seeds_and_parts_are_streams_of_their_own() -> Result<()> {
        let toy = Toy { n: 50, ..Toy::new(ToyKind::Rings) };
        let (a, b, c) = (toy.open(1)?, toy.open(1)?, toy.open(2)?);
        assert_eq!(points(&*a.train)?, points(&*b.train)?);
        assert_ne!(points(&*a.train)?, points(&*a.test)?);
        assert_ne!(points(&*a.train)?, points(&*c.train)?);
        for bad in [
            Toy { n: 0, ..toy },
            Toy { n: usize::MAX, ..toy },
            Toy { noise: -1.0, ..toy },
            Toy { noise: f64::NAN, ..toy },
            Toy { noise: 0.1, ..Toy::new(ToyKind::Checkerboard) },
        ] {
            assert!(matches!(bad.open(1), Err(DataError::Setting { .. })), "{bad:?}");
        }
        assert_eq!(Toy { noise: 0.2, ..toy }.entropy(), None);
        Ok(())
    }
}
