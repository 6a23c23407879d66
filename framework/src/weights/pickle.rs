//! Reads Python's pickles as far as PyTorch's checkpoints need them, and executes nothing.
//!
//! A pickle is a program for a stack machine that may name any function of any module and call it. This machine knows
//! the few names that tensors and plain containers are made of ([`Known`]); they build plain values here, and every
//! other name is refused. The instructions are those of protocols 1 to 5 that need no text parsed (the module
//! `pickletools` of Python's library documents each), which is what `torch.save` writes.
//!
//! A hostile file cannot do more than be refused: values are numbers of an arena, so that cycles and depth need no
//! recursion, neither to read nor to drop; texts are slices of the file; and the number of values is bounded, whatever
//! lengths the file claims.

use std::collections::HashMap;

use indexmap::IndexMap;
use tch::Kind;

/// How many values a pickle may push, remember and put into containers, all together. A tensor takes about thirty.
const VALUES: usize = 1 << 20;
/// How many dimensions a tensor may have: libtorch's own bound.
const RANK: usize = 64;

/// What is wrong with a pickle, as a fragment of a message.
pub(super) type Reason = String;

/// A value: small, and a number where it is anything with content.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: little-endian two's complement.
    Long(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Known(Known),
    /// An entry of [`Pickle::nodes`].
    Node(usize),
}

/// What has content. Lists and dictionaries may hold themselves.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Tuple(Vec<Value<'a>>),
    /// A list or a set.
    List(Vec<Value<'a>>),
    /// A dictionary of either sort, in order, a key perhaps more than once: the last one counts.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// An entry of [`Pickle::storages`].
    Storage(usize),
    Tensor(View),
}

/// The names that a pickle may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    OrderedDict,
    Set,
    Size,
    /// A storage's class, with the kind of its elements.
    Storage(Kind),
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
}

impl Known {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Known::OrderedDict,
            ("builtins" | "__builtin__", "set" | "frozenset") => Known::Set,
            ("torch", "Size") => Known::Size,
            ("torch._utils", "_rebuild_tensor") => Known::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v2") => Known::RebuildTensorV2,
            ("torch._utils", "_rebuild_parameter") => Known::RebuildParameter,
            ("torch", class) => Known::Storage(STORAGES.iter().find(|(known, _)| *known == class)?.1),
            _ => return None,
        })
    }
}

/// PyTorch's storage classes.
pub(super) const STORAGES: [(&str, Kind); 10] = [
    ("FloatStorage", Kind::Float),
    ("DoubleStorage", Kind::Double),
    ("HalfStorage", Kind::Half),
    ("BFloat16Storage", Kind::BFloat16),
    ("LongStorage", Kind::Int64),
    ("IntStorage", Kind::Int),
    ("ShortStorage", Kind::Int16),
    ("CharStorage", Kind::Int8),
    ("ByteStorage", Kind::Uint8),
    ("BoolStorage", Kind::Bool),
];

/// Elements that stand elsewhere in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub kind: Kind,
    /// How many elements.
    pub len: usize,
}

/// A tensor: a part of a storage. It has been checked that the part lies within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// An entry of [`Pickle::storages`].
    pub storage: usize,
    pub offset: i64,
    pub size: Vec<i64>,
    pub stride: Vec<i64>,
}

/// What a pickle says.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub root: Value<'a>,
    pub nodes: Vec<Node<'a>>,
    /// By the key under which the file has the elements.
    pub storages: IndexMap<&'a str, Storage>,
    /// Where it ends in the bytes.
    pub end: usize,
}

impl<'a> Pickle<'a> {
    pub fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(index) => self.nodes.get(index),
            _ => None,
        }
    }
}

/// Reads the pickle that begins at `start`.
///
/// # Errors
/// If it is cut off, malformed or too large, or asks for anything that is neither a tensor nor a plain value.
pub(super) fn read(bytes: &[u8], start: usize) -> Result<Pickle<'_>, Reason> {
    let mut machine = Machine { bytes, at: start, ..Machine::default() };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                let Machine { nodes, storages, at: end, .. } = machine;
                return Ok(Pickle { root, nodes, storages, end });
            }
            Err(fault) => return Err(format!("its pickle cannot be read at byte {at}: {fault}")),
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// The heights of the stack at which groups begin.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    nodes: Vec<Node<'a>>,
    storages: IndexMap<&'a str, Storage>,
    spent: usize,
}

