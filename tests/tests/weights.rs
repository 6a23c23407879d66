//! Checkpoints of PyTorch in and out: every value, every refusal, and thousands of damaged files.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use limbeck::seed::Seed;
use limbeck::weights::{Format, StateDict};
use tch::{Device, Kind, Tensor};

/// Remembers the largest allocation of each thread.
struct Counting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // Gone at the thread's end, where nothing is measured.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/weights").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

/// Name, kind, shape and values of each tensor, as PyTorch had them.
fn expected() -> Vec<(String, String, Vec<i64>, Vec<f64>)> {
    serde_json::from_slice(&bytes("expected.json")).unwrap()
}

fn compare(state: &StateDict, prefix: &str) {
    let expected = expected();
    let names: Vec<String> = expected.iter().map(|(name, ..)| format!("{prefix}{name}")).collect();
    assert_eq!(state.tensors.keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    for ((name, kind, shape, values), tensor) in expected.iter().zip(state.tensors.values()) {
        assert_eq!((&format!("{:?}", tensor.kind()), &tensor.size()), (kind, shape), "{name}");
        let found = Vec::<f64>::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap();
        assert_eq!(&found, values, "{name}");
    }
}

fn parse(bytes: &[u8], key: Option<&str>) -> Result<StateDict, String> {
    StateDict::parse(bytes, Path::new("w.pth"), key).map_err(|error| error.to_string())
}

fn refusal(bytes: &[u8]) -> String {
    parse(bytes, None).unwrap_err()
}

#[test]
fn both_formats_give_every_value() {
    for (name, format) in [
        ("zip.pth", Format::TorchZip),
        ("zip64.pth", Format::TorchZip),
        ("legacy.pth", Format::TorchLegacy),
        ("protocol4.pth", Format::TorchZip),
    ] {
        let state = StateDict::read(&fixture(name), None).unwrap();
        assert_eq!((state.format, &state.key), (format, &None), "{name}");
        compare(&state, "");
    }
    for name in ["checkpoint.pth", "checkpoint-legacy.pth"] {
        for key in [None, Some("model")] {
            let mut state = StateDict::read(&fixture(name), key).unwrap();
            assert_eq!(state.key.as_deref(), Some("model"), "{name}");
            compare(&state, "module.");
            state.strip("module.").unwrap();
            compare(&state, "");
        }
    }
}

const REFUSED: &str = ", and nothing but tensors and plain containers is taken from a pickle, since it could run any code; if \
     you trust the file, save its state dict alone: `state = torch.load(SRC, weights_only=False)`, then \
     `torch.save(state[KEY], DST)`, or `state.state_dict()` of a whole network";

#[test]
fn what_is_no_state_dict_is_refused_with_what_there_is() {
    for (name, expected) in [
        (
            "two.pth",
            "it holds more than one state dict: name one with `--key` (`limbeck weights import` keeps it alone); there \
             are `model`, `ema`",
        ),
        ("namespace.pth", &format!("its pickle cannot be read at byte 187: it asks for `argparse.Namespace`{REFUSED}")),
        (
            "network.pth",
            &format!("its pickle cannot be read at byte 2: it asks for `torch.nn.modules.linear.Linear`{REFUSED}"),
        ),
        (
            "torchscript.pt",
            "it is a TorchScript program: one of the models in `limbeck plugins list --kind model` runs it as a teacher; for its \
             weights alone, `torch.save(torch.jit.load(SRC).state_dict(), DST)`",
        ),
    ] {
        assert_eq!(refusal(&bytes(name)), format!("w.pth: {expected}"));
    }
    let there = "it holds `epoch` (an integer), `model` (a state dict), `best_acc` (a tensor), `history` (a list), \
                 `optimizer` (a dictionary)";
    for (key, expected) in [
        ("modle", format!("there is no `modle`; {there}")),
        ("best_acc", "`best_acc` is no state dict: it is a tensor".to_owned()),
        ("optimizer", "`optimizer` is no state dict: its `state` is a dictionary".to_owned()),
        ("optimizer.state", "`optimizer.state` is no state dict: it has an integer for a name".to_owned()),
        ("epoch.x", "there is no `epoch.x`: `x` is looked for in an integer".to_owned()),
    ] {
        assert_eq!(parse(&bytes("checkpoint.pth"), Some(key)).unwrap_err(), format!("w.pth: {expected}"));
    }
    let state = parse(&bytes("two.pth"), Some("ema")).unwrap();
    assert_eq!((state.key.as_deref(), state.tensors.len()), (Some("ema"), 1));
}

fn said(result: limbeck::error::Result<()>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn names_are_made_a_networks() {
    let mut state = parse(&bytes("zip.pth"), None).unwrap();
    state.rename("tied", "pair").unwrap();
    state.rename("scalar", "kind.scale").unwrap();
    assert!(state.tensors.contains_key("pair.a") && state.tensors.contains_key("pair.b"));
    assert_eq!(state.tensors["kind.scale"].double_value(&[]), -1.5);
    assert_eq!(said(state.strip("con")), "w.pth: `--strip con` fits none of its names, such as `conv.weight`");
    assert_eq!(said(state.strip("modul.")), "w.pth: `--strip modul.` fits none of its names, such as `conv.weight`");
    assert_eq!(
        said(state.rename("conv.weigt", "x")),
        "w.pth: `--rename conv.weigt=x` fits none of its names, such as `conv.weight`"
    );
    assert_eq!(said(state.rename("pair.a", "pair.b")), "w.pth: `--rename pair.a=pair.b` makes two names `pair.b`");

    let mut state = parse(&bytes("zip.pth"), None).unwrap();
    state.strip("kind").unwrap();
    assert!(state.tensors.contains_key("Half") && state.tensors.contains_key("conv.weight"));
    for (prefix, message) in [
        ("conv.weight.", "w.pth: `--strip conv.weight.` fits none of its names"),
        ("conv_", "w.pth: `--strip conv_` fits none of its names"),
    ] {
        assert!(said(state.strip(prefix)).starts_with(message));
    }
    let dot = "w.pth: `--rename conv=.c` makes `conv.weight` to `.c.weight`, which is no name";
    assert_eq!(said(state.rename("conv", ".c")), dot);

    let mut state = parse(&bytes("zip.pth"), None).unwrap();
    let order = ["kind.Half", "bn.running_var", "conv.bias"].map(str::to_owned);
    state.sort_like(&order);
    let first: Vec<&String> = state.tensors.keys().take(5).collect();
    assert_eq!(first, ["kind.Half", "bn.running_var", "bn.num_batches_tracked", "conv.bias", "conv.weight"]);
}

#[test]
fn what_is_written_is_what_pytorch_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.pth");
    let state = StateDict::read(&fixture("legacy.pth"), None).unwrap();
    state.write_torch(&path).unwrap();
    compare(&StateDict::read(&path, None).unwrap(), "");
    // Byte for byte the file that `make.py check` has read.
    assert!(
        fs::read(&path).unwrap() == bytes("export.pth"),
        "the writer has changed: have PyTorch read its file again"
    );

    let path = folder.path().join("export.safetensors");
    state.write_safetensors(&path).unwrap();
    let mut state = StateDict::read(&path, None).unwrap();
    assert_eq!(state.format, Format::Safetensors);
    state.sort_like(&expected().into_iter().map(|(name, ..)| name).collect::<Vec<_>>());
    compare(&state, "");
    let message = StateDict::read(&path, Some("model")).unwrap_err().to_string();
    assert_eq!(message, format!("{}: safetensors nest nothing: leave out `--key`", path.display()));

    let mut state = state;
    state.tensors.insert("complex".to_owned(), Tensor::zeros([1], (Kind::ComplexFloat, Device::Cpu)));
    let message = state.write_torch(Path::new("c.pth")).unwrap_err().to_string();
    assert_eq!(message, "c.pth: `complex` is of kind ComplexFloat, which has no storage class");
}

// Files made by hand, in the format of before 1.6: it has no checksums, so that the pickle is what is judged.

const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const LITTLE: &[u8] = b"\x80\x02}X\x0d\0\0\0little_endian\x88s.";

fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

/// A file with this pickle, and the elements of storages behind it.
fn legacy(pickle: &[u8], storages: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let mut file = [MAGIC, b"\x80\x02M\xe9\x03.", LITTLE, b"\x80\x02", pickle, b"\x80\x02]("].concat();
    storages.iter().for_each(|(key, ..)| file.extend(text(key)));
    file.extend(b"e.");
    storages.iter().for_each(|(_, count, bytes)| file.extend([&count.to_le_bytes()[..], *bytes].concat()));
    file
}

/// A tuple of integers.
fn tuple(numbers: &[i64]) -> Vec<u8> {
    let items = numbers.iter().flat_map(|n| [&[0x8a, 8][..], &n.to_le_bytes()].concat());
    [b'('].into_iter().chain(items).chain([b't']).collect()
}

/// A storage's reference.
fn storage(class: &str, key: &str, len: i64) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n").into_bytes();
    let len = [&[0x8a, 8][..], &len.to_le_bytes()].concat();
    [b"(".to_vec(), text("storage"), class, text(key), text("cpu"), len, b"tQ".to_vec()].concat()
}

