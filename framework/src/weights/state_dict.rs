//! The tensors of a network by name, from a file of any format that people keep them in.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use tch::Tensor;

use super::copy::copy_into;
use super::format::Format;
use super::safetensors::{from_bytes, save};
use super::torch::{self, Checkpoint};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::nearest::nearest;

/// The tensors of a network by name.
#[derive(Debug)]
pub struct StateDict {
    /// On the CPU, in the order of the file, with the kinds of the file. They may have any strides and share storage.
    pub tensors: IndexMap<String, Tensor>,
    /// The file's format.
    pub format: Format,
    /// Where the state dict stood in the file: absent if it is the whole.
    pub key: Option<String>,
    path: PathBuf,
}

/// How long a tensor's name may be, in bytes.
const NAME: usize = 1000;
/// How much of what a file says of itself is shown, in characters.
const SHOWN: usize = 2000;

/// A message with words of the file, which might otherwise command the terminal or fill it.
fn printable(message: &str) -> String {
    let escaped = message.chars().flat_map(|c| {
        let control = c.is_control();
        std::iter::once(c).filter(move |_| !control).chain(c.escape_default().filter(move |_| control))
    });
    escaped.take(SHOWN).collect()
}

/// What is wrong with bytes that do not begin as safetensors do: with a length of 8 bytes, then a JSON object.
fn foreign(bytes: &[u8]) -> Option<String> {
    let looks_like = match bytes {
        [] => return Some("it is empty".to_owned()),
        [_, _, _, _, _, _, _, _, b'{', ..] => return None,
        [0x1f, 0x8b, ..] => ": it looks like gzip; unpack it",
        [0x80, 1..=5, ..] => {
            ": it looks like a pickle that `torch.save` did not write; load it in Python and `torch.save` its state dict"
        }
        _ if bytes.get(257..262) == Some(b"ustar") => {
            ": it looks like a tar archive, as the first releases of PyTorch wrote; load it there and `torch.save` it again"
        }
        _ if bytes.trim_ascii_start().starts_with(b"<") => ": it looks like a web page; download the file itself",
        // Too short to tell: safetensors' reader says how short.
        _ if bytes.len() <= 8 => return None,
        _ => "",
    };
    Some(format!("neither a PyTorch checkpoint nor safetensors{looks_like}"))
}

/// What PyTorch's BatchNorm counts, and nothing here reads.
const COUNTER: &str = "num_batches_tracked";

