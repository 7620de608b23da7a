//! Log-dets by series: along each probe v the products wₖ = (Jᵀ)ᵏ v, and from them the estimate and what its gradient
//! needs.

use crate::lanes::{self, pick};
use crate::series::{Series, alternating, coefficient};
use flow_api::bijector::foreign_point;
use flow_api::rows::RowTape;
use flow_api::{Result, Scalar};
use flow_kernels::Real;
use flow_kernels::noise::Stream;
use flow_kernels::workspace::Buffer;
use flow_nets::smooth::{MlpKernel, Modulation, Trace};

/// One block of rows at which log-dets are estimated.
pub(crate) struct Block<'b, E: Real> {
    pub(crate) mlp: &'b MlpKernel<'b, E>,
    /// d × lanes.
    pub(crate) x: &'b [E],
    /// The first layer's offset, its outputs × lanes; empty without a condition.
    pub(crate) offset: &'b [E],
    pub(crate) trace: &'b Trace<E>,
    pub(crate) lanes: usize,
}

/// The lanes of a block that still have something to do, and the network's trace of those alone.
struct Active<'b, E: Real> {
    /// Their places in the block; all of them in order at first.
    index: Vec<usize>,
    traced: Traced<'b, E>,
}

enum Traced<'b, E: Real> {
    Block(&'b Trace<E>),
    Own(Trace<E>),
}

impl<'b, E: Real> Active<'b, E> {
    fn all(block: &Block<'b, E>) -> Self {
        Self { index: (0..block.lanes).collect(), traced: Traced::Block(block.trace) }
    }

    fn trace(&self) -> &Trace<E> {
        match &self.traced {
            Traced::Block(trace) => trace,
            Traced::Own(trace) => trace,
        }
    }

    /// Leaves the lanes behind that have nothing to do, once at most a quarter has: `vectors` (features × lanes)
    /// follows. Before that, to go on with all is cheaper.
    fn shrink(&mut self, block: &Block<'b, E>, busy: impl Fn(usize) -> bool, vectors: &mut Buffer<E>) {
        let kept: Vec<usize> = (0..self.index.len()).filter(|&at| busy(self.index[at])).collect();
        if 4 * kept.len() > self.index.len() {
            return;
        }
        *vectors = pick(vectors, self.index.len(), &kept);
        self.index = kept.into_iter().map(|at| self.index[at]).collect();
        // To trace these few rows again costs no more than to pick them out of the block's trace.
        let x = pick(block.x, block.lanes, &self.index);
        let mut y = Buffer::take(block.mlp.output() * self.index.len());
        let offset = pick(block.offset, block.lanes, &self.index);
        let modulation = Modulation { offset: &offset, ..Modulation::default() };
        self.traced = Traced::Own(block.mlp.forward_traced(&x, self.index.len(), modulation, &mut y));
    }
}

/// What the gradient of one probe's estimate needs: it is Σⱼ rⱼᵀ ∇J uⱼ with u₀ = v, uⱼ₊₁ = J uⱼ.
pub(crate) struct Pairs<E: Real> {
    /// How many pairs every lane has.
    counts: Vec<usize>,
    /// v, d × lanes.
    probe: Buffer<E>,
    /// rⱼ one behind the other, each d × lanes, zero in the lanes that have fewer pairs.
    cotangents: Buffer<E>,
}

