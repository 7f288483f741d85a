//! JavaScript: what binds names, and the modules and functions to look for.

use super::check::Check;
use super::rules::{Use, When};
use super::scope::{Binding, Place, Script, Source};
use super::values;
use tree_sitter::Node;

/// Modules and the rule for each, the first that fits; those without a rule are harmless parts of others.
pub(super) const MODULES: &[(&str, &str)] = &[
    ("fs", "import-system"),
    ("fs-extra", "import-system"),
    ("os", "import-system"),
    ("child_process", "import-process"),
    ("cluster", "import-process"),
    ("worker_threads", "import-process"),
    ("execa", "import-process"),
    ("shelljs", "import-process"),
    ("node-pty", "import-process"),
    ("net", "import-network"),
    ("tls", "import-network"),
    ("http", "import-network"),
    ("https", "import-network"),
    ("http2", "import-network"),
    ("dgram", "import-network"),
    ("dns", "import-network"),
    ("undici", "import-network"),
    ("axios", "import-network"),
    ("got", "import-network"),
    ("request", "import-network"),
    ("node-fetch", "import-network"),
    ("ws", "import-network"),
    ("ffi-napi", "import-native"),
    ("ref-napi", "import-native"),
    ("koffi", "import-native"),
    ("bun:ffi", "import-native"),
    ("node-serialize", "import-deserialise"),
    ("vm", "import-loader"),
    ("vm2", "import-loader"),
    ("module", "import-loader"),
    ("repl", "import-loader"),
    ("inspector", "import-loader"),
];

/// Functions to look for.
pub(super) const USES: &[Use] = &[
    ("child_process.exec*", "run-command", When::Always),
    ("child_process.spawn*", "run-command", When::Always),
    ("child_process.fork", "run-command", When::Always),
    ("execa", "run-command", When::Always),
    ("execa.*", "run-command", When::Always),
    ("shelljs.exec", "run-command", When::Always),
    ("node-pty.spawn", "run-command", When::Always),
    ("global.process.execve", "run-command", When::Always),
    ("global.Deno.run", "run-command", When::Always),
    ("global.Deno.Command", "run-command", When::Always),
    ("global.Bun.spawn*", "run-command", When::Always),
    ("cluster.fork", "fork", When::Always),
    ("worker_threads.Worker", "fork", When::Always),
    ("global.Worker", "fork", When::Always),
    ("global.process.kill", "signal-process", When::Always),
    ("global.Deno.kill", "signal-process", When::Always),
    ("global.process.setuid", "change-identity", When::Always),
    ("global.process.setgid", "change-identity", When::Always),
    ("global.process.seteuid", "change-identity", When::Always),
    ("global.process.setegid", "change-identity", When::Always),
    ("global.process.setgroups", "change-identity", When::Always),
    ("global.eval", "evaluate", When::Always),
    ("global.Function", "evaluate", When::Always),
    ("global.importScripts", "evaluate", When::Always),
    ("global.setTimeout", "evaluate", When::Text),
    ("global.setInterval", "evaluate", When::Text),
    ("global.setImmediate", "evaluate", When::Text),
    ("vm.runIn*", "evaluate", When::Always),
    ("vm.Script", "evaluate", When::Always),
    ("vm.compileFunction", "evaluate", When::Always),
    ("vm.SourceTextModule", "evaluate", When::Always),
    ("global.require", "dynamic-import", When::Computed),
    ("global.import", "dynamic-import", When::Computed),
    ("global.process.getBuiltinModule", "dynamic-import", When::Computed),
    ("module.createRequire", "dynamic-import", When::Always),
    ("global.process.binding", "load-native", When::Always),
    ("global.process._linkedBinding", "load-native", When::Always),
    ("global.process.dlopen", "load-native", When::Always),
    ("global.Deno.dlopen", "load-native", When::Always),
    ("bun:ffi.dlopen", "load-native", When::Always),
    ("ffi-napi.Library", "load-native", When::Always),
    ("node-serialize.unserialize", "deserialise", When::Always),
    ("net.connect", "network-use", When::Always),
    ("net.create*", "network-use", When::Always),
    ("net.Socket", "network-use", When::Always),
    ("net.Server", "network-use", When::Always),
    ("tls.connect", "network-use", When::Always),
    ("tls.createServer", "network-use", When::Always),
    ("http.request", "network-use", When::Always),
    ("http.get", "network-use", When::Always),
    ("http.createServer", "network-use", When::Always),
    ("https.request", "network-use", When::Always),
    ("https.get", "network-use", When::Always),
    ("https.createServer", "network-use", When::Always),
    ("http2.connect", "network-use", When::Always),
    ("http2.create*", "network-use", When::Always),
    ("dgram.createSocket", "network-use", When::Always),
    ("dns.lookup*", "network-use", When::Always),
    ("dns.resolve*", "network-use", When::Always),
    ("dns.promises.*", "network-use", When::Always),
    ("undici.*", "network-use", When::Always),
    ("axios", "network-use", When::Always),
    ("axios.*", "network-use", When::Always),
    ("got", "network-use", When::Always),
    ("got.*", "network-use", When::Always),
    ("request", "network-use", When::Always),
    ("request.*", "network-use", When::Always),
    ("node-fetch", "network-use", When::Always),
    ("node-fetch.*", "network-use", When::Always),
    ("ws", "network-use", When::Always),
    ("ws.*", "network-use", When::Always),
    ("global.fetch", "network-use", When::Always),
    ("global.WebSocket", "network-use", When::Always),
    ("global.EventSource", "network-use", When::Always),
    ("global.XMLHttpRequest", "network-use", When::Always),
    ("global.Deno.connect*", "network-use", When::Always),
    ("global.Deno.listen*", "network-use", When::Always),
    ("global.Deno.serve", "network-use", When::Always),
    ("global.Bun.serve", "network-use", When::Always),
    ("global.Bun.connect", "network-use", When::Always),
    ("fs.rm", "remove-tree", When::Recursive),
    ("fs.rmSync", "remove-tree", When::Recursive),
    ("fs.rmdir*", "remove-tree", When::Recursive),
    ("fs.promises.rm*", "remove-tree", When::Recursive),
    ("fs-extra.remove*", "remove-tree", When::Always),
    ("fs.rm*", "write-outside", When::Outside),
    ("fs.unlink*", "write-outside", When::Outside),
    ("fs.write*", "write-outside", When::Outside),
    ("fs.append*", "write-outside", When::Outside),
    ("fs.createWriteStream", "write-outside", When::Outside),
    ("fs.rename*", "write-outside", When::Outside),
    ("fs.truncate*", "write-outside", When::Outside),
    ("fs.chmod*", "write-outside", When::Outside),
    ("fs.chown*", "write-outside", When::Outside),
    ("fs.symlink*", "write-outside", When::Outside),
    ("fs.link*", "write-outside", When::Outside),
    ("fs.mkdir*", "write-outside", When::Outside),
    ("fs.copyFile*", "write-outside", When::Second),
    ("fs.cp*", "write-outside", When::Second),
    ("fs.promises.copyFile", "write-outside", When::Second),
    ("fs.promises.cp", "write-outside", When::Second),
    ("fs.open*", "write-outside", When::OpenOutside),
    ("fs.promises.rm*", "write-outside", When::Outside),
    ("fs.promises.unlink", "write-outside", When::Outside),
    ("fs.promises.writeFile", "write-outside", When::Outside),
    ("fs.promises.appendFile", "write-outside", When::Outside),
    ("fs.promises.rename", "write-outside", When::Outside),
    ("fs.promises.truncate", "write-outside", When::Outside),
    ("fs.promises.chmod", "write-outside", When::Outside),
    ("fs.promises.chown", "write-outside", When::Outside),
    ("fs.promises.symlink", "write-outside", When::Outside),
    ("fs.promises.link", "write-outside", When::Outside),
    ("fs.promises.mkdir", "write-outside", When::Outside),
    ("fs.promises.open", "write-outside", When::OpenOutside),
    ("global.Deno.write*", "write-outside", When::Outside),
    ("global.Deno.remove*", "write-outside", When::Outside),
    ("global.Bun.write", "write-outside", When::Outside),
];

