//! The rules: what is looked for, how bad it is, and why.

use super::Language;

/// A rule of static analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as findings give it.
    pub name: &'static str,
    /// The languages that it is looked for in.
    pub languages: &'static [Language],
    /// `high`, `medium` or `low`.
    pub severity: &'static str,
    /// Why it matters, in one phrase.
    pub why: &'static str,
}

const BOTH: &[Language] = &[Language::Python, Language::JavaScript];
const PYTHON: &[Language] = &[Language::Python];

const fn rule(name: &'static str, languages: &'static [Language], severity: &'static str, why: &'static str) -> Rule {
    Rule { name, languages, severity, why }
}

pub(super) const RULES: &[Rule] = &[
    rule("builtins-tampering", BOTH, "high", "changes what built-in names do for all code that runs afterwards"),
    rule("change-identity", BOTH, "medium", "changes user, group or root directory of the process"),
    rule("computed-attribute", BOTH, "medium", "picks a function by a computed name, which hides what is called"),
    rule("deserialise", BOTH, "high", "loading such data runs code that is in it"),
    rule("dynamic-import", BOTH, "medium", "loads a module by a name given at run time"),
    rule("evaluate", BOTH, "high", "runs text as code"),
    rule("fork", BOTH, "medium", "starts more processes or threads of itself"),
    rule("import-deserialise", BOTH, "medium", "module that runs code from data it loads"),
    rule("import-loader", BOTH, "medium", "module that loads or runs other code"),
    rule("import-native", BOTH, "high", "module that calls native code past the language's checks"),
    rule("import-network", BOTH, "medium", "module that talks to the network"),
    rule("import-process", BOTH, "medium", "module that starts processes"),
    rule("import-system", BOTH, "low", "module that reaches files, processes and the environment"),
    rule("load-native", BOTH, "high", "calls native code past the language's checks"),
    rule("network-use", BOTH, "medium", "talks to the network"),
    rule("not-analysed", BOTH, "high", "could not be analysed for want of memory"),
    rule("obfuscated-code", BOTH, "high", "code or names are hidden by an encoding"),
    rule("object-graph", BOTH, "high", "reaches internals of the language that lead out of restricted code"),
    rule("read-secret", BOTH, "high", "names a file that holds keys or passwords"),
    rule("remove-tree", BOTH, "medium", "removes a directory with all that is in it"),
    rule("run-command", BOTH, "high", "runs another program"),
    rule("signal-process", BOTH, "medium", "sends signals to processes"),
    rule("syntax-error", BOTH, "low", "not valid in this language; code in and after it may not have been analysed"),
    rule("too-large", BOTH, "high", "larger than 10 MiB, so it was not analysed"),
    rule("too-many-findings", BOTH, "low", "the findings after the first 1000 are not listed"),
    rule("wildcard-import", PYTHON, "low", "imports every name of such a module, which hides what is called"),
    rule("write-outside", BOTH, "high", "changes a file outside the working directory and /tmp"),
];

/// When a use of a function is a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Whenever it is called, or handed on to be called.
    Always,
    /// When the first argument is a text.
    Text,
    /// When the first argument is not one known text.
    Computed,
    /// When an argument is a path outside the working directory.
    Outside,
    /// When the second argument is one.
    Second,
    /// As `Outside`, when it is opened for writing.
    OpenOutside,
    /// When an option says `recursive: true`.
    Recursive,
}

/// A function, or several by a trailing `*`; the rule; and when it holds.
pub(super) type Use = (&'static str, &'static str, When);

/// Paths that hold keys and passwords: absolute ones, and ends of paths below a home directory.
const SECRETS: &[&str] = &[
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/ssh/",
    "/.ssh",
    "/.aws/credentials",
    "/.gnupg",
    "/.netrc",
    "/.pgpass",
    "/.pypirc",
    "/.npmrc",
    "/.git-credentials",
    "/.docker/config.json",
    "/.kube/config",
    "/.config/gcloud",
    "/.config/gh/",
    "/.password-store",
    "/.local/share/keyrings",
    "/run/secrets",
    "/id_rsa",
    "/id_ed25519",
    "/proc/kcore",
];

/// Whether a path names keys or passwords; unknown parts of it match nothing.
pub(super) fn is_secret(path: &str) -> bool {
    let path = path.replace("//", "/");
    let rooted = format!("/{path}");
    let of_process = |text: &str| {
        let mut parts = text.trim_start_matches('/').split('/');
        parts.next() == Some("proc") && parts.nth(1).is_some_and(|last| matches!(last, "environ" | "mem"))
    };
    let at_boundary = |secret: &str| {
        rooted.match_indices(secret).any(|(at, _)| {
            let after = &rooted[at + secret.len()..];
            secret.ends_with('/') || after.is_empty() || after.starts_with('/')
        })
    };
    path.starts_with("/proc/") && of_process(&path) || SECRETS.iter().any(|secret| at_boundary(secret))
}

/// Whether a path, as far as it is known, leads out of the working directory: absolute ones but those below it and
/// below /tmp, and relative ones that climb. The working directory is this process's own, where the script starts.
pub(super) fn is_outside(path: &str) -> bool {
    let known = path.split(super::values::UNKNOWN).next().unwrap_or("");
    if known.starts_with('/') {
        let mut clean: Vec<&str> = Vec::new();
        for part in known.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(clean.pop()),
                part => clean.push(part),
            }
        }
        let clean = format!("/{}", clean.join("/"));
        let inside = |directory: &str| {
            clean.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let harmless = ["/tmp", "/var/tmp", "/dev/null", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd"];
        let here = std::env::current_dir().ok();
        let here = here.as_ref().and_then(|p| p.to_str()).filter(|p| *p != "/");
        return !harmless.into_iter().chain(here).any(inside);
    }
    let mut depth = 0;
    for part in known.split('/') {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        if depth < 0 {
            return true;
        }
    }
    known.starts_with("~")
}
