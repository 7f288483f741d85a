//! Which names stand for what: scopes, and the bindings of every name in them.

use super::Language;
use super::values::{self, Value};
use std::collections::HashMap;
use tree_sitter::Node;

/// More values of one name are not kept.
const VALUES: usize = 16;
/// An alias of an alias that is defined further down needs one round each.
const ROUNDS: usize = 8;

/// What a name is bound to.
pub(super) enum Source<'t> {
    /// A module or a part of one.
    Path(String),
    /// An expression, and what is taken out of it.
    Expression(Node<'t>, Vec<&'t str>),
    /// Something of the script's own.
    Other,
}

/// One binding of a name.
pub(super) struct Binding<'t> {
    pub scope: usize,
    pub name: &'t str,
    pub source: Source<'t>,
    /// Whether it makes the name, or sets one that an outer scope may have made.
    pub declares: bool,
}

/// A part of the script with names of its own.
pub(super) struct Scope<'t> {
    parent: Option<usize>,
    kind: &'static str,
    names: HashMap<&'t str, Vec<Value>>,
    /// Names that Python's `global` and `nonlocal` hand to another scope.
    handed: HashMap<&'t str, usize>,
}

/// A script with what its names stand for.
pub(super) struct Script<'t> {
    pub text: &'t str,
    pub language: Language,
    scopes: Vec<Scope<'t>>,
    /// Scopes by the node that opens them.
    opened: HashMap<usize, usize>,
    /// Modules whose every name is imported (`from os import *`).
    stars: Vec<String>,
}

/// Where a walk is: the node, what encloses it, and the scope that it is in.
pub(super) struct Place<'t> {
    pub node: Node<'t>,
    pub parent: Option<Node<'t>>,
    pub scope: usize,
}

fn opens(language: Language, kind: &str) -> bool {
    match language {
        Language::Python => matches!(kind, "function_definition" | "class_definition" | "lambda"),
        Language::JavaScript => {
            is_function(kind)
                || matches!(
                    kind,
                    "statement_block" | "for_statement" | "for_in_statement" | "catch_clause" | "switch_body"
                )
        }
    }
}

/// Whether `var` stays inside a node of this kind.
fn is_function(kind: &str) -> bool {
    matches!(
        kind,
        "function_declaration"
            | "function_expression"
            | "generator_function_declaration"
            | "generator_function"
            | "arrow_function"
            | "method_definition"
            | "class_static_block"
    )
}

