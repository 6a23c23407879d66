//! How libtorch's threads wait for each other, so that two programs on one machine do not stall each other.
//!
//! libtorch computes in parallel loops of OpenMP. At the end of each, a thread that is done first waits for the others, and
//! libgomp lets it spin for about 300 000 rounds before it sleeps. Alone on a machine that is fastest. Beside another
//! program that uses the same cores, threads spin on the cores that the others need. So the threads of a command that
//! trains spin [`ROUNDS`] times and then sleep, which lets others work. Whoever sets `OMP_WAIT_POLICY` or `GOMP_SPINCOUNT`
//! decides.
//!
//! libgomp reads these variables when it is loaded, before `main`: the program starts itself once again with them.

use std::env;
use std::ffi::OsString;

/// libgomp's variable: how many rounds a waiting thread spins before it sleeps.
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";
/// OpenMP's variable: whether waiting threads spin (`active`) or sleep (`passive`).
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";
/// How many rounds a thread spins where the environment does not say: as many as libgomp itself lets it where it knows that
/// there are more threads than cores.
const ROUNDS: &str = "1000";

/// Starts this program again, in the same process, with [`ROUNDS`] in its environment, unless that says how threads wait.
/// Returns where there is nothing to do or the program cannot be started: then it goes on as it is.
pub(crate) fn start_again_with_brief_spinning() {
    if chosen().is_none() {
        #[cfg(unix)]
        start_again();
    }
}

#[cfg(unix)]
fn start_again() {
    use std::os::unix::process::CommandExt;

    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut again = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Only a failure comes back from here, and slow neighbours are better than no training.
    let _ = again.args(arguments).env(SPIN_COUNT, ROUNDS).exec();
}

/// The variable of the environment that says how threads wait, and its value.
fn chosen() -> Option<(&'static str, OsString)> {
    [SPIN_COUNT, WAIT_POLICY].into_iter().find_map(|name| Some((name, env::var_os(name)?)))
}

/// How the threads of a command that trains wait, for `limbeck doctor`.
pub(crate) fn in_words() -> String {
    match chosen() {
        Some((name, value)) => format!("wait by {name}={}, as the environment says", value.to_string_lossy()),
        None => {
            format!("wait by spinning {ROUNDS} rounds in a command that trains, then sleep ({SPIN_COUNT} changes that)")
        }
    }
}
