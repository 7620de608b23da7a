//! What fuzzing found worth keeping, on every build: no file of the corpora may panic or hang. `CONTRIBUTING.md` says
//! how to search for more.

#[allow(unreachable_pub, reason = "a library of its own under another compiler")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

#[test]
fn files_from_outside_neither_panic_nor_hang() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    assert!(fuzz::run_corpora(&corpora) >= 30);
}