impl<'t> Script<'t> {
    /// Finds the scopes of a parsed script and what the names in them stand for.
    pub fn new(text: &'t str, language: Language, root: Node<'t>) -> Script<'t> {
        let module = Scope { parent: None, kind: "module", names: HashMap::new(), handed: HashMap::new() };
        let mut script = Script { text, language, scopes: vec![module], opened: HashMap::new(), stars: Vec::new() };
        let mut bindings = Vec::new();
        script.walk_mut(root, &mut |script, place| match language {
            Language::Python => super::python::bind(script, place, &mut bindings),
            Language::JavaScript => super::javascript::bind(script, place, &mut bindings),
        });
        for binding in &mut bindings {
            if let Some(&other) = script.scopes[binding.scope].handed.get(binding.name) {
                binding.scope = other;
            }
            if binding.declares {
                script.scopes[binding.scope].names.entry(binding.name).or_default();
            }
        }
        for _ in 0..ROUNDS {
            let mut grown = false;
            for binding in &bindings {
                grown |= script.set(binding);
            }
            if !grown {
                break;
            }
        }
        script
    }

    fn set(&mut self, binding: &Binding<'t>) -> bool {
        let values = match &binding.source {
            Source::Other => return false,
            Source::Path(path) => vec![Value::Path(path.clone())],
            Source::Expression(node, taken) => {
                let mut values = values::evaluate(self, *node, binding.scope);
                for name in taken {
                    values = values::member(self, values, name);
                }
                values
            }
        };
        let scope = if binding.declares { binding.scope } else { self.owner(binding.scope, binding.name).unwrap_or(0) };
        let known = self.scopes[scope].names.entry(binding.name).or_default();
        let before = known.len();
        for value in values {
            if known.len() < VALUES && !known.contains(&value) {
                known.push(value);
            }
        }
        known.len() > before
    }

    /// The scope whose name this is, seen from another scope.
    fn owner(&self, from: usize, name: &str) -> Option<usize> {
        let mut at = Some(from);
        while let Some(scope) = at {
            let names = &self.scopes[scope];
            // The names of a Python class are not seen by the functions in it.
            if (scope == from || names.kind != "class_definition") && names.names.contains_key(name) {
                return Some(scope);
            }
            at = names.parent;
        }
        None
    }

    /// What a name stands for in a scope. A name that the script does not bind is a built-in one.
    pub fn lookup(&self, scope: usize, name: &str) -> Vec<Value> {
        if let Some(owner) = self.owner(scope, name) {
            return self.scopes[owner].names[name].clone();
        }
        let free = match self.language {
            Language::Python => format!("builtins.{name}"),
            Language::JavaScript => format!("global.{name}"),
        };
        let starred = self.stars.iter().map(|module| format!("{module}.{name}"));
        std::iter::once(free).chain(starred).map(|path| Value::Path(values::canonical(self.language, path))).collect()
    }

    /// The scope that `var` binds in, or the module's.
    pub fn function_scope(&self, mut scope: usize) -> usize {
        while let Some(parent) = self.scopes[scope].parent {
            if is_function(self.scopes[scope].kind) {
                break;
            }
            scope = parent;
        }
        scope
    }

    /// The scope around another one.
    pub fn outer(&self, scope: usize) -> usize {
        self.scopes[scope].parent.unwrap_or(0)
    }

    /// Notes that a name of this scope is another scope's.
    pub fn hand(&mut self, scope: usize, name: &'t str, to: usize) {
        self.scopes[scope].handed.insert(name, to);
    }

    /// Notes that every name of a module is imported.
    pub fn star(&mut self, module: String) {
        if self.stars.len() < VALUES {
            self.stars.push(module);
        }
    }

    /// The text of a node.
    pub fn source(&self, node: Node) -> &'t str {
        &self.text[node.byte_range()]
    }

    /// Visits every node in the order of the text, without recursion: scripts nest as deep as they please.
    pub fn walk(&self, root: Node<'t>, visit: &mut dyn FnMut(Place<'t>)) {
        descend(root, &mut |node, parent, scope| {
            visit(Place { node, parent, scope });
            self.opened.get(&node.id()).copied().unwrap_or(scope)
        });
    }

    fn walk_mut(&mut self, root: Node<'t>, visit: &mut dyn FnMut(&mut Script<'t>, Place<'t>)) {
        descend(root, &mut |node, parent, scope| {
            let mut inner = scope;
            if opens(self.language, node.kind()) {
                inner = self.scopes.len();
                let (names, handed) = (HashMap::new(), HashMap::new());
                self.scopes.push(Scope { parent: Some(scope), kind: node.kind(), names, handed });
                self.opened.insert(node.id(), inner);
            }
            visit(self, Place { node, parent, scope });
            inner
        });
    }
}

/// Visits nodes with their parent and a scope; what the visit returns is the scope of the node's children.
fn descend<'t>(root: Node<'t>, visit: &mut dyn FnMut(Node<'t>, Option<Node<'t>>, usize) -> usize) {
    let mut cursor = root.walk();
    let mut above: Vec<(Node, usize)> = Vec::new();
    loop {
        let node = cursor.node();
        let (parent, scope) = above.last().map_or((None, 0), |&(parent, scope)| (Some(parent), scope));
        let inner = visit(node, parent, scope);
        if cursor.goto_first_child() {
            above.push((node, inner));
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
            above.pop();
        }
    }
}
