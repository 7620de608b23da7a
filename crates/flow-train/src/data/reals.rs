//! How real numbers become events: column by column, in f64.
//!
//! A value x of a column that is discrete becomes x + u with uniform noise u (uniform dequantisation: Theis, van den
//! Oord, Bethge, *A note on the evaluation of generative models*, 2016, section 3.1); one of a bounded column goes
//! through the map of its [`Bounds`]; and all are standardised by what the training items were found to be. Each has
//! its log-det, so that densities are those of the data as they were, in their own units. With discrete columns they
//! are densities of x + u, whose mean over the noise is a lower bound on the log-probability of x: ln ∫ p(x + u) du ≥ ∫
//! ln p(x + u) du.

use flow_api::Scalar;
use flow_api::spec::{Bounds, Moments, Preprocessing, Standardiser};
use rand::RngCore;
use serde::{Deserialize, Serialize};

use super::random::{Purpose, stream};
use super::{Column, DataError, Dataset, Draw, ItemShape, Result, Values, column_key, column_name, each_once};

/// What happens to the numbers of one column before they are standardised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnMap {
    /// Where they can lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Bounds>,
    /// Whether they are whole numbers, which are dequantised.
    pub discrete: bool,
}

impl ColumnMap {
    /// Those of the continuous values.
    fn bounds(self) -> Option<Bounds> {
        if self.discrete { self.bounds.map(Bounds::of_dequantised) } else { self.bounds }
    }

    /// y and ln dy/dx; not a number for a value that the column cannot have.
    fn map(self, x: f64, noise: impl FnOnce() -> f64) -> (f64, f64) {
        let x = match self.discrete {
            true if x.fract() == 0.0 => x + noise(),
            true => f64::NAN,
            false => x,
        };
        self.bounds().map_or((x, 0.0), |bounds| bounds.map(x))
    }

    /// The value of the column that y stands for.
    fn inverse(self, y: f64) -> f64 {
        let x = self.bounds().map_or(y, |bounds| bounds.inverse(y));
        if !self.discrete {
            return x;
        }
        // By rounding it may lie on the upper bound.
        let (low, high) = self.bounds.map_or((f64::NEG_INFINITY, f64::INFINITY), Bounds::range);
        x.floor().clamp(low, high)
    }

    /// What values have to be.
    fn expected(self) -> String {
        let bounds = self.bounds.map(|bounds| bounds.to_string());
        match (self.discrete, bounds) {
            (true, bounds) => format!("a whole number{}", bounds.map_or(String::new(), |bounds| format!(", {bounds} or on the bound"))),
            (false, bounds) => bounds.unwrap_or_else(|| "a finite number".to_owned()),
        }
    }
}

/// Where the middle half of the values of a column lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quartiles {
    /// A quarter of the values is smaller.
    pub lower: f64,
    /// Half of them.
    pub median: f64,
    /// Three quarters.
    pub upper: f64,
}

impl Quartiles {
    /// How far from the median, in widths of the middle half, a value lies beyond any reason.
    const FAR: f64 = 100.0;

    /// Those of values, which are put into another order; none of no values.
    pub fn of(values: &mut [f64]) -> Option<Self> {
        let n = values.len();
        let mut at = |i: usize| (i < n).then(|| *values.select_nth_unstable_by(i, f64::total_cmp).1);
        Some(Self { lower: at(n / 4)?, median: at(n / 2)?, upper: at(3 * n / 4)? })
    }

    /// Whether a value lies beyond any reason: a hundred widths of the middle half from the median. None does where
    /// half of the values are one.
    pub fn is_far(&self, x: f64) -> bool {
        self.upper > self.lower && (x - self.median).abs() > Self::FAR * (self.upper - self.lower)
    }
}

