//! Which program runs a file: the interpreter of its extension, the one its `#!` line names, or the file itself.

use crate::error::{Context, Error, Kind, Result};
use nix::unistd::{AccessFlags, access};
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What runs files with some extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interpreter {
    /// Extensions, in lower case, without the dot; case does not count.
    pub extensions: &'static [&'static str],
    /// Commands that would do, best first: the program's name, and the arguments before the file.
    pub commands: &'static [&'static [&'static str]],
    /// Debian's package with one of them, or where to get it.
    pub package: &'static str,
}

macro_rules! table {
    ($($($extension:literal)+ => $($($word:literal)+),+; $package:literal)*) => {
        &[$(Interpreter {
            extensions: &[$($extension),+],
            commands: &[$(&[$($word),+]),+],
            package: $package,
        }),*]
    };
}

const TABLE: &[Interpreter] = table! {
    "py" "pyw" => "python3", "python"; "python3"
    "js" "mjs" "cjs" => "node", "nodejs", "bun", "deno" "run"; "nodejs"
    "ts" "mts" "cts" => "deno" "run", "bun", "node" "--experimental-strip-types"; "nodejs"
    "sh" => "sh"; "dash"
    "bash" => "bash"; "bash"
    "zsh" => "zsh"; "zsh"
    "ksh" => "ksh", "mksh"; "ksh93u+m"
    "csh" "tcsh" => "tcsh", "csh"; "tcsh"
    "fish" => "fish"; "fish"
    "rb" => "ruby"; "ruby"
    "pl" => "perl"; "perl"
    "lua" => "lua", "lua5.4", "lua5.3", "lua5.2", "lua5.1", "luajit"; "lua5.4"
    "php" => "php"; "php-cli"
    "r" => "Rscript"; "r-base-core"
    "tcl" => "tclsh", "tclsh8.6"; "tcl"
    "exp" => "expect"; "expect"
    "awk" => "awk" "-f", "gawk" "-f", "mawk" "-f"; "mawk"
    "sed" => "sed" "-f"; "sed"
    "jl" => "julia"; "julia"
    "go" => "go" "run"; "golang-go"
    "java" => "java"; "default-jdk-headless"
    "groovy" => "groovy"; "groovy"
    "scm" => "guile", "guile-3.0"; "guile-3.0"
    "lisp" => "sbcl" "--script"; "sbcl"
    "hs" => "runghc"; "ghc"
    "ml" => "ocaml"; "ocaml"
    "exs" => "elixir"; "elixir"
    "escript" => "escript"; "erlang-base"
    "raku" => "raku"; "rakudo"
    "mk" => "make" "-f"; "make"
};

/// Every interpreter that is known by extension.
pub fn table() -> &'static [Interpreter] {
    TABLE
}

fn by_extension(file: &Path) -> Option<&'static Interpreter> {
    let extension = file.extension()?.to_str()?.to_ascii_lowercase();
    TABLE.iter().find(|interpreter| interpreter.extensions.contains(&extension.as_str()))
}

/// Whether `brig sandbox run ARG` means a script to be interpreted: ARG has an extension of the table and is a regular
/// file that the kernel could not run by itself, that is, one without the permission to be executed, or one that begins
/// with neither `#!` nor an ELF header. Anything else (an executable, a bare name, a path with another extension) is a
/// program to be run; without a slash, its name is looked for in `PATH`, unless there is such a script right here.
pub fn is_script(arg: &str) -> bool {
    let file = Path::new(arg);
    by_extension(file).is_some()
        && std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file())
        && !(executable(file) && head(file).is_ok_and(|head| runs_itself(&head)))
}

