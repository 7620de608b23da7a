//! Parameters and state by dotted path: one traversal serves counting, optimising, saving and loading.
//!
//! The path of a parameter is the path of its layer with the parameter's name behind, for example
//! `layers.3.channel.2.net.initial.weight`, and it is the key in a checkpoint too. The traversal is depth-first in a
//! fixed order, so the parameters below any path are one contiguous range of the flat buffers that
//! [`Gradients`](crate::Gradients) and optimisers use.

pub use crate::error::StateMismatch;
use crate::{FlowError, Result, Scalar, Tensor};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::OnceLock;

/// A trainable tensor: its values, and a dfdx tensor of them when a kernel in dfdx operations asks for it.
///
/// ```
/// use flow_api::Parameter;
/// let mut weight = Parameter::<f32>::new(&[2, 3], vec![0.0; 6]);
/// weight.values_mut()[0] = 1.0;
/// assert_eq!(weight.tensor().as_vec()[0], 1.0);
/// ```
#[derive(Debug, Clone)]
pub struct Parameter<E: Scalar> {
    shape: Vec<usize>,
    values: Vec<E>,
    mirror: OnceLock<Tensor<(usize,), E>>,
}

impl<E: Scalar> Parameter<E> {
    /// A parameter of this shape, row-major.
    ///
    /// # Panics
    /// If the buffer is not as long as its shape says; [`Parameter::try_new`] is for buffers from outside.
    pub fn new(shape: &[usize], values: Vec<E>) -> Self {
        Self::try_new(shape, values).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Parameter::new`], for a buffer that may have another length.
    ///
    /// # Errors
    /// [`FlowError::Shape`].
    pub fn try_new(shape: &[usize], values: Vec<E>) -> Result<Self> {
        if shape.iter().try_fold(1, |len: usize, &size| len.checked_mul(size)) != Some(values.len()) {
            return Err(crate::shape_error("parameter", "build", shape, values.len()));
        }
        Ok(Self { shape: shape.to_vec(), values, mirror: OnceLock::new() })
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its values, row-major.
    pub fn values(&self) -> &[E] {
        &self.values
    }

    /// Its values, to be changed; the tensor is made anew when it is next asked for.
    pub fn values_mut(&mut self) -> &mut [E] {
        self.mirror = OnceLock::new();
        &mut self.values
    }

    /// The values as a tensor, flat. Its identity on a tape is stable until the values change.
    pub fn tensor(&self) -> &Tensor<(usize,), E> {
        self.mirror.get_or_init(|| E::tensor(self.values.clone(), (self.values.len(),)))
    }

    /// Somebody asked for the tensor: a kernel in dfdx operations. Fused kernels read the values.
    pub fn is_mirrored(&self) -> bool {
        self.mirror.get().is_some()
    }
}

/// What a module holds under a path.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Entry<'a, E> {
    /// A trainable tensor.
    Parameter {
        /// Its shape.
        shape: &'a [usize],
        /// Its values, row-major.
        values: &'a [E],
        /// The [`Parameter`] itself.
        parameter: &'a dyn Any,
    },
    /// Numbers that are not trained, for example the vectors of a power iteration.
    Reals(&'a [E]),
    /// Numbers that are not trained and are f64 whatever the module computes in, for example the means of data.
    Doubles(&'a [f64]),
    /// Indices, for example a permutation.
    Indices(&'a [usize]),
    /// A switch, for example `ActNorm`'s "initialised".
    Flag(bool),
}

impl<E> Entry<'_, E> {
    /// The shape under which it is saved: of a parameter its own, of everything else its length.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Parameter { shape, .. } => shape.to_vec(),
            Self::Reals(values) => vec![values.len()],
            Self::Doubles(values) => vec![values.len()],
            Self::Indices(values) => vec![values.len()],
            Self::Flag(_) => vec![1],
        }
    }
}

/// What a module holds under a path, to be changed in place.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum EntryMut<'a, E> {
    /// A trainable tensor.
    Parameter {
        /// Its shape.
        shape: &'a [usize],
        /// Its values, row-major.
        values: &'a mut [E],
    },
    /// Numbers that are not trained.
    Reals(&'a mut [E]),
    /// Numbers that are not trained, in f64.
    Doubles(&'a mut [f64]),
    /// Indices.
    Indices(&'a mut [usize]),
    /// A switch.
    Flag(&'a mut bool),
}

/// A dotted path that grows and shrinks with the traversal.
#[derive(Debug, Default)]
struct Path(String);

impl Path {
    fn within<R>(&mut self, name: &dyn Display, f: impl FnOnce(&mut Self) -> R) -> R {
        use std::fmt::Write as _;
        let len = self.0.len();
        let dot = if len == 0 { "" } else { "." };
        let _ = write!(self.0, "{dot}{name}"); // writing to a String cannot fail
        let result = f(self);
        self.0.truncate(len);
        result
    }
}

macro_rules! visitor {
    ($(#[$doc:meta])* $name:ident, $entry:ident, $($mutable:ident)?) => {
        $(#[$doc])*
        ///
        /// What it is shown may be kept for `'m`, as long as the module is borrowed.
        pub struct $name<'f, 'm, E> {
            path: Path,
            f: &'f mut dyn FnMut(&str, $entry<'m, E>),
        }

