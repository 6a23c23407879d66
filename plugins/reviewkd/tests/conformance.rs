//! What every good plugin does, checked by one call.

use limbeck::registry::Role;
use reviewkd as _;

#[test]
fn it_conforms() {
    // Settings that fit a training set of forty samples may be given in place of the defaults: "count = 4".
    limbeck_conformance::check(Role::Distiller, "reviewkd", "").assert();
}