/// The pickle of `{"w": tensor}`.
fn tensor(storage: &[u8], offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    let offset = [&[0x8a, 8][..], &offset.to_le_bytes()].concat();
    let call = b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
    let rest = b"\x89}tRs.".to_vec();
    [b"}".to_vec(), text("w"), call, storage.to_vec(), offset, tuple(size), tuple(stride), rest].concat()
}

fn asks(name: &str) -> String {
    format!("it asks for `{name}`{REFUSED}")
}

#[test]
fn pickles_made_with_malice_or_mistakes_are_refused_by_what_is_wrong() {
    let deep = [vec![b']'; 300_000], vec![b'a'; 299_999], b".".to_vec()].concat();
    let doubling = [&b")"[..], &b"q\0h\0\x86".repeat(60), b"."].concat();
    let many = b"N0".repeat((1 << 20) + 1);
    let remembered = [b"N".to_vec(), b"\x94".repeat(1 << 20)].concat();
    let too_many =
        "it holds more than 1048576 values, where a state dict has some thirty for each tensor; save that alone";
    let cases: &[(&[u8], &str)] = &[
        (b"cposix\nsystem\nX\x04\0\0\0echo\x85R.", &asks("posix.system")),
        (b"\x8c\x08builtins\x8c\x04eval\x93.", &asks("builtins.eval")),
        (b"ctorch\nload\n.", &asks("torch.load")),
        (b"ctorch._utils\n_rebuild_tensor_v3\n.", &asks("torch._utils._rebuild_tensor_v3")),
        (b"c\x1b[2J\nx\n.", &asks("\\u{1b}[2J.x")),
        (b"(iposix\nsystem\n.", "the instruction 0x69 makes objects of a class, which is refused"),
        (b"ccollections\nOrderedDict\n)\x81.", "the instruction 0x81 makes objects of a class, which is refused"),
        (b"\x82\x01.", "it asks for an extension of Python's, which is refused"),
        (b"I1\n.", "the instruction 'I' is of protocol 0, which `torch.save` does not use; save it again there"),
        (b"\xff", "0xff is no instruction that a checkpoint needs"),
        (b"\x80\x06.", "protocol 6 is not known; this reads 1 to 5"),
        (b".", "it takes a value where there is none"),
        (b"N(0.", "it takes a value where there is none"),
        (b"Nt.", "a group ends that has not begun"),
        (b"h\x07.", "it recalls value 7, which it never had"),
        (b"NNa.", "it puts something into a value that is no container"),
        (b"}Na.", "it appends to what is no list"),
        (b"]NNs.", "it sets an entry of what is no dictionary"),
        (b"}(Nu.", "a dictionary's key has no value"),
        (b"]}b.", "it sets attributes of what is no dictionary"),
        (b"NNR.", "it calls what is no function"),
        (b"ctorch\nSize\nNR.", "it calls without arguments"),
        (b"ctorch\nSize\nN\x85R.", "Size is called with arguments that PyTorch does not give it"),
        (b"NN\x93.", "it names a class by something that is no text"),
        (b"ccollections\nOrderedDict\n]N\x85a\x85R.", "an ordered dictionary is made of what are no pairs"),
        (b"ccollections\nOrderedDict\n]Na\x85R.", "an ordered dictionary is made of what are no pairs"),
        (b"NQ.", "it refers to something outside that is no storage of a known class"),
        (b"X\xff\xff\xff\x7fabc.", "it ends there: 2147483647 bytes are wanted and "),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "it ends there: 18446744073709551615 bytes are wanted and "),
        (b"X\x02\0\0\0\xff\xff.", "a text is not UTF-8"),
        (&many, too_many),
        (&remembered, too_many),
    ];
    for (pickle, expected) in cases {
        let said = refusal(&legacy(pickle, &[]));
        assert!(said.contains(": its pickle cannot be read at byte "), "{said}");
        assert!(said.contains(&format!(": {expected}")), "{said}\nnot: {expected}");
    }
    for (pickle, expected) in [
        (&b"]q\0h\0a."[..], "it holds a list where a state dict is expected"),
        (b"}q\0X\x01\0\0\0ah\0s.", "it holds no dictionary of tensors alone; it holds `a` (a dictionary)"),
        (b"}.", "it holds no dictionary of tensors alone; it holds nothing"),
        (b"}K\x01Ns.", "it holds no dictionary of tensors alone; it holds nothing under an integer"),
        (&deep, "it holds a list where a state dict is expected"),
        (&doubling, "it holds a tuple where a state dict is expected"),
    ] {
        assert_eq!(refusal(&legacy(pickle, &[])), format!("w.pth: {expected}"));
    }
}