/// Adds the estimates of a block's log-dets to `log_det` and the squares of their standard errors to `variance`;
/// returns the pairs of every probe, if they are wanted.
pub(crate) fn estimate<E: Real>(
    block: &Block<'_, E>,
    series: &Series,
    noise: &Stream,
    first_row: u64,
    log_det: &mut [E],
    variance: &mut [E],
    pairs_wanted: bool,
) -> Vec<Pairs<E>> {
    let lanes = block.lanes;
    let mut rows: Vec<_> = (0..lanes).map(|lane| noise.row(first_row + lane as u64)).collect();
    let mut values = Buffer::zeroed(series.probes * lanes);
    let mut pairs = Vec::new();
    let single = series.probes == 1;
    for value in values.chunks_exact_mut(lanes.max(1)) {
        let mut terms = Vec::with_capacity(lanes);
        let mut probe = Buffer::take(block.x.len());
        let mut row_probe = Buffer::take(block.x.len() / lanes);
        for (lane, row) in rows.iter_mut().enumerate() {
            terms.push(series.draw_terms(row));
            series.distribution.draw(row, &mut row_probe);
            row_probe.iter().enumerate().for_each(|(j, &v)| probe[j * lanes + lane] = v);
        }
        let mut draw = Draw::new(series, terms, probe, pairs_wanted, single);
        draw.run(block, value);
        if single {
            draw.add_variance(value, variance);
        }
        if pairs_wanted {
            pairs.push(draw.pairs);
        }
    }
    let weight = E::of(1.0 / series.probes as f64);
    for (lane, (log_det, variance)) in log_det.iter_mut().zip(variance).enumerate() {
        let each = || values.iter().skip(lane).step_by(lanes).copied();
        let mean = weight * each().sum::<E>();
        *log_det += mean;
        if !single {
            *variance += each().map(|value| (value - mean) * (value - mean)).sum::<E>() * weight / E::of((series.probes - 1) as f64);
        }
    }
    pairs
}

/// One probe and one length for every lane.
struct Draw<'s, E: Real> {
    series: &'s Series,
    /// K of every lane.
    terms: Vec<usize>,
    weights: Vec<f64>,
    pairs: Pairs<E>,
    pairs_wanted: bool,
    /// vᵀJᵏv, k × lanes, from k = 0 on, and Aᵀv with A = Σ aₖ wₖ Jᵏ: for the error of a single probe.
    moments: Option<(Buffer<E>, Buffer<E>)>,
}

impl<'s, E: Real> Draw<'s, E> {
    fn new(series: &'s Series, terms: Vec<usize>, probe: Buffer<E>, pairs_wanted: bool, single: bool) -> Self {
        let most = terms.iter().copied().max().unwrap_or(0);
        let count = |terms: usize| if series.neumann { 1 } else { terms };
        let len = if pairs_wanted { count(most) * probe.len() } else { 0 };
        let moments = single.then(|| (Buffer::zeroed((most + 1) * terms.len()), Buffer::zeroed(probe.len())));
        let counts = terms.iter().map(|&terms| count(terms)).collect();
        let pairs = Pairs { counts, probe, cotangents: Buffer::zeroed(len) };
        Self { series, weights: series.weights(most), terms, pairs, pairs_wanted, moments }
    }

    /// Writes the estimate of every lane to `value`.
    fn run(&mut self, block: &Block<'_, E>, value: &mut [E]) {
        let lanes = block.lanes;
        let most = self.weights.len() - 1;
        let mut active = Active::all(block);
        let mut w = Buffer::copy_of(&self.pairs.probe);
        self.add_to_pairs(0, &active.index, &w, lanes);
        for k in 1..=most {
            active.shrink(block, |lane| self.terms[lane] >= k, &mut w);
            let mut next = Buffer::take(w.len());
            block.mlp.vjp(active.trace(), &w, &mut next);
            w = next;
            // vᵀJᵏv of the active lanes.
            let mut products = vec![E::zero(); active.index.len()];
            if active.index.len() == lanes {
                lanes::add_products(&mut products, &w, &self.pairs.probe);
            } else {
                lanes::add_products(&mut products, &w, &pick(&self.pairs.probe, lanes, &active.index));
            }
            let weight = E::of(coefficient(k) * self.weights[k]);
            for (&lane, &product) in active.index.iter().zip(&products) {
                if self.terms[lane] >= k {
                    value[lane] += weight * product;
                }
                if let Some((moments, _)) = &mut self.moments {
                    moments[k * lanes + lane] = product;
                }
            }
            self.add_to_pairs(k, &active.index, &w, lanes);
            if let Some((_, sum)) = &mut self.moments {
                let weights: Vec<E> = active.index.iter().map(|&l| if self.terms[l] >= k { weight } else { E::zero() }).collect();
                add_picked(sum, lanes, &w, &weights, &active.index);
            }
        }
    }

