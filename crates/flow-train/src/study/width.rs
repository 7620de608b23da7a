//! Widths with which models have as many parameters as others.

use super::{of_variant, wrong};
use crate::Result;
use flow_api::spec::{ModelSpec, Spec, set_field};

/// The widest that is tried.
const WIDEST: usize = 1 << 14;

/// The spec with its width, the fields at `paths`, such that it has as near to `wanted` parameters as it can, and how
/// many these are. `count` counts those of a spec's model; they grow with the width.
pub(super) fn solve(
    name: &str,
    spec: &Spec<dyn ModelSpec>,
    paths: &[String],
    wanted: usize,
    count: &dyn Fn(&Spec<dyn ModelSpec>) -> Result<usize>,
) -> Result<(Spec<dyn ModelSpec>, usize)> {
    let at = |width: usize| -> Result<(Spec<dyn ModelSpec>, usize)> {
        let set = |spec, path: &String| set_field(&spec, path, &width.to_string()).map_err(of_variant(name));
        let spec = paths.iter().try_fold(spec.clone(), set)?;
        let parameters = count(&spec)?;
        Ok((spec, parameters))
    };
    // The narrowest that has enough lies above `low` and at `high` at the most.
    let (mut low, mut high) = (1, 1);
    let (mut below, mut above) = (None, at(1)?);
    while above.1 < wanted {
        (low, high) = (high, 2 * high);
        if high > WIDEST {
            return Err(wrong("width", format!("{wanted} parameters at a width up to {WIDEST}"), format!("{} of `{name}`", above.1)));
        }
        below = Some(std::mem::replace(&mut above, at(high)?));
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        let found = at(middle)?;
        if found.1 < wanted {
            (low, below) = (middle, Some(found));
        } else {
            (high, above) = (middle, found);
        }
    }
    let nearer = |found: &(Spec<dyn ModelSpec>, usize)| wanted - found.1 < above.1 - wanted;
    Ok(below.filter(nearer).unwrap_or(above))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow_api::spec::{from_ron, to_ron};

    /// Whatever the count is, the nearest of all widths is found.
    #[test]
    fn the_nearest_width_is_found() {
        let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(repeat: 7, flows: [LuLinear()])").unwrap();
        let width = |spec: &Spec<dyn ModelSpec>| -> usize {
            let text = to_ron(spec).unwrap();
            text.split_once("repeat: ").unwrap().1.split_once(',').unwrap().0.parse().unwrap()
        };
        for of in [|w: usize| 5 + w, |w: usize| 3 * w * w, |w: usize| 100 * w] {
            let count = |spec: &Spec<dyn ModelSpec>| Ok(of(width(spec)));
            for wanted in [1, 6, 99, 100, 101, 149, 151, 12_345] {
                let (spec, parameters) = solve("a", &spec, &["repeat".to_owned()], wanted, &count).unwrap();
                let best = (1..20_000).map(|w| of(w).abs_diff(wanted)).min().unwrap();
                assert_eq!((parameters, parameters.abs_diff(wanted)), (of(width(&spec)), best), "{wanted}");
            }
        }
        let error = solve("a", &spec, &["repeat".to_owned()], 10, &|_| Ok(3)).unwrap_err().to_string();
        assert_eq!(error, "width: expected 10 parameters at a width up to 16384, got 3 of `a`");
        let error = solve("a", &spec, &["hidden".to_owned()], 10, &|_| Ok(3)).unwrap_err().to_string();
        assert!(error.starts_with("variant `a`: no `hidden`; there are: "), "{error}");
    }
}