#[test]
fn a_state_dict_is_found_where_it_lies() {
    let inner = tensor(&storage("FloatStorage", "0", 1), 0, &[1], &[1]);
    let inner = &inner[..inner.len() - 1];
    // {"net": {"model": {"w": tensor}}, "epoch": None}
    let one = [&b"}"[..], &text("net"), b"}", &text("model"), inner, b"ss", &text("epoch"), b"Ns."].concat();
    let state = parse(&legacy(&one, &[("0", 1, &[0; 4])]), None).unwrap();
    assert_eq!((state.key.as_deref(), state.tensors.len()), (Some("net.model"), 1));
    let state = parse(&legacy(&one, &[("0", 1, &[0; 4])]), Some("net.model")).unwrap();
    assert_eq!(state.key.as_deref(), Some("net.model"));
    // The same under a second name.
    let two = [&b"}"[..], &text("net"), b"}", &text("model"), inner, b"q\0s", &text("ema"), b"h\0ss."].concat();
    assert_eq!(
        refusal(&legacy(&two, &[("0", 1, &[0; 4])])),
        "w.pth: it holds more than one state dict: name one with `--key` (`limbeck weights import` keeps it alone); there are \
         `net.model`, `net.ema`"
    );
}

fn neither(what: &str) -> String {
    format!("neither a PyTorch checkpoint nor safetensors{what}")
}

