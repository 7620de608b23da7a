//! Rows of four numbers do not go into a bijection of rows of six.

use dfdx::prelude::*;
use flow_api::compose::{Pinned, Then};
use flow_api::layers::LuLinear;
use flow_api::rows::Rows;

fn main() {
    let four = Pinned::<(usize, Const<4>), _>::new(Rows(LuLinear::<f32>::new(4)));
    let six = Pinned::<(usize, Const<6>), _>::new(Rows(LuLinear::<f32>::new(6)));
    let _ = Then::new::<(usize, Const<4>), f32>(four, six, &(1, Const));
}
