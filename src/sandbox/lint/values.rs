//! What an expression stands for, as far as it can be told without running it.

use super::Language;
use super::scope::Script;
use tree_sitter::Node;

/// Stands for the part of a text that is not known.
pub(super) const UNKNOWN: char = '\0';
/// Steps that one expression may take, which bounds depth and time.
const FUEL: u32 = 96;
/// Longer texts are cut.
const LONGEST: usize = 2048;

/// What an expression may stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A part of a module (`os.system`) or of the language (`builtins.eval`, `global.process.kill`).
    Path(String),
    /// A text, with [`UNKNOWN`] in place of what is not known.
    Text(String),
    /// What came out of a decoder.
    Decoded,
}

impl Value {
    /// The text, if all of it is known.
    pub fn exact(&self) -> Option<&str> {
        match self {
            Value::Text(text) if !text.contains(UNKNOWN) => Some(text),
            _ => None,
        }
    }

    /// The path, if it is one.
    pub fn path(&self) -> Option<&str> {
        if let Value::Path(path) = self { Some(path) } else { None }
    }
}

const DECODERS: &[&str] = &[
    "base64.*",
    "codecs.decode",
    "binascii.unhexlify",
    "binascii.a2b_*",
    "zlib.decompress",
    "gzip.decompress",
    "bz2.decompress",
    "lzma.decompress",
    "builtins.bytes.fromhex",
    "builtins.bytearray.fromhex",
    "marshal.loads",
    "global.atob",
    "global.Buffer.from",
    "buffer.Buffer.from",
    "buffer.atob",
    "global.unescape",
    "global.decodeURIComponent",
    "zlib.inflate*",
    "zlib.gunzip*",
    "zlib.unzip*",
    "zlib.brotliDecompress*",
];

/// Whether a path is a pattern, or starts with it where it ends in `*`.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}

/// Whether a function turns something unreadable into text or code.
pub(super) fn is_decoder(path: &str) -> bool {
    DECODERS.iter().any(|pattern| matches(pattern, path))
}

/// One name for what goes by several.
pub(super) fn canonical(language: Language, path: String) -> String {
    let replacements: &[(&str, &str)] = match language {
        Language::Python => &[
            ("builtins.__builtins__", "builtins"),
            ("builtins.__builtin__", "builtins"),
            ("__builtin__", "builtins"),
            ("globals.__builtins__", "builtins"),
            ("posix", "os"),
            ("nt", "os"),
            ("_io", "io"),
            ("sys.modules", ""),
            ("multiprocessing.context", "multiprocessing"),
        ],
        Language::JavaScript => &[
            ("global.globalThis", "global"),
            ("global.global", "global"),
            ("global.window", "global"),
            ("global.self", "global"),
            ("process", "global.process"),
            ("global.process.mainModule.require", "global.require"),
            ("global.module.require", "global.require"),
            ("buffer.Buffer", "global.Buffer"),
        ],
    };
    let mut path = path;
    for (from, to) in replacements {
        if let Some(rest) = path.strip_prefix(from)
            && (rest.is_empty() || rest.starts_with('.'))
        {
            path = match (to.is_empty(), rest.is_empty()) {
                (true, true) => continue,
                (true, false) => rest[1..].to_owned(),
                _ => format!("{to}{rest}"),
            };
        }
    }
    let idle: &[&str] = match language {
        Language::Python => &[".__dict__", ".__call__", ".__wrapped__"],
        Language::JavaScript => &[".default", ".call", ".apply", ".__proto__"],
    };
    while let Some(shorter) = idle.iter().find_map(|suffix| path.strip_suffix(suffix)) {
        path.truncate(shorter.len());
    }
    path
}

/// A JavaScript module's path: `node:fs/promises` is `fs.promises`.
pub(super) fn javascript_module(name: &str) -> String {
    canonical(Language::JavaScript, name.strip_prefix("node:").unwrap_or(name).replace('/', "."))
}

/// What an attribute of these values may stand for.
pub(super) fn member(script: &Script, values: Vec<Value>, name: &str) -> Vec<Value> {
    let step = |value| match value {
        Value::Path(path) if path.len() + name.len() < 200 => {
            Some(Value::Path(canonical(script.language, format!("{path}.{name}"))))
        }
        Value::Decoded => Some(Value::Decoded),
        _ => None,
    };
    values.into_iter().filter_map(step).collect()
}

/// What an expression may stand for; nothing if that can't be told.
pub(super) fn evaluate<'t>(script: &Script<'t>, node: Node<'t>, scope: usize) -> Vec<Value> {
    Evaluation { script, scope, fuel: FUEL }.of(node)
}

