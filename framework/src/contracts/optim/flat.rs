//! One flat buffer: every trained parameter is a view of one tensor, so that an update is a handful of operations.

use tch::{Tensor, no_grad_guard};

/// A variable by name. The tensor shares storage and identity with the network's own.
#[derive(Debug)]
pub struct Variable {
    /// Its full name.
    pub name: String,
    /// The variable.
    pub tensor: Tensor,
}

/// The parameters that a stage trains, moved into one buffer `[P]`.
///
/// Four-dimensional weights lie in channels_last order (their memory is `[O, H, W, I]`), the order in which
/// convolutions are fastest on both kinds of device.
#[derive(Debug)]
pub struct FlatParameters {
    variables: Vec<Variable>,
    buffer: Tensor,
}

fn channels_last(shape: &[i64]) -> bool {
    shape.len() == 4
}

/// The tensor's elements in the order of the buffer.
pub(super) fn flatten(tensor: &Tensor) -> Tensor {
    if channels_last(&tensor.size()) { tensor.permute([0, 2, 3, 1]).reshape([-1]) } else { tensor.reshape([-1]) }
}

impl FlatParameters {
    /// Moves the variables into one buffer. They keep their values and names, and become views of it.
    ///
    /// All must live on one device and have one floating-point kind.
    pub fn new(variables: Vec<Variable>) -> Self {
        let _no_grad = no_grad_guard();
        let pieces: Vec<Tensor> = variables.iter().map(|variable| flatten(&variable.tensor)).collect();
        // Aligned starts are not needed for correctness: a view's offset is the same in every run of the same stage.
        let buffer = if pieces.is_empty() { Tensor::from_slice::<f32>(&[]) } else { Tensor::cat(&pieces, 0) };
        let mut flat = FlatParameters { variables, buffer };
        let mut offset = 0;
        for variable in &mut flat.variables {
            let shape = variable.tensor.size();
            let length = variable.tensor.numel() as i64;
            let piece = flat.buffer.narrow(0, offset, length);
            let view = match shape.as_slice() {
                [o, i, h, w] => piece.view([*o, *h, *w, *i]).permute([0, 3, 1, 2]),
                _ => piece.view(shape.as_slice()),
            };
            variable.tensor.set_data(&view);
            offset += length;
        }
        flat
    }

    /// The first step of a stage: one backward pass tells which candidates `loss` reaches; they move into one buffer.
    ///
    /// Returns the buffer, its gradient `[P]`, and the names of the candidates that are not reached; `None` if none is.
    pub fn first(loss: &Tensor, candidates: Vec<Variable>) -> Option<(Self, Tensor, Vec<String>)> {
        let inputs: Vec<&Tensor> = candidates.iter().map(|variable| &variable.tensor).collect();
        let gradients = Tensor::run_backward(&[loss], &inputs, false, false);
        let (mut variables, mut pieces, mut unreached) = (Vec::new(), Vec::new(), Vec::new());
        for (variable, gradient) in candidates.into_iter().zip(gradients) {
            if gradient.defined() {
                variables.push(variable);
                pieces.push(gradient);
            } else {
                unreached.push(variable.name);
            }
        }
        if variables.is_empty() {
            return None;
        }
        let gradient = concatenate(&pieces);
        Some((FlatParameters::new(variables), gradient, unreached))
    }

    /// The buffer `[P]`.
    pub fn buffer(&self) -> &Tensor {
        &self.buffer
    }

    /// The buffer `[P]`, to be updated in place.
    pub fn buffer_mut(&mut self) -> &mut Tensor {
        &mut self.buffer
    }

    /// A value for each parameter of the buffer, `[P]`: what `of` gives for its variable's name.
    pub fn spread(&self, of: impl Fn(&str) -> f64) -> Tensor {
        let options = (self.buffer.kind(), self.buffer.device());
        let pieces: Vec<Tensor> = self
            .variables
            .iter()
            .map(|variable| Tensor::full([variable.tensor.numel() as i64], of(&variable.name), options))
            .collect();
        Tensor::cat(&pieces, 0)
    }