/// Functions that take a path and get at the file behind it.
pub(super) const READERS: &[&str] = &[
    "fs.read*",
    "fs.open*",
    "fs.createReadStream",
    "fs.copyFile*",
    "fs.cp*",
    "fs.opendir*",
    "fs.promises.*",
    "path.join",
    "path.resolve",
    "global.Deno.read*",
    "global.Deno.open*",
    "global.Bun.file",
];

/// Notes what a node binds.
pub(super) fn bind<'t>(script: &mut Script<'t>, place: Place<'t>, into: &mut Vec<Binding<'t>>) {
    let Place { node, parent, scope } = place;
    let field = |name| node.child_by_field_name(name);
    match node.kind() {
        "import_statement" => {
            let module = field("source").map(|source| module_name(script, source));
            let mut cursor = node.walk();
            let clause = node.named_children(&mut cursor).find(|child| child.kind() == "import_clause");
            if let (Some(module), Some(clause)) = (module, clause) {
                import(script, clause, &module, scope, into);
            }
        }
        "variable_declarator" => {
            let var = parent.is_some_and(|parent| parent.kind() == "variable_declaration");
            let scope_of_name = if var { script.function_scope(scope) } else { scope };
            if let Some(name) = field("name") {
                pattern(script, name, field("value"), scope_of_name, true, into);
            }
        }
        "assignment_expression" => {
            if let Some(left) = field("left") {
                pattern(script, left, field("right"), scope, false, into);
            }
        }
        "for_in_statement" => {
            if let (Some(left), Some(_)) = (field("left"), field("kind")) {
                pattern(script, left, None, scope, true, into);
            }
        }
        "function_declaration" | "generator_function_declaration" | "class_declaration" => {
            if let Some(name) = field("name") {
                let name = script.source(name);
                into.push(Binding { scope, name, source: Source::Other, declares: true });
            }
        }
        "formal_parameters" => {
            let mut cursor = node.walk();
            for parameter in node.named_children(&mut cursor) {
                pattern(script, parameter, None, scope, true, into);
            }
        }
        _ => {
            let parameter = parent.is_some_and(|parent| {
                matches!(parent.kind(), "arrow_function" | "catch_clause")
                    && parent.child_by_field_name("parameter") == Some(node)
            });
            if parameter {
                pattern(script, node, None, scope, true, into);
            }
        }
    }
}

