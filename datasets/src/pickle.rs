//! The Python archives of the CIFAR data sets: pickles of a dictionary with an array of bytes, numbers and names.
//!
//! This reads what those files hold and executes nothing: the opcodes that they consist of, and the three names of numpy
//! that make an array of bytes. Any other name is refused. Nothing is allocated that the file does not fill.

use std::collections::HashMap;
use std::rc::Rc;

/// An object of a pickle.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A string.
    Bytes(&'a [u8]),
    List(Rc<Vec<Value<'a>>>),
    Tuple(Rc<Vec<Value<'a>>>),
    Dict(Rc<Vec<(Value<'a>, Value<'a>)>>),
    Array(Array<'a>),
    /// `module.name`, one of those that are known.
    Global(&'static str),
    /// The element type of an array of unsigned bytes.
    ByteType,
}

/// A numpy array of unsigned bytes with two dimensions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Array<'a> {
    pub rows: usize,
    pub columns: usize,
    /// Column by column, in place of row by row.
    pub fortran: bool,
    pub bytes: &'a [u8],
}

impl<'a> Value<'a> {
    /// The entry of a dictionary.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Dict(entries) = self else { return None };
        entries.iter().find(|(k, _)| matches!(k, Value::Bytes(bytes) if *bytes == key.as_bytes())).map(|(_, v)| v)
    }

    /// Whether it contains nothing.
    fn is_plain(&self) -> bool {
        !matches!(self, Value::List(_) | Value::Tuple(_) | Value::Dict(_))
    }

    /// The elements of a list.
    pub fn list(&self) -> Option<&[Value<'a>]> {
        if let Value::List(items) = self { Some(items) } else { None }
    }
}

/// A name that a pickle of byte arrays may use.
const GLOBALS: [(&str, &str); 3] =
    [("numpy.core.multiarray _reconstruct", "reconstruct"), ("numpy ndarray", "ndarray"), ("numpy dtype", "dtype")];

type Parsed<T> = Result<T, String>;

/// The object that `bytes` describe; else what is wrong, and at which byte.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<Value<'_>> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) if machine.at == bytes.len() => return Ok(value),
            Ok(Some(_)) => return Err(format!("{} bytes behind the end of the pickle", bytes.len() - machine.at)),
            Err(what) => return Err(format!("byte {at}: {what}")),
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..count) else {
            return Err(format!("the pickle ends after {} bytes", self.bytes.len()));
        };
        self.at += count;
        Ok(taken)
    }

    /// A little-endian number.
    fn number(&mut self, width: usize) -> Parsed<usize> {
        Ok(self.take(width)?.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    fn line(&mut self) -> Parsed<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("a line without end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a name that is not text".to_owned())
    }

    fn string(&mut self, width: usize) -> Parsed<()> {
        let length = self.number(width)?;
        let bytes = self.take(length)?;
        self.stack.push(Value::Bytes(bytes));
        Ok(())
    }

    fn pop(&mut self) -> Parsed<Value<'a>> {
        self.stack.pop().ok_or_else(|| "an operation without operand".to_owned())
    }

    /// What was pushed since the last mark.
    fn marked(&mut self) -> Parsed<Vec<Value<'a>>> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or("an operation without mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, length: usize) -> Parsed<()> {
        let start = self.stack.len().checked_sub(length).ok_or("an operation without operand")?;
        let items = self.stack.split_off(start);
        self.push_tuple(items)
    }

    /// A tuple may hold tuples of plain values, as the state of an array does. The depth is bounded so that a malicious
    /// file cannot nest until dropping the object overflows the stack.
    fn push_tuple(&mut self, items: Vec<Value<'a>>) -> Parsed<()> {
        let deep = |item: &Value<'_>| match item {
            Value::Tuple(inner) => !inner.iter().all(Value::is_plain),
            other => !other.is_plain(),
        };
        if items.iter().any(deep) {
            return Err("nested more deeply than these files are".to_owned());
        }
        self.stack.push(Value::Tuple(Rc::new(items)));
        Ok(())
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Parsed<()> {
        if !items.iter().all(Value::is_plain) {
            return Err("a list of other things than numbers and strings".to_owned());
        }
        match self.stack.last_mut() {
            Some(Value::List(list)) => Rc::make_mut(list).extend(items),
            _ => return Err("items for what is no list".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Value<'a>>) -> Parsed<()> {
        if items.iter().any(|item| matches!(item, Value::Dict(_))) {
            return Err("a dictionary in a dictionary".to_owned());
        }
        let Some(Value::Dict(entries)) = self.stack.last_mut() else {
            return Err("items for what is no dictionary".to_owned());
        };
        let entries = Rc::make_mut(entries);
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            entries.push((key, value));
        }
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Parsed<()> {
        let value = self.memo.get(&key).cloned().ok_or_else(|| format!("object {key} was not stored"))?;
        self.stack.push(value);
        Ok(())
    }

    /// Objects are stored when they are still empty, and filled later: what is stored of a list or a dictionary is not
    /// what it becomes. These files recall names and strings only, and a recalled container is refused.
    fn store(&mut self, key: usize) -> Parsed<()> {
        match self.stack.last() {
            Some(Value::List(_) | Value::Dict(_)) => _ = self.memo.remove(&key),
            Some(value) => _ = self.memo.insert(key, value.clone()),
            None => return Err("nothing to store".to_owned()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Parsed<()> {
        let full = format!("{module} {name}");
        let known = GLOBALS.iter().find(|(global, _)| *global == full);
        let (_, global) = known.ok_or_else(|| format!("{module}.{name} is no part of an array of bytes: refused"))?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// `function(arguments)`, for the functions that make arrays of bytes.
    fn reduce(&mut self) -> Parsed<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(function)) = (&arguments, &function) else {
            return Err("a call of what is no function".to_owned());
        };
        self.stack.push(match (*function, arguments.as_slice()) {
            ("reconstruct", [Value::Global("ndarray"), ..]) => Value::Array(Array::default()),
            ("dtype", [Value::Bytes(b"u1"), ..]) => Value::ByteType,
            ("dtype", [Value::Bytes(other), ..]) => {
                return Err(format!("an array of {}, expected u1: unsigned bytes", String::from_utf8_lossy(other)));
            }
            (function, _) => return Err(format!("{function} with other arguments than an array of bytes has")),
        });
        Ok(())
    }

    /// Sets the state of an array or an element type.
    fn build(&mut self) -> Parsed<()> {
        let state = self.pop()?;
        let Value::Tuple(state) = &state else { return Err("a state that is no tuple".to_owned()) };
        match (self.stack.last_mut(), state.as_slice()) {
            (Some(Value::ByteType), _) => Ok(()),
            (
                Some(Value::Array(array)),
                [_, Value::Tuple(shape), Value::ByteType, Value::Bool(fortran), Value::Bytes(bytes)],
            ) => {
                let [Value::Int(rows), Value::Int(columns)] = shape.as_slice() else {
                    return Err(format!("an array with {} dimensions, expected 2", shape.len()));
                };
                let (rows, columns) = (*rows as usize, *columns as usize);
                if rows.checked_mul(columns) != Some(bytes.len()) {
                    return Err(format!("an array of {rows} × {columns} with {} bytes", bytes.len()));
                }
                *array = Array { rows, columns, fortran: *fortran, bytes };
                Ok(())
            }
            _ => Err("a state of another form than an array of bytes has".to_owned()),
        }
    }

    /// One opcode; the object when it is complete.
    fn step(&mut self) -> Parsed<Option<Value<'a>>> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return self.pop().map(Some),
            // The protocol: nothing that matters here.
            0x80 => _ = self.take(1)?,
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => {
                let value = self.number(1)? as i64;
                self.stack.push(Value::Int(value));
            }
            b'M' => {
                let value = self.number(2)? as i64;
                self.stack.push(Value::Int(value));
            }
            b'J' => {
                let value = self.number(4)? as u32 as i32;
                self.stack.push(Value::Int(value.into()));
            }
            b'U' => self.string(1)?,
            b'T' | b'X' => self.string(4)?,
            b']' => self.stack.push(Value::List(Rc::default())),
            b'}' => self.stack.push(Value::Dict(Rc::default())),
            b')' => self.tuple(0)?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.marked()?;
                self.push_tuple(items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(items)?;
            }
            b'q' => {
                let key = self.number(1)?;
                self.store(key)?;
            }
            b'r' => {
                let key = self.number(4)?;
                self.store(key)?;
            }
            b'h' => {
                let key = self.number(1)?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.number(4)?;
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            other => return Err(format!("opcode {other:#04x} is no part of these files")),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_executed_and_nothing_overflows() {
        let message = |bytes: &[u8]| parse(bytes).unwrap_err();
        assert_eq!(
            message(b"\x80\x02cos\nsystem\nU\x02ls\x85R."),
            "byte 2: os.system is no part of an array of bytes: refused"
        );
        assert_eq!(message(b"\x80\x02}"), "byte 3: the pickle ends after 3 bytes");
        assert_eq!(message(b"U\xffabc"), "byte 0: the pickle ends after 5 bytes");
        assert_eq!(message(b"T\xff\xff\xff\xffabc"), "byte 0: the pickle ends after 8 bytes");
        assert_eq!(message(b"."), "byte 0: an operation without operand");
        assert_eq!(message(b"t"), "byte 0: an operation without mark");
        assert_eq!(message(b"N.xx"), "2 bytes behind the end of the pickle");
        assert_eq!(message(b"h\x07."), "byte 0: object 7 was not stored");
        assert_eq!(message(b"\xff"), "byte 0: opcode 0xff is no part of these files");
        let deep: Vec<u8> = std::iter::once(b'N').chain(std::iter::repeat_n(0x85, 1 << 20)).collect();
        assert_eq!(message(&deep), "byte 3: nested more deeply than these files are");
        assert_eq!(message(b"]]a."), "byte 2: a list of other things than numbers and strings");
        assert_eq!(message(b"}U\x01a}s."), "byte 5: a dictionary in a dictionary");
        assert_eq!(message(b"cnumpy\ndtype\nU\x02f4\x85R."), "byte 18: an array of f4, expected u1: unsigned bytes");
    }

    #[test]
    fn random_bytes_give_an_error() {
        let mut rng = limbeck::seed::Seed::new(4).rng();
        const ALPHABET: &[u8] = b"\x80\x02}]()tua.sebqrhjKMJUTXNcR\x85\x86\x87\x88\n";
        for _ in 0..20_000 {
            let length = rng.below(40);
            let byte = |_| ALPHABET[rng.below(ALPHABET.len() as u64) as usize];
            let bytes: Vec<u8> = (0..length).map(byte).collect();
            // Whatever comes of it, it comes back.
            let _ = parse(&bytes).map(|value| value.get("x").is_some());
        }
    }
}
