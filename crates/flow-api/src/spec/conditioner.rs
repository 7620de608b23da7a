//! From what samples are conditioned on to the vectors that layers see.

use super::{LastLayer, Mlp, MlpPass, Moments, Standardiser};
use crate::module::{Visitor, VisitorMut, parameter_count};
use crate::{Conditions, Context, FlowError, Mode, Module, Parameter, Result, Scalar, Tensor, to_host};
use flow_kernels::simd::add;

/// Makes of every sample's class or numbers the vector that all layers of a model see as its condition: an embedding
/// of the class, or the numbers in units of their standard deviation over the training items; with a network behind, if
/// wanted.
///
/// A spec builds it ([`ConditionSpec`](super::ConditionSpec)), a [`Model`](super::Model) holds it and calls it.
///
/// # Nothing known
/// Where a share of the conditions is dropped in training, a learned vector stands for them, and the model is one of
/// p(x | c) and of p(x) at once ("classifier-free", Ho and Salimans, arXiv:2207.12598, section 3.2). Beside numbers
/// there is then one more input, 1 where nothing is known and 0 elsewhere, since any vector could be a condition too.
///
/// # Parameters and state
/// `embedding` (classes × width), of classes; `nothing` (width), where conditions are dropped; those of the network
/// below `network`. State of numbers: `standard.mean`, `standard.scale` and `standard.tail` ([`Standardiser`], in f64), and `fitted`.
#[derive(Clone, Debug)]
pub struct Conditioner<E: Scalar> {
    input: Input<E>,
    nothing: Option<Parameter<E>>,
    network: Option<Mlp<E>>,
    dropped: f64,
}

#[derive(Clone, Debug)]
enum Input<E: Scalar> {
    Classes { classes: usize, embedding: Parameter<E> },
    Numbers { standard: Standardiser, fitted: bool },
}

/// A pass of a [`Conditioner`]: the vectors, and what the way back needs.
#[derive(Clone, Debug)]
pub struct ConditionerPass<E> {
    /// The class of every sample where classes are embedded; none where nothing is known.
    classes: Vec<Option<usize>>,
    /// Whether something is known of every sample.
    known: Vec<bool>,
    input: Vec<E>,
    network: Option<MlpPass<E>>,
}

impl<E: Scalar> ConditionerPass<E> {
    /// The vectors, (samples, width).
    pub fn output(&self) -> &[E] {
        self.network.as_ref().map_or(&self.input, |pass| pass.output())
    }
}

/// The layer in messages.
const LAYER: &str = "condition";

impl<E: Scalar> Conditioner<E> {
    /// One of classes, each with a vector of `width` numbers that starts as drawn from the standard normal density.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for no classes or a width of 0, or a network that cannot be.
    pub fn of_classes(classes: usize, width: usize, network: &[usize], dropped: f64, seed: u64) -> Result<Self> {
        for (field, value) in [("classes", classes), ("embedding", width)] {
            if value == 0 {
                return Err(setting(field, "at least 1", value));
            }
        }
        let embedding = Parameter::new(&[classes, width], normal(classes * width, seed));
        Self::new(Input::Classes { classes, embedding }, width, network, dropped, seed)
    }

    /// One of `numbers` numbers.
    ///
    /// # Errors
    /// As [`Conditioner::of_classes`].
    pub fn of_numbers(numbers: usize, network: &[usize], dropped: f64, seed: u64) -> Result<Self> {
        if numbers == 0 {
            return Err(setting("numbers", "at least 1", numbers));
        }
        let input = Input::Numbers { standard: Standardiser::identity(numbers), fitted: false };
        Self::new(input, numbers, network, dropped, seed)
    }

    fn new(input: Input<E>, width: usize, network: &[usize], dropped: f64, seed: u64) -> Result<Self> {
        if !(0.0..1.0).contains(&dropped) {
            return Err(setting("dropped", "a share of at least 0 and less than 1", dropped));
        }
        // That of numbers starts at their mean.
        let nothing = (dropped > 0.0).then(|| match &input {
            Input::Classes { .. } => normal(width, seed.wrapping_add(1)),
            Input::Numbers { .. } => vec![E::zero(); width],
        });
        let nothing = nothing.map(|values| Parameter::new(&[width], values));
        let mut made = Self { input, nothing, network: None, dropped };
        if !network.is_empty() {
            let sizes: Vec<usize> = std::iter::once(made.input_width()).chain(network.iter().copied()).collect();
            made.network = Some(Mlp::new(&sizes, LastLayer::Uniform, seed.wrapping_add(2))?);
        }
        Ok(made)
    }

    /// Numbers of a class's embedding, or of a condition.
    fn own_width(&self) -> usize {
        match &self.input {
            Input::Classes { embedding, .. } => embedding.shape()[1],
            Input::Numbers { standard, .. } => standard.dim(),
        }
    }

