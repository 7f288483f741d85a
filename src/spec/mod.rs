//! The runtime specification's `config.json`, as data ([runtime-spec 1.3.0](https://github.com/opencontainers/runtime-spec)).
//!
//! These are brig's own types rather than the `oci-spec` crate's because a drop-in has to read what Go's decoder reads
//! (`null` for a list, a process without a user, an affinity with only one half) and has to keep the order of maps; the
//! crate stays as the witness in the tests: what it accepts, these types read alike. Field names follow the spec; a
//! field that the spec requires is still defaulted here, and its absence is reported by [`crate::engine::plan::validate`]
//! together with every other problem.

/// Declares spec objects: camelCase keys, every key optional, `null` the same as absent, defaults left out on output.
macro_rules! spec_objects {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[allow(missing_docs, reason = "the fields are the spec's, under its names")]
        pub struct $name {
            $(
                #[serde(deserialize_with = "crate::spec::null_is_default", skip_serializing_if = "crate::spec::is_default")]
                $(#[$fmeta])*
                pub $field: $ty,
            )*
        }
    )*};
}

/// Declares the spec's enumerations by their words; an unknown word is an error that lists the known ones.
macro_rules! spec_words {
    ($($(#[$meta:meta])* enum $name:ident { $($variant:ident = $word:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[allow(missing_docs, reason = "the variants are the words of the spec")]
        pub enum $name { $(#[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every word of this enumeration, in the spec's order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word that stands for this value in config.json.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    )*};
}

mod linux;
mod load;
mod process;
mod resources;
mod seccomp;

pub use linux::*;
pub use load::{Loaded, escape, load, load_process, parse, parse_mounts, parse_process, parse_resources};
pub use process::*;
pub use resources::*;
pub use seccomp::*;

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The newest runtime-spec version that brig implements.
pub const VERSION_MAX: &str = "1.3.0";
/// The oldest runtime-spec version that brig reads.
pub const VERSION_MIN: &str = "1.0.0";

spec_objects! {
    /// The whole of config.json.
    struct Spec {
        oci_version: String,
        process: Option<Process>,
        root: Option<Root>,
        hostname: Option<String>,
        domainname: Option<String>,
        mounts: Vec<Mount>,
        hooks: Option<Hooks>,
        annotations: BTreeMap<String, String>,
        linux: Option<Linux>,
    }

    /// `root`: the container's root filesystem.
    struct Root {
        path: PathBuf,
        readonly: bool,
    }

    /// One entry of `mounts`.
    struct Mount {
        destination: PathBuf,
        #[serde(rename = "type")]
        typ: Option<String>,
        source: Option<PathBuf>,
        options: Vec<String>,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
    }

    /// `hooks`, by the point of the lifecycle at which they run.
    struct Hooks {
        prestart: Vec<Hook>,
        create_runtime: Vec<Hook>,
        create_container: Vec<Hook>,
        start_container: Vec<Hook>,
        poststart: Vec<Hook>,
        poststop: Vec<Hook>,
    }

    /// One hook: a program with its whole argv (including argv[0]), environment, and time-out in seconds.
    struct Hook {
        path: PathBuf,
        args: Vec<String>,
        env: Vec<String>,
        timeout: Option<i64>,
    }
}

impl Spec {
    /// The `linux` section; an absent one reads as an empty one.
    pub fn linux(&self) -> &Linux {
        static EMPTY: std::sync::LazyLock<Linux> = std::sync::LazyLock::new(Linux::default);
        self.linux.as_ref().unwrap_or(&EMPTY)
    }

    /// The `hooks` section; an absent one reads as an empty one.
    pub fn hooks(&self) -> &Hooks {
        static EMPTY: std::sync::LazyLock<Hooks> = std::sync::LazyLock::new(Hooks::default);
        self.hooks.as_ref().unwrap_or(&EMPTY)
    }
}

pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
