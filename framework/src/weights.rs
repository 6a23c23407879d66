//! Tensor files: safetensors, written so that a kill at any moment leaves the old file or the new one, and loaded into a
//! network in place, checked name by name. [`StateDict`] reads PyTorch's checkpoints as well.

mod pickle;
mod state_dict;
mod torch;
mod zip;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Device, Kind, Tensor, nn, no_grad_guard};

use crate::error::{Error, Result};
use crate::registry::nearest;

pub use state_dict::{Format, StateDict};

/// The key of the file's metadata under which the note stands. One key only: a map of several has no fixed order, and
/// the same tensors shall give the same bytes.
const NOTE: &str = "limbeck";

/// The tensors of a file by name, with the note that was written beside them.
#[derive(Debug)]
pub struct TensorFile {
    /// On the CPU, contiguous.
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

/// Serialises tensors with a note. The same input gives the same bytes.
///
/// # Errors
/// If a tensor has a kind that the format does not know.
pub fn to_bytes(tensors: &[(String, Tensor)], note: Option<&str>) -> Result<Vec<u8>> {
    let raw = tensors
        .iter()
        .map(|(name, tensor)| {
            let dtype = dtype_of(tensor.kind()).ok_or_else(|| {
                Error::run(format!("`{name}` is of kind {:?}, which safetensors cannot hold", tensor.kind()))
            })?;
            let shape: Vec<usize> = tensor.size().iter().map(|n| *n as usize).collect();
            Ok((name, dtype, shape, bytes_of(tensor)))
        })
        .collect::<Result<Vec<_>>>()?;
    let views = raw
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| Error::run(format!("safetensors: {e}")))?;
    let note = note.map(|note| HashMap::from([(NOTE.to_owned(), note.to_owned())]));
    safetensors::serialize(views, note).map_err(|e| Error::run(format!("safetensors: {e}")))
}

/// Reads tensors and note from the bytes of a file; `path` is only named in errors.
///
/// # Errors
/// If the bytes are not safetensors, or hold a kind that libtorch does not know.
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<TensorFile> {
    let broken = |e: safetensors::SafeTensorError| Error::data(path, format!("not a safetensors file: {e}"));
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let mut tensors = IndexMap::new();
    for (name, view) in file.iter() {
        let kind = kind_of(view.dtype()).ok_or_else(|| {
            Error::data(path, format!("`{name}` is of type {:?}, which libtorch does not have", view.dtype()))
        })?;
        let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
        tensors.insert(name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, kind)?);
    }
    tensors.sort_keys();
    let note = metadata.metadata().as_ref().and_then(|map| map.get(NOTE)).cloned();
    Ok(TensorFile { tensors, note })
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

/// Replaces a file in one move: written beside it, synced, renamed. A kill at any moment leaves the old or the new one.
///
/// # Errors
/// If the folder is not writable or the disk is full; the old file is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let staged = stage(path, bytes)?;
    fs::rename(&staged, path).map_err(Error::io("replace", path))?;
    sync_folder(path)
}

/// Writes and syncs the file that is to become `path`.
pub(crate) fn stage(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let staged = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    if let Err(error) = write() {
        // The half-written file is of no use to anyone; that it may not go away either changes nothing.
        let _ = fs::remove_file(&staged);
        return Err(Error::io("write", path)(error));
    }
    Ok(staged)
}

/// Makes a rename in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))
}