        impl<'f, 'm, E: Scalar> $name<'f, 'm, E> {
            /// Calls `f` for every entry.
            pub fn new(f: &'f mut dyn FnMut(&str, $entry<'m, E>)) -> Self {
                Self { path: Path::default(), f }
            }

            fn entry(&mut self, name: &dyn Display, entry: $entry<'m, E>) {
                let Self { path, f } = self;
                path.within(name, |path| f(&path.0, entry));
            }

            /// A trainable tensor.
            pub fn parameter(&mut self, name: impl Display, parameter: &'m $($mutable)? Parameter<E>) {
                let entry = visitor!(@parameter $entry parameter $($mutable)?);
                self.entry(&name, entry);
            }

            /// Numbers that are not trained.
            pub fn reals(&mut self, name: impl Display, values: &'m $($mutable)? [E]) {
                self.entry(&name, $entry::Reals(values));
            }

            /// Numbers that are not trained, in f64.
            pub fn doubles(&mut self, name: impl Display, values: &'m $($mutable)? [f64]) {
                self.entry(&name, $entry::Doubles(values));
            }

            /// Indices.
            pub fn indices(&mut self, name: impl Display, values: &'m $($mutable)? [usize]) {
                self.entry(&name, $entry::Indices(values));
            }

            /// A switch.
            pub fn flag(&mut self, name: impl Display, value: &'m $($mutable)? bool) {
                let entry = visitor!(@flag $entry value $($mutable)?);
                self.entry(&name, entry);
            }

            /// A module below this one.
            pub fn child<M: Module<E> + ?Sized>(&mut self, name: impl Display, module: &'m $($mutable)? M) {
                let path = std::mem::take(&mut self.path);
                let mut path = path;
                path.within(&name, |inner| {
                    let mut visitor = $name { path: std::mem::take(inner), f: &mut *self.f };
                    visitor!(@visit module visitor $($mutable)?);
                    *inner = visitor.path;
                });
                self.path = path;
            }
        }
    };
    (@parameter $entry:ident $p:ident mut) => {{
        $p.mirror = OnceLock::new();
        $entry::Parameter { shape: &$p.shape, values: &mut $p.values }
    }};
    (@parameter $entry:ident $p:ident) => { $entry::Parameter { shape: &$p.shape, values: &$p.values, parameter: $p } };
    (@flag $entry:ident $v:ident mut) => { $entry::Flag($v) };
    (@flag $entry:ident $v:ident) => { $entry::Flag(*$v) };
    (@visit $m:ident $v:ident mut) => { $m.visit_mut(&mut $v) };
    (@visit $m:ident $v:ident) => { $m.visit(&mut $v) };
}

visitor!(
    /// Walks over parameters and state; handed to [`Module::visit`].
    Visitor, Entry,
);
visitor!(
    /// Walks over parameters and state, which may be changed; handed to [`Module::visit_mut`].
    VisitorMut, EntryMut, mut
);

