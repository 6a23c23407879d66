//! The formats of files with weights.

use std::fmt;

use serde::Serialize;

/// The formats of files with weights, told apart by how they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// <https://github.com/huggingface/safetensors>: names, kinds, shapes and bytes, and nothing else.
    Safetensors,
    /// What `torch.save` writes since PyTorch 1.6: a zip archive.
    TorchZip,
    /// What `torch.save` wrote before.
    TorchLegacy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::TorchZip => "PyTorch, zip",
            Format::TorchLegacy => "PyTorch before 1.6",
        })
    }
}
