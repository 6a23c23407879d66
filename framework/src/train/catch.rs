//! Panics as errors: tch's operators panic where libtorch refuses, and one lane must not take others along.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::{Error, Result, first_line};

thread_local! {
    /// Whether a panic of this thread is caught here.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where the last one that was caught here came from: `src/cosine.rs:33:9`.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Turns a panic into an error. What is caught is not printed as well, unless `RUST_BACKTRACE` asks where it came from.
///
/// # Errors
/// Those of `work`; libtorch's refusal in one line, without the C++ stack behind it; or the first line of what else it
/// panicked with, and where.
pub fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(note_places);
    let outer = CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    result.unwrap_or_else(|payload| Err(error(payload.as_ref())))
}

/// The place of a panic is told to the process's hook alone.
fn note_places() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let caught = CATCHING.get();
        if caught {
            PLACE.set(info.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string));
        }
        if !caught || env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            print(info);
        }
    }));
}

fn error(payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    match refusal(text) {
        Some(refusal) => Error::Torch(refusal),
        None => Error::run(format!("panic: {} (at {})", first_line(text), PLACE.take())),
    }
}

/// libtorch's own first line, out of what tch panics with: the error as `{:?}` shows it, line breaks escaped.
fn refusal(text: &str) -> Option<String> {
    let shown = text.strip_prefix("called `Result::unwrap()` on an `Err` value: Torch(\"")?;
    let line = shown.split("\\n").next()?.trim_end_matches("\")");
    Some(line.replace("\\\"", "\"").replace("\\\\", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn a_panic_is_an_error_in_one_line() {
        fn caught(work: fn()) -> String {
            catch(|| {
                work();
                Ok(())
            })
            .unwrap_err()
            .to_string()
        }

        fn product() {
            let a = Tensor::from_slice(&[1.0, 2.0]).view([1, 2]);
            _ = a.matmul(&a);
        }

        assert_eq!(caught(product), "libtorch: mat1 and mat2 shapes cannot be multiplied (1x2 and 1x2)");
        let own: fn() = || panic!("three heads\nand a second line");
        let place = format!("panic: three heads (at {}:{}:", file!(), line!() - 1);
        assert!(caught(own).starts_with(&place), "{} is not from {place}", caught(own));
        // One within another: the outer one still knows where its own panic came from.
        let outer: fn() = || {
            let inner = catch(|| Err::<(), _>(Error::run("no panic"))).unwrap_err();
            panic!("{inner}")
        };
        let place = format!("panic: no panic (at {}:{}:", file!(), line!() - 2);
        assert!(caught(outer).starts_with(&place), "{} is not from {place}", caught(outer));
    }

    #[test]
    fn a_refusal_without_a_panic_says_the_same() {
        let a = Tensor::from_slice(&[1.0, 2.0]).view([1, 2]);
        let error = Error::from(a.f_matmul(&a).unwrap_err());
        assert_eq!(error.to_string(), "libtorch: mat1 and mat2 shapes cannot be multiplied (1x2 and 1x2)");
    }
}