/// Something with parameters and state.
///
/// Both visits must name the same entries in the same order; [`module_fields!`](crate::module_fields) writes them from
/// one list.
pub trait Module<E: Scalar>: Send + Sync {
    /// Names every parameter and every piece of state.
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>);

    /// The same, to be changed. Callers go through [`update`], which calls [`Module::refresh`] afterwards.
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>);

    /// Called after parameters or state changed (an optimiser's step, loading): brings derived state up to date, for
    /// example the power iteration of a spectral norm.
    ///
    /// State that is derived from parameters is loaded with them, and the parameters may have been changed since it was
    /// saved. So a module keeps with such state what tells whose it is, a hash of the parameters, and leaves what is up
    /// to date as it is, to the bit: a model that is loaded as it was saved is the same one. Everything else is derived
    /// anew.
    ///
    /// # Errors
    /// If the new values admit no valid state.
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Writes [`Module`] from one list of fields, each with its kind: `parameter`, `reals`, `doubles`, `indices`, `flag`,
/// `child` for a module below this one, and `delegate` for one whose entries are this one's own.
///
/// A field's name is the name of the entry, or what stands behind `as`; a field of a tuple has its number. An optional
/// field may be missing, and has no entry then ([`Field`](crate::module::Field)). Children are refreshed in order;
/// behind `; refresh` stands what else is to be brought up to date, a function of `&mut Self`.
///
/// ```
/// use flow_api::module::parameter_count;
/// use flow_api::{Module, Parameter, Scalar, module_fields};
/// struct Scale<E: Scalar> { log_scale: Parameter<E>, scale: Vec<E>, shift: Option<Parameter<E>> }
/// impl<E: Scalar> Module<E> for Scale<E> {
///     module_fields!(E; parameter log_scale, parameter shift as "offset"; refresh |own| {
///         own.scale = own.log_scale.values().iter().map(|s| s.exp()).collect();
///         Ok(())
///     });
/// }
/// struct Twice<E: Scalar>(Scale<E>, Scale<E>);
/// impl<E: Scalar> Module<E> for Twice<E> {
///     module_fields!(E; child 0, child 1);
/// }
/// let scale = |shift| Scale { log_scale: Parameter::new(&[2], vec![0.0; 2]), scale: Vec::new(), shift };
/// let mut twice = Twice(scale(None), scale(Some(Parameter::new(&[1], vec![0.5_f32]))));
/// let mut paths = Vec::new();
/// flow_api::module::visit(&twice, |path, _| paths.push(path.to_owned()));
/// assert_eq!(paths, ["0.log_scale", "1.log_scale", "1.offset"]);
/// twice.refresh()?;
/// assert_eq!(twice.1.scale, [1.0, 1.0]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[macro_export]
macro_rules! module_fields {
    ($E:ty; $($kind:ident $field:tt $(as $name:literal)?),* $(,)? $(; refresh $refresh:expr)?) => {
        fn visit<'m>(&'m self, visitor: &mut $crate::module::Visitor<'_, 'm, $E>) {
            let _ = &visitor;
            $($crate::module_fields!(@visit $E, $kind, visit, visitor, get, &self.$field, $field $($name)?);)*
        }
        fn visit_mut<'m>(&'m mut self, visitor: &mut $crate::module::VisitorMut<'_, 'm, $E>) {
            let _ = &visitor;
            $($crate::module_fields!(@visit $E, $kind, visit_mut, visitor, get_mut, &mut self.$field, $field $($name)?);)*
        }
        fn refresh(&mut self) -> $crate::Result<()> {
            $($crate::module_fields!(@refresh $E, $kind, &mut self.$field);)*
            $(
                let refresh: fn(&mut Self) -> $crate::Result<()> = $refresh;
                refresh(self)?;
            )?
            Ok(())
        }
    };
    (@visit $E:ty, delegate, $visit:ident, $visitor:ident, $get:ident, $place:expr, $($name:tt)*) => {
        $crate::Module::<$E>::$visit($place, $visitor);
    };
    (@visit $E:ty, child, $visit:ident, $visitor:ident, $get:ident, $place:expr, $($name:tt)*) => {
        $visitor.child($crate::module_fields!(@name $($name)*), $place);
    };
    (@visit $E:ty, $kind:ident, $visit:ident, $visitor:ident, $get:ident, $place:expr, $($name:tt)*) => {
        if let Some(value) = $crate::module::Field::$get($place) {
            $visitor.$kind($crate::module_fields!(@name $($name)*), value);
        }
    };
    (@name $field:tt) => { stringify!($field) };
    (@name $field:tt $name:literal) => { $name };
    (@refresh $E:ty, delegate, $place:expr) => { $crate::Module::<$E>::refresh($place)?; };
    (@refresh $E:ty, child, $place:expr) => { $crate::Module::<$E>::refresh($place)?; };
    (@refresh $E:ty, $kind:ident, $place:expr) => {};
}