#[test]
fn what_is_no_file_of_weights_is_refused_by_what_it_looks_like() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    for (file, expected) in [
        (&b""[..], "it is empty".to_owned()),
        (b"\n<!DOCTYPE html><html>", neither(": it looks like a web page; download the file itself")),
        (b"\x1f\x8b\x08\0\0\0\0\0\0", neither(": it looks like gzip; unpack it")),
        (
            b"\x80\x04\x95\x02\0\0\0\0\0\0\0}.",
            neither(
                ": it looks like a pickle that `torch.save` did not write; load it in Python and `torch.save` its state dict",
            ),
        ),
        (
            &tar,
            neither(
                ": it looks like a tar archive, as the first releases of PyTorch wrote; load it there and `torch.save` it again",
            ),
        ),
        (b"no weights at all", neither("")),
        (b"short", "cut short: 5 bytes are there, fewer than a safetensors file begins with".to_owned()),
    ] {
        assert_eq!(refusal(file), format!("w.pth: {expected}"));
    }
}

/// Reads a pickle over one storage of four zeros in float32.
fn over_four_zeros(pickle: &[u8]) -> Result<StateDict, String> {
    parse(&legacy(pickle, &[("0", 4, &[0; 16])]), None)
}

#[test]
fn tensors_lie_within_their_storages() {
    let float = storage("FloatStorage", "0", 4);
    assert_eq!(over_four_zeros(&tensor(&float, 1, &[3], &[1])).unwrap().tensors["w"].size(), [3]);
    assert_eq!(
        over_four_zeros(&tensor(&float, 4, &[0, i64::MAX], &[1, 1])).unwrap().tensors["w"].size(),
        [0, i64::MAX]
    );
    let huge = i64::MAX;
    for (offset, size, stride) in [
        (2, vec![3], vec![1]),
        (-1, vec![1], vec![1]),
        (0, vec![2], vec![-1]),
        (0, vec![-2], vec![1]),
        (0, vec![2, 2], vec![1]),
        (5, vec![0], vec![1]),
        (0, vec![huge; 3], vec![huge; 3]),
        (huge, vec![2], vec![huge]),
    ] {
        let said = over_four_zeros(&tensor(&float, offset, &size, &stride)).unwrap_err();
        let expected = format!(
            "a tensor of shape {size:?} with strides {stride:?} at {offset} does not lie in its storage of 4 elements"
        );
        assert!(said.ends_with(&expected), "{said}");
    }
    let said = over_four_zeros(&tensor(&float, 0, &[1; 65], &[1; 65])).unwrap_err();
    assert!(said.ends_with("a tensor's shape or strides are no integers, or more than 64"), "{said}");
    // One element, repeated beyond all memory: nothing is laid out before it is refused.
    for (size, bytes) in [(vec![1 << 40], "4398046511104"), (vec![huge, huge], "18446744073709551615")] {
        let stride = vec![0; size.len()];
        let said = over_four_zeros(&tensor(&float, 0, &size, &stride)).unwrap_err();
        let expected = format!("w.pth: its tensors are {bytes} bytes in a file of ");
        assert!(
            said.starts_with(&expected) && said.ends_with("repeat the same elements; save them after `.clone()`"),
            "{said}"
        );
    }
}

