use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use tch::{Device, Kind, Tensor, nn};

use super::safetensors::{from_bytes, read, save, to_bytes};
use super::*;

fn network(seed: i64) -> nn::VarStore {
    tch::manual_seed(seed);
    let store = nn::VarStore::new(Device::Cpu);
    nn::conv2d(store.root() / "conv", 2, 3, 3, Default::default());
    nn::linear(store.root() / "fc", 3, 2, Default::default());
    store
}

#[test]
fn weights_survive_a_file_and_the_same_weights_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let (a, b) = (network(1), network(2));
    save(&path, &variables(&a), Some("note")).unwrap();
    separate(&variables(&b));
    StateDict::read(&path, None).unwrap().copy_into(&variables(&b)).unwrap();
    for ((name, x), (_, y)) in variables(&a).iter().zip(variables(&b)) {
        assert!(x.equal(&y), "{name}");
    }
    assert_eq!(to_bytes(&variables(&b), Some("note")).unwrap(), fs::read(&path).unwrap());
    assert_eq!(read(&path).unwrap().note.as_deref(), Some("note"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn variables_and_files_keep_the_order_of_a_state_dict() {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    nn::conv2d(&root / "z", 2, 3, 3, Default::default());
    nn::batch_norm2d(&root / "y" / 10, 3, Default::default());
    nn::batch_norm2d(&root / "y" / 9, 3, Default::default());
    nn::linear(&root / "a", 3, 2, Default::default());
    let _ = root.zeros_no_train("bank", &[4]);
    let _ = (&root / "z").zeros("extra", &[1]);
    let expected = "z.weight z.bias z.extra y.10.weight y.10.bias y.10.running_mean y.10.running_var y.9.weight \
                    y.9.bias y.9.running_mean y.9.running_var a.weight a.bias bank";
    let names =
        |tensors: &[(String, Tensor)]| tensors.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    assert_eq!(names(&variables(&store)), expected);
    separate(&variables(&store));
    let mut tensors = variables(&store);
    assert_eq!(names(&tensors), expected);
    tensors.insert(1, ("z.steps".to_owned(), Tensor::from(7_i64)));
    tensors.insert(2, ("flag".to_owned(), Tensor::from(true)));
    let bytes = to_bytes(&tensors, None).unwrap();
    let read: Vec<_> = from_bytes(&bytes, Path::new("w")).unwrap().tensors.into_iter().collect();
    assert_eq!(names(&read), format!("z.steps {expected} flag"), "int64 first, bool last, float32 as given");
    for (name, tensor) in &read {
        assert_eq!(tensor, &tensors.iter().find(|(other, _)| other == name).unwrap().1, "{name}");
    }
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(header.is_multiple_of(8), "the tensors begin aligned");
}

#[test]
fn half_precision_is_cast_into_the_networks_own_kind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let a = network(1);
    let half: Vec<_> = variables(&a).into_iter().map(|(n, t)| (n, t.to_kind(Kind::Half))).collect();
    save(&path, &half, None).unwrap();
    let b = network(2);
    StateDict::read(&path, None).unwrap().copy_into(&variables(&b)).unwrap();
    for ((name, x), (_, y)) in variables(&a).iter().zip(variables(&b)) {
        assert_eq!(y.kind(), Kind::Float);
        assert!((x - y).abs().max().double_value(&[]) < 1e-3, "{name}");
    }
}

#[test]
fn weights_of_another_network_are_refused_with_every_difference() {
    let a = network(1);
    let source = IndexMap::from([
        ("conv.weight".to_owned(), Tensor::zeros([3, 2, 5, 5], (Kind::Float, Device::Cpu))),
        ("conv.bias".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu))),
        ("fc.weights".to_owned(), Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))),
        ("fc.bias".to_owned(), Tensor::zeros([2], (Kind::Float, Device::Cpu))),
    ]);
    let message = copy_into(&variables(&a), &source, Path::new("w.safetensors")).unwrap_err().to_string();
    assert_eq!(
        message,
        "w.safetensors: these are not the weights of this network: `conv.weight` has shape [3, 2, 5, 5], expected [3, 2, 3, 3]; \
         1 missing: `fc.weight` (it has `fc.weights`); 1 unexpected: `fc.weights`"
    );
    // Both sorts show, however many there are of one; and what is in its place is not taken for another.
    let mut source = IndexMap::from([("fc.weight".to_owned(), Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)))]);
    source.insert("fc.bias".to_owned(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    source.extend((0..10).map(|i| (format!("stage.{i}"), Tensor::zeros([3], (Kind::Float, Device::Cpu)))));
    let message = copy_into(&variables(&a), &source, Path::new("w.safetensors")).unwrap_err().to_string();
    assert_eq!(
        message,
        "w.safetensors: these are not the weights of this network: 2 missing: `conv.weight`, `conv.bias`; 10 unexpected: \
         `stage.0`, `stage.1`, `stage.2`, `stage.3`, `stage.4`, `stage.5`, `stage.6`, `stage.7` and 2 more"
    );
}

#[test]
fn pytorchs_counters_are_passed_over_and_a_name_taken_twice_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let a = network(1);
    let mut tensors = variables(&a);
    tensors.push(("bn1.num_batches_tracked".to_owned(), Tensor::from(7_i64)));
    save(&path, &tensors, None).unwrap();
    StateDict::read(&path, None).unwrap().copy_into(&variables(&network(2))).unwrap();
    check_names(&a).unwrap();
    nn::linear(a.root() / "fc", 3, 2, Default::default());
    let message = check_names(&a).unwrap_err().to_string();
    assert!(message.starts_with("a parameter was registered twice, and the second became `fc."), "{message}");
}

#[test]
fn a_file_that_is_not_safetensors_or_not_all_of_one_is_named() {
    fn error(bytes: &[u8]) -> String {
        from_bytes(bytes, Path::new("w.safetensors")).unwrap_err().to_string()
    }

    fn made(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{}]}}}}"#, data.len());
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    assert_eq!(error(b"hello, world"), "w.safetensors: not a safetensors file: header too large");
    let short = "cut short: 5 bytes are there, fewer than a safetensors file begins with";
    assert_eq!(error(b"hello"), format!("w.safetensors: {short}"));
    let mut whole = to_bytes(&variables(&network(1)), None).unwrap();
    let n = whole.len();
    assert_eq!(error(&whole[..n - 1]), format!("w.safetensors: cut short: {} of {n} bytes are there", n - 1));
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap());
    let short = format!("cut short: 100 bytes are there, its header alone has {header}");
    assert_eq!(error(&whole[..100]), format!("w.safetensors: {short}"));
    let huge = "w.safetensors: `t`: its shape [9223372036854775808, 0] is beyond all memory";
    assert_eq!(error(&made("F32", "[9223372036854775808, 0]", b"")), huge);
    assert_eq!(error(&made("BOOL", "[3]", &[0, 1, 2])), "w.safetensors: `t`: a truth value is neither 0 nor 1");
    assert_eq!(from_bytes(&made("BOOL", "[2]", &[0, 1]), Path::new("w")).unwrap().tensors["t"].numel(), 2);
    whole.extend([0; 10]);
    assert_eq!(error(&whole), format!("w.safetensors: too long: it has {} bytes, and should have {n}", n + 10));
}
