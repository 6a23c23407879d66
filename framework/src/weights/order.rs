//! The variables of a network under PyTorch's names and in its order.

use std::collections::HashMap;

use tch::{Tensor, nn};

use crate::error::{Error, Result};

/// What PyTorch's layers own, in the order in which their state dicts have it.
const OWN: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// All variables of a store by name, in the order of a PyTorch state dict: modules in the order in which their first
/// parameters were registered, and in each weight, bias, running statistics, then what else it has. The tensors are the
/// store's own.
pub fn variables(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    // The store has the names in a map and the order in a list without names: where a parameter lies tells which is which.
    let order = store.trainable_variables();
    let registered: HashMap<_, usize> = order.iter().enumerate().map(|(i, t)| (t.data_ptr(), i)).collect();
    let place = |t: &Tensor| registered.get(&t.data_ptr()).copied().unwrap_or(usize::MAX);
    let named = store.variables();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (name, tensor) in &named {
        let least = first.entry(split(name).0).or_insert(usize::MAX);
        *least = place(tensor).min(*least);
    }
    let mut variables: Vec<(&String, &Tensor)> = named.iter().collect();
    variables.sort_by_cached_key(|(name, tensor)| {
        let (module, own) = split(name);
        let rank = OWN.iter().position(|known| *known == own).unwrap_or(OWN.len());
        (first.get(module).copied(), module, rank, place(tensor), own)
    });
    variables.into_iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// A state name as its module and the name within it.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

/// Finds a variable that was registered under a name already taken: libtorch's binding renames it `NAME__1`.
///
/// # Errors
/// With the new name.
pub fn check_names(store: &nn::VarStore) -> Result<()> {
    for name in store.variables().keys() {
        if let Some((_, number)) = name.rsplit_once("__")
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(Error::plan(format!(
                "a parameter was registered twice, and the second became `{name}`: give every parameter a path of its own"
            )));
        }
    }
    Ok(())
}