impl<'a> Machine<'a> {
    /// Carries out one instruction; the last one gives the result.
    fn step(&mut self) -> Result<Option<Value<'a>>, Reason> {
        let [instruction] = self.array()?;
        match instruction {
            b'.' => return self.pop().map(Some),
            0x80 => self.protocol()?,
            0x95 => _ = self.array::<8>()?, // FRAME: a hint for readers of streams
            b'(' => {
                self.charge(1)?;
                self.marks.push(self.stack.len());
            }
            b'0' => _ = self.pop()?,
            b'1' => _ = self.group()?,
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = u8::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a | 0x8b => {
                let length = if instruction == 0x8a { self.length::<1>()? } else { self.length::<4>()? };
                let value = self.take(length)?;
                self.push(integer(value))?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value))?;
            }
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'T' | b'B' => self.byte_string::<4>()?,
            b'U' | b'C' => self.byte_string::<1>()?,
            0x8e | 0x96 => self.byte_string::<8>()?,
            b')' => self.push_node(Node::Tuple(Vec::new()))?,
            b'\x85'..=b'\x87' => {
                let items = self.last(usize::from(instruction - 0x84))?;
                self.push_node(Node::Tuple(items))?;
            }
            b't' => {
                let items = self.group()?;
                self.push_node(Node::Tuple(items))?;
            }
            b']' | 0x8f => self.push_node(Node::List(Vec::new()))?,
            b'l' | 0x91 => {
                let items = self.group()?;
                self.push_node(Node::List(items))?;
            }
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.group()?;
                self.push_node(Node::Dict(pairs(&items)?))?;
            }
            b'a' => {
                let items = self.last(1)?;
                self.extend(items)?;
            }
            b'e' | 0x90 => {
                let items = self.group()?;
                self.extend(items)?;
            }
            b's' => {
                let items = self.last(2)?;
                self.insert(&items)?;
            }
            b'u' => {
                let items = self.group()?;
                self.insert(&items)?;
            }
            b'q' => {
                let key = u8::from_le_bytes(self.array()?).into();
                self.remember(key)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| too_large())?;
                self.remember(key)?;
            }
            b'h' => {
                let key = u8::from_le_bytes(self.array()?).into();
                self.recall(key)?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => match self.last(2)?[..] {
                [Value::Text(module), Value::Text(name)] => self.global(module, name)?,
                _ => return Err("it names a class by something that is no text".to_owned()),
            },
            b'R' => self.call()?,
            b'b' => self.set_attributes()?,
            b'Q' => self.storage()?,
            b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' | b'P' => {
                return Err(format!(
                    "the instruction {:?} is of protocol 0, which `torch.save` does not use; save it again there",
                    char::from(instruction)
                ));
            }
            b'i' | b'o' | 0x81 | 0x92 => {
                return Err(format!("the instruction {instruction:#04x} makes objects of a class, which is refused"));
            }
            0x82..=0x84 => return Err("it asks for an extension of Python's, which is refused".to_owned()),
            other => return Err(format!("{other:#04x} is no instruction that a checkpoint needs")),
        }
        Ok(None)
    }

    /// Accounts for `count` more values.
    fn charge(&mut self, count: usize) -> Result<(), Reason> {
        self.spent = self.spent.saturating_add(count);
        if self.spent > VALUES { Err(too_large()) } else { Ok(()) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Reason> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..length) else {
            return Err(format!("it ends there: {length} bytes are wanted and {} are left", rest.len()));
        };
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, Reason> {
        let mut array = [0; 8];
        array[..N].copy_from_slice(self.take(N)?);
        usize::try_from(u64::from_le_bytes(array)).map_err(|_| "a length is beyond all memory".to_owned())
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> Result<&'a str, Reason> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err("it ends within a name".to_owned());
        };
        let line = self.take(length)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn protocol(&mut self) -> Result<(), Reason> {
        match self.array()? {
            [0..=5] => Ok(()),
            [other] => Err(format!("protocol {other} is not known; this reads 1 to 5")),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Reason> {
        self.charge(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node<'a>) -> Result<(), Reason> {
        self.push(Value::Node(self.nodes.len()))?;
        self.nodes.push(node);
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> Result<(), Reason> {
        let length = self.length::<N>()?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a text is not UTF-8")?;
        self.push(Value::Text(text))
    }

    /// Bytes; the texts of Python 2 come as bytes too.
    fn byte_string<const N: usize>(&mut self) -> Result<(), Reason> {
        let length = self.length::<N>()?;
        let bytes = self.take(length)?;
        self.push(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text))
    }

    /// The height below which the current group may not reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value<'a>, Reason> {
        self.stack[self.floor()..].last().copied().ok_or_else(underflow)
    }

    fn pop(&mut self) -> Result<Value<'a>, Reason> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Takes the last `count` values.
    fn last(&mut self, count: usize) -> Result<Vec<Value<'a>>, Reason> {
        if self.stack.len() - self.floor() < count {
            return Err(underflow());
        }
        Ok(self.stack.drain(self.stack.len() - count..).collect())
    }

    /// Takes the values above the last mark, and the mark.
    fn group(&mut self) -> Result<Vec<Value<'a>>, Reason> {
        let mark = self.marks.pop().ok_or_else(|| "a group ends that has not begun".to_owned())?;
        // Not `split_off`, which may hand over the stack's whole capacity.
        Ok(self.stack.drain(mark..).collect())
    }

    fn remember(&mut self, key: u32) -> Result<(), Reason> {
        self.charge(1)?;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Reason> {
        let value = *self.memo.get(&key).ok_or_else(|| format!("it recalls value {key}, which it never had"))?;
        self.push(value)
    }

    fn top_node(&mut self) -> Result<&mut Node<'a>, Reason> {
        match self.top()? {
            Value::Node(index) => self.nodes.get_mut(index).ok_or_else(underflow),
            _ => Err("it puts something into a value that is no container".to_owned()),
        }
    }

    fn extend(&mut self, items: Vec<Value<'a>>) -> Result<(), Reason> {
        match self.top_node()? {
            Node::List(list) => list.extend(items),
            _ => return Err("it appends to what is no list".to_owned()),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Value<'a>]) -> Result<(), Reason> {
        let items = pairs(items)?;
        match self.top_node()? {
            Node::Dict(dict) => dict.extend(items),
            _ => return Err("it sets an entry of what is no dictionary".to_owned()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Reason> {
        let known = Known::find(module, name).ok_or_else(|| refusal(module, name))?;
        self.push(Value::Known(known))
    }

    /// The items of a tuple.
    fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Node(index) => match self.nodes.get(index)? {
                Node::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// Calls one of the known names: a plain value is built.
    fn call(&mut self) -> Result<(), Reason> {
        let [called, arguments] = self.last(2)?[..] else { return Err(underflow()) };
        let Value::Known(known) = called else { return Err("it calls what is no function".to_owned()) };
        let Some(arguments) = self.tuple(arguments) else { return Err("it calls without arguments".to_owned()) };
        match (known, arguments) {
            (Known::OrderedDict | Known::Set, []) => {
                let node = if known == Known::Set { Node::List(Vec::new()) } else { Node::Dict(Vec::new()) };
                self.push_node(node)
            }
            (Known::OrderedDict, &[items]) => self.ordered_dict(items),
            // The content is already there, in a container that serves as well.
            (Known::Set | Known::Size, &[content @ Value::Node(_)]) => self.push(content),
            (Known::RebuildTensor, &[storage, offset, size, stride]) => self.tensor(storage, offset, size, stride),
            (Known::RebuildTensorV2, &[storage, offset, size, stride, _, _]) => {
                self.tensor(storage, offset, size, stride)
            }
            (Known::RebuildTensorV2, &[storage, offset, size, stride, _, _, metadata]) => {
                let plain = match metadata {
                    Value::None => true,
                    Value::Node(index) => matches!(self.nodes.get(index), Some(Node::Dict(dict)) if dict.is_empty()),
                    _ => false,
                };
                if !plain {
                    return Err("a tensor is conjugated or negated in passing; save it after `.resolve_conj()` and \
                                `.resolve_neg()`"
                        .to_owned());
                }
                self.tensor(storage, offset, size, stride)
            }
            (Known::RebuildParameter, &[tensor @ Value::Node(index), _, _])
                if matches!(self.nodes.get(index), Some(Node::Tensor(_))) =>
            {
                self.push(tensor)
            }
            _ => Err(format!("{known:?} is called with arguments that PyTorch does not give it")),
        }
    }

    /// Python 2 gives an ordered dictionary its items as a list of lists of two.
    fn ordered_dict(&mut self, items: Value<'a>) -> Result<(), Reason> {
        let list = |value: &Value<'a>| match value {
            Value::Node(index) => match self.nodes.get(*index) {
                Some(Node::List(items) | Node::Tuple(items)) => Some(items),
                _ => None,
            },
            _ => None,
        };
        let pair = |item: &Value<'a>| match list(item)?[..] {
            [key, value] => Some((key, value)),
            _ => None,
        };
        let dict: Option<Vec<_>> = list(&items).and_then(|items| items.iter().map(pair).collect());
        let dict = dict.ok_or_else(|| "an ordered dictionary is made of what are no pairs".to_owned())?;
        self.charge(dict.len())?;
        self.push_node(Node::Dict(dict))
    }

    /// Attributes: those of a state dict are versions of modules, which nothing here reads.
    fn set_attributes(&mut self) -> Result<(), Reason> {
        self.pop()?;
        match self.top_node()? {
            Node::Dict(_) => Ok(()),
            _ => Err("it sets attributes of what is no dictionary".to_owned()),
        }
    }

    /// `("storage", class, key, location, elements[, view])`: where it was does not matter, it is read into memory.
    fn storage(&mut self) -> Result<(), Reason> {
        let id = self.pop()?;
        let fields = self.tuple(id).unwrap_or_default();
        let &[Value::Text("storage"), Value::Known(Known::Storage(kind)), key, _, Value::Int(len), ref view @ ..] =
            fields
        else {
            return Err("it refers to something outside that is no storage of a known class".to_owned());
        };
        if !matches!(view, [] | [Value::None]) {
            return Err(
                "a storage is a part of another, as PyTorch before 0.4 wrote it; save it again with a later one"
                    .to_owned(),
            );
        }
        let Value::Text(key) = key else { return Err("a storage's key is no text".to_owned()) };
        let len = usize::try_from(len).map_err(|_| format!("storage `{key}` has {len} elements"))?;
        let storage = Storage { kind, len };
        let entry = self.storages.entry(key);
        let index = entry.index();
        if *entry.or_insert(storage) != storage {
            return Err(format!("storage `{key}` is described in two ways"));
        }
        self.push_node(Node::Storage(index))
    }

    fn tensor(
        &mut self,
        storage: Value<'a>,
        offset: Value<'a>,
        size: Value<'a>,
        stride: Value<'a>,
    ) -> Result<(), Reason> {
        let view = self.view(storage, offset, size, stride)?;
        self.charge(2 * view.size.len())?;
        self.push_node(Node::Tensor(view))
    }

    /// A tensor's place in its storage.
    fn view(&self, storage: Value<'a>, offset: Value<'a>, size: Value<'a>, stride: Value<'a>) -> Result<View, Reason> {
        let Some(Node::Storage(storage)) = (match storage {
            Value::Node(index) => self.nodes.get(index),
            _ => None,
        }) else {
            return Err("a tensor is made of what is no storage".to_owned());
        };
        let Value::Int(offset) = offset else { return Err("a tensor's offset is no integer".to_owned()) };
        let (Some(size), Some(stride)) = (self.integers(size), self.integers(stride)) else {
            return Err(format!("a tensor's shape or strides are no integers, or more than {RANK}"));
        };
        let len = self.storages.get_index(*storage).map_or(0, |(_, storage)| storage.len);
        let view = View { storage: *storage, offset, size, stride };
        if view.lies_within(len) {
            Ok(view)
        } else {
            let View { size, stride, .. } = view;
            Err(format!(
                "a tensor of shape {size:?} with strides {stride:?} at {offset} does not lie in its storage of {len} \
                 elements"
            ))
        }
    }

    fn integers(&self, value: Value<'a>) -> Option<Vec<i64>> {
        let items = self.tuple(value).filter(|items| items.len() <= RANK)?;
        let mut integers = Vec::new();
        for item in items {
            let Value::Int(n) = item else { return None };
            integers.push(*n);
        }
        Some(integers)
    }
}

impl View {
    fn lies_within(&self, len: usize) -> bool {
        let View { offset, size, stride, .. } = self;
        if size.len() != stride.len() || *offset < 0 || size.iter().chain(stride).any(|n| *n < 0) {
            return false;
        }
        let empty = size.contains(&0);
        // The last element's place. 64 products of 126 bits could overflow a sum; saturating is beyond any storage.
        let last = size.iter().zip(stride).fold(i128::from(*offset), |last, (size, stride)| {
            last.saturating_add((i128::from(*size) - 1) * i128::from(*stride))
        });
        if empty { i128::from(*offset) <= len as i128 } else { last < len as i128 }
    }

    /// The number of its elements; the largest number where that overflows.
    pub fn elements(&self) -> u64 {
        if self.size.contains(&0) {
            return 0;
        }
        self.size.iter().fold(1, |product: u64, size| product.saturating_mul(size.unsigned_abs()))
    }
}

fn integer(bytes: &[u8]) -> Value<'_> {
    if bytes.len() > 8 {
        return Value::Long(bytes);
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

fn pairs<'a>(items: &[Value<'a>]) -> Result<Vec<(Value<'a>, Value<'a>)>, Reason> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a dictionary's key has no value".to_owned())
    }
}

fn refusal(module: &str, name: &str) -> Reason {
    let full: String = format!("{module}.{name}").chars().take(100).collect();
    format!(
        "it asks for `{full}`, and nothing but tensors and plain containers is taken from a pickle, since it could run \
         any code; if you trust the file, save its state dict alone: `state = torch.load(SRC, weights_only=False)`, \
         then `torch.save(state[KEY], DST)`, or `state.state_dict()` of a whole network"
    )
}

fn underflow() -> Reason {
    "it takes a value where there is none".to_owned()
}

fn too_large() -> Reason {
    format!("it holds more than {VALUES} values, where a state dict has some thirty for each tensor; save that alone")
}
