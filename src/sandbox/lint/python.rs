//! Python: what binds names, and the modules and functions to look for.

use super::check::Check;
use super::rules::{Use, When};
use super::scope::{Binding, Place, Script, Source};
use super::values::{self, Value};
use tree_sitter::Node;

/// Modules and the rule for each, the first that fits; those without a rule are harmless parts of others.
pub(super) const MODULES: &[(&str, &str)] = &[
    ("os.path", ""),
    ("urllib.parse", ""),
    ("urllib.error", ""),
    ("http.HTTPStatus", ""),
    ("importlib.metadata", ""),
    ("importlib.resources", ""),
    ("os", "import-system"),
    ("posix", "import-system"),
    ("nt", "import-system"),
    ("shutil", "import-system"),
    ("subprocess", "import-process"),
    ("pty", "import-process"),
    ("multiprocessing", "import-process"),
    ("commands", "import-process"),
    ("pexpect", "import-process"),
    ("sh", "import-process"),
    ("socket", "import-network"),
    ("_socket", "import-network"),
    ("socketserver", "import-network"),
    ("ssl", "import-network"),
    ("http", "import-network"),
    ("httplib", "import-network"),
    ("urllib", "import-network"),
    ("urllib2", "import-network"),
    ("urllib3", "import-network"),
    ("requests", "import-network"),
    ("httpx", "import-network"),
    ("aiohttp", "import-network"),
    ("ftplib", "import-network"),
    ("smtplib", "import-network"),
    ("poplib", "import-network"),
    ("imaplib", "import-network"),
    ("telnetlib", "import-network"),
    ("xmlrpc", "import-network"),
    ("paramiko", "import-network"),
    ("websocket", "import-network"),
    ("websockets", "import-network"),
    ("pycurl", "import-network"),
    ("ctypes", "import-native"),
    ("_ctypes", "import-native"),
    ("cffi", "import-native"),
    ("pickle", "import-deserialise"),
    ("_pickle", "import-deserialise"),
    ("cPickle", "import-deserialise"),
    ("marshal", "import-deserialise"),
    ("shelve", "import-deserialise"),
    ("dill", "import-deserialise"),
    ("cloudpickle", "import-deserialise"),
    ("importlib", "import-loader"),
    ("imp", "import-loader"),
    ("runpy", "import-loader"),
    ("code", "import-loader"),
    ("codeop", "import-loader"),
    ("zipimport", "import-loader"),
];