/// The arguments of a call in their order, keyword arguments by their values.
pub(super) fn arguments<'t>(call: Node<'t>) -> Vec<Node<'t>> {
    let Some(list) = call.child_by_field_name("arguments") else { return Vec::new() };
    let mut cursor = list.walk();
    list.named_children(&mut cursor).filter(|node| !node.is_extra()).take(64).collect()
}

/// The function of a call.
pub(super) fn callee<'t>(call: Node<'t>) -> Option<Node<'t>> {
    call.child_by_field_name("function").or_else(|| call.child_by_field_name("constructor"))
}

/// The object and the attribute of an attribute access.
pub(super) fn parts<'t>(node: Node<'t>) -> Option<(Node<'t>, Node<'t>)> {
    let (object, name) = match node.kind() {
        "attribute" => ("object", "attribute"),
        "member_expression" => ("object", "property"),
        "subscript" => ("value", "subscript"),
        "subscript_expression" => ("object", "index"),
        _ => return None,
    };
    Some((node.child_by_field_name(object)?, node.child_by_field_name(name)?))
}

struct Evaluation<'a, 't> {
    script: &'a Script<'t>,
    scope: usize,
    fuel: u32,
}

impl<'t> Evaluation<'_, 't> {
    fn of(&mut self, node: Node<'t>) -> Vec<Value> {
        if self.fuel == 0 {
            return Vec::new();
        }
        self.fuel -= 1;
        let field = |name| node.child_by_field_name(name);
        let both = |this: &mut Self, nodes: [Option<Node<'t>>; 2]| {
            nodes.into_iter().flatten().flat_map(|node| this.of(node)).collect()
        };
        match node.kind() {
            "identifier" => self.script.lookup(self.scope, self.script.source(node)),
            "import" => vec![Value::Path("global.import".into())],
            "parenthesized_expression" | "await" | "await_expression" | "sequence_expression" => {
                let mut cursor = node.walk();
                let last = node.named_children(&mut cursor).filter(|child| !child.is_extra()).last();
                last.map(|last| self.of(last)).unwrap_or_default()
            }
            "named_expression" | "keyword_argument" => field("value").map(|value| self.of(value)).unwrap_or_default(),
            "assignment_expression" | "assignment" => field("right").map(|value| self.of(value)).unwrap_or_default(),
            "ternary_expression" => both(self, [field("consequence"), field("alternative")]),
            "conditional_expression" => both(self, [node.named_child(0), node.named_child(2)]),
            "boolean_operator" => both(self, [field("left"), field("right")]),
            "attribute" | "member_expression" => {
                let Some((object, name)) = parts(node) else { return Vec::new() };
                let values = self.of(object);
                member(self.script, values, self.script.source(name))
            }
            "subscript" | "subscript_expression" => {
                let Some((object, index)) = parts(node) else { return Vec::new() };
                let values = self.of(object);
                match self.exact(index) {
                    Some(name) => member(self.script, values, &name),
                    None => Vec::new(),
                }
            }
            "string" | "template_string" => vec![Value::Text(self.string(node))],
            "concatenated_string" => {
                let mut cursor = node.walk();
                let strings = node.named_children(&mut cursor).filter(|child| child.kind() == "string").take(64);
                vec![Value::Text(strings.map(|string| self.string(string)).collect())]
            }
            "binary_operator" | "binary_expression" => {
                let (Some(left), Some(right), Some(operator)) = (field("left"), field("right"), field("operator"))
                else {
                    return Vec::new();
                };
                match self.script.source(operator) {
                    "+" => self.joined(&[left, right], ""),
                    "/" if self.script.language == Language::Python => self.joined(&[left, right], "/"),
                    "||" | "&&" | "??" => both(self, [Some(left), Some(right)]),
                    _ => Vec::new(),
                }
            }
            "call" | "call_expression" | "new_expression" => self.call(node),
            _ => Vec::new(),
        }
    }

    /// The one text that an expression stands for.
    fn exact(&mut self, node: Node<'t>) -> Option<String> {
        self.of(node).iter().find_map(|value| value.exact().map(str::to_owned))
    }

    /// A text of several; nothing if not one of them is a text.
    fn joined(&mut self, nodes: &[Node<'t>], between: &str) -> Vec<Value> {
        let mut known = false;
        let mut texts = Vec::new();
        for node in nodes {
            let values = self.of(*node);
            if values.contains(&Value::Decoded) {
                return vec![Value::Decoded];
            }
            let text = values.into_iter().find_map(|v| if let Value::Text(text) = v { Some(text) } else { None });
            known |= text.is_some();
            texts.push(text.unwrap_or_else(|| UNKNOWN.into()));
        }
        if known { vec![Value::Text(cut(texts.join(between)))] } else { Vec::new() }
    }

    fn call(&mut self, node: Node<'t>) -> Vec<Value> {
        let Some(function) = callee(node) else { return Vec::new() };
        let given = arguments(node);
        if let Some((object, name)) = parts(function) {
            match self.script.source(name) {
                "bind" => return self.of(object),
                "join" if object.kind() == "string" => return Vec::new(),
                _ => {}
            }
        }
        self.of(function).into_iter().flat_map(|value| self.result(&value, &given)).collect()
    }

    fn result(&mut self, function: &Value, given: &[Node<'t>]) -> Vec<Value> {
        let path = match function {
            Value::Path(path) => path.as_str(),
            Value::Decoded => return vec![Value::Decoded],
            Value::Text(_) => return Vec::new(),
        };
        let first = given.first().copied();
        match path {
            _ if is_decoder(path) => vec![Value::Decoded],
            "builtins.__import__" => {
                let name = first.and_then(|node| self.exact(node));
                name.and_then(|n| n.split('.').next().map(|top| self.module(top))).into_iter().collect()
            }
            "importlib.import_module" | "importlib.__import__" => {
                first.and_then(|node| self.exact(node)).map(|name| self.module(&name)).into_iter().collect()
            }
            "global.require" | "global.import" | "global.process.getBuiltinModule" => {
                let name = first.and_then(|node| self.exact(node));
                name.map(|name| Value::Path(javascript_module(&name))).into_iter().collect()
            }
            "module.createRequire" => vec![Value::Path("global.require".into())],
            "builtins.getattr" => match (first, given.get(1)) {
                (Some(object), Some(name)) => {
                    let values = self.of(object);
                    self.exact(*name).map(|name| member(self.script, values, &name)).unwrap_or_default()
                }
                _ => Vec::new(),
            },
            "builtins.vars" if first.is_some() => self.of(given[0]),
            "builtins.globals" | "builtins.locals" | "builtins.vars" => vec![Value::Path("globals".into())],
            "functools.partial" | "util.promisify" => first.map(|node| self.of(node)).unwrap_or_default(),
            "builtins.chr" | "global.String.fromCharCode" => {
                let code = |node: &Node| self.script.source(*node).parse().ok().and_then(char::from_u32);
                vec![Value::Text(given.iter().map(|node| code(node).unwrap_or(UNKNOWN)).collect())]
            }
            "pathlib.Path.home" => vec![Value::Text(UNKNOWN.into())],
            "os.path.join" | "path.join" | "path.resolve" | "pathlib.Path" | "pathlib.PosixPath"
            | "os.path.expanduser" | "os.path.abspath" | "builtins.str" | "builtins.bytes" => self.joined(given, "/"),
            _ => Vec::new(),
        }
    }

    fn module(&self, name: &str) -> Value {
        Value::Path(canonical(self.script.language, name.to_owned()))
    }

    /// A string literal's text.
    fn string(&self, node: Node<'t>) -> String {
        let mut text = String::new();
        let mut raw = false;
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor).take(256) {
            let part = self.script.source(child);
            match child.kind() {
                "string_start" => raw = part.contains(['r', 'R']),
                "string_content" | "string_fragment" | "escape_sequence" if raw => text += cut_str(part),
                "string_content" | "string_fragment" | "escape_sequence" => unescape(cut_str(part), &mut text),
                "interpolation" | "template_substitution" => text.push(UNKNOWN),
                _ => {}
            }
        }
        cut(text)
    }
}

