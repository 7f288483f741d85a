//! What every test stands on: the runtime under test, bundles made by closures, containers that clean up, and a check
//! after each test that nothing is left.

pub mod bundle;
pub mod container;
pub mod host;
pub mod os;
mod plain;
pub mod pty;
pub mod runtime;
pub mod suite;
pub mod test;

pub use bundle::Bundle;
pub use container::Container;
pub use runtime::{Call, Kind, Out, Running};
pub use serde_json::{Value, json};
pub use suite::Case;
pub use test::Test;

/// The tests of one file, by the names of their functions.
macro_rules! cases {
    ($($test:ident),* $(,)?) => {
        /// Every test of this file.
        pub const CASES: &[crate::support::Case] = &[
            $(crate::support::Case { file: module_path!(), name: stringify!($test), run: $test }),*
        ];
    };
}
pub(crate) use cases;
