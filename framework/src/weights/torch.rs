//! PyTorch's checkpoint files: the zip format, read and written, and the one of before 1.6, read.
//!
//! | | zip | before 1.6 |
//! |---|---|---|
//! | begins with | an archive's signature | a pickled number |
//! | object | `NAME/data.pkl` | the fourth pickle, behind number, version and facts of the system |
//! | elements | `NAME/data/KEY` | for each key of the fifth pickle a count of 8 bytes, then the elements |
//!
//! Source: the module `torch.serialization` of PyTorch 2.11.

use std::collections::HashMap;

use indexmap::IndexMap;
use tch::{Kind, Tensor};

use super::format::Format;
use super::safetensors::bytes_of;
use super::tensors::{STORAGES, Storage, Tensors, View};
use super::zip::{self, Archive};
use crate::pickle::{self, Node, Pickle, Value};

/// The number that files of before 1.6 begin with, 0x1950a86a20f9469cfc6c, as a pickle has it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The version of that format: there is one.
const LEGACY_VERSION: i64 = 1001;
/// How much larger than their file the tensors may be, all together: names may share elements, and are then written
/// out more than once.
const SHARING: u64 = 16;

/// A checkpoint: its pickle, and the elements of each storage.
#[derive(Debug)]
pub(super) struct Checkpoint<'a> {
    pub format: Format,
    pickle: Pickle<'a, Tensors<'a>>,
    elements: Vec<&'a [u8]>,
    file_size: usize,
}

/// How deep a state dict is looked for that no key names.
const DEPTH: usize = 4;
/// How many entries of a dictionary, or keys, a message has.
const SHOWN: usize = 12;

/// The first of `count`, and how many more there are.
fn with_more(first: Vec<String>, count: usize) -> String {
    let more = count.checked_sub(first.len()).filter(|more| *more > 0).map(|more| format!("{more} more"));
    first.into_iter().chain(more).collect::<Vec<_>>().join(", ")
}

/// A dictionary's entries by name.
type Entries<'p, 'a> = IndexMap<&'a str, &'p View>;

impl<'a> Checkpoint<'a> {
    /// Reads a file of either format; `None` if it is of neither.
    ///
    /// # Errors
    /// If it is damaged, or holds what is refused.
    pub fn open(bytes: &'a [u8]) -> Result<Option<Self>, String> {
        let (format, (pickle, elements)) = if Archive::is_one(bytes) {
            (Format::TorchZip, read_zip(bytes)?)
        } else if is_legacy(bytes) {
            (Format::TorchLegacy, read_legacy(bytes)?)
        } else {
            return Ok(None);
        };
        Ok(Some(Checkpoint { format, pickle, elements, file_size: bytes.len() }))
    }

    /// The state dict under a key, dotted where it lies deeper. Without a key: the whole, or the only one at the least depth
    /// that has any. Returns the key too.
    ///
    /// # Errors
    /// If there is none, or more than one; the message has what there is.
    pub fn state_dict(&self, key: Option<&str>) -> Result<(Option<String>, IndexMap<String, Tensor>), String> {
        let (key, entries) = match key {
            Some(key) => {
                let entries = self.entries(self.descend(key)?);
                (Some(key.to_owned()), entries.map_err(|fault| format!("`{key}` is no state dict: {fault}"))?)
            }
            None => self.only_state_dict()?,
        };
        Ok((key, self.tensors(&entries)?))
    }

