//! What PyTorch's pickles name: storages, and tensors as parts of them.

use indexmap::IndexMap;
use tch::Kind;

use crate::pickle::{Arena, Names, Value};

/// How many dimensions a tensor may have: libtorch's own bound.
const RANK: usize = 64;

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

// The functions that make something, by what messages call them.
const SIZE: &str = "Size";
const TENSOR: &str = "RebuildTensor";
const TENSOR_V2: &str = "RebuildTensorV2";
const PARAMETER: &str = "RebuildParameter";

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
    /// An entry of [`Tensors::storages`].
    pub storage: usize,
    pub offset: i64,
    pub size: Vec<i64>,
    pub stride: Vec<i64>,
}

/// What a pickle refers to, or makes.
#[derive(Debug)]
enum Object {
    /// An entry of [`Tensors::storages`].
    Storage(usize),
    Tensor(View),
}

/// The table of PyTorch's names, with the storages and tensors that were found.
#[derive(Debug, Default)]
pub(super) struct Tensors<'a> {
    /// By the key under which the file has the elements.
    pub storages: IndexMap<&'a str, Storage>,
    objects: Vec<Object>,
}

impl<'a> Names<'a> for Tensors<'a> {
    const FILE: &'static str = "a checkpoint";
    const PROTOCOL_0: &'static str = "`torch.save` does not use; save it again there";
    const SIZE: &'static str = "where a state dict has some thirty for each tensor; save that alone";

    fn find(&self, module: &str, name: &str) -> Result<&'static str, String> {
        let known = match (module, name) {
            ("torch", "Size") => Some(SIZE),
            ("torch._utils", "_rebuild_tensor") => Some(TENSOR),
            ("torch._utils", "_rebuild_tensor_v2") => Some(TENSOR_V2),
            ("torch._utils", "_rebuild_parameter") => Some(PARAMETER),
            ("torch", class) => STORAGES.iter().map(|(known, _)| *known).find(|known| *known == class),
            _ => None,
        };
        known.ok_or_else(|| refusal(module, name))
    }

    fn call(&mut self, name: &'static str, arguments: Value<'a>, arena: &mut Arena<'a>) -> Result<Value<'a>, String> {
        match (name, arena.tuple(arguments).unwrap_or_default()) {
            // The content is already there, in a tuple that serves as well.
            (SIZE, &[content @ Value::Node(_)]) => Ok(content),
            (TENSOR, &[storage, offset, size, stride]) | (TENSOR_V2, &[storage, offset, size, stride, _, _]) => {
                self.tensor(storage, offset, size, stride, arena)
            }
            (TENSOR_V2, &[storage, offset, size, stride, _, _, metadata]) => {
                let is_plain = metadata == Value::None || arena.dict(metadata).is_some_and(<[_]>::is_empty);
                if !is_plain {
                    return Err("a tensor is conjugated or negated in passing; save it after `.resolve_conj()` and \
                                `.resolve_neg()`"
                        .to_owned());
                }
                self.tensor(storage, offset, size, stride, arena)
            }
            (PARAMETER, &[tensor, _, _]) if self.view(tensor).is_some() => Ok(tensor),
            _ => Err(format!("{name} is called with arguments that PyTorch does not give it")),
        }
    }

    fn set_state(&mut self, _object: usize, _state: Value<'a>, _arena: &Arena<'a>) -> Result<(), String> {
        Err("it sets attributes of what is no dictionary".to_owned())
    }

    /// `("storage", class, key, location, elements[, view])`: where it was does not matter, it is read into memory.
    fn refer(&mut self, id: Value<'a>, arena: &mut Arena<'a>) -> Result<Value<'a>, String> {
        const UNKNOWN: &str = "it refers to something outside that is no storage of a known class";
        let fields = arena.tuple(id).unwrap_or_default();
        let &[Value::Text("storage"), Value::Known(class), key, _, Value::Int(len), ref view @ ..] = fields else {
            return Err(UNKNOWN.to_owned());
        };
        let Some((_, kind)) = STORAGES.into_iter().find(|(known, _)| *known == class) else {
            return Err(UNKNOWN.to_owned());
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
        Ok(self.add(Object::Storage(index)))
    }
}

impl<'a> Tensors<'a> {
    fn add(&mut self, object: Object) -> Value<'a> {
        self.objects.push(object);
        Value::Object(self.objects.len() - 1)
    }

    /// The tensor that a value is.
    pub fn view(&self, value: Value<'a>) -> Option<&View> {
        match value {
            Value::Object(index) => match self.objects.get(index)? {
                Object::Tensor(view) => Some(view),
                Object::Storage(_) => None,
            },
            _ => None,
        }
    }

    fn tensor(
        &mut self,
        storage: Value<'a>,
        offset: Value<'a>,
        size: Value<'a>,
        stride: Value<'a>,
        arena: &mut Arena<'a>,
    ) -> Result<Value<'a>, String> {
        let Value::Object(object) = storage else { return Err("a tensor is made of what is no storage".to_owned()) };
        let Some(Object::Storage(storage)) = self.objects.get(object) else {
            return Err("a tensor is made of what is no storage".to_owned());
        };
        let Value::Int(offset) = offset else { return Err("a tensor's offset is no integer".to_owned()) };
        let (Some(size), Some(stride)) = (integers(size, arena), integers(stride, arena)) else {
            return Err(format!("a tensor's shape or strides are no integers, or more than {RANK}"));
        };
        let len = self.storages.get_index(*storage).map_or(0, |(_, storage)| storage.len);
        let view = View { storage: *storage, offset, size, stride };
        if !view.lies_within(len) {
            let View { size, stride, .. } = view;
            return Err(format!(
                "a tensor of shape {size:?} with strides {stride:?} at {offset} does not lie in its storage of {len} \
                 elements"
            ));
        }
        arena.charge(2 * view.size.len())?;
        Ok(self.add(Object::Tensor(view)))
    }
}

/// The items of a tuple of integers.
fn integers(value: Value<'_>, arena: &Arena<'_>) -> Option<Vec<i64>> {
    let mut integers = Vec::new();
    for item in arena.tuple(value).filter(|items| items.len() <= RANK)? {
        let Value::Int(n) = item else { return None };
        integers.push(*n);
    }
    Some(integers)
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

fn refusal(module: &str, name: &str) -> String {
    let full: String = format!("{module}.{name}").chars().take(100).collect();
    format!(
        "it asks for `{full}`, and nothing but tensors and plain containers is taken from a pickle, since it could run \
         any code; if you trust the file, save its state dict alone: `state = torch.load(SRC, weights_only=False)`, \
         then `torch.save(state[KEY], DST)`, or `state.state_dict()` of a whole network"
    )
}
