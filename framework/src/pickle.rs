//! Reads Python's pickles, as far as checkpoints and archives of data need them, and executes nothing.
//!
//! A pickle is a program for a stack machine that may name any function of any module and call it. This machine builds
//! plain values and plain containers, and asks a table ([`Names`]) what it does not know itself: every name that neither
//! has is refused. The instructions are those of protocols 1 to 5 that need no text parsed (the module `pickletools` of
//! Python's library documents each).
//!
//! A hostile file cannot do more than be refused: values are numbers of an arena, so that cycles and depth need no
//! recursion, neither to read nor to drop; texts are slices of the file; and the number of values is bounded, whatever
//! lengths the file claims.
//!
//! What is wrong with a pickle is a fragment of a message: who reads a file says which.

use std::collections::HashMap;

/// How many values a pickle may push, remember and put into containers, all together. A tensor takes about thirty.
const VALUES: usize = 1 << 20;

// The names that every pickle may use.
const ORDERED_DICT: &str = "OrderedDict";
const SET: &str = "set";

/// A value: small, and a number where it is anything with content.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// An integer of more than 64 bits: little-endian two's complement.
    Long(&'a [u8]),
    /// A floating-point number.
    Float(f64),
    /// A text. Bytes that are UTF-8 are one too: Python 2 does not tell them apart.
    Text(&'a str),
    /// Bytes that are no text.
    Bytes(&'a [u8]),
    /// A class or a function, by the name that [`Names::find`] gave it.
    Known(&'static str),
    /// An entry of [`Arena::nodes`].
    Node(usize),
    /// What a call or a reference made, by the number that [`Names`] gave it.
    Object(usize),
}

/// A container. Lists and dictionaries may hold themselves.
#[derive(Debug)]
pub enum Node<'a> {
    /// A tuple.
    Tuple(Vec<Value<'a>>),
    /// A list or a set.
    List(Vec<Value<'a>>),
    /// A dictionary of either sort, in order, a key perhaps more than once: the last one counts.
    Dict(Vec<(Value<'a>, Value<'a>)>),
}

/// The containers of a pickle.
#[derive(Debug, Default)]
pub struct Arena<'a> {
    /// By their numbers.
    pub nodes: Vec<Node<'a>>,
    /// How many values there are so far.
    spent: usize,
    /// [`Names::SIZE`]
    size: &'static str,
}

impl<'a> Arena<'a> {
    /// The container that a value is.
    pub fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(index) => self.nodes.get(index),
            _ => None,
        }
    }

    /// The items of a tuple.
    pub fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn list(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dictionary.
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// Accounts for `count` more values: whoever keeps something for a call or a reference does.
    ///
    /// # Errors
    /// If there are more than any such file has.
    pub fn charge(&mut self, count: usize) -> Result<(), String> {
        self.spent = self.spent.saturating_add(count);
        if self.spent > VALUES { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> String {
        format!("it holds more than {VALUES} values, {}", self.size)
    }
}

/// What a pickle may name beyond plain containers, and what becomes of it.
pub trait Names<'a> {
    /// What such files are, for messages: "a checkpoint".
    const FILE: &'static str;
    /// What to say of protocol 0, which these files do not use.
    const PROTOCOL_0: &'static str;
    /// What to say of a file with too many values.
    const SIZE: &'static str;

    /// The class or function of that name.
    ///
    /// # Errors
    /// If it is not known: it is refused.
    fn find(&self, module: &str, name: &str) -> Result<&'static str, String>;

    /// What calling a known name with a tuple of arguments gives.
    ///
    /// # Errors
    /// If the arguments are not as they should be.
    fn call(&mut self, name: &'static str, arguments: Value<'a>, arena: &mut Arena<'a>) -> Result<Value<'a>, String>;

    /// Gives an object its state.
    ///
    /// # Errors
    /// If it has none, or another.
    fn set_state(&mut self, object: usize, state: Value<'a>, arena: &Arena<'a>) -> Result<(), String>;

    /// What lies outside the pickle under `id`.
    ///
    /// # Errors
    /// If these files have nothing outside, or not that.
    fn refer(&mut self, id: Value<'a>, arena: &mut Arena<'a>) -> Result<Value<'a>, String>;
}

/// What a pickle says.
#[derive(Debug)]
pub struct Pickle<'a, T> {
    /// The whole.
    pub root: Value<'a>,
    /// Its containers.
    pub arena: Arena<'a>,
    /// The table, with what calls and references made.
    pub names: T,
    /// Where it ends in the bytes.
    pub end: usize,
}

/// Reads the pickle that begins at `start`.
///
/// # Errors
/// If it is cut off, malformed or too large, or asks for anything that is neither plain nor known to `names`.
pub fn read<'a, T: Names<'a>>(bytes: &'a [u8], start: usize, names: T) -> Result<Pickle<'a, T>, String> {
    let arena = Arena { size: T::SIZE, ..Arena::default() };
    let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { bytes, at: start, stack, marks, memo, arena, names };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                let Machine { arena, names, at: end, .. } = machine;
                return Ok(Pickle { root, arena, names, end });
            }
            Err(fault) => return Err(format!("its pickle cannot be read at byte {at}: {fault}")),
        }
    }
}

struct Machine<'a, T> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// The heights of the stack at which groups begin.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    arena: Arena<'a>,
    names: T,
}

