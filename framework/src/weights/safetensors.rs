//! Files of tensors in the safetensors format: the same tensors give the same bytes.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, TensorView};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, first_line};
use crate::files::write_atomically;

/// The key of the file's metadata under which the note stands. One key only: a map of several has no fixed order, and
/// the same tensors shall give the same bytes.
const NOTE: &str = "limbeck";

/// What the format allows, in bytes.
const LONGEST_HEADER: usize = 100_000_000;

/// The tensors of a file by name, with the note that was written beside them.
#[derive(Debug)]
pub struct TensorFile {
    /// On the CPU, contiguous, in the file's order.
    pub tensors: IndexMap<String, Tensor>,
    /// What the writer said of them.
    pub note: Option<String>,
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => return None,
    })
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// The tensor's elements as bytes, row-major.
pub(crate) fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

/// Serialises tensors with a note, in the order given except that larger elements come first, which keeps every tensor
/// aligned. The same input gives the same bytes.
///
/// # Errors
/// If a tensor has a kind that the format does not know.
pub fn to_bytes(tensors: &[(String, Tensor)], note: Option<&str>) -> Result<Vec<u8>> {
    let mut tensors: Vec<&(String, Tensor)> = tensors.iter().collect();
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.kind().elt_size_in_bytes()));
    let mut data = Vec::new();
    // The crate's own writer sorts by name, and the order of a state dict would be lost.
    let mut infos = Vec::new();
    for (name, tensor) in tensors {
        let dtype = dtype_of(tensor.kind()).ok_or_else(|| {
            Error::run(format!("`{name}` is of kind {:?}, which safetensors cannot hold", tensor.kind()))
        })?;
        let start = data.len();
        data.extend(bytes_of(tensor));
        let shape = tensor.size().iter().map(|n| *n as usize).collect();
        infos.push((name.clone(), TensorInfo { dtype, shape, data_offsets: (start, data.len()) }));
    }
    // Collected: without the crate's own functions for files, which need a crate for temporary ones, its map is another.
    let note = note.map(|note| [(NOTE.to_owned(), note.to_owned())].into_iter().collect());
    let metadata = Metadata::new(note, infos).map_err(|e| Error::run(format!("safetensors: {e}")))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| Error::run(format!("safetensors: {e}")))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat())
}

/// Reads tensors and note from the bytes of a file; `path` is only named in errors.
///
/// # Errors
/// If the bytes are not safetensors, are fewer or more than their header says, or hold a kind that libtorch does not know.
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<TensorFile> {
    let broken = |e| Error::data(path, wrong_size(bytes).unwrap_or_else(|| format!("not a safetensors file: {e}")));
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let mut tensors = IndexMap::new();
    for name in metadata.offset_keys() {
        let view = file.tensor(&name).map_err(broken)?;
        let kind = kind_of(view.dtype()).ok_or_else(|| {
            Error::data(path, format!("`{name}` is of type {:?}, which libtorch does not have", view.dtype()))
        })?;
        let tensor = tensor_of(&view, kind).map_err(|what| Error::data(path, format!("`{name}`: {what}")))?;
        tensors.insert(name, tensor);
    }
    let note = metadata.metadata().as_ref().and_then(|map| map.get(NOTE)).cloned();
    Ok(TensorFile { tensors, note })
}

/// The tensor that a file has, or what is wrong with it.
fn tensor_of(view: &TensorView<'_>, kind: Kind) -> Result<Tensor, String> {
    let shape: Option<Vec<i64>> = view.shape().iter().map(|n| i64::try_from(*n).ok()).collect();
    let shape = shape.ok_or_else(|| format!("its shape {:?} is beyond all memory", view.shape()))?;
    if kind == Kind::Bool && view.data().iter().any(|byte| *byte > 1) {
        return Err("a truth value is neither 0 nor 1".to_owned());
    }
    let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
    tensor.map_err(|error| format!("libtorch: {}", first_line(&error.to_string())))
}

/// What is wrong with the number of bytes, if that is what is wrong: the header's length in the first eight, the header as
/// JSON with each tensor's place behind it, and nothing after the last.
fn wrong_size(bytes: &[u8]) -> Option<String> {
    let there = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Some(format!("cut short: {there} bytes are there, fewer than a safetensors file begins with"));
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= LONGEST_HEADER)?;
    let Some(header) = rest.get(..length) else {
        return Some(format!("cut short: {there} bytes are there, its header alone has {}", 8 + length));
    };
    let header: IndexMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let end = header.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64()).max().unwrap_or(0);
    let expected = usize::try_from(end).ok()?.checked_add(8 + length)?;
    match there.cmp(&expected) {
        Ordering::Less => Some(format!("cut short: {there} of {expected} bytes are there")),
        Ordering::Equal => None,
        Ordering::Greater => Some(format!("too long: it has {there} bytes, and should have {expected}")),
    }
}

/// Writes tensors and note to a file, [atomically](write_atomically).
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, tensors: &[(String, Tensor)], note: Option<&str>) -> Result<()> {
    write_atomically(path, &to_bytes(tensors, note)?)
}

/// Reads a file of tensors.
///
/// # Errors
/// If it cannot be read or is not safetensors.
pub fn read(path: &Path) -> Result<TensorFile> {
    from_bytes(&fs::read(path).map_err(Error::io("read", path))?, path)
}
