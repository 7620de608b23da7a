//! Text that flows bring, as the kernels take it.

use flow_api::device::Snippet;
use std::fmt::Write;

/// What stands before the kernels' own text: every snippet in a namespace of its own, and the list of them for the
/// choice in `kernels/transformers.cu`. Messages of the compiler name a flow's lines by its kind.
pub(crate) fn prelude(snippets: &[Snippet]) -> String {
    if snippets.is_empty() {
        return String::new();
    }
    let mut text = "#include \"device.cuh\"\ntemplate <class F> __device__ float solve(F map, float y, float& log_slope);\n".to_owned();
    let mut list = String::new();
    for (i, Snippet { kind, text: own, parameters, inverse, .. }) in snippets.iter().enumerate() {
        let name: String = kind.chars().filter(|c| c.is_alphanumeric()).collect();
        let solved = if *inverse { "" } else { SOLVED };
        let _ = write!(text, "namespace snippet_{i} {{\n#line 1 \"{name}\"\n{own}\n{solved}}}\n");
        let _ = write!(list, " CASE({i}, {parameters})");
    }
    let _ = write!(text, "#define SNIPPETS(CASE){list}\n#line 1 \"kernels\"\n");
    text
}

/// The inverse of a map that has none in its text.
const SOLVED: &str = "__device__ float inverse(float y, const float* p, const float* s, float& log_slope) {
    return solve([&](float x, float& slope) { return forward(x, p, s, slope); }, y, log_slope);
}
";
