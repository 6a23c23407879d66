//! Tensor files: safetensors, written so that a kill at any moment leaves the old file or the new one, and loaded into a
//! network in place, checked name by name. [`StateDict`] reads PyTorch's checkpoints as well.

mod copy;
mod format;
mod layout;
mod order;
mod safetensors;
mod state_dict;
mod tensors;
#[cfg(test)]
mod tests;
mod torch;
mod zip;

pub use copy::copy_into;
pub use format::Format;
pub use layout::separate;
pub use order::check_names;
pub use order::variables;
pub(crate) use safetensors::bytes_of;
pub use safetensors::{TensorFile, from_bytes, read, save, to_bytes};
pub use state_dict::StateDict;
