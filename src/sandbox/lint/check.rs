//! The checks that both languages share.

use super::rules::{self, Use, When};
use super::scope::{Place, Script};
use super::values::{self, Value};
use super::{Language, javascript, python};
use tree_sitter::Node;

/// Texts longer than this that are run as code are taken for hidden code, in bytes.
const LONG_CODE: usize = 500;
/// So many characters given by number are taken for a hidden name.
const CHARACTERS: usize = 4;
/// Nodes of an argument that are looked at for a decoder.
const LOOKED_AT: usize = 512;
/// Longest code in a finding, in characters.
const CODE: usize = 80;

/// Something found: where (in bytes), which rule, and the code.
pub(super) struct Found {
    pub at: usize,
    pub rule: &'static str,
    pub code: String,
}

/// Findings of one script as they come.
pub(super) struct Check<'a, 't> {
    pub script: &'a Script<'t>,
    pub found: Vec<Found>,
    pub erroneous: bool,
}

/// Whatever runs when it is handed on, so that handing it on is as good as a call.
const HANDED_ON: &[&str] = &["run-command", "evaluate", "load-native", "deserialise"];

/// Where picking by a computed name can reach something dangerous.
const SENSITIVE: &[&str] = &[
    "builtins",
    "os",
    "subprocess",
    "ctypes",
    "importlib",
    "global",
    "global.process",
    "child_process",
    "fs",
    "vm",
    "worker_threads",
];