/// The command that runs a file with some arguments: the program, its own arguments, the file, the arguments. Names of
/// interpreters are looked for in the directories of `path_variable` (as in `PATH`, separated by colons); `exists` says
/// whether a path is a program.
///
/// An executable with a `#!` line or an ELF header is run as it is. Else the extension decides, then the `#!` line
/// (execve(2): up to 255 bytes, an optional single argument; `env` and its options are handed on as they are). An
/// executable of some other format is left to the kernel.
///
/// # Errors
/// If the file is missing, not regular or not readable; if it is not known what runs it; if that is not there.
pub fn resolve(
    file: &Path,
    args: &[String],
    path_variable: &str,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<Vec<String>> {
    let shown = file.display();
    let Some(name) = file.to_str() else {
        return Err(Error::invalid(format!("{shown}: the path is not UTF-8")).hint("rename the file"));
    };
    regular(file)?;
    let may_run = executable(file);
    let head = match head(file) {
        // What may be executed need not be readable.
        Err(_) if may_run => Vec::new(),
        Err(e) => return Err(e),
        Ok(head) => head,
    };
    // Programs look for a name without a slash elsewhere, or take one with a dash for an option.
    let name = if name.contains('/') { name.to_owned() } else { format!("./{name}") };
    let command = |words: Vec<String>| words.into_iter().chain([name.clone()]).chain(args.iter().cloned()).collect();
    if may_run && (head.is_empty() || runs_itself(&head)) {
        return Ok(command(Vec::new()));
    }
    if let Some(interpreter) = by_extension(file) {
        let words = installed(interpreter, path_variable, exists).ok_or_else(|| {
            let names: Vec<&str> = interpreter.commands.iter().map(|words| words[0]).collect();
            missing(format!(
                "{shown} needs an interpreter, and PATH ({path_variable}) has none of: {}",
                names.join(", ")
            ))
            .hint(format!("install the package {} (apt-get install {0}), or set PATH", interpreter.package))
        })?;
        return Ok(command(words.iter().map(|word| (*word).to_owned()).collect()));
    }
    if head.starts_with(b"#!") {
        let (interpreter, argument) = shebang(&head).map_err(|why| Error::invalid(format!("{shown}: {why}")))?;
        check_shebang(file, &interpreter, argument.as_deref(), path_variable, exists)?;
        return Ok(command([interpreter].into_iter().chain(argument).collect()));
    }
    if may_run {
        return Ok(command(Vec::new()));
    }
    if head.starts_with(ELF) {
        return Err(Error::new(Kind::ProgramDenied, format!("{shown} is a program that may not be executed"))
            .hint(format!("chmod +x {shown}")));
    }
    Err(Error::invalid(format!("{shown}: its extension is not known, and it has no #! line"))
        .hint("name the interpreter before the file, add a #! line, or make it executable"))
}

const ELF: &[u8] = b"\x7fELF";

fn runs_itself(head: &[u8]) -> bool {
    head.starts_with(b"#!") || head.starts_with(ELF)
}

fn missing(what: String) -> Error {
    Error::new(Kind::ProgramNotFound, what)
}

fn regular(file: &Path) -> Result<()> {
    let shown = file.display();
    let metadata: Metadata = match std::fs::metadata(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(missing(format!("{shown}: no such file")).hint("check the path and the working directory"));
        }
        other => other.during(|| format!("can't look at {shown}"))?,
    };
    if metadata.is_dir() {
        return Err(Error::invalid(format!("{shown} is a directory")).hint("name a file in it"));
    }
    if !metadata.is_file() {
        return Err(Error::invalid(format!("{shown} is not a regular file")).hint("copy what it gives to a file first"));
    }
    Ok(())
}

/// Whether the caller may execute a file (access(2)).
fn executable(file: &Path) -> bool {
    access(file, AccessFlags::X_OK).is_ok()
}

/// As much of a file as the kernel looks at for a `#!` line (`BINPRM_BUF_SIZE`, linux/binfmts.h).
fn head(file: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let opened = File::open(file).map_err(|e| {
        let error = Error::new(Kind::ProgramDenied, format!("can't read {}: {e}", file.display()));
        if e.kind() == std::io::ErrorKind::PermissionDenied {
            return error.hint(format!("chmod +r {}, or run as its owner", file.display()));
        }
        error
    })?;
    opened.take(256).read_to_end(&mut head).during(|| format!("can't read {}", file.display()))?;
    Ok(head)
}

