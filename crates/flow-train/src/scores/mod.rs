//! Scores that find what is unusual.
//!
//! A likelihood alone does not: it also rewards what is simple, so that a white card is likelier than every photograph
//! (Nalisnick et al. 2018, *Do deep generative models know what they don't know?*, arXiv:1810.09136; Kirichenko et al.
//! 2020, arXiv:2006.08545). So several numbers are told of an item, each is compared with those of *reference items*,
//! which are as usual as items are, and the ranks among them make one number.
//!
//! | column | what it is | unusual is |
//! |---|---|---|
//! | `log_likelihood` | ln p(x) in nats, preprocessing included; of discrete data the bound by uniform dequantisation | low |
//! | `bits_per_dim`, `negative_log_likelihood` | the same as a loss: of discrete data bits a dimension, else nats | high |
//! | `typicality` | two-sided p-value of ln p(x): what is too likely is no typical item either (Nalisnick et al. 2019, arXiv:1906.02994) | low |
//! | `p_likelihood` | its one-sided p-value | low |
//! | `complexity_bits` | L(x): bits of the shortest lossless coding of the picture ([`complexity_bits`]) | – |
//! | `p_complexity` | its two-sided p-value | low |
//! | `corrected` | −log₂ p(x) − L(x) in bits (Serrà et al. 2020, arXiv:1909.11480) | high |
//! | `p_corrected` | its two-sided p-value | low |
//! | `likelihood_ratio` | ln p(x) − ln p₀(x) in nats, p₀ a background model (Ren et al. 2019, arXiv:1906.02845) | low |
//! | `p_ratio` | its one-sided p-value | low |
//! | `unusual` | 0 to 1, from the ranks of all of these ([`Reference::judge`]) | high |
//!
//! The rule of `unusual` has no weights that could be tuned.

mod aggregate;
mod complexity;
mod measure;
mod ranks;
mod reference;
mod separation;
mod sheet;

pub use aggregate::{Aggregate, Groups};
pub use complexity::complexity_bits;
pub(crate) use complexity::png_bits;
pub use measure::{Kind, Measure, Measures, measure};
pub use reference::{Judged, Reference};
pub use separation::{Figure, Separation, separation};
pub use sheet::{Block, save_sheet};
