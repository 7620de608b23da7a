//! Specs of open sets of kinds, written `Kind(field: value)`, for kinds of any crate.
//!
//! typetag reads a trait object from a map with one entry, whose key is the kind. RON's own form for that is an enum
//! variant. So a spec is read as a variant whose name is whatever stands there, and handed on as such a map.

mod base;
mod model;
mod row_flow;
mod sample_flow;
mod scalar;

pub use base::{BaseDensitySpec, BuildBase};
pub use model::{BuildModel, ModelSpec};
pub use row_flow::{BuildRowFlow, RowFlowSpec};
pub use sample_flow::{BuildSampleFlow, SampleFlowSpec};
pub use scalar::SpecScalar;

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, EnumAccess, Error, IntoDeserializer as _, MapAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// A spec of an open set of kinds; it dereferences to what its kind knows of itself.
///
/// With the feature `ron` it parses, and two are equal if they are written alike:
///
/// ```
/// use flow_api::spec::{FlowSpec, ModelSpec, Spec};
/// let spec: Spec<dyn ModelSpec> = "VectorFlow(flows: [ActNorm()], repeat: 2)".parse()?;
/// assert_eq!(spec.kind(), "VectorFlow");
/// assert_eq!(spec, "VectorFlow(repeat: 2, flows: [ActNorm()])".parse()?);
/// assert_ne!(spec, "VectorFlow(flows: [ActNorm()])".parse()?);
/// assert!("ActNorm(".parse::<FlowSpec>().is_err());
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
pub struct Spec<T: ?Sized>(pub Box<T>);

impl<T: ?Sized> Deref for Spec<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A row flow in a spec.
pub type FlowSpec = Spec<dyn RowFlowSpec>;

/// Maps of whole samples in a spec.
pub type SampleSpec = Spec<dyn SampleFlowSpec>;

/// A base density in a spec.
pub type BaseSpec = Spec<dyn BaseDensitySpec>;

/// What a kind of spec has: its name, a text, a copy.
pub trait Kind: fmt::Debug {
    /// What a set of kinds is called in messages.
    const FAMILY: &'static str;
    /// Name of this one.
    fn name(&self) -> &'static str;
    /// Its fields.
    fn fields(&self) -> &dyn erased_serde::Serialize;
    /// A copy.
    fn copy(&self) -> Box<Self>;
    /// The kind of this name, if it is a unit struct: its name alone is the whole spec.
    fn unit(name: &str) -> Option<Box<Self>>;
}

macro_rules! kind {
    ($spec:ident, $family:literal) => {
        impl Kind for dyn $spec {
            const FAMILY: &'static str = $family;
            fn name(&self) -> &'static str {
                self.kind()
            }
            fn fields(&self) -> &dyn erased_serde::Serialize {
                self
            }
            fn copy(&self) -> Box<Self> {
                self.boxed_clone()
            }
            fn unit(name: &str) -> Option<Box<Self>> {
                Box::<Self>::deserialize(MapAccessDeserializer::new(OneEntry::<Unit> {
                    name: Some(name.to_owned()),
                    value: Some(().into_deserializer()),
                }))
                .ok()
            }
        }
    };
}
kind!(RowFlowSpec, "Flow");
kind!(SampleFlowSpec, "Map");
kind!(BaseDensitySpec, "Base");
kind!(ModelSpec, "Model");

impl<T: Kind + ?Sized> Clone for Spec<T> {
    fn clone(&self) -> Self {
        Self(self.0.copy())
    }
}

impl<T: Kind + ?Sized> fmt::Debug for Spec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Kind + ?Sized> Serialize for Spec<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Fields<'a>(&'a dyn erased_serde::Serialize);
        impl Serialize for Fields<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                erased_serde::serialize(self.0, serializer)
            }
        }
        if T::unit(self.0.name()).is_some() {
            return serializer.serialize_unit_variant(T::FAMILY, 0, self.0.name());
        }
        serializer.serialize_newtype_variant(T::FAMILY, 0, self.0.name(), &Fields(self.0.fields()))
    }
}

impl<'de, T: Kind + ?Sized> Deserialize<'de> for Spec<T>
where
    Box<T>: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum(T::FAMILY, &[], VariantVisitor(PhantomData)).map(Self)
    }
}

struct VariantVisitor<T: ?Sized>(PhantomData<Box<T>>);

impl<'de, T: Kind + ?Sized> Visitor<'de> for VariantVisitor<T>
where
    Box<T>: Deserialize<'de>,
{
    type Value = Box<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} such as `Kind(field: value)`", T::FAMILY.to_lowercase())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Box<T>, A::Error> {
        let (name, variant) = access.variant_seed(Name::<T>(PhantomData))?;
        if let Some(unit) = T::unit(&name) {
            return variant.unit_variant().map(|()| unit);
        }
        variant.newtype_variant_seed(Value { name, target: PhantomData })
    }
}

/// Reads the name of a registered kind, so that the error for another one points at the name itself.
struct Name<T: ?Sized>(PhantomData<Box<T>>);

impl<'de, T: ?Sized> DeserializeSeed<'de> for Name<T>
where
    Box<T>: Deserialize<'de>,
{
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de, T: ?Sized> Visitor<'de> for Name<T>
where
    Box<T>: Deserialize<'de>,
{
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a kind")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<String, E> {
        // typetag looks the name up before it asks for the value, which this probe has none of.
        let probe = OneEntry::<Unit> { name: Some(name.to_owned()), value: None };
        match Box::<T>::deserialize(MapAccessDeserializer::new(probe)) {
            Err(error) if error.to_string() != NO_VALUE => Err(E::custom(error)),
            _ => Ok(name.to_owned()),
        }
    }
}

/// A deserialiser that gives nothing: only unit structs can be made of it.
type Unit = serde::de::value::UnitDeserializer<serde::de::value::Error>;

const NO_VALUE: &str = "a spec has one value";

/// Reads the value of a variant as the one entry of a map.
struct Value<T: ?Sized> {
    name: String,
    target: PhantomData<Box<T>>,
}

impl<'de, T: ?Sized> DeserializeSeed<'de> for Value<T>
where
    Box<T>: Deserialize<'de>,
{
    type Value = Box<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Box<T>, D::Error> {
        Box::<T>::deserialize(MapAccessDeserializer::new(OneEntry { name: Some(self.name), value: Some(deserializer) }))
    }
}

struct OneEntry<D> {
    name: Option<String>,
    value: Option<D>,
}

impl<'de, D: Deserializer<'de>> MapAccess<'de> for OneEntry<D> {
    type Error = D::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, D::Error> {
        self.name.take().map(|name| seed.deserialize(StringDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, D::Error> {
        let value = self.value.take().ok_or_else(|| Error::custom(NO_VALUE))?;
        seed.deserialize(value)
    }
}