/// Real numbers of items of one shape to events, and back.
///
/// ```
/// use flow_api::spec::{Preprocessing, from_ron};
/// use flow_train::data::{Draw, ItemShape, Reals};
/// let preprocessing: Preprocessing = from_ron(r#"(bounds: {"1": Log()}, discrete: ["2"])"#)?;
/// let reals = Reals::new(&preprocessing, &[], ItemShape::Vector { dims: 2 }, 7)?;
/// let (mut y, mut log_det) = ([0f64; 2], [0f64]);
/// reals.to_events(&[2.0, 5.0], &[Draw { epoch: 0, index: 0 }], &mut y, &mut log_det)?;
/// assert!((y[0] - 2f64.ln()).abs() < 1e-15 && 5.0 < y[1] && y[1] < 6.0 && (log_det[0] + 2f64.ln()).abs() < 1e-15);
/// assert_eq!(reals.to_values(&y), [2.0, 5.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Reals {
    seed: u64,
    purpose: Purpose,
    shape: ItemShape,
    /// Of every number of an item; one of items whose numbers are all alike; none where nothing happens to any.
    columns: Vec<ColumnMap>,
    standardiser: Option<Standardiser>,
}

impl Reals {
    /// Finds the columns that are named; `columns` are the data's, if they know of any, and `seed` is that of the
    /// noise.
    ///
    /// # Errors
    /// [`DataError::Setting`] for what levels alone have a use for; [`DataError::UnknownColumn`];
    /// [`DataError::BadOption`] for bounds that are none.
    pub fn new(preprocessing: &Preprocessing, columns: &[Column], shape: ItemShape, seed: u64) -> Result<Self> {
        if let Some((what, got)) = preprocessing.of_levels() {
            return Err(DataError::Setting { what, expected: "nothing for data that have no levels", got });
        }
        let Preprocessing { bounds, discrete, .. } = preprocessing;
        let named =
            bounds.keys().map(|key| ("preprocessing.bounds", key)).chain(discrete.iter().map(|key| ("preprocessing.discrete", key)));
        if let (ItemShape::Image { .. }, Some((what, key))) = (shape, named.clone().next()) {
            return Err(DataError::Setting { what, expected: "nothing for pictures, which have no columns", got: key.clone() });
        }
        let dims = shape.dims();
        let find = |option: &'static str, key: &str| {
            let by_name = columns.iter().position(|column| column.name == key && !key.is_empty());
            let by_number = || (0..dims).find(|&i| columns.get(i).map_or(i + 1, |column| column.number).to_string() == key);
            by_name.or_else(by_number).ok_or_else(|| DataError::UnknownColumn {
                option,
                got: key.to_owned(),
                known: (0..dims).map(|i| column_key(columns, i)).collect(),
            })
        };
        let mut maps = vec![ColumnMap::default(); if bounds.is_empty() && discrete.is_empty() { 0 } else { dims }];
        for (key, bounds) in bounds {
            if let Some(expected) = bounds.expected() {
                let (option, expected) = (key.clone(), expected.to_owned());
                return Err(DataError::BadOption { kind: "preprocessing.bounds", option, expected, got: format!("{bounds:?}") });
            }
            maps[find("preprocessing.bounds", key)?].bounds = Some(*bounds);
        }
        for key in discrete {
            maps[find("preprocessing.discrete", key)?].discrete = true;
        }
        Ok(Self { seed, purpose: Purpose::Dequantise, shape, columns: maps, standardiser: None })
    }

    /// The same for a data set whose values may stand for whole numbers, all of them ([`Dataset::are_whole`]): those
    /// are dequantised.
    #[must_use]
    pub fn of_whole(self, are_whole: bool) -> Self {
        if are_whole { Self { columns: vec![ColumnMap { bounds: None, discrete: true }], ..self } } else { self }
    }

    /// What happens to a number, by its place in an item.
    pub fn column(&self, at: usize) -> ColumnMap {
        let at = if self.columns.len() == 1 { 0 } else { at };
        self.columns.get(at).copied().unwrap_or_default()
    }

    /// The same with what happens to columns as [`Reals::columns`] gave it.
    ///
    /// # Errors
    /// [`DataError::Size`] for another number of columns.
    pub fn with_columns(self, columns: Vec<ColumnMap>) -> Result<Self> {
        if columns.len() <= 1 || columns.len() == self.shape.dims() {
            return Ok(Self { columns, ..self });
        }
        Err(DataError::Size { what: "columns", expected: self.shape.dims(), got: columns.len() })
    }

    /// The same, standardising with this.
    #[must_use]
    pub fn with_standardiser(self, standardiser: Option<Standardiser>) -> Self {
        Self { standardiser, ..self }
    }

    /// What real numbers are standardised with.
    pub fn standardiser(&self) -> Option<&Standardiser> {
        self.standardiser.as_ref()
    }

    /// What happens to every column, once where it is the same; none where nothing happens to any.
    pub fn columns(&self) -> &[ColumnMap] {
        &self.columns
    }

    /// Whether noise is added.
    pub fn is_dequantised(&self) -> bool {
        self.columns.iter().any(|column| column.discrete)
    }

    /// The same to evaluate with: with noise that no training item has had.
    #[must_use]
    pub fn for_evaluation(&self) -> Self {
        Self { purpose: Purpose::DequantiseToEvaluate, ..self.clone() }
    }

    /// Values of items before they are standardised, and Σ ln dy/dx of each.
    fn map(&self, values: &[f64], draws: &[Draw]) -> (Vec<f64>, Vec<f64>) {
        if self.columns.is_empty() {
            return (values.to_vec(), vec![0.0; draws.len()]);
        }
        let (mut mapped, mut log_det) = (Vec::with_capacity(values.len()), vec![0.0; draws.len()]);
        self.each(values, draws, |item, y, log_slope| {
            mapped.push(y);
            log_det[item] += log_slope;
        });
        (mapped, log_det)
    }

    /// The item of every number, what becomes of it before it is standardised, and ln dy/dx.
    fn each(&self, values: &[f64], draws: &[Draw], mut each: impl FnMut(usize, f64, f64)) {
        for (item, (values, &draw)) in values.chunks_exact(self.shape.dims().max(1)).zip(draws).enumerate() {
            let mut noise = stream(self.seed, self.purpose, draw);
            for (&x, column) in values.iter().zip(self.columns.iter().cycle()) {
                let (y, log_slope) = column.map(x, || (f64::from(noise.next_u32()) + 0.5) / 4_294_967_296.0);
                each(item, y, log_slope);
            }
        }
    }

    /// ln dy/dx of every number, in nats: those of an item add up to its log-det of [`Reals::to_events`].
    ///
    /// # Shapes
    /// `values` and the result: `[draws.len(), dims]`.
    ///
    /// # Errors
    /// [`DataError::Size`].
    pub fn log_slopes(&self, values: &[f64], draws: &[Draw]) -> Result<Vec<f64>> {
        let dims = self.shape.dims();
        let expected = draws.len().saturating_mul(dims);
        if values.len() != expected {
            return Err(DataError::Size { what: "values", expected, got: values.len() });
        }
        let mut slopes = vec![0.0; values.len()];
        if !self.columns.is_empty() {
            let mut at = 0;
            self.each(values, draws, |_, _, log_slope| {
                slopes[at] = log_slope;
                at += 1;
            });
        }
        if let Some(standardiser) = &self.standardiser {
            for item in slopes.chunks_exact_mut(dims.max(1)) {
                item.iter_mut().zip(standardiser.scale()).for_each(|(slope, scale)| *slope -= scale.ln());
            }
        }
        Ok(slopes)
    }

    /// Events and log|det ∂y/∂x| of real numbers. What a column cannot have, such as a number outside its bounds,
    /// becomes an event that is not a number.
    ///
    /// # Shapes
    /// `values`, `events`: `[draws.len(), dims]`; `log_det`: `[draws.len()]`.
    ///
    /// # Errors
    /// [`DataError::Size`].
    pub fn to_events<E: Scalar>(&self, values: &[f64], draws: &[Draw], events: &mut [E], log_det: &mut [E]) -> Result<()> {
        let expected = draws.len().saturating_mul(self.shape.dims());
        for (what, expected, got) in
            [("values", expected, values.len()), ("events", expected, events.len()), ("log_det", draws.len(), log_det.len())]
        {
            if got != expected {
                return Err(DataError::Size { what, expected, got });
            }
        }
        let (mapped, slopes) = self.map(values, draws);
        let mut standardised = vec![0.0; draws.len()];
        if let Some(standardiser) = &self.standardiser {
            standardiser.forward(&mapped, events, &mut standardised);
        } else {
            events.iter_mut().zip(&mapped).for_each(|(event, &y)| *event = E::of(y));
        }
        let both = slopes.iter().zip(standardised).map(|(slopes, standardised)| slopes + standardised);
        log_det.iter_mut().zip(both).for_each(|(log_det, both)| *log_det = E::of(both));
        Ok(())
    }

    /// The real numbers that events stand for: those of discrete columns are whole.
    pub fn to_values<E: Scalar>(&self, events: &[E]) -> Vec<f64> {
        let mut values = match &self.standardiser {
            Some(standardiser) => standardiser.inverse(events),
            None => events.iter().map(|event| event.as_f64()).collect(),
        };
        if !self.columns.is_empty() {
            values.iter_mut().zip(self.columns.iter().cycle()).for_each(|(value, column)| *value = column.inverse(*value));
        }
        values
    }

    /// Every number of all items before they are standardised, with its place in its item.
    fn visit(&self, data: &dyn Dataset, mut each: impl FnMut(usize, f64)) -> Result<()> {
        let dims = self.shape.dims();
        for draws in each_once(data.len(), (1 << 16) / dims.max(1) + 1) {
            let Values::Real(values) = data.batch(&draws)?.values else { continue };
            let (mapped, _) = self.map(&values, &draws);
            if let Some(at) = mapped.iter().position(|y| !y.is_finite()) {
                let (column, row) = (at % dims, data.row(draws[at / dims].index));
                let expected = self.column(column).expected();
                return Err(DataError::OutOfBounds { column: column_name(data.columns(), column), row, expected, got: values[at] });
            }
            mapped.iter().enumerate().for_each(|(at, &y)| each(at % dims, y));
        }
        Ok(())
    }

    /// Refuses items of which a column has a value that it cannot have.
    ///
    /// # Errors
    /// [`DataError::OutOfBounds`], and items that cannot be read.
    pub fn check(&self, data: &dyn Dataset) -> Result<()> {
        self.visit(data, |_, _| {})
    }

    /// Moments of every column of vectors, or channel of pictures, over all items, before they are standardised: in one
    /// pass.
    ///
    /// # Errors
    /// As [`Reals::check`], [`DataError::ConstantColumn`] and [`DataError::NarrowColumn`].
    pub fn moments(&self, data: &dyn Dataset) -> Result<Vec<Moments>> {
        let (groups, each) = match self.shape {
            ItemShape::Image { channels, height, width } => (channels, height * width),
            ItemShape::Vector { dims } => (dims, 1),
        };
        let mut moments = vec![Moments::default(); groups];
        self.visit(data, |at, y| moments[at / each].add(y))?;
        let column = |at: usize| if each == 1 { column_name(data.columns(), at) } else { format!("channel {}", at + 1) };
        if let Some(at) = moments.iter().position(Moments::is_narrow) {
            return Err(DataError::NarrowColumn { column: column(at), items: data.len(), range: moments[at].range() });
        }
        match moments.iter().position(Moments::is_constant) {
            None => Ok(moments),
            Some(at) => Err(DataError::ConstantColumn {
                column: column(at),
                key: (each == 1).then(|| column_key(data.columns(), at)),
                items: data.len(),
                value: moments[at].mean(),
            }),
        }
    }

    /// Quartiles, before they are standardised, of columns (channels of pictures) that have values beyond any reason
    /// ([`Quartiles::is_far`]): of as many items as memory has room for, at equal distances. None for the others.
    ///
    /// # Errors
    /// As [`Reals::check`].
    pub fn quartiles(&self, data: &dyn Dataset, moments: &[Moments]) -> Result<Vec<Option<Quartiles>>> {
        /// That of a column which cannot have such values, whatever the others are, up to some ten million items.
        const KURTOSIS: f64 = 10.0;
        /// The most values that are kept.
        const MOST: usize = 1 << 24;
        let heavy: Vec<usize> = (0..moments.len()).filter(|&column| moments[column].kurtosis() > KURTOSIS).collect();
        let mut found = vec![None; moments.len()];
        if heavy.is_empty() {
            return Ok(found);
        }
        let each = self.shape.dims() / moments.len();
        let stride = (data.len() * each * heavy.len()).div_ceil(MOST).max(1);
        let mut kept: Vec<Vec<f64>> = vec![Vec::new(); moments.len()];
        let (mut ranges, mut seen) = (vec![(f64::INFINITY, f64::NEG_INFINITY); moments.len()], vec![0_usize; moments.len()]);
        self.visit(data, |at, y| {
            let column = at / each;
            ranges[column] = (ranges[column].0.min(y), ranges[column].1.max(y));
            if seen[column].is_multiple_of(stride) && heavy.binary_search(&column).is_ok() {
                kept[column].push(y);
            }
            seen[column] += 1;
        })?;
        for column in heavy {
            let of = Quartiles::of(&mut kept[column]);
            found[column] = of.filter(|of| of.is_far(ranges[column].0) || of.is_far(ranges[column].1));
        }
        Ok(found)
    }

    /// A standardiser by the moments of [`Reals::moments`], of some columns by their quartiles.
    ///
    /// # Errors
    /// [`flow_api::FlowError::NotFinite`] for a spread beyond f64.
    pub fn standardiser_of(&self, moments: &[Moments], quartiles: &[Option<Quartiles>]) -> flow_api::Result<Standardiser> {
        let each = self.shape.dims() / moments.len().max(1);
        let fitted = Standardiser::fit(&moments.iter().flat_map(|&column| std::iter::repeat_n(column, each)).collect::<Vec<_>>())?;
        let robust = quartiles.iter().enumerate().filter_map(|(column, found)| Some((column, (*found)?)));
        Ok(robust.fold(fitted, |fitted, (column, Quartiles { lower, median, upper })| {
            (column * each..(column + 1) * each).fold(fitted, |fitted, number| fitted.with_quartiles(number, [lower, median, upper]))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;
    use flow_api::spec::from_ron;

    fn vector(values: Vec<f64>, dims: usize) -> InMemory {
        InMemory::new("t".as_ref(), Values::Real(values), ItemShape::Vector { dims }, None, None).unwrap()
    }

    fn reals(text: &str, columns: &[Column], dims: usize) -> Result<Reals> {
        Reals::new(&from_ron(text).unwrap(), columns, ItemShape::Vector { dims }, 3)
    }

    const MIXED: &str = r#"(bounds: {"1": Log(), "3": Logit(low: 0, high: 1), "4": Softplus(below: 2)}, discrete: ["2", "3"])"#;

    /// A table of a half-line, whole numbers, bits and another half-line: there and back, with a log-det that is the
    /// slope's.
    #[test]
    fn mixed_columns_go_there_and_back_with_their_slopes() {
        let items: Vec<f64> =
            (0..50).flat_map(|i| [f64::from(i + 1) / 7.0, f64::from(i % 5 - 2), f64::from(i % 2), 1.9 - f64::from(i)]).collect();
        let data = vector(items.clone(), 4);
        let plain = reals(MIXED, &[], 4).unwrap();
        let moments = plain.moments(&data).unwrap();
        let fitted = plain.standardiser_of(&moments, &[]).unwrap();
        let reals = plain.with_standardiser(Some(fitted));
        let draws: Vec<Draw> = (0..50).map(|index| Draw { epoch: 0, index }).collect();
        let (mut y, mut log_det) = (vec![0f64; 200], vec![0f64; 50]);
        reals.to_events(&items, &draws, &mut y, &mut log_det).unwrap();
        let back = reals.to_values(&y);
        for (i, (a, b)) in back.iter().zip(&items).enumerate() {
            assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{i}: {a}, {b}");
        }
        // The spread of what the model sees is 1, bits and whole numbers included: their noise is a part of it.
        for column in 0..4 {
            let mut seen = Moments::default();
            y.iter().skip(column).step_by(4).for_each(|&y| seen.add(y));
            assert!(seen.mean().abs() < 1e-9 && (seen.variance() - 1.0).abs() < 1e-9, "{column}: {seen:?}");
        }
        // ∂y/∂x of the real columns by differences, at the same noise; the noise of the others has slope 1 in x.
        let at = |item: usize, x: &[f64]| {
            let mut y = [0f64; 4];
            reals.to_events(x, &draws[item..=item], &mut y, &mut [0.0]).unwrap();
            y
        };
        let scale = reals.standardiser().unwrap().scale().to_vec();
        for item in [0, 7, 33] {
            let x = &items[4 * item..4 * item + 4];
            let mut expected = -scale[1].ln();
            for column in [0, 3] {
                let (mut up, mut down) = (x.to_vec(), x.to_vec());
                (up[column], down[column]) = (x[column] + 1e-6, x[column] - 1e-6);
                expected += ((at(item, &up)[column] - at(item, &down)[column]) / 2e-6).ln();
            }
            // y = ln v − ln(2 − v) of v = bit + noise.
            let v = 2.0 / (1.0 + (-(reals.standardiser().unwrap().mean()[2] + scale[2] * y[4 * item + 2])).exp());
            expected += (2.0 / (v * (2.0 - v))).ln() - scale[2].ln();
            assert!((log_det[item] - expected).abs() < 1e-6, "{item}: {} {expected}", log_det[item]);
        }
        // Other noise to evaluate with.
        let mut other = vec![0f64; 200];
        reals.for_evaluation().to_events(&items, &draws, &mut other, &mut log_det).unwrap();
        assert!((0..200).all(|i| (other[i].to_bits() == y[i].to_bits()) == (i % 4 == 0 || i % 4 == 3)));
        assert_eq!(reals.for_evaluation().to_values(&other)[1..3], items[1..3]);
    }

    #[test]
    fn offsets_do_not_matter_in_f32() {
        let items: Vec<f64> = (0..100_u32).map(|i| 1.7e9 + 9.0 * f64::from(i * i % 101)).collect();
        let data = vector(items.clone(), 1);
        let plain = reals("()", &[], 1).unwrap();
        let moments = plain.moments(&data).unwrap();
        let fitted = plain.clone().with_standardiser(Some(plain.standardiser_of(&moments, &[]).unwrap()));
        let draws: Vec<Draw> = (0..100).map(|index| Draw { epoch: 0, index }).collect();
        let (mut y, mut log_det) = (vec![0f32; 100], vec![0f32; 100]);
        fitted.to_events(&items, &draws, &mut y, &mut log_det).unwrap();
        assert!(fitted.to_values(&y).iter().zip(&items).all(|(a, b)| (a - b).abs() < 1e-3));
        assert!((f64::from(log_det[0]) + 0.5 * moments[0].variance().ln()).abs() < 1e-6);
    }

    /// Two outliers of 1,000 values: the others keep the scale that they have without them, and densities are those of
    /// the values as they were. Wide columns, and such as are one value but for a few, are left as they are.
    #[test]
    fn outliers_do_not_set_the_scale() {
        let normal = |i: u32| (f64::from(i) * 0.618_033_988_749_895).fract() * 6.0 - 3.0;
        let mut items: Vec<f64> = (0..1000).flat_map(|i| [normal(i), f64::from(u8::from(i % 200 == 7)), normal(i).powi(3)]).collect();
        (items[3 * 17], items[3 * 500]) = (1e6, -2e9);
        let data = vector(items.clone(), 3);
        let plain = reals("()", &[], 3).unwrap();
        let moments = plain.moments(&data).unwrap();
        let quartiles = plain.quartiles(&data, &moments).unwrap();
        assert!(quartiles[0].is_some() && quartiles[1..] == [None, None], "{quartiles:?}");
        let fitted = plain.standardiser_of(&moments, &quartiles).unwrap();
        let deviation = |column: usize| moments[column].variance().sqrt();
        // Of a uniform density on 6, the middle half is 3 wide.
        assert!((fitted.scale()[0] - 3.0 / 1.349).abs() < 0.05 && fitted.mean()[0].abs() < 0.05, "{fitted:?}");
        assert_eq!(fitted.scale()[1..], [deviation(1), deviation(2)]);
        let reals = plain.with_standardiser(Some(fitted.clone()));
        let draws: Vec<Draw> = (0..1000).map(|index| Draw { epoch: 0, index }).collect();
        let (mut y, mut log_det) = (vec![0f64; 3000], vec![0f64; 1000]);
        reals.to_events(&items, &draws, &mut y, &mut log_det).unwrap();
        assert!(y.iter().step_by(3).all(|y| y.abs() < 10.0));
        let all = -fitted.scale().iter().map(|scale| scale.ln()).sum::<f64>();
        assert!((log_det[3] - all).abs() < 1e-12 && log_det[500] < all - 20.0 && log_det[17] < all - 10.0, "{log_det:?}");
        let back = reals.to_values(&y);
        assert!(back.iter().zip(&items).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs())));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let columns = Column::of(["a".to_owned(), "b".to_owned()], &[0.0, 1.0]);
        for (text, message) in [
            (r#"(bounds: {"c": Log()})"#, "preprocessing.bounds: no column `c`; there are: a, b"),
            (r#"(discrete: ["3"])"#, "preprocessing.discrete: no column `3`; there are: a, b"),
            (
                r#"(bounds: {"a": Logit(low: 1, high: 1)})"#,
                "preprocessing.bounds: a: expected finite bounds, `low` below `high`, got Logit { low: 1.0, high: 1.0 }",
            ),
            ("(bits: 5)", "preprocessing.bits: expected nothing for data that have no levels, got 5"),
        ] {
            assert_eq!(reals(text, &columns, 2).unwrap_err().to_string(), message);
        }
        let data = vector(vec![1.0, 2.0, 0.0, 2.5, 3.0, 4.0], 2).with_columns(columns.clone());
        for (text, message) in [
            (r#"(bounds: {"a": Log()})"#, "column `a` (1): expected a number above 0, got 0 in row 1 (counted from 0)"),
            (r#"(discrete: ["2"])"#, "column `b` (2): expected a whole number, got 2.5 in row 1 (counted from 0)"),
        ] {
            assert_eq!(reals(text, &columns, 2).unwrap().moments(&data).unwrap_err().to_string(), message);
        }
        let constant = vector(vec![1.0, 5.0, 2.0, 5.0], 2);
        let message = "column 2 is 5 in all 2 training items, which has no density: drop=2 leaves it out";
        assert_eq!(reals("()", &[], 2).unwrap().moments(&constant).unwrap_err().to_string(), message);
        let narrow = vector(vec![1.0, 1e-310, 2.0, 3e-310, 4.0, 2e-310], 2);
        let message = "column 2 lies from 1e-310 to 3e-310 in 3 training items, so close together that their variance is lost in f64: \
                       multiply the column by a power of ten";
        assert_eq!(reals("()", &[], 2).unwrap().moments(&narrow).unwrap_err().to_string(), message);
        // Dequantised it is a density, if a poor one.
        assert!(reals(r#"(discrete: ["2"])"#, &[], 2).unwrap().moments(&constant).is_ok());
        let images = Reals::new(&from_ron(r#"(discrete: ["1"])"#).unwrap(), &[], ItemShape::Image { channels: 1, height: 2, width: 2 }, 0);
        assert!(matches!(images, Err(DataError::Setting { what: "preprocessing.discrete", .. })));
    }
}