    /// What the network sees: the same, and of numbers that may not be known whether they are.
    fn input_width(&self) -> usize {
        self.own_width() + usize::from(self.tells_whether_known())
    }

    fn tells_whether_known(&self) -> bool {
        self.nothing.is_some() && matches!(self.input, Input::Numbers { .. })
    }

    /// Numbers in a vector that layers see.
    pub fn width(&self) -> usize {
        self.network.as_ref().map_or_else(|| self.input_width(), Mlp::outputs)
    }

    /// The number of classes; none of numbers.
    pub fn classes(&self) -> Option<usize> {
        match self.input {
            Input::Classes { classes, .. } => Some(classes),
            Input::Numbers { .. } => None,
        }
    }

    /// How many numbers it is conditioned on; none of classes.
    pub fn numbers(&self) -> Option<usize> {
        match &self.input {
            Input::Classes { .. } => None,
            Input::Numbers { standard, .. } => Some(standard.dim()),
        }
    }

    /// Whether it has a vector for samples of which nothing is known.
    pub fn takes_nothing(&self) -> bool {
        self.nothing.is_some()
    }

    /// Whether there is something to be fitted to the numbers of the training items, and it is not yet.
    pub fn wants_fit(&self) -> bool {
        matches!(self.input, Input::Numbers { fitted: false, .. })
    }

    /// Takes mean and standard deviation off the numbers of the training items, item after item, in f64. Nothing to do
    /// for classes.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for other than whole items; [`FlowError::ConstantFeature`] for a number that is the same in
    /// all of them, [`FlowError::NarrowFeature`] for one that varies too little, [`FlowError::NotFinite`] for one that
    /// is none.
    pub fn fit(&mut self, items: &[f64]) -> Result<()> {
        let Input::Numbers { standard, fitted } = &mut self.input else { return Ok(()) };
        let width = standard.dim();
        let rows = items.len() / width;
        if rows == 0 || rows * width != items.len() {
            return Err(crate::shape_error(LAYER, "fit", ("items", width), items.len()));
        }
        if let Some(at) = items.iter().position(|c| !c.is_finite()) {
            return Err(FlowError::NotFinite { layer: LAYER.to_owned(), what: "the condition", row: at / width });
        }
        let mut moments = vec![Moments::default(); width];
        items.iter().enumerate().for_each(|(at, &c)| moments[at % width].add(c));
        *standard = Standardiser::fit(&moments).map_err(|error| match error {
            FlowError::ConstantFeature { feature, .. } => FlowError::ConstantFeature { layer: LAYER.to_owned(), feature },
            FlowError::NarrowFeature { feature, .. } => FlowError::NarrowFeature { layer: LAYER.to_owned(), feature },
            FlowError::NotFinite { what, row, .. } => FlowError::NotFinite { layer: LAYER.to_owned(), what, row },
            other => other,
        })?;
        *fitted = true;
        Ok(())
    }

    /// The vectors of `samples` samples. In training, the share of them that is dropped is drawn from the context's
    /// noise, sample by sample.
    ///
    /// # Errors
    /// [`FlowError::Condition`] for conditions of another kind or number, or none where there has to be one;
    /// [`FlowError::Domain`] for a class that there is not, a sample of which nothing is known where that was not
    /// trained, and a number that is not finite; [`FlowError::NotInitialised`] before [`Conditioner::fit`].
    pub fn forward(&self, samples: usize, cx: &Context<E>) -> Result<ConditionerPass<E>> {
        let conditions = cx.conditions().unwrap_or(&Conditions::Nothing);
        let wanted = match &self.input {
            Input::Classes { .. } => format!("({samples}) classes"),
            Input::Numbers { .. } => format!("({samples}, {}) numbers", self.own_width()),
        };
        let other = |got: String| FlowError::Condition { layer: LAYER.to_owned(), expected: wanted.clone(), got };
        let width = self.own_width();
        let mut known = vec![true; samples];
        let mut classes = Vec::new();
        let mut input = vec![E::zero(); samples * self.input_width()];
        match (&self.input, conditions) {
            (_, Conditions::Nothing) if self.nothing.is_some() => known.fill(false),
            (_, Conditions::Nothing) => return Err(other("none".to_owned())),
            (Input::Classes { .. }, Conditions::Classes(given)) if given.len() == samples => {
                classes.clone_from(given);
                known.iter_mut().zip(given).for_each(|(known, class)| *known = class.is_some());
            }
            (Input::Numbers { standard, fitted }, Conditions::Numbers(given)) if given.len() == samples * width => {
                if !fitted {
                    return Err(FlowError::NotInitialised { layer: LAYER.to_owned() });
                }
                for (row, (input, given)) in input.chunks_exact_mut(self.input_width()).zip(given.chunks_exact(width)).enumerate() {
                    if let Some(got) = given.iter().find(|c| !c.is_finite()) {
                        return Err(domain(row, "finite numbers".to_owned(), got));
                    }
                    standard.forward(given, &mut input[..width], &mut []);
                }
            }
            (_, Conditions::Classes(given)) => return Err(other(format!("({}) classes", given.len()))),
            (_, Conditions::Numbers(given)) => return Err(other(format!("{} numbers", given.len()))),
        }
        if classes.is_empty() {
            classes = vec![None; samples];
        }
        if cx.mode() == Mode::Train && self.dropped > 0.0 {
            let noise = cx.child(LAYER).noise();
            for (row, known) in known.iter_mut().enumerate() {
                let mut drawn = [0.0_f64];
                noise.row(row as u64).uniform(&mut drawn);
                *known &= drawn[0] >= self.dropped;
            }
        }
        for (row, input) in input.chunks_exact_mut(self.input_width()).enumerate() {
            if !known[row] {
                let Some(nothing) = &self.nothing else { return Err(domain(row, self.wanted_class(), "none")) };
                input[..width].copy_from_slice(nothing.values());
                input[width..].fill(E::one());
                classes[row] = None;
            } else if let (Input::Classes { classes: count, embedding }, Some(class)) = (&self.input, classes[row]) {
                if class >= *count {
                    return Err(domain(row, self.wanted_class(), class));
                }
                input.copy_from_slice(&embedding.values()[class * width..][..width]);
            }
        }
        let network = match &self.network {
            Some(network) if samples > 0 => Some(network.forward(input.clone())?),
            _ => None,
        };
        Ok(ConditionerPass { classes, known, input, network })
    }