    /// The variables in the order of the buffer.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The gradient of `loss` as one tensor `[P]`, in the order of the buffer; 0 for a variable that `loss` does not reach,
    /// if there may be one.
    ///
    /// # Errors
    /// With the names of the variables that `loss` does not reach, unless `may_miss`.
    pub fn gradient(&self, loss: &Tensor, may_miss: bool) -> Result<Tensor, Vec<String>> {
        let inputs: Vec<&Tensor> = self.variables.iter().map(|variable| &variable.tensor).collect();
        let mut gradients = Tensor::run_backward(&[loss], &inputs, false, false);
        let mut unreached = Vec::new();
        for (gradient, variable) in gradients.iter_mut().zip(&self.variables) {
            if !gradient.defined() {
                *gradient = variable.tensor.zeros_like();
                unreached.push(variable.name.clone());
            }
        }
        if !unreached.is_empty() && !may_miss {
            return Err(unreached);
        }
        Ok(concatenate(&gradients))
    }
}

/// Gradients as one tensor, in the order of the buffer.
fn concatenate(gradients: &[Tensor]) -> Tensor {
    let _no_grad = no_grad_guard();
    Tensor::cat(&gradients.iter().map(flatten).collect::<Vec<_>>(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn};

    #[test]
    fn variables_become_views_and_gradients_are_autograds() {
        fn loss(input: &Tensor, conv: &nn::Conv2D, linear: &nn::Linear) -> Tensor {
            input.apply(conv).mean_dim([2, 3].as_slice(), false, Kind::Float).apply(linear).square().sum(Kind::Float)
        }

        tch::manual_seed(3);
        let vs = nn::VarStore::new(Device::Cpu);
        let conv = nn::conv2d(vs.root() / "conv", 3, 4, 3, Default::default());
        let linear = nn::linear(vs.root() / "fc", 4, 2, Default::default());
        let input = Tensor::randn([2, 3, 5, 5], (Kind::Float, Device::Cpu));
        loss(&input, &conv, &linear).backward();
        let named = vs.variables();
        let names = ["conv.weight", "conv.bias", "fc.weight", "fc.bias"];
        let reference: Vec<Tensor> = names.iter().map(|name| named[*name].grad().copy()).collect();
        let before: Vec<Tensor> = names.iter().map(|name| named[*name].copy().detach()).collect();

        let variables =
            names.iter().map(|name| Variable { name: (*name).to_owned(), tensor: named[*name].shallow_clone() });
        let mut flat = FlatParameters::new(variables.collect());
        for (name, value) in names.iter().zip(&before) {
            assert!(named[*name].equal(value), "{name} keeps its value");
        }
        let gradient = flat.gradient(&loss(&input, &conv, &linear), false).unwrap();
        let expected = Tensor::cat(&reference.iter().map(flatten).collect::<Vec<_>>(), 0);
        assert!((&gradient - &expected).abs().max().double_value(&[]) < 1e-6);

        let _no_grad = no_grad_guard();
        let _ = flat.buffer_mut().fill_(0.5);
        assert_eq!(named["conv.weight"].sum(Kind::Double).double_value(&[]), 0.5 * 108.0);
        assert_eq!(conv.ws.sum(Kind::Double).double_value(&[]), 0.5 * 108.0);
    }

    #[test]
    fn an_unreached_variable_is_named_and_left_alone() {
        fn variable(name: &str, tensor: &Tensor) -> Variable {
            Variable { name: name.to_owned(), tensor: tensor.shallow_clone() }
        }

        fn loss(used: &Tensor) -> Tensor {
            (used + 1.0).square().sum(Kind::Float)
        }

        let vs = nn::VarStore::new(Device::Cpu);
        let used = vs.root().zeros("used", &[2]);
        let unused = vs.root().zeros("unused", &[2]);
        let both = vec![variable("used", &used), variable("unused", &unused)];
        let (flat, gradient, unreached) = FlatParameters::first(&loss(&used), both).unwrap();
        assert_eq!(unreached, ["unused"]);
        assert_eq!(Vec::<f32>::try_from(gradient).unwrap(), [2.0, 2.0]);
        assert_eq!(Vec::<f32>::try_from(flat.gradient(&loss(&used), false).unwrap()).unwrap(), [2.0, 2.0]);
        assert!(FlatParameters::first(&loss(&used), vec![variable("unused", &unused)]).is_none());
        let both = FlatParameters::new(vec![variable("used", &used), variable("unused", &unused)]);
        assert_eq!(both.gradient(&loss(&used), false).unwrap_err(), ["unused"]);
        assert_eq!(Vec::<f32>::try_from(both.gradient(&loss(&used), true).unwrap()).unwrap(), [2.0, 2.0, 0.0, 0.0]);
    }
}