impl<'a, T: Names<'a>> Machine<'a, T> {
    /// Carries out one instruction; the last one gives the result.
    fn step(&mut self) -> Result<Option<Value<'a>>, String> {
        let [instruction] = self.array()?;
        match instruction {
            b'.' => return self.pop().map(Some),
            0x80 => self.protocol()?,
            0x95 => _ = self.array::<8>()?, // FRAME: a hint for readers of streams
            b'(' => {
                self.arena.charge(1)?;
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
                let key = u32::try_from(self.memo.len()).map_err(|_| self.arena.too_large())?;
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
            b'Q' => self.refer()?,
            b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' | b'P' => {
                return Err(format!(
                    "the instruction {:?} is of protocol 0, which {}",
                    char::from(instruction),
                    T::PROTOCOL_0
                ));
            }
            b'i' | b'o' | 0x81 | 0x92 => {
                return Err(format!("the instruction {instruction:#04x} makes objects of a class, which is refused"));
            }
            0x82..=0x84 => return Err("it asks for an extension of Python's, which is refused".to_owned()),
            other => return Err(format!("{other:#04x} is no instruction that {} needs", T::FILE)),
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..length) else {
            return Err(format!("it ends there: {length} bytes are wanted and {} are left", rest.len()));
        };
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, String> {
        let mut array = [0; 8];
        array[..N].copy_from_slice(self.take(N)?);
        usize::try_from(u64::from_le_bytes(array)).map_err(|_| "a length is beyond all memory".to_owned())
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err("it ends within a name".to_owned());
        };
        let line = self.take(length)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn protocol(&mut self) -> Result<(), String> {
        match self.array()? {
            [0..=5] => Ok(()),
            [other] => Err(format!("protocol {other} is not known; this reads 1 to 5")),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        self.arena.charge(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node<'a>) -> Result<(), String> {
        self.push(Value::Node(self.arena.nodes.len()))?;
        self.arena.nodes.push(node);
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.length::<N>()?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a text is not UTF-8")?;
        self.push(Value::Text(text))
    }

    /// Bytes; the texts of Python 2 come as bytes too.
    fn byte_string<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.length::<N>()?;
        let bytes = self.take(length)?;
        self.push(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text))
    }

    /// The height below which the current group may not reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value<'a>, String> {
        self.stack[self.floor()..].last().copied().ok_or_else(underflow)
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Takes the last `count` values.
    fn last(&mut self, count: usize) -> Result<Vec<Value<'a>>, String> {
        if self.stack.len() - self.floor() < count {
            return Err(underflow());
        }
        Ok(self.stack.drain(self.stack.len() - count..).collect())
    }

    /// Takes the values above the last mark, and the mark.
    fn group(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().ok_or_else(|| "a group ends that has not begun".to_owned())?;
        // Not `split_off`, which may hand over the stack's whole capacity.
        Ok(self.stack.drain(mark..).collect())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        self.arena.charge(1)?;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let value = *self.memo.get(&key).ok_or_else(|| format!("it recalls value {key}, which it never had"))?;
        self.push(value)
    }

    fn top_node(&mut self) -> Result<&mut Node<'a>, String> {
        match self.top()? {
            Value::Node(index) => self.arena.nodes.get_mut(index).ok_or_else(underflow),
            _ => Err("it puts something into a value that is no container".to_owned()),
        }
    }

    fn extend(&mut self, items: Vec<Value<'a>>) -> Result<(), String> {
        match self.top_node()? {
            Node::List(list) => list.extend(items),
            _ => return Err("it appends to what is no list".to_owned()),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Value<'a>]) -> Result<(), String> {
        let items = pairs(items)?;
        match self.top_node()? {
            Node::Dict(dict) => dict.extend(items),
            _ => return Err("it sets an entry of what is no dictionary".to_owned()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = match (module, name) {
            ("collections", "OrderedDict") => ORDERED_DICT,
            ("builtins" | "__builtin__", "set" | "frozenset") => SET,
            _ => self.names.find(module, name)?,
        };
        self.push(Value::Known(known))
    }

    fn call(&mut self) -> Result<(), String> {
        let [called, arguments] = self.last(2)?[..] else { return Err(underflow()) };
        let Value::Known(known) = called else { return Err("it calls what is no function".to_owned()) };
        let Some(items) = self.arena.tuple(arguments) else { return Err("it calls without arguments".to_owned()) };
        match (known, items) {
            (ORDERED_DICT, []) => self.push_node(Node::Dict(Vec::new())),
            (ORDERED_DICT, &[items]) => self.ordered_dict(items),
            (SET, []) => self.push_node(Node::List(Vec::new())),
            // The content is already there, in a list that serves as well.
            (SET, &[content @ Value::Node(_)]) => self.push(content),
            (ORDERED_DICT | SET, _) => Err(format!("{known} is called with arguments that it does not take")),
            _ => {
                let made = self.names.call(known, arguments, &mut self.arena)?;
                self.push(made)
            }
        }
    }

    /// Python 2 gives an ordered dictionary its items as a list of lists of two.
    fn ordered_dict(&mut self, items: Value<'a>) -> Result<(), String> {
        let mut dict = Vec::new();
        for item in self.items(items)? {
            let &[key, value] = self.items(*item)? else { return Err(no_pairs()) };
            dict.push((key, value));
        }
        self.arena.charge(dict.len())?;
        self.push_node(Node::Dict(dict))
    }

    /// The items of a list or a tuple, of which an ordered dictionary is made.
    fn items(&self, value: Value<'a>) -> Result<&[Value<'a>], String> {
        match self.arena.node(value) {
            Some(Node::List(items) | Node::Tuple(items)) => Ok(items),
            _ => Err(no_pairs()),
        }
    }

    /// Attributes: those of a state dict are versions of modules, which nothing here reads.
    fn set_attributes(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        if let Value::Object(object) = self.top()? {
            return self.names.set_state(object, state, &self.arena);
        }
        match self.top_node()? {
            Node::Dict(_) => Ok(()),
            _ => Err("it sets attributes of what is no dictionary".to_owned()),
        }
    }

    fn refer(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let outside = self.names.refer(id, &mut self.arena)?;
        self.push(outside)
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

fn pairs<'a>(items: &[Value<'a>]) -> Result<Vec<(Value<'a>, Value<'a>)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a dictionary's key has no value".to_owned())
    }
}

fn underflow() -> String {
    "it takes a value where there is none".to_owned()
}

fn no_pairs() -> String {
    "an ordered dictionary is made of what are no pairs".to_owned()
}
