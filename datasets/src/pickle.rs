//! The Python archives of the CIFAR data sets: pickles of a dictionary with an array of bytes, numbers and names.
//!
//! The framework's pickle machine reads them, with a table of the three names of numpy that make an array of bytes. Any
//! other name is refused. Nothing is allocated that the file does not fill.

use limbeck::pickle::{self, Arena, Names, Value};

/// A numpy array of unsigned bytes with two dimensions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Array<'a> {
    pub rows: usize,
    pub columns: usize,
    /// Column by column, in place of row by row.
    pub fortran: bool,
    pub bytes: &'a [u8],
}

/// The dictionary of an archive's file.
pub(crate) struct Dictionary<'a>(pickle::Pickle<'a, Arrays<'a>>);

/// Reads the dictionary that `bytes` describe; else what is wrong, and at which byte.
pub(crate) fn read(bytes: &[u8]) -> Result<Dictionary<'_>, String> {
    let pickle = pickle::read(bytes, 0, Arrays::default())?;
    match bytes.len() - pickle.end {
        0 => Ok(Dictionary(pickle)),
        behind => Err(format!("{behind} bytes behind the end of the pickle")),
    }
}

impl<'a> Dictionary<'a> {
    fn get(&self, key: &str) -> Option<Value<'a>> {
        let entries = self.0.arena.dict(self.0.root)?;
        entries.iter().rev().find(|(name, _)| *name == Value::Text(key)).map(|(_, value)| *value)
    }

    /// The array under a key.
    pub fn array(&self, key: &str) -> Option<&Array<'a>> {
        match self.get(key)? {
            Value::Object(object) => self.0.names.arrays.get(object)?.as_ref(),
            _ => None,
        }
    }

    /// The items of the list under a key; none if there is no list.
    pub fn list(&self, key: &str) -> &[Value<'a>] {
        self.get(key).and_then(|value| self.0.arena.list(value)).unwrap_or_default()
    }
}

// The names of numpy.
const RECONSTRUCT: &str = "reconstruct";
const ARRAY: &str = "ndarray";
const TYPE: &str = "dtype";

/// The table of numpy's names, with the arrays that were found.
#[derive(Debug, Default)]
struct Arrays<'a> {
    /// What was made; none is the type of elements, unsigned bytes.
    arrays: Vec<Option<Array<'a>>>,
}

impl<'a> Names<'a> for Arrays<'a> {
    const FILE: &'static str = "an archive of data";
    const PROTOCOL_0: &'static str = "such archives do not use";
    const SIZE: &'static str = "which no such archive has";

    fn find(&self, module: &str, name: &str) -> Result<&'static str, String> {
        match (module, name) {
            ("numpy.core.multiarray", "_reconstruct") => Ok(RECONSTRUCT),
            ("numpy", "ndarray") => Ok(ARRAY),
            ("numpy", "dtype") => Ok(TYPE),
            _ => Err(format!("{module}.{name} is no part of an array of bytes: refused")),
        }
    }

    fn call(&mut self, name: &'static str, arguments: Value<'a>, arena: &mut Arena<'a>) -> Result<Value<'a>, String> {
        self.arrays.push(match (name, arena.tuple(arguments).unwrap_or_default()) {
            (RECONSTRUCT, [Value::Known(ARRAY), ..]) => Some(Array::default()),
            (TYPE, [Value::Text("u1"), ..]) => None,
            (TYPE, [Value::Text(other), ..]) => {
                return Err(format!("an array of {other}, expected u1: unsigned bytes"));
            }
            _ => return Err(format!("{name} with other arguments than an array of bytes has")),
        });
        Ok(Value::Object(self.arrays.len() - 1))
    }

    fn set_state(&mut self, object: usize, state: Value<'a>, arena: &Arena<'a>) -> Result<(), String> {
        // The type's: its byte order.
        let Some(Some(array)) = self.arrays.get_mut(object) else { return Ok(()) };
        let Some(&[_, shape, Value::Object(_), Value::Bool(fortran), bytes]) = arena.tuple(state) else {
            return Err("a state of another form than an array of bytes has".to_owned());
        };
        let bytes = match bytes {
            Value::Bytes(bytes) => bytes,
            Value::Text(text) => text.as_bytes(),
            _ => return Err("a state of another form than an array of bytes has".to_owned()),
        };
        let shape = arena.tuple(shape).unwrap_or_default();
        let [Value::Int(rows), Value::Int(columns)] = shape else {
            return Err(format!("an array with {} dimensions, expected 2", shape.len()));
        };
        let (rows, columns) = (*rows as usize, *columns as usize);
        if rows.checked_mul(columns) != Some(bytes.len()) {
            return Err(format!("an array of {rows} × {columns} with {} bytes", bytes.len()));
        }
        *array = Array { rows, columns, fortran, bytes };
        Ok(())
    }

    fn refer(&mut self, _id: Value<'a>, _arena: &mut Arena<'a>) -> Result<Value<'a>, String> {
        Err("it refers to something outside, where such archives have nothing".to_owned())
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