/// All variables of a store by name, sorted. The tensors are the store's own.
pub fn variables(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut variables: Vec<(String, Tensor)> = store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

/// Copies tensors into variables of the same names, in place: kinds are cast, storage stays.
///
/// # Errors
/// If a name is missing on either side or a shape differs; all differences are named at once, and nothing is copied.
pub fn copy_into(variables: &[(String, Tensor)], source: &IndexMap<String, Tensor>, path: &Path) -> Result<()> {
    const SHOWN: usize = 8;
    let mut faults = Vec::new();
    for (name, variable) in variables {
        match source.get(name) {
            // What is not shown needs no looking for.
            None if faults.len() >= SHOWN => faults.push(String::new()),
            None => faults.push(match nearest(name, source.keys().map(String::as_str)) {
                Some(near) => format!("`{name}` is missing (it has `{near}`)"),
                None => format!("`{name}` is missing"),
            }),
            Some(value) if value.size() != variable.size() => {
                faults.push(format!("`{name}` has shape {:?}, expected {:?}", value.size(), variable.size()));
            }
            Some(_) => {}
        }
    }
    let unexpected = source.keys().filter(|name| !variables.iter().any(|(expected, _)| expected == *name));
    faults.extend(unexpected.map(|name| format!("`{name}` is unexpected")));
    if !faults.is_empty() {
        let shown = faults.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        let more = if faults.len() > SHOWN { format!("; and {} more", faults.len() - SHOWN) } else { String::new() };
        let hint = match wrapper(variables, source) {
            Some(prefix) => {
                format!("; every name begins with `{prefix}`: `limbeck weights import --strip {prefix}` takes it off")
            }
            None => String::new(),
        };
        return Err(Error::data(path, format!("these are not the weights of this network: {shown}{more}{hint}")));
    }
    let _no_grad = no_grad_guard();
    for (name, variable) in variables {
        if let Some(value) = source.get(name) {
            variable.shallow_clone().f_copy_(value)?;
        }
    }
    Ok(())
}

/// The module around the network that a file has before every name: `module.` of `DataParallel`, for example.
fn wrapper(variables: &[(String, Tensor)], source: &IndexMap<String, Tensor>) -> Option<String> {
    let (name, _) = source.first()?;
    let prefix = &name[..=name.find('.')?];
    let inner: Option<Vec<&str>> = source.keys().map(|name| name.strip_prefix(prefix)).collect();
    inner?.iter().any(|inner| variables.iter().any(|(name, _)| name == inner)).then(|| prefix.to_owned())
}

/// Finds a variable that was registered under a name already taken: libtorch's binding renames it `NAME__1`.
///
/// # Errors
/// With the new name.
pub(crate) fn check_names(store: &nn::VarStore) -> Result<()> {
    let renamed = |name: &str| {
        name.rsplit_once("__").is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match store.variables().keys().find(|name| renamed(name)) {
        None => Ok(()),
        Some(name) => Err(Error::plan(format!(
            "a parameter was registered twice, and the second became `{name}`: give every parameter a path of its own"
        ))),
    }
}

/// Gives every variable storage of its own, 4-d ones in channels_last order: the layout at the start of a stage, the
/// same whether the values were just initialised, loaded, or trained by the stage before.
pub(crate) fn separate(variables: &[(String, Tensor)]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn network(seed: i64) -> nn::VarStore {
        tch::manual_seed(seed);
        let store = nn::VarStore::new(Device::Cpu);
        nn::conv2d(store.root() / "conv", 2, 3, 3, Default::default());
        nn::linear(store.root() / "fc", 3, 2, Default::default());
        store
    }

    #[test]
    fn weights_survive_a_file_and_the_same_weights_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let (a, b) = (network(1), network(2));
        save(&path, &variables(&a), Some("note")).unwrap();
        separate(&variables(&b));
        StateDict::read(&path, None).unwrap().copy_into(&variables(&b)).unwrap();
        for ((name, x), (_, y)) in variables(&a).iter().zip(variables(&b)) {
            assert!(x.equal(&y), "{name}");
        }
        assert_eq!(to_bytes(&variables(&b), Some("note")).unwrap(), fs::read(&path).unwrap());
        assert_eq!(read(&path).unwrap().note.as_deref(), Some("note"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn half_precision_is_cast_into_the_networks_own_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let a = network(1);
        let half: Vec<_> = variables(&a).into_iter().map(|(n, t)| (n, t.to_kind(Kind::Half))).collect();
        save(&path, &half, None).unwrap();
        let b = network(2);
        StateDict::read(&path, None).unwrap().copy_into(&variables(&b)).unwrap();
        for ((name, x), (_, y)) in variables(&a).iter().zip(variables(&b)) {
            assert_eq!(y.kind(), Kind::Float);
            assert!((x - y).abs().max().double_value(&[]) < 1e-3, "{name}");
        }
    }

    #[test]
    fn weights_of_another_network_are_refused_with_every_difference() {
        let a = network(1);
        let source = IndexMap::from([
            ("conv.weight".to_owned(), Tensor::zeros([3, 2, 5, 5], (Kind::Float, Device::Cpu))),
            ("conv.bias".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu))),
            ("fc.weights".to_owned(), Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))),
            ("fc.bias".to_owned(), Tensor::zeros([2], (Kind::Float, Device::Cpu))),
        ]);
        let message = copy_into(&variables(&a), &source, Path::new("w.safetensors")).unwrap_err().to_string();
        assert_eq!(
            message,
            "w.safetensors: these are not the weights of this network: `conv.weight` has shape [3, 2, 5, 5], expected [3, 2, 3, 3]; \
             `fc.weight` is missing (it has `fc.weights`); `fc.weights` is unexpected"
        );
    }

    #[test]
    fn pytorchs_counters_are_passed_over_and_a_name_taken_twice_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let a = network(1);
        let mut tensors = variables(&a);
        tensors.push(("bn1.num_batches_tracked".to_owned(), Tensor::from(7_i64)));
        save(&path, &tensors, None).unwrap();
        StateDict::read(&path, None).unwrap().copy_into(&variables(&network(2))).unwrap();
        check_names(&a).unwrap();
        nn::linear(a.root() / "fc", 3, 2, Default::default());
        let message = check_names(&a).unwrap_err().to_string();
        assert!(message.starts_with("a parameter was registered twice, and the second became `fc."), "{message}");
    }

    #[test]
    fn a_file_that_is_not_safetensors_is_named() {
        let error = from_bytes(b"hello, world", Path::new("w.safetensors")).unwrap_err().to_string();
        assert!(error.starts_with("w.safetensors: not a safetensors file: "), "{error}");
    }
}
