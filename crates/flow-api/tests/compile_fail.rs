//! What must not compile, with messages that a user can read.

#[test]
fn wrong_compositions_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