fn cut_str(text: &str) -> &str {
    &text[..text.floor_char_boundary_at(LONGEST)]
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary_at(LONGEST));
    text
}

trait Boundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
}

impl Boundary for str {
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        (0..=index.min(self.len())).rev().find(|&at| self.is_char_boundary(at)).unwrap_or(0)
    }
}

/// Appends a literal's text with its escape sequences replaced.
fn unescape(literal: &str, text: &mut String) {
    let mut rest = literal;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else { return };
        let after = &rest[kind.len_utf8()..];
        let (digits, radix, skip) = match kind {
            'x' => (after.get(..2), 16, 1),
            'u' if after.starts_with('{') => (after[1..].split('}').next(), 16, 3),
            'u' => (after.get(..4), 16, 1),
            'U' => (after.get(..8), 16, 1),
            '0'..='7' => {
                let end = rest.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                (rest.get(..end), 8, 0)
            }
            _ => (None, 0, 0),
        };
        let escaped = digits.and_then(|d| u32::from_str_radix(d, radix).ok().and_then(char::from_u32));
        if let (Some(c), Some(digits)) = (escaped, digits) {
            text.push(c);
            rest = rest.get(digits.len() + skip..).unwrap_or("");
            continue;
        }
        rest = after;
        match kind {
            '\n' => {}
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            other => text.push(other),
        }
    }
    text.push_str(rest);
}
