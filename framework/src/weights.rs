//! Tensor files: safetensors, written so that a kill at any moment leaves the old file or the new one, and loaded into a
//! network in place, checked name by name. [`StateDict`] reads PyTorch's checkpoints as well.

mod pickle;
mod state_dict;
mod torch;
mod zip;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use tch::{Device, Kind, Tensor, nn, no_grad_guard};

use crate::error::{Error, Result, first_line};
use crate::registry::nearest;

pub use state_dict::{Format, StateDict};

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
    let broken = |e: &dyn std::fmt::Display| Error::run(format!("safetensors: {e}"));
    let mut tensors: Vec<&(String, Tensor)> = tensors.iter().collect();
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.kind().elt_size_in_bytes()));
    let mut data = Vec::new();
    // The crate's own writer sorts by name, and the order of a state dict would be lost.
    let infos = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let dtype = dtype_of(tensor.kind()).ok_or_else(|| {
                Error::run(format!("`{name}` is of kind {:?}, which safetensors cannot hold", tensor.kind()))
            })?;
            let start = data.len();
            data.extend(bytes_of(tensor));
            let shape = tensor.size().iter().map(|n| *n as usize).collect();
            Ok((name.clone(), TensorInfo { dtype, shape, data_offsets: (start, data.len()) }))
        })
        .collect::<Result<Vec<_>>>()?;
    let note = note.map(|note| HashMap::from([(NOTE.to_owned(), note.to_owned())]));
    let metadata = Metadata::new(note, infos).map_err(|e| broken(&e))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| broken(&e))?;
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
        let fault = |what: String| Error::data(path, format!("`{name}`: {what}"));
        let shape: Option<Vec<i64>> = view.shape().iter().map(|n| i64::try_from(*n).ok()).collect();
        let shape = shape.ok_or_else(|| fault(format!("its shape {:?} is beyond all memory", view.shape())))?;
        if kind == Kind::Bool && view.data().iter().any(|byte| *byte > 1) {
            return Err(fault("a truth value is neither 0 nor 1".to_owned()));
        }
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
        let tensor = tensor.map_err(|error| fault(format!("libtorch: {}", first_line(&error.to_string()))))?;
        tensors.insert(name, tensor);
    }
    let note = metadata.metadata().as_ref().and_then(|map| map.get(NOTE)).cloned();
    Ok(TensorFile { tensors, note })
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

/// Copies tensors into variables of the same names, in place: kinds are cast, storage stays.
///
/// # Errors
/// If a name is missing on either side or a shape differs: of each sort their number and the first ones, and nothing is
/// copied.
pub fn copy_into(variables: &[(String, Tensor)], source: &IndexMap<String, Tensor>, path: &Path) -> Result<()> {
    if let Some(differences) = differences(variables, source) {
        let hint = match wrapper(variables, source) {
            Some(prefix) => {
                format!("; every name begins with `{prefix}`: `limbeck weights import --strip {prefix}` takes it off")
            }
            None => String::new(),
        };
        return Err(Error::data(path, format!("these are not the weights of this network: {differences}{hint}")));
    }
    let _no_grad = no_grad_guard();
    for (name, variable) in variables {
        if let Some(value) = source.get(name) {
            variable.shallow_clone().f_copy_(value)?;
        }
    }
    Ok(())
}