    fn wanted_class(&self) -> String {
        self.classes().map_or_else(|| "numbers".to_owned(), |count| format!("a class below {count}"))
    }

    /// Adds the gradients of a loss with ∂L/∂vectors `cotangent`, (samples, width), to those below this module's path.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for a cotangent or gradients of another size.
    pub fn pullback(&self, pass: &ConditionerPass<E>, cotangent: &Tensor<(usize, usize), E>, gradients: &mut [E]) -> Result<()> {
        let cotangent = to_host(cotangent);
        let sizes = (pass.output().len(), parameter_count(self));
        if sizes != (cotangent.len(), gradients.len()) {
            return Err(crate::shape_error(LAYER, "pullback", sizes, (cotangent.len(), gradients.len())));
        }
        let width = self.own_width();
        let embedding = match &self.input {
            Input::Classes { embedding, .. } => embedding.values().len(),
            Input::Numbers { .. } => 0,
        };
        let (for_embedding, rest) = gradients.split_at_mut(embedding);
        let (for_nothing, for_network) = rest.split_at_mut(self.nothing.as_ref().map_or(0, |nothing| nothing.values().len()));
        let cotangent = match (&self.network, &pass.network) {
            (Some(network), Some(pass)) => network.pullback(pass, cotangent, for_network)?,
            _ => cotangent,
        };
        for (row, cotangent) in cotangent.chunks_exact(self.input_width()).enumerate() {
            match pass.classes[row] {
                Some(class) => add(&mut for_embedding[class * width..][..width], cotangent),
                None if !pass.known[row] => add(for_nothing, &cotangent[..width]),
                None => {}
            }
        }
        Ok(())
    }
}

fn setting(field: &'static str, expected: &str, got: impl std::fmt::Display) -> FlowError {
    FlowError::Setting { layer: LAYER.to_owned(), field, expected: expected.to_owned(), got: got.to_string() }
}

fn domain(row: usize, expected: String, got: impl std::fmt::Display) -> FlowError {
    FlowError::Domain { layer: LAYER.to_owned(), row, expected, got: got.to_string() }
}

/// Normal numbers of a seed, the same in every number type.
fn normal<E: Scalar>(len: usize, seed: u64) -> Vec<E> {
    let mut values = vec![0.0_f64; len];
    flow_kernels::noise::Stream::new(seed, 0, LAYER).row(0).gaussian(&mut values);
    values.into_iter().map(E::of).collect()
}

impl<E: Scalar> Module<E> for Conditioner<E> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        match &self.input {
            Input::Classes { embedding, .. } => visitor.parameter("embedding", embedding),
            Input::Numbers { standard, fitted } => {
                visitor.child("standard", standard);
                visitor.flag("fitted", fitted);
            }
        }
        if let Some(nothing) = &self.nothing {
            visitor.parameter("nothing", nothing);
        }
        visitor.child("network", &self.network);
    }

    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        match &mut self.input {
            Input::Classes { embedding, .. } => visitor.parameter("embedding", embedding),
            Input::Numbers { standard, fitted } => {
                visitor.child("standard", standard);
                visitor.flag("fitted", fitted);
            }
        }
        if let Some(nothing) = &mut self.nothing {
            visitor.parameter("nothing", nothing);
        }
        visitor.child("network", &mut self.network);
    }

    fn refresh(&mut self) -> Result<()> {
        match &mut self.input {
            Input::Numbers { standard, .. } => Module::<E>::refresh(standard),
            Input::Classes { .. } => Ok(()),
        }
    }
}