    fn only_state_dict(&self) -> Result<(Option<String>, Entries<'_, 'a>), String> {
        if let Ok(entries) = self.entries(self.pickle.root) {
            return Ok((None, entries));
        }
        let Some(dict) = self.dict(self.pickle.root) else {
            return Err(format!("it holds {} where a state dict is expected", self.describe(self.pickle.root)));
        };
        // One value may stand under thousands of names: each is judged once, and entered once.
        let mut judged: HashMap<usize, bool> = HashMap::new();
        let mut level: Vec<(Vec<&str>, Value<'a>)> = vec![(Vec::new(), self.pickle.root)];
        for _ in 0..DEPTH {
            let (mut found, mut deeper) = (Vec::new(), Vec::new());
            for (path, value) in &level {
                for (name, inner) in self.named(*value) {
                    let Value::Node(index) = inner else { continue };
                    let known = judged.get(&index).copied();
                    let is_one = known.unwrap_or_else(|| self.is_state_dict(inner));
                    judged.insert(index, is_one);
                    if is_one || known.is_none() {
                        let path = [path.as_slice(), &[name]].concat();
                        if is_one { found.push((path, inner)) } else { deeper.push((path, inner)) }
                    }
                }
            }
            match found.as_slice() {
                [(path, value)] => return Ok((Some(path.join(".")), self.entries(*value)?)),
                [] => level = deeper,
                _ => {
                    let keys = found.iter().take(SHOWN).map(|(path, _)| format!("`{}`", path.join("."))).collect();
                    return Err(format!(
                        "it holds more than one state dict: name one with `--key` (`limbeck weights import` keeps it alone); \
                         there are {}",
                        with_more(keys, found.len())
                    ));
                }
            }
        }
        Err(format!("it holds no dictionary of tensors alone; it holds {}", self.describe_entries(dict)))
    }

    /// The entries of a dictionary that have names, the last of each; none of what is no dictionary.
    fn named(&self, value: Value<'a>) -> IndexMap<&'a str, Value<'a>> {
        let entries = self.dict(value).unwrap_or_default().iter();
        entries.filter_map(|(key, value)| Some((text(key)?, *value))).collect()
    }

    /// The value under a dotted key; names may have dots of their own.
    fn descend(&self, key: &str) -> Result<Value<'a>, String> {
        let (mut value, mut rest) = (self.pickle.root, key);
        loop {
            let Some(dict) = self.dict(value) else {
                return Err(format!("there is no `{key}`: `{rest}` is looked for in {}", self.describe(value)));
            };
            let fitting = dict.iter().rev().filter_map(|(name, value)| Some((below(rest, text(name)?)?, *value)));
            // The longest name: what it leaves is shortest.
            let Some((deeper, inner)) = fitting.min_by_key(|(deeper, _)| deeper.len()) else {
                return Err(format!("there is no `{key}`; it holds {}", self.describe_entries(dict)));
            };
            if deeper.is_empty() {
                return Ok(inner);
            }
            (value, rest) = (inner, deeper);
        }
    }

    /// Whether it is a dictionary that holds tensors under names, and nothing else.
    fn is_state_dict(&self, value: Value<'a>) -> bool {
        let dict = self.dict(value).unwrap_or_default();
        !dict.is_empty() && dict.iter().all(|(key, value)| text(key).is_some() && self.tensor(*value).is_some())
    }

    /// The entries of such a dictionary.
    fn entries(&self, value: Value<'a>) -> Result<Entries<'_, 'a>, String> {
        let dict = self.dict(value).ok_or_else(|| format!("it is {}", self.describe(value)))?;
        if dict.is_empty() {
            return Err("it is empty".to_owned());
        }
        let mut entries = IndexMap::new();
        for (key, value) in dict {
            let name = text(key).ok_or_else(|| format!("it has {} for a name", self.describe(*key)))?;
            let view = self.tensor(*value).ok_or_else(|| format!("its `{name}` is {}", self.describe(*value)))?;
            entries.insert(name, view);
        }
        Ok(entries)
    }

    fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        self.pickle.arena.dict(value)
    }

    fn tensor(&self, value: Value<'a>) -> Option<&View> {
        self.pickle.names.view(value)
    }

    /// The tensors, as views of their storages: what is shared in the file is shared here.
    fn tensors(&self, entries: &Entries<'_, 'a>) -> Result<IndexMap<String, Tensor>, String> {
        let mut total: u64 = 0;
        for view in entries.values() {
            let element = self.pickle.names.storages[view.storage].kind.elt_size_in_bytes();
            total = total.saturating_add(view.elements().saturating_mul(element as u64));
        }
        if total > SHARING * self.file_size as u64 {
            return Err(format!(
                "its tensors are {total} bytes in a file of {}: they repeat the same elements; save them after `.clone()`",
                self.file_size
            ));
        }
        let mut storages: HashMap<usize, Tensor> = HashMap::new();
        let mut tensors = IndexMap::new();
        for (name, view) in entries {
            let storage = match storages.get(&view.storage) {
                Some(storage) => storage.shallow_clone(),
                None => self.load(view.storage).map_err(|fault| format!("`{name}`: {fault}"))?,
            };
            let tensor = storage
                .f_as_strided(&view.size, &view.stride, view.offset)
                .map_err(|error| format!("`{name}`: libtorch: {error}"))?;
            storages.insert(view.storage, storage);
            tensors.insert((*name).to_owned(), tensor);
        }
        Ok(tensors)
    }

    /// A storage as a tensor of one dimension.
    fn load(&self, index: usize) -> Result<Tensor, String> {
        let Storage { kind, len } = self.pickle.names.storages[index];
        let bytes = self.elements[index];
        if kind == Kind::Bool && bytes.iter().any(|byte| *byte > 1) {
            return Err("a truth value is neither 0 nor 1".to_owned());
        }
        Tensor::f_from_data_size(bytes, &[len as i64], kind).map_err(|error| format!("libtorch: {error}"))
    }

    /// A value in words.
    fn describe(&self, value: Value<'a>) -> &'static str {
        match value {
            Value::None => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Int(_) | Value::Long(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::Bytes(_) => "bytes",
            Value::Known(_) => "a class",
            Value::Object(_) if self.tensor(value).is_some() => "a tensor",
            Value::Object(_) => "a storage",
            Value::Node(_) => match self.pickle.arena.node(value) {
                Some(Node::Tuple(_)) => "a tuple",
                Some(Node::List(_)) => "a list",
                _ if self.is_state_dict(value) => "a state dict",
                _ => "a dictionary",
            },
        }
    }

    fn describe_entries(&self, dict: &[(Value<'a>, Value<'a>)]) -> String {
        let shown = dict.iter().take(SHOWN).map(|(key, value)| match text(key) {
            Some(name) => format!("`{name}` ({})", self.describe(*value)),
            None => format!("{} under {}", self.describe(*value), self.describe(*key)),
        });
        if dict.is_empty() { "nothing".to_owned() } else { with_more(shown.collect(), dict.len()) }
    }
}

/// What a dotted key leaves behind a name that it begins with.
fn below<'k>(key: &'k str, name: &str) -> Option<&'k str> {
    match key.strip_prefix(name)? {
        "" => Some(""),
        deeper => deeper.strip_prefix('.'),
    }
}