/// Functions to look for.
pub(super) const USES: &[Use] = &[
    ("os.system", "run-command", When::Always),
    ("os.popen*", "run-command", When::Always),
    ("os.exec*", "run-command", When::Always),
    ("os.spawn*", "run-command", When::Always),
    ("os.posix_spawn*", "run-command", When::Always),
    ("os.startfile", "run-command", When::Always),
    ("subprocess.run", "run-command", When::Always),
    ("subprocess.call", "run-command", When::Always),
    ("subprocess.Popen", "run-command", When::Always),
    ("subprocess.check_*", "run-command", When::Always),
    ("subprocess.get*", "run-command", When::Always),
    ("commands.get*", "run-command", When::Always),
    ("pty.spawn", "run-command", When::Always),
    ("pexpect.spawn*", "run-command", When::Always),
    ("pexpect.run*", "run-command", When::Always),
    ("asyncio.create_subprocess_*", "run-command", When::Always),
    ("asyncio.subprocess.create_subprocess_*", "run-command", When::Always),
    ("os.fork", "fork", When::Always),
    ("os.forkpty", "fork", When::Always),
    ("pty.fork", "fork", When::Always),
    ("multiprocessing.Process", "fork", When::Always),
    ("multiprocessing.Pool", "fork", When::Always),
    ("multiprocessing.pool.Pool", "fork", When::Always),
    ("concurrent.futures.ProcessPoolExecutor", "fork", When::Always),
    ("os.kill", "signal-process", When::Always),
    ("os.killpg", "signal-process", When::Always),
    ("signal.pidfd_send_signal", "signal-process", When::Always),
    ("os.setuid", "change-identity", When::Always),
    ("os.setgid", "change-identity", When::Always),
    ("os.setreuid", "change-identity", When::Always),
    ("os.setresuid", "change-identity", When::Always),
    ("os.setgroups", "change-identity", When::Always),
    ("os.chroot", "change-identity", When::Always),
    ("os.unshare", "change-identity", When::Always),
    ("os.setns", "change-identity", When::Always),
    ("builtins.eval", "evaluate", When::Always),
    ("builtins.exec", "evaluate", When::Always),
    ("builtins.execfile", "evaluate", When::Always),
    ("builtins.compile", "evaluate", When::Always),
    ("code.interact", "evaluate", When::Always),
    ("code.Interactive*", "evaluate", When::Always),
    ("runpy.run_*", "evaluate", When::Always),
    ("types.FunctionType", "evaluate", When::Always),
    ("types.CodeType", "evaluate", When::Always),
    ("builtins.__import__", "dynamic-import", When::Always),
    ("importlib.import_module", "dynamic-import", When::Always),
    ("importlib.__import__", "dynamic-import", When::Always),
    ("importlib.reload", "dynamic-import", When::Always),
    ("importlib.util.spec_from_*", "dynamic-import", When::Always),
    ("importlib.machinery.Source*", "dynamic-import", When::Always),
    ("imp.load_*", "dynamic-import", When::Always),
    ("ctypes.CDLL", "load-native", When::Always),
    ("ctypes.PyDLL", "load-native", When::Always),
    ("ctypes.WinDLL", "load-native", When::Always),
    ("ctypes.cdll*", "load-native", When::Always),
    ("ctypes.pydll*", "load-native", When::Always),
    ("ctypes.pythonapi*", "load-native", When::Always),
    ("ctypes.CFUNCTYPE", "load-native", When::Always),
    ("cffi.FFI", "load-native", When::Always),
    ("pickle.load*", "deserialise", When::Always),
    ("pickle.Unpickler", "deserialise", When::Always),
    ("_pickle.load*", "deserialise", When::Always),
    ("cPickle.load*", "deserialise", When::Always),
    ("dill.load*", "deserialise", When::Always),
    ("cloudpickle.load*", "deserialise", When::Always),
    ("marshal.load*", "deserialise", When::Always),
    ("shelve.open", "deserialise", When::Always),
    ("yaml.unsafe_load*", "deserialise", When::Always),
    ("shutil.rmtree", "remove-tree", When::Always),
    ("socket.socket", "network-use", When::Always),
    ("socket.create_*", "network-use", When::Always),
    ("socket.getaddrinfo", "network-use", When::Always),
    ("socket.gethostby*", "network-use", When::Always),
    ("socketserver.*", "network-use", When::Always),
    ("http.client.HTTP*", "network-use", When::Always),
    ("http.server.*", "network-use", When::Always),
    ("urllib.request.*", "network-use", When::Always),
    ("urllib.urlopen", "network-use", When::Always),
    ("urllib2.*", "network-use", When::Always),
    ("urllib3.*", "network-use", When::Always),
    ("requests.*", "network-use", When::Always),
    ("httpx.*", "network-use", When::Always),
    ("aiohttp.*", "network-use", When::Always),
    ("ftplib.FTP*", "network-use", When::Always),
    ("smtplib.SMTP*", "network-use", When::Always),
    ("poplib.POP3*", "network-use", When::Always),
    ("imaplib.IMAP4*", "network-use", When::Always),
    ("telnetlib.Telnet", "network-use", When::Always),
    ("xmlrpc.client.*", "network-use", When::Always),
    ("paramiko.*", "network-use", When::Always),
    ("asyncio.open_connection", "network-use", When::Always),
    ("asyncio.start_server", "network-use", When::Always),
    ("builtins.open", "write-outside", When::OpenOutside),
    ("io.open", "write-outside", When::OpenOutside),
    ("codecs.open", "write-outside", When::OpenOutside),
    ("os.remove*", "write-outside", When::Outside),
    ("os.unlink", "write-outside", When::Outside),
    ("os.rmdir", "write-outside", When::Outside),
    ("os.rename*", "write-outside", When::Outside),
    ("os.replace", "write-outside", When::Outside),
    ("os.truncate", "write-outside", When::Outside),
    ("os.chmod", "write-outside", When::Outside),
    ("os.chown", "write-outside", When::Outside),
    ("os.symlink", "write-outside", When::Outside),
    ("os.link", "write-outside", When::Outside),
    ("os.mkdir", "write-outside", When::Outside),
    ("os.makedirs", "write-outside", When::Outside),
    ("shutil.move", "write-outside", When::Outside),
    ("shutil.chown", "write-outside", When::Outside),
    ("shutil.copy*", "write-outside", When::Second),
];

