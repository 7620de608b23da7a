//! Which instruction set kernels run in: the widest of the machine, or a narrower one that is asked for.

use std::sync::LazyLock;

use pulp::Arch;

/// The environment variable that restricts the instruction set, read once.
pub const RESTRICTION: &str = "MIXERFLOW_SIMD";

/// Names of instruction sets, narrowest first.
const SETS: [&str; 4] = ["baseline", "neon", "avx2", "avx512"];

/// An instruction set that there is no kernel for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{RESTRICTION}: expected {}, got {got}", SETS.join(", "))]
pub struct UnknownSet {
    /// What the environment variable says.
    pub got: String,
}

static PICKED: LazyLock<Result<Arch, UnknownSet>> = LazyLock::new(|| pick(std::env::var(RESTRICTION).ok().as_deref()));

/// What kernels are dispatched to.
#[doc(hidden)]
#[inline]
pub fn arch() -> Arch {
    match &*PICKED {
        Ok(arch) => *arch,
        Err(_) => Arch::new(),
    }
}

/// Name of the instruction set that kernels run in: the widest of this machine that is not wider than what
/// `MIXERFLOW_SIMD` names (`baseline`, `neon`, `avx2` or `avx512`).
///
/// The solves with triangular matrices of inverses, which are faer's, are not restricted.
///
/// # Errors
/// For any other name; kernels then run in the widest set, as without a name.
pub fn instruction_set() -> Result<&'static str, UnknownSet> {
    PICKED.clone().map(name)
}

/// Whether kernels run in a narrower set than the machine has.
#[cfg(feature = "linalg")]
pub(crate) fn is_restricted() -> bool {
    name(arch()) != name(Arch::new())
}

fn name(arch: Arch) -> &'static str {
    match arch {
        Arch::Scalar => "baseline",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "avx2",
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "avx512",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => "neon",
        #[cfg_attr(not(target_arch = "x86_64"), expect(unreachable_patterns, reason = "x86 may get further ones"))]
        _ => "other",
    }
}

/// The widest set of the machine that is not wider than the one named.
fn pick(most: Option<&str>) -> Result<Arch, UnknownSet> {
    let Some(most) = most.filter(|most| !most.is_empty()) else { return Ok(Arch::new()) };
    let place = |name: &str| SETS.iter().position(|set| *set == name);
    let most = place(most).ok_or_else(|| UnknownSet { got: most.to_owned() })?;
    #[cfg(target_arch = "x86_64")]
    let sets = [Some(Arch::new()), pulp::x86::V3::try_new().map(Arch::V3)];
    #[cfg(not(target_arch = "x86_64"))]
    let sets = [Some(Arch::new())];
    Ok(sets.into_iter().flatten().find(|set| place(name(*set)).is_some_and(|set| set <= most)).unwrap_or(Arch::Scalar))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_allowed_set_is_picked() {
        let picked = |most| pick(most).map(name);
        let widest = Ok(name(Arch::new()));
        assert_eq!((picked(None), picked(Some("")), picked(Some("avx512"))), (widest.clone(), widest.clone(), widest.clone()));
        assert_eq!(picked(Some("baseline")), Ok("baseline"));
        let avx2 = if widest == Ok("avx512") { Ok("avx2") } else { widest };
        assert_eq!(picked(Some("avx2")), avx2);
        let error = picked(Some("sse9")).unwrap_err();
        assert_eq!(error.to_string(), "MIXERFLOW_SIMD: expected baseline, neon, avx2, avx512, got sse9");
    }
}