/// A file with a tensor of that name.
fn named(name: &str) -> Vec<u8> {
    let mut pickle = tensor(&storage("FloatStorage", "0", 1), 0, &[1], &[1]);
    pickle.splice(1..4, [&b"X"[..], &(name.len() as u32).to_le_bytes(), name.as_bytes()].concat());
    legacy(&pickle, &[("0", 1, &[0; 4])])
}

#[test]
fn words_of_a_file_do_not_reach_the_terminal_as_they_are() {
    assert_eq!(parse(&named("größe.日本"), None).unwrap().tensors.len(), 1);
    assert_eq!(refusal(&named("a\x1b[2J")), "w.pth: `a\\u{1b}[2J` is no name of a tensor");
    assert_eq!(refusal(&named(&"ö".repeat(501))), format!("w.pth: `{}` is no name of a tensor", "ö".repeat(100)));
    let key = legacy(&[b"}X\xa0\x86\x01\0".to_vec(), vec![b'k'; 100_000], b"Ns.".to_vec()].concat(), &[]);
    assert_eq!(refusal(&key).len(), "w.pth: ".len() + 2000);
}

/// The pickle of a tensor that is the first element of a storage.
fn first_of(class: &str, len: i64) -> Vec<u8> {
    tensor(&storage(class, "0", len), 0, &[1], &[1])
}