/// A field of a module that holds numbers itself, which may be missing: for [`module_fields!`](crate::module_fields).
pub trait Field {
    /// What an entry is made of.
    type Value: ?Sized;
    /// Its value, if there is one.
    fn get(&self) -> Option<&Self::Value>;
    /// Its value, to be changed.
    fn get_mut(&mut self) -> Option<&mut Self::Value>;
}

impl<T> Field for Option<T> {
    type Value = T;
    fn get(&self) -> Option<&T> {
        self.as_ref()
    }
    fn get_mut(&mut self) -> Option<&mut T> {
        self.as_mut()
    }
}

macro_rules! field {
    ($([$($generics:tt)*] $type:ty),*) => { $(
        impl<$($generics)*> Field for $type {
            type Value = Self;
            fn get(&self) -> Option<&Self> {
                Some(self)
            }
            fn get_mut(&mut self) -> Option<&mut Self> {
                Some(self)
            }
        }
    )* };
}
field!([E: Scalar] Parameter<E>, [T] Vec<T>, [T, const N: usize] [T; N], [] bool);

impl<E: Scalar, M: Module<E> + ?Sized> Module<E> for Box<M> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        (**self).visit(visitor);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        (**self).visit_mut(visitor);
    }
    fn refresh(&mut self) -> Result<()> {
        (**self).refresh()
    }
}

impl<E: Scalar, M: Module<E>> Module<E> for Vec<M> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        for (i, module) in self.iter().enumerate() {
            visitor.child(i, module);
        }
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        for (i, module) in self.iter_mut().enumerate() {
            visitor.child(i, module);
        }
    }
    fn refresh(&mut self) -> Result<()> {
        self.iter_mut().try_for_each(Module::refresh)
    }
}

impl<E: Scalar, M: Module<E>, const N: usize> Module<E> for [M; N] {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        for (i, module) in self.iter().enumerate() {
            visitor.child(i, module);
        }
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        for (i, module) in self.iter_mut().enumerate() {
            visitor.child(i, module);
        }
    }
    fn refresh(&mut self) -> Result<()> {
        self.iter_mut().try_for_each(Module::refresh)
    }
}

impl<E: Scalar, M: Module<E>> Module<E> for Option<M> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        if let Some(module) = self {
            module.visit(visitor);
        }
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        if let Some(module) = self {
            module.visit_mut(visitor);
        }
    }
    fn refresh(&mut self) -> Result<()> {
        self.as_mut().map_or(Ok(()), Module::refresh)
    }
}

/// Calls `f` with every parameter and piece of state.
pub fn visit<E: Scalar, M: Module<E> + ?Sized>(module: &M, mut f: impl FnMut(&str, Entry<'_, E>)) {
    module.visit(&mut Visitor::new(&mut f));
}

/// Calls `f` with every parameter and piece of state to change it, then [`Module::refresh`].
///
/// # Errors
/// Those of [`Module::refresh`].
pub fn update<E: Scalar, M: Module<E> + ?Sized>(module: &mut M, mut f: impl FnMut(&str, EntryMut<'_, E>)) -> Result<()> {
    module.visit_mut(&mut VisitorMut::new(&mut f));
    module.refresh()
}

/// Calls `f` with the values of all parameters in order, to change them together, then [`Module::refresh`].
///
/// # Errors
/// Those of [`Module::refresh`].
pub fn update_parameters<E: Scalar, M: Module<E> + ?Sized>(module: &mut M, f: impl FnOnce(Vec<&mut [E]>)) -> Result<()> {
    let mut parameters = Vec::new();
    module.visit_mut(&mut VisitorMut::new(&mut |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            parameters.push(values);
        }
    }));
    f(parameters);
    module.refresh()
}

