//! Experiments for tests, as the text of a file.

use toml::{Table, Value};

/// A ResNet-8 that learns from another on the embedded data, on one thread of the CPU. `rest` begins in the table
/// `[student]`, and has to have `[compare]`; [`set`] changes what stands before.
pub fn small(name: &str, rest: &str) -> String {
    format!(
        r#"format = 1
name = {name:?}
device = "cpu"
threads = 1
[dataset]
kind = "shapes"
train = 256
test = 40
[teacher.big]
model = {{ kind = "resnet8" }}
train = {{ epochs = 1 }}
[student]
model = {{ kind = "resnet8" }}
{rest}"#
    )
}

/// The table `[compare]` with these methods.
pub fn compare(methods: &[&str]) -> String {
    format!("[compare]\nmethods = {methods:?}\n")
}

/// Puts values into the tables of a file, each as `--set` takes it: `train.epochs=3`.
pub fn set(text: &str, values: &[&str]) -> String {
    let mut table: Table = text.parse().unwrap();
    for assignment in values {
        let (key, value) = assignment.split_once('=').unwrap();
        let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut place = &mut table;
        for name in tables.split('.').filter(|name| !name.is_empty()) {
            let inner = place.entry(name).or_insert_with(|| Value::Table(Table::new()));
            place = inner.as_table_mut().unwrap();
        }
        let value: Table = format!("value = {value}").parse().unwrap();
        place.insert(last.to_owned(), value["value"].clone());
    }
    toml::to_string(&table).unwrap()
}

/// Values for `--set`, as functions of the framework take them.
pub fn overrides(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}