#[test]
fn storages_have_what_they_claim() {
    let float = first_of("FloatStorage", 2);
    let twice = [&storage("FloatStorage", "0", 2)[..], &storage("FloatStorage", "0", 3), b"\x86."].concat();
    let view = {
        let mut view = storage("FloatStorage", "0", 2);
        view.truncate(view.len() - 2);
        [&view[..], b")tQ."].concat()
    };
    for (file, expected) in [
        (legacy(&float, &[]), "the elements of storage `0` are missing"),
        (legacy(&float, &[("1", 0, b"")]), "storage `1` belongs to no tensor"),
        (legacy(&float, &[("0", 3, &[0; 12])]), "storage `0` has 3 elements, not 2"),
        (legacy(&float, &[("0", 2, &[0; 7])]), "it is cut off within storage `0`"),
        (
            legacy(&first_of("FloatStorage", i64::MAX), &[("0", i64::MAX as u64, b"")]),
            "a storage of 9223372036854775807 elements is beyond all memory",
        ),
        (legacy(&first_of("FloatStorage", 1 << 50), &[("0", 1 << 50, b"")]), "it is cut off within storage `0`"),
        (legacy(&first_of("FloatStorage", -1), &[]), "storage `0` has -1 elements"),
        (legacy(&first_of("BoolStorage", 2), &[("0", 2, &[1, 2])]), "`w`: a truth value is neither 0 nor 1"),
        (
            legacy(&first_of("ComplexFloatStorage", 2), &[]),
            &format!("it asks for `torch.ComplexFloatStorage`{REFUSED}"),
        ),
        (legacy(&twice, &[]), "storage `0` is described in two ways"),
        (
            legacy(&view, &[]),
            "a storage is a part of another, as PyTorch before 0.4 wrote it; save it again with a later one",
        ),
        (
            [MAGIC, b"\x80\x02M\xe8\x03.", LITTLE, b"N.N."].concat(),
            "it is of no known version of the format of before 1.6",
        ),
        (
            [MAGIC, b"\x80\x02M\xe9\x03.}.N.N."].concat(),
            "it was written on a machine with the most significant byte first; save it again on another",
        ),
        ([MAGIC, b"\x80\x02M\xe9\x03.", LITTLE, b"N.N."].concat(), "the list of its storages is missing"),
    ] {
        let said = refusal(&file);
        assert!(said.ends_with(expected), "{said}\nnot: {expected}");
    }
}

/// Replaces the first `from` at or behind `start`.
fn replace(bytes: &mut [u8], start: usize, from: &[u8], to: &[u8]) -> usize {
    let at = start + bytes[start..].windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    at
}