fn text<'a>(value: &Value<'a>) -> Option<&'a str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// A pickle and the elements of its storages, in their order.
type Parts<'a> = (Pickle<'a, Tensors<'a>>, Vec<&'a [u8]>);

fn read_zip(bytes: &[u8]) -> Result<Parts<'_>, String> {
    let archive = Archive::open(bytes)?;
    let folders: Vec<&str> = archive
        .names()
        .filter_map(|name| name.strip_suffix("/data.pkl"))
        .filter(|folder| !folder.contains('/'))
        .collect();
    let [folder] = folders[..] else {
        return Err("the archive has no single `NAME/data.pkl`, hence `torch.save` did not write it".to_owned());
    };
    if archive.has(&format!("{folder}/constants.pkl")) {
        return Err("it is a TorchScript program: one of the models in `limbeck plugins list --kind model` runs it as a teacher; for \
                    its weights alone, `torch.save(torch.jit.load(SRC).state_dict(), DST)`"
            .to_owned());
    }
    if archive.get(&format!("{folder}/byteorder"))?.is_some_and(|order| order != b"little") {
        return Err(big_endian());
    }
    let object = archive.get(&format!("{folder}/data.pkl"))?.unwrap_or_default();
    let pickle = pickle::read(object, 0, Tensors::default())?;
    let mut elements = Vec::new();
    for (key, storage) in &pickle.names.storages {
        let bytes = archive.get(&format!("{folder}/data/{key}"))?;
        let bytes = bytes.ok_or_else(|| format!("the elements of storage `{key}` are missing"))?;
        let expected = storage.size()?;
        if bytes.len() != expected {
            return Err(format!("storage `{key}` has {} bytes, not {expected}", bytes.len()));
        }
        elements.push(bytes);
    }
    Ok((pickle, elements))
}

impl Storage {
    /// In bytes.
    fn size(self) -> Result<usize, String> {
        self.len
            .checked_mul(self.kind.elt_size_in_bytes())
            .ok_or_else(|| format!("a storage of {} elements is beyond all memory", self.len))
    }
}

/// Whether the bytes begin with the pickled number. Some writers put a frame's length before it.
fn is_legacy(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 1..=5, ..])
        && bytes[..bytes.len().min(32)].windows(MAGIC.len()).any(|window| window == MAGIC)
}

fn read_legacy(bytes: &[u8]) -> Result<Parts<'_>, String> {
    let number = pickle::read(bytes, 0, Tensors::default())?;
    let version = pickle::read(bytes, number.end, Tensors::default())?;
    let system = pickle::read(bytes, version.end, Tensors::default())?;
    let object = pickle::read(bytes, system.end, Tensors::default())?;
    let keys = pickle::read(bytes, object.end, Tensors::default())?;
    if number.root != Value::Long(&MAGIC) || version.root != Value::Int(LEGACY_VERSION) {
        return Err("it is of no known version of the format of before 1.6".to_owned());
    }
    let little = (Value::Text("little_endian"), Value::Bool(true));
    if !system.arena.dict(system.root).is_some_and(|facts| facts.contains(&little)) {
        return Err(big_endian());
    }
    let Some(list) = keys.arena.list(keys.root) else {
        return Err("the list of its storages is missing".to_owned());
    };
    let elements = read_elements(&bytes[keys.end..], &object.names.storages, list)?;
    Ok((object, elements))
}