/// The interpreter of a `#!` line and its one argument, as the kernel takes them (fs/binfmt_script.c): blanks are spaces
/// and tabs, and of a line longer than 255 bytes the argument is cut, while an interpreter that is cut is refused.
fn shebang(head: &[u8]) -> Result<(String, Option<String>), &'static str> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let head = &head[..head.len().min(256)];
    let newline = head.iter().position(|b| *b == b'\n');
    let cut = newline.is_none() && head.len() == 256;
    let line = &head[2..newline.unwrap_or(head.len().min(255))];
    let line = &line[line.iter().take_while(|b| blank(b)).count()..];
    let end = line.iter().position(|b| blank(b) || *b == 0);
    if cut && end.is_none() && !line.is_empty() {
        return Err("the interpreter in its #! line is longer than the kernel takes (255 bytes)");
    }
    let (interpreter, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.split(|b| *b == 0).next().unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "its #! line is not UTF-8");
    let argument = text(rest)?.trim_matches([' ', '\t']).to_owned();
    if interpreter.is_empty() {
        return Err("its #! line names no interpreter");
    }
    Ok((text(interpreter)?, Some(argument).filter(|argument| !argument.is_empty())))
}

fn check_shebang(
    file: &Path,
    interpreter: &str,
    argument: Option<&str>,
    path_variable: &str,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<()> {
    let shown = file.display();
    if interpreter.ends_with('\r') || argument.is_some_and(|argument| argument.ends_with('\r')) {
        return Err(Error::invalid(format!(
            "{shown}: its #! line ends in a carriage return, which becomes part of it"
        ))
        .hint(format!("sed -i 's/\\r$//' {shown}")));
    }
    let known = |program: &str| {
        let name = program.rsplit('/').next().unwrap_or(program);
        TABLE.iter().find(|interpreter| interpreter.commands.iter().any(|words| words[0] == name))
    };
    let absent = |program: &str| {
        let error = missing(format!("{shown}: the interpreter of its #! line is not there: {program}"));
        match known(program) {
            Some(known) => error.hint(format!("install the package {} (apt-get install {0})", known.package)),
            None => error.hint("install it, or correct the #! line"),
        }
    };
    if !exists(Path::new(interpreter)) {
        return Err(absent(interpreter));
    }
    // Of `env`, the plain form alone names a program that is certain.
    let plain = argument.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || "._+".contains(c)));
    match plain {
        Some(name) if interpreter.ends_with("/env") && find(name, path_variable, exists).is_none() => Err(absent(name)),
        _ => Ok(()),
    }
}

fn installed(
    interpreter: &Interpreter,
    path_variable: &str,
    exists: &dyn Fn(&Path) -> bool,
) -> Option<&'static [&'static str]> {
    interpreter.commands.iter().copied().find(|words| find(words[0], path_variable, exists).is_some())
}