#[test]
fn archives_that_contradict_themselves_are_refused() {
    let whole = bytes("unchecked.pth");
    let directory = whole.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let end = whole.len() - 22;
    // The directory's entry of a name begins 46 bytes before it.
    let [object, zeroth, first] = ["unchecked/data.pkl", "unchecked/data/0", "unchecked/data/1"].map(|name| {
        let name = name.as_bytes();
        directory + whole[directory..].windows(name.len()).position(|window| window == name).unwrap() - 46
    });
    type Lie<'a> = (usize, &'a [u8], &'a str);
    let cases: &[Lie<'_>] = &[
        (zeroth + 20, &[0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f], "the archive is cut off"),
        (zeroth + 20, &[0xff; 8], "the archive is cut off"),
        (zeroth + 20, &[47, 0, 0, 0, 47, 0, 0, 0], "storage `0` has 47 bytes, not 48"),
        (
            zeroth + 10,
            &[8],
            "`unchecked/data/0` in the archive is compressed, which `torch.save` does not do: unpack it and pack it with `zip -0`",
        ),
        (zeroth + 8, &[1], "`unchecked/data/0` in the archive is encrypted"),
        (zeroth + 42, &[0xf0], "`unchecked/data/0` is not where the archive's directory has it"),
        (zeroth + 42, &[0xff, 0xff, 0xff, 0x7f], "the archive is cut off"),
        (
            first + 42,
            &whole[zeroth + 42..zeroth + 46],
            "entries of the archive share bytes, which none that was written honestly do",
        ),
        (first + 46, b"unchecked/data/0", "the archive has `unchecked/data/0` twice"),
        (first + 46, b"unchecked/data/9", "the elements of storage `1` are missing"),
        (first + 46, &[0xff], "a name in the archive is not UTF-8"),
        (zeroth, b"PK\x01\x09", "the archive's directory is damaged"),
        (object + 56, b"dota", "the archive has no single `NAME/data.pkl`, hence `torch.save` did not write it"),
        // The record of 64 bits before the end, which PyTorch writes always: entries, and where they are listed.
        (end - 44, &[0xff; 2], "the archive's directory is damaged"),
        (end - 44, &[0xff; 8], "the archive's directory is damaged"),
        (end - 36, &[0xff; 8], "the archive's directory is damaged"),
        (end - 28, &[0xff; 3], "the archive's directory is damaged"),
        (end - 76, b"PK\x06\x09", "the archive's directory is damaged"),
        (end + 20, &[1], "the archive is cut off"),
        (end - 20, b"PK\x06\x07\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "the archive's directory is damaged"),
    ];
    for (at, lie, expected) in cases {
        let mut file = whole.clone();
        file[*at..at + lie.len()].copy_from_slice(lie);
        let said = parse(&file, None).map(|state| state.tensors.len());
        assert_eq!(said, Err(format!("w.pth: {expected}")), "{at} {lie:?}");
    }
    // An archive without that record.
    let whole = bytes("export.pth");
    for field in [10, 12, 16] {
        let mut file = whole.clone();
        let at = file.len() - 22 + field;
        file[at..at + 2].fill(0xff);
        assert_eq!(refusal(&file), "w.pth: the archive's directory is damaged");
    }
    let mut file = bytes("unchecked.pth");
    replace(&mut file, 0, b"little", b"bigend");
    assert!(refusal(&file).ends_with("most significant byte first; save it again on another"));
}

/// Reads the file as far as it goes, within an allocation of its own size and what little everything takes.
fn bounded(file: &[u8]) -> Result<StateDict, String> {
    LARGEST.set(0);
    let state = parse(file, None);
    let largest = LARGEST.get();
    assert!(largest <= 8192 + 8 * file.len(), "{largest} bytes at once for a file of {}", file.len());
    if let Ok(state) = &state {
        state.tensors.values().for_each(|tensor| _ = tensor.contiguous());
    }
    state
}

#[test]
fn every_cut_and_flipped_byte_is_an_error_or_changes_no_value() {
    let whole = bytes("zip.pth");
    let mut harmless = 0;
    for i in 0..whole.len() {
        assert!(bounded(&whole[..i]).is_err(), "cut at {i}");
        let mut flipped = whole.clone();
        flipped[i] ^= 0x11;
        if let Ok(state) = bounded(&flipped) {
            compare(&state, "");
            harmless += 1;
        }
    }
    // Padding, dates, and local headers, which the directory repeats.
    assert!(harmless > 1000 && harmless < whole.len() - 2000, "{harmless} of {}", whole.len());
}

#[test]
fn thousands_of_mutations_end_in_an_error_or_in_tensors() {
    const EACH: u64 = 4000;
    let mut outcomes = [0, 0];
    for (number, name) in ["unchecked.pth", "legacy.pth", "checkpoint-legacy.pth"].into_iter().enumerate() {
        let seed = bytes(name);
        for i in 0..EACH {
            let mut rng = Seed::new(number as u64).stream("mutation").at(i).rng();
            let mut file = seed.clone();
            for _ in 0..=rng.below(4) {
                let [at, other, what, value] =
                    [file.len(), file.len(), 7, 256].map(|length| rng.below(length.max(1) as u64) as usize);
                let span = at..(at + other % 9).min(file.len());
                match what {
                    0 => file.truncate(at),
                    1 => _ = file.drain(span),
                    2 => file.insert(at, value as u8),
                    3 => file[span].fill([0, 0xff, 0x7f, 0x80][value % 4]),
                    4 => {
                        let copy = file[span].to_vec();
                        file.splice(other..other, copy);
                    }
                    5 if !file.is_empty() => file[at] = b"\x80().0tq\x85lbRQesu]}h\x8aXN"[value % 21],
                    _ if !file.is_empty() => file[at] ^= 1 << (value % 8),
                    _ => {}
                }
            }
            outcomes[usize::from(bounded(&file).is_ok())] += 1;
        }
    }
    // Neither is rare, or the mutations would test little.
    assert!(outcomes.iter().all(|count| *count > 500), "{outcomes:?}");
}