    /// Adds wₖ to the cotangents that hold it: Neumann's r₀ = Σ_{k≥0} (−1)ᵏ wₖ-weighted wₖ, or those of the series
    /// itself, rⱼ = Σᵢ a_{i+j+1} weighted wᵢ, from ∇ vᵀJᵏv = Σ_{i+j=k−1} wᵢᵀ ∇J uⱼ.
    fn add_to_pairs(&mut self, k: usize, index: &[usize], w: &[E], lanes: usize) {
        if !self.pairs_wanted {
            return;
        }
        let section = self.pairs.probe.len();
        let pairs = if self.series.neumann { 1 } else { self.weights.len().saturating_sub(1 + k) };
        for j in 0..pairs {
            let (term, coefficient) = if self.series.neumann { (k, alternating(k)) } else { (k + j + 1, coefficient(k + j + 1)) };
            let weight = E::of(coefficient * self.weights[term]);
            let weights: Vec<E> = index.iter().map(|&l| if self.terms[l] >= term { weight } else { E::zero() }).collect();
            add_picked(&mut self.pairs.cotangents[j * section..][..section], lanes, w, &weights, index);
        }
    }

    /// The square of the standard error that one probe and one length leave, from formulas that hold in expectation:
    /// Var(vᵀAv) = `‖A‖²_F + tr A²` for the probe, with ‖Aᵀv‖² for the first and, for the second, whose expectation
    /// over K is Σ_{j,k} aⱼ aₖ wⱼ wₖ P(K ≥ max(j, k)) tr Jʲ⁺ᵏ, vᵀJʲ⁺ᵏv / P(K ≥ j + k) for the trace where K ≥ j + k,
    /// else 0; and Σ_{j,k} aⱼ aₖ tr Jʲ tr Jᵏ (1/P(K ≥ min(j, k)) − 1) for the length, with vᵀJʲv vᵀJᵏv / P(K ≥ max(j,
    /// k)) for the product of traces where K ≥ max(j, k), else 0.
    fn add_variance(&self, value: &[E], variance: &mut [E]) {
        let Some((moments, sum)) = &self.moments else { return };
        let lanes = value.len();
        let mut squares = vec![E::zero(); lanes];
        lanes::add_products(&mut squares, sum, sum);
        for (lane, variance) in variance.iter_mut().enumerate() {
            let terms = self.terms[lane];
            let moment = |k: usize| moments[k * lanes + lane].as_f64();
            let (mut trace, mut length) = (0.0, 0.0);
            for j in 1..=terms {
                for k in 1..=terms {
                    let product = coefficient(j) * coefficient(k);
                    // A series of fixed length leaves out the higher powers: they are small wherever its length is of
                    // use.
                    if j + k <= terms {
                        let reached = self.weights[j + k] / self.weights[j.max(k)];
                        trace += product * self.weights[j] * self.weights[k] * reached * moment(j + k);
                    }
                    length += product * moment(j) * moment(k) * (self.weights[j.min(k)] - 1.0) * self.weights[j.max(k)];
                }
            }
            *variance += E::of((squares[lane].as_f64() + trace).max(0.0) + length.max(0.0));
        }
    }
}

/// Adds the gradient of Σ over lanes of `factors` · estimate, with probes and lengths held fixed, to `x_cotangent`,
/// `offset_cotangent` and `sums`.
pub(crate) fn pull<E: Real>(
    block: &Block<'_, E>,
    pairs: &Pairs<E>,
    factors: &[E],
    x_cotangent: &mut [E],
    offset_cotangent: &mut [E],
    sums: &mut [E],
) {
    let (lanes, section) = (block.lanes, block.x.len());
    let most = pairs.counts.iter().copied().max().unwrap_or(0);
    let mut active = Active::all(block);
    let mut u = Buffer::copy_of(&pairs.probe);
    for j in 0..most {
        active.shrink(block, |lane| pairs.counts[lane] > j, &mut u);
        let cotangents = &pairs.cotangents[j * section..][..section];
        let width = active.index.len();
        let mut v = pick(cotangents, lanes, &active.index);
        let own_factors: Vec<E> = active.index.iter().map(|&lane| factors[lane]).collect();
        lanes::multiply(&mut v, &own_factors);
        let mut next = Buffer::take(u.len());
        let none = Buffer::zeroed(u.len());
        let mut own = Buffer::take(u.len());
        let directions = block.mlp.tangents(u);
        let tangents = block.mlp.jvp_traced(active.trace(), &directions, &mut next);
        let mut own_offset = Buffer::zeroed(offset_cotangent.len() / lanes * width);
        block.mlp.pullback_dual(active.trace(), &tangents, &none, &v, &mut own, None, &mut own_offset, sums);
        let ones = vec![E::one(); width];
        add_picked(x_cotangent, lanes, &own, &ones, &active.index);
        add_picked(offset_cotangent, lanes, &own_offset, &ones, &active.index);
        u = next;
    }
}