/// Where a program is; an empty directory in the list is the working directory (execvp(3)).
fn find(name: &str, path_variable: &str, exists: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let directories = path_variable.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
    directories.map(|directory| Path::new(directory).join(name)).find(|path| exists(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Temporary {
            let path = std::env::temp_dir().join(format!("brig-interpreter-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Temporary(path)
        }

        fn file(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// The command without the file and the argument behind it.
    fn before(file: &Path, programs: &[&str]) -> Result<Vec<String>> {
        let exists = |path: &Path| programs.iter().any(|program| Path::new(program) == path);
        let mut words = resolve(file, &["-x".into()], "/a:/b", &exists)?;
        assert_eq!(words.pop().unwrap(), "-x");
        assert_eq!(words.pop().unwrap(), file.to_str().unwrap());
        Ok(words)
    }

    #[test]
    fn extensions() {
        let here = Temporary::new("extensions");
        let table: &[(&str, &[&str], &[&str])] = &[
            ("a.py", &["/b/python3", "/a/python"], &["python3"]),
            ("b.PY", &["/a/python"], &["python"]),
            ("a.mjs", &["/b/deno"], &["deno", "run"]),
            ("a.ts", &["/b/node"], &["node", "--experimental-strip-types"]),
            ("a.lua", &["/b/lua5.3"], &["lua5.3"]),
            ("a.R", &["/b/Rscript"], &["Rscript"]),
            ("a.awk", &["/b/awk"], &["awk", "-f"]),
            ("a.go", &["/b/go"], &["go", "run"]),
        ];
        for (name, programs, words) in table {
            assert_eq!(before(&here.file(name, b"", 0o644), programs).unwrap(), *words, "{name}");
        }
        let error = before(&here.file("a.rb", b"", 0o644), &["/c/ruby"]).unwrap_err();
        assert_eq!(error.kind(), Kind::ProgramNotFound);
        assert!(error.to_string().contains("none of: ruby") && error.to_string().contains("apt-get install ruby"));
    }

    #[test]
    fn every_extension_is_there_once() {
        let mut all: Vec<&str> = table().iter().flat_map(|interpreter| interpreter.extensions).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|extension| *extension == extension.to_ascii_lowercase()));
    }

    #[test]
    fn hash_bang_lines() {
        type Line = Option<(&'static str, Option<&'static str>)>;
        let table: &[(&[u8], Line)] = &[
            (b"#!/bin/sh", Some(("/bin/sh", None))),
            (b"#! \t/bin/sh \t\necho", Some(("/bin/sh", None))),
            (b"#!/usr/bin/env -S a  b \n", Some(("/usr/bin/env", Some("-S a  b")))),
            (b"#!/bin/sh\0x y\n", Some(("/bin/sh", None))),
            (b"#!\n/bin/sh", None),
            (b"#!", None),
        ];
        for (head, wanted) in table {
            let found = shebang(head).ok();
            assert_eq!(found.as_ref().map(|(i, a)| (i.as_str(), a.as_deref())), *wanted, "{head:?}");
        }
        let long = |text: String| shebang(&text.as_bytes()[..text.len().min(256)]);
        assert!(long(format!("#!/{}", "x".repeat(300))).is_err());
        let (_, argument) = long(format!("#!/bin/sh {}", "x".repeat(300))).unwrap();
        assert_eq!(argument.unwrap().len(), 255 - 10);
        // The longest interpreter: the newline is the 256th byte.
        assert_eq!(long(format!("#!/{}\n", "x".repeat(252))).unwrap().0.len(), 253);
    }

    #[test]
    fn files_without_a_known_extension() {
        let here = Temporary::new("others");
        let env = here.file("env", b"#!/usr/bin/env python3\n", 0o644);
        assert_eq!(before(&env, &["/usr/bin/env", "/a/python3"]).unwrap(), ["/usr/bin/env", "python3"]);
        let table: &[(&Path, &[&str], &str)] = &[
            (&env, &["/usr/bin/env"], "install the package python3"),
            (&env, &[], "not there: /usr/bin/env"),
            (&here.file("crlf", b"#!/bin/sh\r\n", 0o644), &["/bin/sh"], "carriage return"),
            (&here.file("text", b"hello", 0o644), &[], "no #! line"),
            (&here.file("a.unknown", b"", 0o644), &[], "no #! line"),
            (&here.file("elf", b"\x7fELF", 0o644), &[], "chmod +x"),
            (&here.0, &[], "is a directory"),
            (&here.0.join("none"), &[], "no such file"),
            (Path::new("/dev/null"), &[], "not a regular file"),
        ];
        for (file, programs, wanted) in table {
            let error = before(file, programs).unwrap_err().to_string();
            assert!(error.contains(wanted), "{}: {error}", file.display());
        }
    }

    #[test]
    fn what_is_executable_is_run() {
        let here = Temporary::new("executable");
        let (own, bare) = (here.file("a.py", b"#!/bin/sh\n", 0o755), here.file("b.py", b"print()\n", 0o755));
        let (plain, program) = (here.file("c.py", b"#!/bin/sh\n", 0o644), here.file("d", b"\x7fELF", 0o755));
        for file in [&own, &program, &here.file("odd", b"MZ", 0o755)] {
            assert_eq!(before(file, &[]).unwrap(), [""; 0], "{}", file.display());
        }
        for file in [&bare, &plain] {
            assert_eq!(before(file, &["/a/python3"]).unwrap(), ["python3"], "{}", file.display());
        }
        let script = [own, bare, plain, program, here.0.join("none.py")].map(|path| is_script(path.to_str().unwrap()));
        assert_eq!(script, [false, true, true, false, false]);
        assert!(!is_script("python3"));
    }
}
