//! Where a network's variables lie in memory.

use tch::{Tensor, no_grad_guard};

/// Gives every variable storage of its own, 4-d ones in channels_last order: the layout at the start of a stage, the
/// same whether the values were just initialised, loaded, or trained by the stage before.
pub fn separate(variables: &[(String, Tensor)]) {
    let _no_grad = no_grad_guard();
    for (_, variable) in variables {
        let mut variable = variable.shallow_clone();
        // Through a flat copy, so that the strides are the same ones also where a dimension is 1 and any stride would do.
        let fresh = match variable.size().as_slice() {
            [o, i, h, w] => variable
                .detach()
                .permute([0, 2, 3, 1])
                .reshape([-1])
                .copy()
                .view([*o, *h, *w, *i])
                .permute([0, 3, 1, 2]),
            shape => variable.detach().reshape([-1]).copy().view(shape),
        };
        variable.set_data(&fresh);
    }
}