/// `out[j, index[r]] += a[r] x[j, r]`: out has `lanes`, x as many as there are indices.
fn add_picked<E: Real>(out: &mut [E], block_lanes: usize, x: &[E], a: &[E], index: &[usize]) {
    if index.len() == block_lanes {
        lanes::add_scaled(out, a, x);
        return;
    }
    for (out, x) in out.chunks_exact_mut(block_lanes).zip(x.chunks_exact(index.len().max(1))) {
        for ((&at, &x), &a) in index.iter().zip(x).zip(a) {
            out[at] += a * x;
        }
    }
}

impl<E: Scalar> Pairs<E> {
    /// Leaves them for the pullback.
    pub(crate) fn push(self, tape: &mut RowTape<E>) {
        let mut counts = Buffer::take(self.counts.len());
        counts.iter_mut().zip(&self.counts).for_each(|(to, &count)| *to = E::of(count as f64));
        tape.push(self.cotangents);
        tape.push(self.probe);
        tape.push(counts);
    }

    /// Takes those that were left last.
    pub(crate) fn pop(tape: &mut RowTape<E>) -> Result<Self> {
        let counts = tape.pop()?;
        let counts = counts.iter().map(|count| count.to_usize().ok_or_else(|| foreign_point(""))).collect::<Result<_>>()?;
        Ok(Self { counts, probe: tape.pop()?, cotangents: tape.pop()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimator::{Estimator, Length, Roulette};

    /// On the line vᵀJᵏv = Jᵏ for v = ±1, so that the mean of a single probe's variance over all lengths is a sum.
    #[test]
    fn the_variance_of_one_probe_is_unbiased_over_lengths() {
        const MOST: usize = 80;
        // All terms aₖ Jᵏ have the same sign, so that nothing is cut off at 0.
        let powers: Vec<f64> = std::iter::successors(Some(1.0), |power| Some(-0.6 * power)).take(MOST + 1).collect();
        for length in [Length::Geometric(0.5), Length::Geometric(0.2)] {
            let series = Series::of(Estimator::Roulette(Roulette { length, probes: 1, ..Roulette::default() })).unwrap();
            // Lane K has a series of K terms.
            let lanes = MOST + 1;
            let mut draw = Draw::new(&series, (0..lanes).collect(), Buffer::zeroed(lanes), false, true);
            let (moments, sum) = draw.moments.as_mut().unwrap();
            for k in 1..lanes {
                moments[k * lanes..][..lanes].fill(powers[k]);
                sum[k] = sum[k - 1] + coefficient(k) * draw.weights[k] * powers[k];
            }
            let mut variance = vec![0.0; lanes];
            draw.add_variance(&vec![0.0; lanes], &mut variance);
            let mean: f64 = variance.iter().enumerate().map(|(k, v)| (series.survival(k) - series.survival(k + 1)) * v).sum();
            let pairs = (1..lanes).flat_map(|j| (1..lanes).map(move |k| (j, k)));
            let terms = pairs.map(|(j, k)| coefficient(j) * coefficient(k) * powers[j] * powers[k] * (3.0 * draw.weights[j.min(k)] - 1.0));
            let expected: f64 = terms.sum();
            assert!((mean - expected).abs() < 1e-6 * expected, "{length:?}: {mean}, expected {expected}");
        }
    }
}
