//! What samples are conditioned on, as data have it.

/// What samples are conditioned on, as data have it: labels, or numbers in their own units.
///
/// A context carries it to a [`Model`](crate::spec::Model) ([`Context::given`](crate::Context::given)), whose
/// [`Conditioner`](crate::spec::Conditioner) makes vectors of it that layers see
/// ([`Context::condition`](crate::Context::condition)).
///
/// ```
/// use flow_api::Conditions;
/// assert_eq!(Conditions::class(3, 2), Conditions::Classes(vec![Some(3), Some(3)]));
/// assert_eq!(Conditions::Numbers(vec![0.5, 20.0]).repeat(2), Conditions::Numbers(vec![0.5, 20.0, 0.5, 20.0]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Conditions {
    /// The class of every sample, by its number; none of a sample of which nothing is known: its density is that of
    /// all.
    Classes(Vec<Option<usize>>),
    /// Numbers of every sample, sample after sample.
    Numbers(Vec<f64>),
    /// Nothing is known of any sample.
    Nothing,
}

impl Conditions {
    /// One class for so many samples.
    pub fn class(class: usize, samples: usize) -> Self {
        Self::Classes(vec![Some(class); samples])
    }

    /// All of it so many times, one after the other.
    #[must_use]
    pub fn repeat(&self, times: usize) -> Self {
        match self {
            Self::Classes(classes) => Self::Classes(classes.repeat(times)),
            Self::Numbers(numbers) => Self::Numbers(numbers.repeat(times)),
            Self::Nothing => Self::Nothing,
        }
    }
}