/// The elements behind the pickles: a count and as many elements for each key.
fn read_elements<'a>(
    mut rest: &'a [u8],
    storages: &IndexMap<&str, Storage>,
    keys: &[Value<'_>],
) -> Result<Vec<&'a [u8]>, String> {
    let mut found = vec![None; storages.len()];
    for key in keys {
        let key = text(key).ok_or_else(|| "a storage's key is no text".to_owned())?;
        let (index, _, storage) =
            storages.get_full(key).ok_or_else(|| format!("storage `{key}` belongs to no tensor"))?;
        let Some((count, behind)) = rest.split_first_chunk::<8>() else { return Err(cut_off(key)) };
        let count = u64::from_le_bytes(*count);
        if count != storage.len as u64 {
            return Err(format!("storage `{key}` has {count} elements, not {}", storage.len));
        }
        let (bytes, behind) = behind.split_at_checked(storage.size()?).ok_or_else(|| cut_off(key))?;
        found[index] = Some(bytes);
        rest = behind;
    }
    let mut elements = Vec::new();
    for (bytes, key) in found.into_iter().zip(storages.keys()) {
        elements.push(bytes.ok_or_else(|| format!("the elements of storage `{key}` are missing"))?);
    }
    Ok(elements)
}

fn cut_off(key: &str) -> String {
    format!("it is cut off within storage `{key}`")
}

fn big_endian() -> String {
    "it was written on a machine with the most significant byte first; save it again on another".to_owned()
}

/// The bytes of a state dict in the zip format, as `torch.load(weights_only=True)` reads it. The same tensors give the
/// same bytes.
///
/// It has no versions of modules: PyTorch then adds the counters of BatchNorm that it misses.
///
/// # Errors
/// If a tensor is of a kind without a storage class, or all together are beyond 4 GiB.
pub(super) fn write(tensors: &IndexMap<String, Tensor>) -> Result<Vec<u8>, String> {
    let mut entries = vec![("archive/data.pkl".to_owned(), write_pickle(tensors)?)];
    entries.push(("archive/byteorder".to_owned(), b"little".to_vec()));
    let elements = tensors.values().enumerate().map(|(i, tensor)| (format!("archive/data/{i}"), bytes_of(tensor)));
    entries.extend(elements);
    entries.push(("archive/version".to_owned(), b"3\n".to_vec()));
    zip::pack(&entries)
}

/// An ordered dictionary of tensors, each alone in its storage.
fn write_pickle(tensors: &IndexMap<String, Tensor>) -> Result<Vec<u8>, String> {
    const EMPTY_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = [&[0x80, 2], EMPTY_DICT, b"("].concat();
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        let (class, _) = STORAGES
            .iter()
            .find(|(_, kind)| *kind == tensor.kind())
            .ok_or_else(|| format!("`{name}` is of kind {:?}, which has no storage class", tensor.kind()))?;
        let size = tensor.size();
        let mut stride: Vec<i64> =
            size.iter().rev().scan(1, |next, n| Some(std::mem::replace(next, *next * n.max(&1)))).collect();
        stride.reverse();
        write_text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        write_text(&mut out, "storage");
        out.extend([b"ctorch\n", class.as_bytes(), b"\n"].concat());
        write_text(&mut out, &i.to_string());
        write_text(&mut out, "cpu");
        write_integer(&mut out, tensor.numel() as i64);
        out.extend(b"tQ");
        write_integer(&mut out, 0);
        for numbers in [&size, &stride] {
            out.push(b'(');
            numbers.iter().for_each(|n| write_integer(&mut out, *n));
            out.push(b't');
        }
        // No gradient, no hooks.
        out.extend([&[0x89], EMPTY_DICT, b"tR"].concat());
    }
    out.extend(b"u.");
    Ok(out)
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_integer(out: &mut Vec<u8>, value: i64) {
    match i32::try_from(value) {
        Ok(value) => out.extend([&b"J"[..], &value.to_le_bytes()].concat()),
        Err(_) => out.extend([&[0x8a, 8][..], &value.to_le_bytes()].concat()),
    }
}
