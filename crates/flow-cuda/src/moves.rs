//! What the kernels move features by, whichever form says it: a coupling, an autoregressive flow, a map of every
//! number.

use flow_api::device::{ActivationForm, CouplingForm, NetForm, RowForm, SideForm, Snippet, SplineForm, TransformerForm};
use std::borrow::Cow;

/// Features of a padded width.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(8)
}

/// Numbers between two rows in shared memory.
pub(crate) fn stride(n: usize) -> usize {
    padded(n) + 4
}

/// A flow that moves features with numbers that a network gives of the kept features and the condition; without a
/// network the numbers are parameters of the features.
pub(crate) struct Moves<'a> {
    pub(crate) kept: Cow<'a, [usize]>,
    pub(crate) moved: Cow<'a, [usize]>,
    /// Width of the condition.
    pub(crate) condition: usize,
    pub(crate) net: Option<&'a NetForm<'a, f32>>,
    /// In the place of a network.
    pub(crate) parameters: &'a [f32],
    pub(crate) numbers: Numbers,
    /// The inverse goes feature by feature.
    pub(crate) by_steps: bool,
    map: Map<'a>,
}

enum Map<'a> {
    Transformer(&'a TransformerForm),
    Custom(&'a Snippet),
}

impl<'a> Moves<'a> {
    /// What moves features of rows of `dim` in this part; none in an affine map or a part without a form.
    pub(crate) fn of(part: &'a RowForm<'a, f32>, dim: usize) -> Option<Self> {
        let coupling = |form: &'a CouplingForm<'a, f32>, by_steps| {
            let CouplingForm { kept, moved, condition, net, transformer } = form;
            let numbers = Numbers { features: moved.len(), each: transformer.parameters(), by_feature: net.parts == 1 };
            Self {
                kept: Cow::Borrowed(kept),
                moved: Cow::Borrowed(moved),
                condition: *condition,
                net: Some(net),
                parameters: &[],
                numbers,
                by_steps,
                map: if let TransformerForm::Custom(snippet) = transformer { Map::Custom(snippet) } else { Map::Transformer(transformer) },
            }
        };
        match part {
            RowForm::Coupling(form) => Some(coupling(form, false)),
            RowForm::Autoregressive(form) => Some(coupling(form, true)),
            RowForm::Elements(form) => Some(Self {
                kept: Cow::Borrowed(&[]),
                moved: (0..dim).collect(),
                condition: 0,
                net: None,
                parameters: &form.parameters,
                numbers: Numbers { features: dim, each: form.map.parameters, by_feature: false },
                by_steps: false,
                map: Map::Custom(&form.map),
            }),
            _ => None,
        }
    }

    /// Numbers that the network sees.
    pub(crate) fn seen(&self) -> usize {
        self.net.map_or(0, |net| net.initial.inputs())
    }

    pub(crate) fn hidden(&self) -> usize {
        self.net.map_or(0, |net| net.initial.outputs())
    }

    pub(crate) fn blocks(&self) -> usize {
        self.net.map_or(0, |net| net.blocks.len())
    }

    pub(crate) fn activation(&self) -> ActivationForm {
        self.net.map_or(ActivationForm::Relu, |net| net.activation)
    }

    /// The transformer's number, and the numbers that it has besides those of features: as in
    /// `kernels/transformers.cu`. Those that flows bring are counted as `texts` has them.
    #[expect(clippy::cast_possible_truncation, reason = "they were numbers of f32, or are rounded to it")]
    pub(crate) fn transformer(&self, texts: &[Snippet]) -> (i32, Vec<f32>) {
        let (kind, settings) = match self.map {
            Map::Custom(snippet) => {
                let place = texts.iter().position(|text| same(text, snippet)).unwrap_or(0);
                (i32::try_from(place).unwrap_or(0) + 4, snippet.settings.clone())
            }
            Map::Transformer(TransformerForm::Affine { bound }) => (1, vec![*bound]),
            Map::Transformer(TransformerForm::SigmoidAffine { max_scale }) => (2, vec![*max_scale]),
            Map::Transformer(TransformerForm::Spline(SplineForm { bins, bound, scale, least, offset, least_slope })) => {
                (3, vec![*bins as f64, *bound, *scale, *least, *offset, *least_slope])
            }
            Map::Transformer(_) => (0, Vec::new()),
        };
        (kind, settings.into_iter().map(|number| number as f32).collect())
    }
}

/// Two texts that are one: settings are data.
fn same(a: &Snippet, b: &Snippet) -> bool {
    (a.kind, &a.text, a.parameters, a.inverse) == (b.kind, &b.text, b.parameters, b.inverse)
}

/// All texts that flows bring, each once.
pub(crate) fn snippets(sides: &[SideForm<'_, f32>]) -> Vec<Snippet> {
    let mut found: Vec<Snippet> = Vec::new();
    for (side, part) in sides.iter().flat_map(|side| side.parts.iter().map(move |part| (side, part))) {
        if let Some(Moves { map: Map::Custom(snippet), .. }) = Moves::of(part, side.view.dim())
            && !found.iter().any(|text| same(text, snippet))
        {
            found.push(snippet.clone());
        }
    }
    found
}

/// The numbers of the features that are moved.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    features: usize,
    /// Of a feature.
    pub(crate) each: usize,
    /// They lie feature by feature, and not first numbers of all features, second numbers of all.
    by_feature: bool,
}

impl Numbers {
    pub(crate) fn all(self) -> usize {
        self.features * self.each
    }

    /// Between numbers of two features, and between two numbers of a feature.
    pub(crate) fn steps(self) -> (usize, usize) {
        if self.by_feature { (self.each.max(1), 1) } else { (1, self.features) }
    }

    /// Features whose numbers fill whole tiles of the last layer, which can be computed by themselves: all of them
    /// where numbers do not lie feature by feature.
    pub(crate) fn least_part(self) -> usize {
        let whole = (1..=8).find(|features| (features * self.each).is_multiple_of(8)).unwrap_or(8);
        if self.by_feature { whole.min(self.features) } else { self.features }
    }

    /// Features that are moved at a time, where the numbers of a part take the place of two hidden values.
    pub(crate) fn part(self, hidden_stride: usize) -> usize {
        let least = self.least_part().max(1);
        let parts = (1..=self.features.div_ceil(least)).map(|parts| parts * least);
        parts.take_while(|&part| self.stride(part) <= 2 * hidden_stride).last().unwrap_or(least).min(self.features)
    }

    /// Between the numbers of two rows, of so many features; the logarithm of a feature's slope needs a place too.
    fn stride(self, features: usize) -> usize {
        stride(features.min(self.features) * self.each.max(1))
    }
}

/// Numbers between two rows of hidden values, two of which hold the numbers of a part of the features too; 0 where
/// nothing is moved.
pub(crate) fn hidden_stride(side: &SideForm<'_, f32>) -> usize {
    let strides = side.parts.iter().filter_map(|part| {
        let moves = Moves::of(part, side.view.dim())?;
        let numbers = moves.numbers.least_part() * moves.numbers.each.max(1);
        Some(stride(moves.hidden().max(moves.seen()).max(numbers.div_ceil(2))))
    });
    strides.max().unwrap_or(0)
}