fn module_name(script: &Script, source: Node) -> String {
    values::javascript_module(script.source(source).trim_matches(['"', '\'']))
}

fn import<'t>(script: &Script<'t>, clause: Node<'t>, module: &str, scope: usize, into: &mut Vec<Binding<'t>>) {
    let mut add = |name: Node<'t>, path: String| {
        let source = Source::Path(values::canonical(script.language, path));
        into.push(Binding { scope, name: script.source(name), source, declares: true });
    };
    let mut cursor = clause.walk();
    for child in clause.named_children(&mut cursor) {
        match child.kind() {
            "identifier" => add(child, module.to_owned()),
            "namespace_import" => {
                if let Some(name) = child.named_child(0) {
                    add(name, module.to_owned());
                }
            }
            "named_imports" => {
                let mut cursor = child.walk();
                for specifier in child.named_children(&mut cursor) {
                    if let Some(name) = specifier.child_by_field_name("name") {
                        let member = script.source(name).trim_matches(['"', '\'']);
                        add(specifier.child_by_field_name("alias").unwrap_or(name), format!("{module}.{member}"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Binds every name of a pattern to the part of the value that it takes.
fn pattern<'t>(
    script: &Script<'t>,
    whole: Node<'t>,
    value: Option<Node<'t>>,
    scope: usize,
    declares: bool,
    into: &mut Vec<Binding<'t>>,
) {
    let mut rest = vec![(whole, value, Vec::new())];
    while let Some((node, value, taken)) = rest.pop() {
        let field = |name| node.child_by_field_name(name);
        match node.kind() {
            "identifier" | "shorthand_property_identifier_pattern" => {
                let name = script.source(node);
                let mut taken: Vec<&'t str> = taken;
                if node.kind() != "identifier" {
                    taken.push(name);
                }
                let source = value.map_or(Source::Other, |value| Source::Expression(value, taken));
                into.push(Binding { scope, name, source, declares });
            }
            "pair_pattern" => {
                if let (Some(key), Some(inner)) = (field("key"), field("value")) {
                    let mut taken = taken;
                    taken.push(script.source(key).trim_matches(['"', '\'', '[', ']']));
                    let deep = taken.len() >= 8;
                    rest.push((inner, value.filter(|_| !deep), if deep { Vec::new() } else { taken }));
                }
            }
            "assignment_pattern" | "object_assignment_pattern" => {
                if let (Some(left), Some(right)) = (field("left"), field("right")) {
                    rest.push((left, value, taken));
                    // What it is without a value from elsewhere.
                    if left.kind() != "shorthand_property_identifier_pattern" {
                        rest.push((left, Some(right), Vec::new()));
                    }
                }
            }
            "object_pattern" | "array_pattern" | "rest_pattern" => {
                let value = value.filter(|_| node.kind() == "object_pattern");
                let mut cursor = node.walk();
                rest.extend(node.named_children(&mut cursor).map(|child| (child, value, taken.clone())));
            }
            _ => {}
        }
    }
}

/// Findings that only JavaScript has.
pub(super) fn check<'t>(check: &mut Check<'_, 't>, place: &Place<'t>) {
    let Place { node, scope, .. } = *place;
    match node.kind() {
        "import_statement" | "export_statement" => {
            if let Some(source) = node.child_by_field_name("source") {
                check.module(&module_name(check.script, source), source, node);
            }
        }
        "call_expression" => {
            // `require` and `import()` of a name that is known are as good as an import.
            let Some(function) = values::callee(node) else { return };
            let loads = values::evaluate(check.script, function, scope).iter().any(|value| {
                matches!(value.path(), Some("global.require" | "global.import" | "global.process.getBuiltinModule"))
            });
            if loads {
                check.loaded(node, scope);
            }
        }
        "member_expression" => {
            // `x.constructor.constructor` is `Function`.
            let is = |node: Node, name: &str| {
                node.child_by_field_name("property").is_some_and(|property| check.script.source(property) == name)
            };
            let object = node.child_by_field_name("object");
            if is(node, "constructor")
                && object.is_some_and(|object| object.kind() == "member_expression" && is(object, "constructor"))
            {
                check.report("object-graph", node, node);
            }
        }
        _ => {}
    }
}
