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

    fn refusal(bytes: &[u8]) -> String {
        read(bytes).map(|_| ()).unwrap_err()
    }

    #[test]
    fn nothing_is_executed_and_nothing_overflows() {
        for (bytes, expected) in [
            (&b"\x80\x02cos\nsystem\nU\x02ls\x85R."[..], "2: os.system is no part of an array of bytes: refused"),
            (b"\x80\x02}", "3: it ends there: 1 bytes are wanted and 0 are left"),
            (b"U\xffabc", "0: it ends there: 255 bytes are wanted and 3 are left"),
            (b"T\xff\xff\xff\xffabc", "0: it ends there: 4294967295 bytes are wanted and 3 are left"),
            (b".", "0: it takes a value where there is none"),
            (b"t", "0: a group ends that has not begun"),
            (b"h\x07.", "0: it recalls value 7, which it never had"),
            (b"\xff", "0: 0xff is no instruction that an archive of data needs"),
            (b"I1\n.", "0: the instruction 'I' is of protocol 0, which such archives do not use"),
            (b"NQ.", "1: it refers to something outside, where such archives have nothing"),
            (b"cnumpy\ndtype\nU\x02f4\x85R.", "18: an array of f4, expected u1: unsigned bytes"),
            (b"cnumpy\nndarray\n)R.", "16: ndarray with other arguments than an array of bytes has"),
        ] {
            assert_eq!(refusal(bytes), format!("its pickle cannot be read at byte {expected}"));
        }
        assert_eq!(refusal(b"N.xx"), "2 bytes behind the end of the pickle");
        let deep: Vec<u8> = std::iter::once(b'N').chain(std::iter::repeat_n(0x85, 1 << 20)).collect();
        assert!(refusal(&deep).ends_with(": it holds more than 1048576 values, which no such archive has"));
        // Nested as deeply as that allows: read, and dropped, without recursion.
        let deep: Vec<u8> = [b"N".to_vec(), vec![0x85; 1 << 19], b".".to_vec()].concat();
        assert!(read(&deep).unwrap().array("data").is_none());
    }

    #[test]
    fn an_array_has_the_bytes_that_its_shape_says() {
        fn array(state: &[u8]) -> Vec<u8> {
            let made = b"}U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\x01btR";
            [&made[..], state, b"bs."].concat()
        }

        fn plain(rows: u8, bytes: &[u8]) -> Vec<u8> {
            let begin = [b'(', b'K', 1, b'K', rows, b'K', 2, 0x86];
            let bytes = [&[b'U', bytes.len() as u8], bytes].concat();
            [&begin[..], b"cnumpy\ndtype\nU\x02u1\x85R\x89", &bytes, b"t"].concat()
        }

        // Bytes that are a text, and bytes that are none.
        for bytes in [b"abcdef", b"\xff\xfe\0\0\0\0"] {
            let file = array(&plain(3, bytes));
            let dictionary = read(&file).unwrap();
            let found = dictionary.array("data").unwrap();
            assert_eq!((found.rows, found.columns, found.bytes), (3, 2, &bytes[..]));
        }
        assert!(refusal(&array(&plain(4, b"abcdef"))).ends_with(": an array of 4 × 2 with 6 bytes"));
        assert!(refusal(&array(b"N")).ends_with(": a state of another form than an array of bytes has"));
    }

    #[test]
    fn random_bytes_give_an_error() {
        let mut rng = limbeck::seed::Seed::new(4).rng();
        const ALPHABET: &[u8] = b"\x80\x02}]()tua.sebqrhjKMJUTXNcR\x85\x86\x87\x88\n";
        for _ in 0..20_000 {
            let length = rng.below(40);
            let bytes: Vec<u8> = (0..length).map(|_| ALPHABET[rng.below(ALPHABET.len() as u64) as usize]).collect();
            // Whatever comes of it, it comes back.
            let _ = read(&bytes).map(|dictionary| dictionary.list("x").len());
        }
    }
}