/// What differs in names and shapes, if anything does.
fn differences(variables: &[(String, Tensor)], source: &IndexMap<String, Tensor>) -> Option<String> {
    const SHOWN: usize = 8;
    let expected: HashSet<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    let unexpected: Vec<&str> = source.keys().map(String::as_str).filter(|name| !expected.contains(name)).collect();
    let missing: Vec<&str> =
        variables.iter().map(|(name, _)| name.as_str()).filter(|name| !source.contains_key(*name)).collect();
    let reshaped: Vec<String> = variables
        .iter()
        .filter_map(|(name, variable)| Some((name, variable.size(), source.get(name)?.size())))
        .filter(|(_, expected, found)| expected != found)
        .map(|(name, expected, found)| format!("`{name}` has shape {found:?}, expected {expected:?}"))
        .collect();
    // What is in its right place is not what was meant by another name.
    let missed = |name: &&str| match nearest(name, unexpected.iter().copied()) {
        Some(near) => format!("`{name}` (it has `{near}`)"),
        None => format!("`{name}`"),
    };
    let list = |first: Vec<String>, all: usize, separator: &str| {
        let more = all.checked_sub(SHOWN).filter(|more| *more > 0).map(|more| format!(" and {more} more"));
        format!("{}{}", first.join(separator), more.unwrap_or_default())
    };
    let mut sorts = Vec::new();
    if !reshaped.is_empty() {
        sorts.push(list(reshaped.iter().take(SHOWN).cloned().collect(), reshaped.len(), "; "));
    }
    for (what, names, show) in [
        ("missing", &missing, &missed as &dyn Fn(&&str) -> String),
        ("unexpected", &unexpected, &|name| format!("`{name}`")),
    ] {
        if !names.is_empty() {
            let first = list(names.iter().take(SHOWN).map(show).collect(), names.len(), ", ");
            sorts.push(format!("{} {what}: {first}", names.len()));
        }
    }
    (!sorts.is_empty()).then(|| sorts.join("; "))
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
pub fn check_names(store: &nn::VarStore) -> Result<()> {
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
    fn variables_and_files_keep_the_order_of_a_state_dict() {
        let store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        nn::conv2d(&root / "z", 2, 3, 3, Default::default());
        nn::batch_norm2d(&root / "y" / 10, 3, Default::default());
        nn::batch_norm2d(&root / "y" / 9, 3, Default::default());
        nn::linear(&root / "a", 3, 2, Default::default());
        let _ = root.zeros_no_train("bank", &[4]);
        let _ = (&root / "z").zeros("extra", &[1]);
        let expected = "z.weight z.bias z.extra y.10.weight y.10.bias y.10.running_mean y.10.running_var y.9.weight \
                        y.9.bias y.9.running_mean y.9.running_var a.weight a.bias bank";
        let names =
            |tensors: &[(String, Tensor)]| tensors.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&variables(&store)), expected);
        separate(&variables(&store));
        let mut tensors = variables(&store);
        assert_eq!(names(&tensors), expected);
        tensors.insert(1, ("z.steps".to_owned(), Tensor::from(7_i64)));
        tensors.insert(2, ("flag".to_owned(), Tensor::from(true)));
        let bytes = to_bytes(&tensors, None).unwrap();
        let read: Vec<_> = from_bytes(&bytes, Path::new("w")).unwrap().tensors.into_iter().collect();
        assert_eq!(names(&read), format!("z.steps {expected} flag"), "int64 first, bool last, float32 as given");
        for (name, tensor) in &read {
            assert_eq!(tensor, &tensors.iter().find(|(other, _)| other == name).unwrap().1, "{name}");
        }
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(header.is_multiple_of(8), "the tensors begin aligned");
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
             1 missing: `fc.weight` (it has `fc.weights`); 1 unexpected: `fc.weights`"
        );
        // Both sorts show, however many there are of one; and what is in its place is not taken for another.
        let zero = || Tensor::zeros([3], (Kind::Float, Device::Cpu));
        let mut source = IndexMap::from([("fc.weight".to_owned(), Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)))]);
        source.insert("fc.bias".to_owned(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
        source.extend((0..10).map(|i| (format!("stage.{i}"), zero())));
        let message = copy_into(&variables(&a), &source, Path::new("w.safetensors")).unwrap_err().to_string();
        assert_eq!(
            message,
            "w.safetensors: these are not the weights of this network: 2 missing: `conv.weight`, `conv.bias`; 10 unexpected: \
             `stage.0`, `stage.1`, `stage.2`, `stage.3`, `stage.4`, `stage.5`, `stage.6`, `stage.7` and 2 more"
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
    fn a_file_that_is_not_safetensors_or_not_all_of_one_is_named() {
        let error = |bytes: &[u8]| from_bytes(bytes, Path::new("w.safetensors")).unwrap_err().to_string();
        assert_eq!(error(b"hello, world"), "w.safetensors: not a safetensors file: header too large");
        let short = "cut short: 5 bytes are there, fewer than a safetensors file begins with";
        assert_eq!(error(b"hello"), format!("w.safetensors: {short}"));
        let mut whole = to_bytes(&variables(&network(1)), None).unwrap();
        let n = whole.len();
        assert_eq!(error(&whole[..n - 1]), format!("w.safetensors: cut short: {} of {n} bytes are there", n - 1));
        let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap());
        let short = format!("cut short: 100 bytes are there, its header alone has {header}");
        assert_eq!(error(&whole[..100]), format!("w.safetensors: {short}"));
        let made = |dtype: &str, shape: &str, data: &[u8]| {
            let header = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{}]}}}}"#, data.len());
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
        };
        let huge = "w.safetensors: `t`: its shape [9223372036854775808, 0] is beyond all memory";
        assert_eq!(error(&made("F32", "[9223372036854775808, 0]", b"")), huge);
        assert_eq!(error(&made("BOOL", "[3]", &[0, 1, 2])), "w.safetensors: `t`: a truth value is neither 0 nor 1");
        assert_eq!(from_bytes(&made("BOOL", "[2]", &[0, 1]), Path::new("w")).unwrap().tensors["t"].numel(), 2);
        whole.extend([0; 10]);
        assert_eq!(error(&whole), format!("w.safetensors: too long: it has {} bytes, and should have {n}", n + 10));
    }
}
