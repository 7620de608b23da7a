//! A type that is no bijection cannot be composed.

use flow_api::compose::Then;
use flow_api::layers::LuLinear;
use flow_api::rows::Rows;

struct Nothing;

fn main() {
    let four = Rows(LuLinear::<f32>::new(4));
    let _ = Then::new::<(usize, usize), f32>(four, Nothing, &(1, 4));
}