/// Number of trainable values.
pub fn parameter_count<E: Scalar, M: Module<E> + ?Sized>(module: &M) -> usize {
    let mut count = 0;
    visit(module, |_, entry| {
        if let Entry::Parameter { values, .. } = entry {
            count += values.len();
        }
    });
    count
}

/// One saved entry, owned.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Saved<E> {
    /// A trainable tensor.
    Parameter {
        /// Its shape.
        shape: Vec<usize>,
        /// Its values, row-major.
        values: Vec<E>,
    },
    /// Numbers that are not trained.
    Reals(Vec<E>),
    /// Numbers that are not trained, in f64.
    Doubles(Vec<f64>),
    /// Indices.
    Indices(Vec<usize>),
    /// A switch.
    Flag(bool),
}

/// Parameters and state of a module by dotted path: what a checkpoint holds.
pub type State<E> = BTreeMap<String, Saved<E>>;

/// Copies all parameters and state out.
pub fn save<E: Scalar, M: Module<E> + ?Sized>(module: &M) -> State<E> {
    let mut state = State::new();
    visit(module, |path, entry| {
        let saved = match entry {
            Entry::Parameter { shape, values, .. } => Saved::Parameter { shape: shape.to_vec(), values: values.to_vec() },
            Entry::Reals(values) => Saved::Reals(values.to_vec()),
            Entry::Doubles(values) => Saved::Doubles(values.to_vec()),
            Entry::Indices(values) => Saved::Indices(values.to_vec()),
            Entry::Flag(value) => Saved::Flag(value),
        };
        state.insert(path.to_owned(), saved);
    });
    state
}

/// Copies all parameters and state in, bit for bit, then calls [`Module::refresh`], which replaces what was derived
/// from other parameters than these. Names, kinds and shapes are all checked before the first value changes.
///
/// # Errors
/// [`FlowError::State`] with every difference, and those of [`Module::refresh`] for values that admit no valid state.
/// The module is then as it was.
pub fn load<E: Scalar, M: Module<E> + ?Sized>(module: &mut M, state: &State<E>) -> Result<()> {
    let own = save(module);
    let mut mismatch = StateMismatch {
        missing: own.keys().filter(|k| !state.contains_key(*k)).cloned().collect(),
        unexpected: state.keys().filter(|k| !own.contains_key(*k)).cloned().collect(),
        different: Vec::new(),
    };
    for (path, here) in &own {
        if let Some(there) = state.get(path)
            && here.layout() != there.layout()
        {
            mismatch.different.push((path.clone(), here.layout(), there.layout()));
        }
    }
    if !mismatch.is_empty() {
        return Err(FlowError::State(mismatch));
    }
    write(module, state).inspect_err(|_| {
        // The values that were here admitted a valid state.
        let _ = write(module, &own);
    })
}

/// Writes a state of the module's own layout.
fn write<E: Scalar, M: Module<E> + ?Sized>(module: &mut M, state: &State<E>) -> Result<()> {
    update(module, |path, entry| match (entry, state.get(path)) {
        (EntryMut::Parameter { values, .. }, Some(Saved::Parameter { values: new, .. }))
        | (EntryMut::Reals(values), Some(Saved::Reals(new))) => {
            values.copy_from_slice(new);
        }
        (EntryMut::Doubles(values), Some(Saved::Doubles(new))) => values.copy_from_slice(new),
        (EntryMut::Indices(values), Some(Saved::Indices(new))) => values.copy_from_slice(new),
        (EntryMut::Flag(value), Some(Saved::Flag(new))) => *value = *new,
        _ => {} // ruled out by `load`
    })
}

impl<E> Saved<E> {
    fn layout(&self) -> String {
        match self {
            Self::Parameter { shape, .. } => format!("a parameter of shape {shape:?}"),
            Self::Reals(values) => format!("{} numbers", values.len()),
            Self::Doubles(values) => format!("{} numbers in f64", values.len()),
            Self::Indices(values) => format!("{} indices", values.len()),
            Self::Flag(_) => "a flag".to_owned(),
        }
    }
}