impl StateDict {
    /// Reads safetensors or a PyTorch checkpoint. In the latter the state dict is looked for under `key` (`state_dict`,
    /// `model`, …, dotted where it lies deeper); without one it is the whole file or the only one in it, nested or not.
    ///
    /// Nothing of the file is executed: see the errors.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged or of another format; if its pickle asks for anything that is neither a
    /// tensor nor a plain container; if there is no such state dict, or several.
    pub fn read(path: &Path, key: Option<&str>) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Self::parse(&bytes, path, key)
    }

    /// [`StateDict::read`] for bytes in memory; `path` is only named in errors.
    ///
    /// # Errors
    /// As for [`StateDict::read`], without those of reading.
    pub fn parse(bytes: &[u8], path: &Path, key: Option<&str>) -> Result<Self> {
        let fault = |fault: String| Error::data(path, printable(&fault));
        let checkpoint = Checkpoint::open(bytes).map_err(fault)?;
        if checkpoint.is_none()
            && let Some(what) = foreign(bytes)
        {
            return Err(Error::data(path, what));
        }
        let (format, (key, tensors)) = match (&checkpoint, key) {
            (Some(checkpoint), key) => (checkpoint.format, checkpoint.state_dict(key).map_err(fault)?),
            (None, None) => (Format::Safetensors, (None, from_bytes(bytes, path)?.tensors)),
            (None, Some(_)) => return Err(Error::data(path, "safetensors nest nothing: leave out `--key`")),
        };
        match tensors.keys().find(|name| name.len() > NAME || name.contains(char::is_control)) {
            Some(name) => {
                let begin: String = name.chars().take(100).collect();
                Err(fault(format!("`{begin}` is no name of a tensor")))
            }
            None => Ok(StateDict { tensors, format, key, path: path.to_owned() }),
        }
    }

    /// Takes `prefix` from the names that begin with it: `module` or `module.`, which `DataParallel` puts before every name.
    ///
    /// # Errors
    /// If no name does, two become one, or one becomes none.
    pub fn strip(&mut self, prefix: &str) -> Result<()> {
        // A module's name is meant with its dot: what merely begins alike (`module_list`) is another module.
        let dot = if prefix.ends_with(char::is_alphanumeric) { "." } else { "" };
        let what = format!("--strip {prefix}");
        self.rewrite(&what, prefix, |name| name.strip_prefix(prefix)?.strip_prefix(dot).map(str::to_owned))
    }

    /// Renames `from`, a whole name or the modules that it begins with: `linear` to `fc` makes `linear.weight` to
    /// `fc.weight`.
    ///
    /// # Errors
    /// If there is none, two become one, or one becomes none.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.rewrite(&format!("--rename {from}={to}"), from, |name| {
            let rest = name.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| format!("{to}{rest}"))
        })
    }

    fn rewrite(&mut self, what: &str, part: &str, new: impl Fn(&str) -> Option<String>) -> Result<()> {
        if !self.tensors.keys().any(|name| new(name).is_some()) {
            let near = nearest(part, self.tensors.keys().map(String::as_str));
            let shown: Vec<String> = near
                .into_iter()
                .chain(self.tensors.keys().map(String::as_str))
                .take(1)
                .map(|n| format!(", such as `{n}`"))
                .collect();
            return Err(Error::data(&self.path, format!("`{what}` fits none of its names{}", shown.concat())));
        }
        let mut renamed = IndexMap::with_capacity(self.tensors.len());
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            let old = name;
            let name = new(&old).unwrap_or_else(|| old.clone());
            if name.is_empty() || name.starts_with('.') {
                return Err(Error::data(&self.path, format!("`{what}` makes `{old}` to `{name}`, which is no name")));
            }
            if renamed.contains_key(&name) {
                return Err(Error::data(&self.path, format!("`{what}` makes two names `{name}`")));
            }
            renamed.insert(name, tensor);
        }
        self.tensors = renamed;
        Ok(())
    }

    /// Sorts by the places of `names`, other names last; BatchNorm's counters follow the variance of their layer, as in
    /// PyTorch's state dicts.
    pub fn sort_like(&mut self, names: &[String]) {
        self.tensors.sort_by_cached_key(|name, _| {
            let variance = name.strip_suffix(COUNTER).map(|module| format!("{module}running_var"));
            let place = names.iter().position(|known| known == variance.as_ref().unwrap_or(name));
            (place.unwrap_or(names.len()), variance.is_some())
        });
    }

    /// Writes a file that `torch.load(weights_only=True)` reads: an ordered dictionary of tensors, in this order.
    ///
    /// # Errors
    /// If a tensor is of a kind that PyTorch's checkpoints do not have, the tensors are beyond 4 GiB, or the file
    /// cannot be written.
    pub fn write_torch(&self, path: &Path) -> Result<()> {
        write_atomically(path, &torch::write(&self.tensors).map_err(|fault| Error::data(path, fault))?)
    }

    /// Writes a safetensors file.
    ///
    /// # Errors
    /// If a tensor is of a kind that the format does not have, or the file cannot be written.
    pub fn write_safetensors(&self, path: &Path) -> Result<()> {
        let tensors: Vec<(String, Tensor)> =
            self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        save(path, &tensors, None)
    }

    /// Copies the tensors into variables, in place; BatchNorm's counters are passed over.
    ///
    /// # Errors
    /// If they are not the variables' by name and shape: all differences are named, and nothing is copied.
    pub fn copy_into(&self, variables: &[(String, Tensor)]) -> Result<()> {
        let read = self.tensors.iter().filter(|(name, _)| name.rsplit('.').next() != Some(COUNTER));
        let tensors = read.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        copy_into(variables, &tensors, &self.path)
    }
}
