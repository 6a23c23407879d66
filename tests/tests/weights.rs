//! Checkpoints of PyTorch in and out: every value, every refusal, and thousands of damaged files.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use limbeck::seed::Seed;
use limbeck::weights::{Format, StateDict};
use tch::{Kind, Tensor};

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
    for (name, format) in
        [("zip.pth", Format::TorchZip), ("legacy.pth", Format::TorchLegacy), ("protocol4.pth", Format::TorchZip)]
    {
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

#[test]
fn print_messages() {
    for name in ["two.pth", "namespace.pth", "network.pth", "torchscript.pt"] {
        println!("{}", refusal(&bytes(name)));
    }
    for key in ["modle", "best_acc", "optimizer", "optimizer.state", "epoch.x"] {
        println!("{}", parse(&bytes("checkpoint.pth"), Some(key)).unwrap_err());
    }
}