/// Functions that take a path and get at the file behind it.
pub(super) const READERS: &[&str] = &[
    "builtins.open",
    "io.open",
    "io.FileIO",
    "codecs.open",
    "os.open",
    "os.listdir",
    "os.scandir",
    "os.walk",
    "os.path.expanduser",
    "os.path.join",
    "pathlib.Path",
    "pathlib.PosixPath",
    "shutil.copy*",
    "shutil.move",
    "glob.*",
    "linecache.*",
];

/// Methods of `pathlib.Path` that change the file.
const PATH_METHODS: &[&str] =
    &["write_text", "write_bytes", "unlink", "touch", "rmdir", "mkdir", "chmod", "symlink_to", "hardlink_to"];

/// Attributes that lead from any object to all of the interpreter.
const INTERNALS: &[&str] =
    &["__subclasses__", "__globals__", "f_globals", "f_builtins", "f_back", "gi_frame", "cr_frame", "tb_frame"];

/// Notes what a node binds.
pub(super) fn bind<'t>(script: &mut Script<'t>, place: Place<'t>, into: &mut Vec<Binding<'t>>) {
    let Place { node, parent, scope } = place;
    let field = |name| node.child_by_field_name(name);
    let mut add = |name: Node<'t>, scope, source| {
        into.push(Binding { scope, name: &script.text[name.byte_range()], source, declares: true });
    };
    match node.kind() {
        "import_statement" | "import_from_statement" => imports(script, node, scope, into),
        "function_definition" | "class_definition" => {
            if let Some(name) = field("name") {
                add(name, scope, Source::Other);
            }
        }
        "assignment" => {
            if let Some(left) = field("left") {
                assign(script, left, field("right"), scope, into);
            }
        }
        "named_expression" => {
            if let (Some(name), Some(value)) = (field("name"), field("value")) {
                add(name, scope, Source::Expression(value, Vec::new()));
            }
        }
        "default_parameter" | "typed_default_parameter" => {
            if let (Some(name), Some(value)) = (field("name"), field("value"))
                && name.kind() == "identifier"
            {
                add(name, scope, Source::Expression(value, Vec::new()));
            }
        }
        "for_statement" | "for_in_clause" => {
            if let Some(left) = field("left") {
                assign(script, left, None, scope, into);
            }
        }
        "global_statement" | "nonlocal_statement" => {
            let to = if node.kind() == "global_statement" { 0 } else { script.outer(scope) };
            let mut cursor = node.walk();
            for name in node.named_children(&mut cursor).filter(|child| child.kind() == "identifier") {
                script.hand(scope, script.source(name), to);
            }
        }
        "identifier" => {
            // A plain parameter, `*args`, or the name after `as`.
            let binds = parent.is_some_and(|parent| match parent.kind() {
                "parameters" | "lambda_parameters" | "as_pattern_target" => true,
                "typed_parameter" => parent.named_child(0) == Some(node),
                "list_splat_pattern" | "dictionary_splat_pattern" => true,
                _ => false,
            });
            if binds {
                add(node, scope, Source::Other);
            }
        }
        _ => {}
    }
}

fn assign<'t>(script: &Script<'t>, left: Node<'t>, right: Option<Node<'t>>, scope: usize, into: &mut Vec<Binding<'t>>) {
    let mut pairs = vec![(left, right)];
    while let Some((left, right)) = pairs.pop() {
        match left.kind() {
            "identifier" => {
                let source = right.map_or(Source::Other, |right| Source::Expression(right, Vec::new()));
                into.push(Binding { scope, name: script.source(left), source, declares: true });
            }
            "pattern_list" | "tuple_pattern" | "list_pattern" | "list_splat_pattern" => {
                let mut cursor = left.walk();
                let names: Vec<Node> = left.named_children(&mut cursor).collect();
                let mut values = Vec::new();
                if let Some(right) = right.filter(|r| matches!(r.kind(), "expression_list" | "tuple" | "list")) {
                    let mut cursor = right.walk();
                    values = right.named_children(&mut cursor).collect();
                }
                let same = values.len() == names.len();
                pairs.extend(names.into_iter().enumerate().map(|(i, name)| (name, same.then(|| values[i]))));
            }
            _ => {}
        }
    }
}