impl<'t> Check<'_, 't> {
    fn uses(&self) -> &'static [Use] {
        match self.script.language {
            Language::Python => python::USES,
            Language::JavaScript => javascript::USES,
        }
    }

    /// Looks at one node.
    pub fn visit(&mut self, place: &Place<'t>) {
        let Place { node, parent, scope } = *place;
        if (node.is_error() || node.is_missing()) && !self.erroneous {
            self.erroneous = true;
            self.report("syntax-error", node, node);
        }
        match node.kind() {
            "call" | "call_expression" | "new_expression" => self.call(node, scope),
            "attribute" | "member_expression" | "identifier" if parent.is_some_and(|parent| hands_on(parent, node)) => {
                self.handed_on(node, scope);
            }
            "subscript" | "subscript_expression" => {
                if let Some((object, index)) = values::parts(node) {
                    self.computed(object, index, scope, node);
                }
            }
            "assignment" | "assignment_expression" | "augmented_assignment" | "augmented_assignment_expression" => {
                let left = node.child_by_field_name("left");
                if left.is_some_and(|left| self.tampers(left, scope)) {
                    self.report("builtins-tampering", node, node);
                }
            }
            "binary_operator" | "binary_expression"
                if parent.is_none_or(|parent| parent.kind() != node.kind()) && self.spelled_out(node, scope) =>
            {
                self.report("obfuscated-code", node, node);
            }
            _ => {}
        }
        match self.script.language {
            Language::Python => python::check(self, place),
            Language::JavaScript => javascript::check(self, place),
        }
    }

    /// Notes a finding at a node, with the code of this or another one.
    pub fn report(&mut self, rule: &'static str, at: Node, code: Node) {
        if self.found.len() > super::FINDINGS {
            return;
        }
        let code = escaped(self.script.source(code));
        self.found.push(Found { at: at.start_byte(), rule, code });
    }

    /// Notes the import of a module, if there is a rule for it; says whether there is.
    pub fn module(&mut self, path: &str, at: Node, code: Node) -> bool {
        let table = match self.script.language {
            Language::Python => python::MODULES,
            Language::JavaScript => javascript::MODULES,
        };
        let within =
            |module: &str| path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        match table.iter().find(|(module, _)| within(module)) {
            Some((_, rule)) if !rule.is_empty() => {
                self.report(rule, at, code);
                true
            }
            _ => false,
        }
    }

    /// Notes the import of a module by a call with its name.
    pub fn loaded(&mut self, call: Node<'t>, scope: usize) {
        let Some(first) = values::arguments(call).first().copied() else { return };
        for value in values::evaluate(self.script, first, scope) {
            if let Some(name) = value.exact() {
                let path = match self.script.language {
                    Language::Python => name.to_owned(),
                    Language::JavaScript => values::javascript_module(name),
                };
                self.module(&path, call, call);
            }
        }
    }

    fn call(&mut self, node: Node<'t>, scope: usize) {
        let Some(function) = values::callee(node) else { return };
        let given = values::arguments(node);
        if let Some((object, name)) = values::parts(function)
            && object.kind() == "string"
            && self.script.source(name) == "join"
            && given.iter().any(|argument| self.holds(*argument, scope, &|path| path == "builtins.chr"))
        {
            self.report("obfuscated-code", node, node);
        }
        for value in values::evaluate(self.script, function, scope) {
            let Some(path) = value.path() else { continue };
            let uses = self.uses().iter().filter(|(pattern, ..)| values::matches(pattern, path));
            for (_, rule, when) in uses {
                if !self.holds_when(*when, path, &given, scope) {
                    continue;
                }
                self.report(rule, node, node);
                if *rule == "evaluate" && given.iter().any(|argument| self.hidden(*argument, scope)) {
                    self.report("obfuscated-code", node, node);
                }
                if *rule == "dynamic-import" && *when == When::Always {
                    self.loaded(node, scope);
                }
            }
            let readers = match self.script.language {
                Language::Python => python::READERS,
                Language::JavaScript => javascript::READERS,
            };
            if readers.iter().any(|pattern| values::matches(pattern, path)) {
                self.secrets(node, &given, scope);
            }
            let numbers = |node: &Node| if node.kind() == "array" { node.named_child_count() } else { 1 };
            if path == "global.String.fromCharCode" && given.iter().map(numbers).sum::<usize>() >= CHARACTERS {
                self.report("obfuscated-code", node, node);
            }
        }
    }

    fn secrets(&mut self, call: Node<'t>, given: &[Node<'t>], scope: usize) {
        let mut whole = String::new();
        let mut secret = false;
        for argument in given.iter().take(8) {
            for value in values::evaluate(self.script, *argument, scope) {
                if let Value::Text(text) = value {
                    secret |= rules::is_secret(&text);
                    whole = format!("{whole}/{text}");
                }
            }
        }
        if secret || rules::is_secret(&whole) {
            self.report("read-secret", call, call);
        }
    }

    fn holds_when(&self, when: When, path: &str, given: &[Node<'t>], scope: usize) -> bool {
        let values =
            |at: usize| given.get(at).map(|node| values::evaluate(self.script, *node, scope)).unwrap_or_default();
        let outside = |at| values(at).iter().any(|v| matches!(v, Value::Text(text) if rules::is_outside(text)));
        match when {
            When::Always => true,
            When::Text => values(0).iter().any(|value| matches!(value, Value::Text(_) | Value::Decoded)),
            When::Computed => !given.is_empty() && !values(0).iter().any(|value| value.exact().is_some()),
            When::Outside => {
                let two = ["rename", "link", "move", "replace"].iter().any(|name| path.contains(name));
                outside(0) || two && outside(1)
            }
            When::Second => outside(1),
            When::OpenOutside => {
                let writes = |mode: &str| mode.len() <= 4 && mode.contains(['w', 'a', 'x', '+']);
                outside(0)
                    && (1..given.len()).any(|at| values(at).iter().any(|value| value.exact().is_some_and(writes)))
            }
            When::Recursive => given.iter().filter(|argument| argument.kind() == "object").any(|object| {
                let mut cursor = object.walk();
                object.named_children(&mut cursor).any(|pair| {
                    let is = |field, text: &str| {
                        pair.child_by_field_name(field).is_some_and(|node| self.script.source(node) == text)
                    };
                    is("key", "recursive") && is("value", "true")
                })
            }),
        }
    }

    fn handed_on(&mut self, node: Node<'t>, scope: usize) {
        for value in values::evaluate(self.script, node, scope) {
            let Some(path) = value.path() else { continue };
            // Classes are handed on to compare with, too.
            if path.rsplit('.').next().is_some_and(|name| name.starts_with(char::is_uppercase)) {
                continue;
            }
            let found = self.uses().iter().find(|(pattern, rule, when)| {
                *when == When::Always && HANDED_ON.contains(rule) && values::matches(pattern, path)
            });
            if let Some((_, rule, _)) = found {
                self.report(rule, node, node);
            }
        }
    }

    /// Notes that an attribute of something dangerous is picked by a name that is not written out.
    pub fn computed(&mut self, object: Node<'t>, name: Node<'t>, scope: usize, whole: Node<'t>) {
        let written = matches!(name.kind(), "string" | "template_string" | "integer" | "number")
            && name
                .named_children(&mut name.walk())
                .all(|c| !matches!(c.kind(), "interpolation" | "template_substitution"));
        let values = values::evaluate(self.script, object, scope);
        if !written && values.iter().any(|value| value.path().is_some_and(|path| SENSITIVE.contains(&path))) {
            self.report("computed-attribute", whole, whole);
        }
    }

    /// Whether an expression is the scope of the built-in names.
    pub fn is_builtin_scope(&self, object: Node<'t>, scope: usize) -> bool {
        let shared = ["builtins", "global.Object.prototype", "global.Function.prototype", "global.Array.prototype"];
        values::evaluate(self.script, object, scope)
            .iter()
            .any(|value| value.path().is_some_and(|p| shared.contains(&p)))
    }

    fn tampers(&self, left: Node<'t>, scope: usize) -> bool {
        let Some((object, _)) = values::parts(left) else { return false };
        let whole = ["global.eval", "global.Function", "global.require", "global.fetch"];
        self.is_builtin_scope(object, scope)
            || values::evaluate(self.script, left, scope).iter().any(|v| v.path().is_some_and(|p| whole.contains(&p)))
    }

    /// Whether what is run as code comes from a decoder, or is very long.
    fn hidden(&self, argument: Node<'t>, scope: usize) -> bool {
        let known = values::evaluate(self.script, argument, scope).iter().any(|value| match value {
            Value::Decoded => true,
            Value::Text(text) => text.len() > LONG_CODE,
            Value::Path(_) => false,
        });
        known || self.holds(argument, scope, &values::is_decoder)
    }

    /// Whether an expression uses a function, at any depth.
    fn holds(&self, inside: Node<'t>, scope: usize, wanted: &dyn Fn(&str) -> bool) -> bool {
        let mut rest = vec![inside];
        for _ in 0..LOOKED_AT {
            let Some(node) = rest.pop() else { break };
            if matches!(node.kind(), "identifier" | "attribute" | "member_expression")
                && values::evaluate(self.script, node, scope).iter().any(|value| value.path().is_some_and(wanted))
            {
                return true;
            }
            rest.extend(node.named_children(&mut node.walk()).take(LOOKED_AT));
        }
        false
    }

    /// Whether a sum is of characters given by number.
    fn spelled_out(&self, whole: Node<'t>, scope: usize) -> bool {
        let is_character = |node: Node<'t>| {
            let function = if node.kind().starts_with("call") { values::callee(node) } else { None };
            let function = function.map(|node| values::evaluate(self.script, node, scope)).unwrap_or_default();
            function.iter().any(|v| matches!(v.path(), Some("builtins.chr" | "global.String.fromCharCode")))
        };
        let (mut count, mut at) = (0, Some(whole));
        while let Some(node) = at.filter(|node| node.kind() == whole.kind() && count < CHARACTERS) {
            count += usize::from(node.child_by_field_name("right").is_some_and(is_character));
            at = node.child_by_field_name("left");
        }
        count + usize::from(at.is_some_and(is_character)) >= CHARACTERS
    }
}

/// Whether a node is a value of its parent that others may call: an argument, or a part of a list or table.
fn hands_on(parent: Node, node: Node) -> bool {
    match parent.kind() {
        "argument_list" | "arguments" | "list" | "array" | "tuple" | "return_statement" => true,
        "keyword_argument" | "pair" => parent.child_by_field_name("value") == Some(node),
        _ => false,
    }
}

/// One short line of code.
fn escaped(code: &str) -> String {
    let mut line = String::new();
    let mut length = 0;
    for c in code.chars() {
        let piece = if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        length += piece.chars().count();
        if length > CODE {
            // Room for the sign that something is missing.
            while line.chars().count() >= CODE {
                line.pop();
            }
            return line + "…";
        }
        line += &piece;
    }
    line
}