/// The modules of an import statement, with the node that names each, what of it is taken, and its new name.
fn imported<'t>(script: &Script<'t>, node: Node<'t>) -> Vec<(String, Node<'t>, &'t str, bool)> {
    let module = match node.child_by_field_name("module_name") {
        Some(module) if module.kind() == "relative_import" => return Vec::new(),
        Some(module) => Some(dotted(script, module)),
        None => None,
    };
    let mut cursor = node.walk();
    let mut list = Vec::new();
    for name in node.children_by_field_name("name", &mut cursor) {
        let (whole, alias) = match name.kind() {
            "aliased_import" => (name.child_by_field_name("name"), name.child_by_field_name("alias")),
            _ => (Some(name), None),
        };
        let Some(whole) = whole else { continue };
        let text = dotted(script, whole);
        let path = module.as_ref().map_or(text.clone(), |module| format!("{module}.{text}"));
        let local = alias.map_or(script.source(whole), |alias| script.source(alias));
        list.push((path, name, local, alias.is_some() || module.is_some()));
    }
    list
}

/// A dotted name without the blanks that may be in it.
fn dotted(script: &Script, node: Node) -> String {
    script.source(node).chars().filter(|c| !c.is_whitespace() && *c != '\\').collect()
}

fn imports<'t>(script: &mut Script<'t>, node: Node<'t>, scope: usize, into: &mut Vec<Binding<'t>>) {
    for (path, _, local, whole) in imported(script, node) {
        // `import a.b` binds `a`; everything else binds the whole path.
        let top = local.split('.').next().unwrap_or(local).trim();
        let (path, name) = if whole { (path, local) } else { (top.to_owned(), top) };
        let source = Source::Path(values::canonical(script.language, path));
        into.push(Binding { scope, name, source, declares: true });
    }
    let mut cursor = node.walk();
    let star = node.children(&mut cursor).any(|child| child.kind() == "wildcard_import");
    if let Some(module) = node.child_by_field_name("module_name").filter(|m| star && m.kind() == "dotted_name") {
        script.star(dotted(script, module));
    }
    // Relative imports are the script's own modules.
    if node.child_by_field_name("module_name").is_some_and(|m| m.kind() == "relative_import") {
        let mut cursor = node.walk();
        for name in node.children_by_field_name("name", &mut cursor) {
            let local = name.child_by_field_name("alias").unwrap_or(name);
            into.push(Binding { scope, name: script.source(local), source: Source::Other, declares: true });
        }
    }
}

/// Findings that only Python has.
pub(super) fn check<'t>(check: &mut Check<'_, 't>, place: &Place<'t>) {
    let Place { node, scope, .. } = *place;
    match node.kind() {
        "import_statement" | "import_from_statement" => {
            for (path, at, ..) in imported(check.script, node) {
                check.module(&path, at, node);
            }
            let mut cursor = node.walk();
            let star = node.children(&mut cursor).find(|child| child.kind() == "wildcard_import");
            if let (Some(star), Some(module)) = (star, node.child_by_field_name("module_name"))
                && module.kind() == "dotted_name"
                && check.module(&dotted(check.script, module), module, node)
            {
                check.report("wildcard-import", star, node);
            }
        }
        "exec_statement" => check.report("evaluate", node, node),
        "attribute" => {
            if let Some(name) = node.child_by_field_name("attribute").map(|name| check.script.source(name))
                && INTERNALS.contains(&name)
            {
                check.report("object-graph", node, node);
            }
        }
        "call" => {
            let Some(function) = values::callee(node) else { return };
            if let Some((object, name)) = values::parts(function)
                && PATH_METHODS.contains(&check.script.source(name))
            {
                let paths = values::evaluate(check.script, object, scope);
                let outside = |value: &Value| matches!(value, Value::Text(text) if super::rules::is_outside(text));
                if paths.iter().any(outside) {
                    check.report("write-outside", node, node);
                }
            }
            let given = values::arguments(node);
            let path = values::evaluate(check.script, function, scope);
            if path.iter().any(|v| matches!(v.path(), Some("builtins.setattr" | "builtins.delattr")))
                && given.first().is_some_and(|object| check.is_builtin_scope(*object, scope))
            {
                check.report("builtins-tampering", node, node);
            }
            if path.iter().any(|v| v.path() == Some("builtins.getattr"))
                && let (Some(object), Some(name)) = (given.first(), given.get(1))
            {
                check.computed(*object, *name, scope, node);
            }
        }
        _ => {}
    }
}
