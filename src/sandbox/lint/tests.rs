use super::*;
use Language::{JavaScript, Python};

fn names(language: Language, source: &str) -> Vec<&'static str> {
    analyse(language, "a", source.as_bytes()).iter().map(|finding| finding.rule).collect()
}

/// Language, rule, code that it is for, code that looks like it and is not.
const TABLE: &[(Language, &str, &str, &str)] = &[
    (Python, "builtins-tampering", "import builtins\nsetattr(builtins, 'x', 1)", "setattr(thing, 'x', 1)"),
    (Python, "builtins-tampering", "__builtins__.print = f", "thing.print = f"),
    (JavaScript, "builtins-tampering", "Object.prototype.x = 1", "thing.prototype.x = 1"),
    (Python, "change-identity", "import os\nos.setuid(0)", "import os\nos.getuid()"),
    (JavaScript, "change-identity", "process.setuid(0)", "process.getuid()"),
    (Python, "computed-attribute", "import os\ngetattr(os, name)()", "import os\ngetattr(os, 'sep')"),
    (JavaScript, "computed-attribute", "global[name]('x')", "process.env[name]"),
    (Python, "deserialise", "import pickle\npickle.loads(x)", "import pickle\npickle.dumps(x)"),
    (JavaScript, "deserialise", "require('node-serialize').unserialize(x)", "JSON.parse(x)"),
    (Python, "dynamic-import", "import importlib\nimportlib.import_module(x)", "importlib.import_module(x)"),
    (JavaScript, "dynamic-import", "require(x)", "require('./x')"),
    (JavaScript, "dynamic-import", "await import(x)", "await import('./x')"),
    (Python, "evaluate", "eval(x)", "'eval(x)' # eval(x)"),
    (Python, "evaluate", "compile(x, '', 'exec')", "import re\nre.compile(x)"),
    (Python, "evaluate", "list(map(exec, x))", "f(exec=1)"),
    (JavaScript, "evaluate", "eval(x)", "\"eval(x)\" // eval(x)"),
    (JavaScript, "evaluate", "(0, eval)(x)", "model.eval(x)"),
    (JavaScript, "evaluate", "new Function('a', x)", "new Functional('a', x)"),
    (JavaScript, "evaluate", "setTimeout('x()' + y, 1)", "setTimeout(() => x(), 1)"),
    (Python, "fork", "import os\nos.fork()", "git.fork()"),
    (
        JavaScript,
        "fork",
        "import {Worker as W} from 'worker_threads'; new W('x')",
        "import {Worker} from './w'; new Worker()",
    ),
    (Python, "import-deserialise", "import marshal", "import json"),
    (JavaScript, "import-deserialise", "import 'node-serialize'", "import './node-serialize'"),
    (Python, "import-loader", "from importlib import util", "import importlib.metadata"),
    (JavaScript, "import-loader", "import vm from 'node:vm'", "import vm from './vm'"),
    (Python, "import-native", "import ctypes.util", "import ctypeslib"),
    (JavaScript, "import-native", "require('koffi')", "fetchit('koffi')"),
    (Python, "import-network", "import http.client as c", "from urllib.parse import quote"),
    (JavaScript, "import-network", "export * from 'node:https'", "export * from 'path'"),
    (Python, "import-process", "import json, subprocess", "from . import subprocess"),
    (JavaScript, "import-process", "await import('node:child_process')", "x.require('child_process')"),
    (Python, "import-system", "__import__('o' + 's')", "import osmosis"),
    (JavaScript, "import-system", "import {readFile} from 'fs/promises'", "import x from 'fsx'"),
    (Python, "load-native", "from ctypes import CDLL\nCDLL(None)", "from ctypes import c_int\nc_int(1)"),
    (JavaScript, "load-native", "process.binding('spawn_sync')", "thing.binding('x')"),
    (Python, "network-use", "import socket as s\ns.socket()", "import socket as s\ns.htons(1)"),
    (JavaScript, "network-use", "fetch('http://a')", "function fetch() {} fetch('http://a')"),
    (Python, "obfuscated-code", "import base64\nexec(base64.b64decode('eA==').decode())", "exec(f.read())"),
    (Python, "obfuscated-code", "import zlib\nx = zlib.decompress(y)\nexec(x)", "import zlib\nx = zlib.decompress(y)"),
    (Python, "obfuscated-code", "chr(1)+chr(2)+chr(3)+chr(4)", "chr(1)+chr(2)+'a'+'b'"),
    (Python, "obfuscated-code", "''.join(chr(c) for c in x)", "''.join(str(c) for c in x)"),
    (JavaScript, "obfuscated-code", "eval(atob('eA=='))", "atob('eA==')"),
    (JavaScript, "obfuscated-code", "String.fromCharCode(1, 2, 3, 4)", "String.fromCharCode(1, 2)"),
    (Python, "object-graph", "().__class__.__subclasses__()", "x.__class__.__name__"),
    (JavaScript, "object-graph", "this.constructor.constructor('x')()", "this.constructor.name"),
    (Python, "read-secret", "open('/etc/shadow')", "print('/etc/shadow')"),
    (Python, "read-secret", "import os\nopen(os.path.expanduser('~/.ssh/id_rsa'))", "open('my.ssh.txt')"),
    (Python, "read-secret", "import os\nos.path.join(home, '.aws', 'credentials')", "open('credentials')"),
    (JavaScript, "read-secret", "require('fs').readFileSync(`${home}/.ssh/id`)", "console.log('~/.ssh/id')"),
    (Python, "remove-tree", "import shutil as s\ns.rmtree(x)", "tree.rmtree(x)"),
    (JavaScript, "remove-tree", "require('fs').rmSync(x, {recursive: true})", "require('fs').rmSync(x, {force: true})"),
    (Python, "run-command", "import os as o\no.system('x')", "import mine as os\nos.system('x')"),
    (Python, "run-command", "from subprocess import run as r\nr(x)", "from fast import run as r\nr(x)"),
    (Python, "run-command", "def f():\n  s('x')\nimport os\ns = os.system", "def f(s):\n  s('x')\nimport os"),
    (Python, "run-command", "import os\na, b = os.popen, 1\na('x')", "import os\na, b = 1, os.sep\na('x')"),
    (Python, "run-command", "from os import *\nsystem('x')", "system('x')"),
    (Python, "run-command", "getattr(__import__('os'), 'sys' 'tem')('x')", "getattr(__import__('os'), 'sep')"),
    (Python, "run-command", "import sys\nsys.modules['os'].execv('x', [])", "sys.modules['os'].execv('x', [])"),
    (Python, "run-command", "import os\nf'{os.system(\"x\")}'", "import os\nf'os.system(\"x\")'"),
    (Python, "run-command", "import os\ndef f(x=os.system): x(1)", "import os\ndef f(os): os.system(1)"),
    (JavaScript, "run-command", "const {exec: e} = require('child_process'); e('x')", "const {exec: e} = re; e('x')"),
    (
        JavaScript,
        "run-command",
        "import * as cp from 'node:child_process'; cp.spawn('x')",
        "import * as cp from './cp'; cp.spawn('x')",
    ),
    (JavaScript, "run-command", "let s; s = require('child_process').spawn; s('x')", "let s; s = spawn; s('x')"),
    (JavaScript, "run-command", "require('child_process')['ex' + 'ec']('x')", "require('child_process')['x']('exec')"),
    (JavaScript, "run-command", "import cp from 'child_process'; cp.exec?.('x')", "/x/.exec('child_process')"),
    (Python, "signal-process", "import os\nos.kill(1, 9)", "process.kill()"),
    (JavaScript, "signal-process", "process.kill(1)", "child.kill(1)"),
    (Python, "syntax-error", "x = (1", "x = (1)"),
    (JavaScript, "syntax-error", "let = = 1", "let x = 1"),
    (Python, "wildcard-import", "from os import *", "from json import *"),
    (Python, "write-outside", "open('/etc/passwd', 'a')", "open('/etc/passwd', 'r')"),
    (Python, "write-outside", "open('../x', mode='w')", "open('a/../x', mode='w')"),
    (
        Python,
        "write-outside",
        "from pathlib import Path\nPath('/etc/x').write_text('')",
        "from pathlib import Path\nPath('/tmp/x').write_text('')",
    ),
    (
        JavaScript,
        "write-outside",
        "require('fs').writeFileSync('/etc/x', '')",
        "require('fs').writeFileSync('x', '/etc/x')",
    ),
    (JavaScript, "write-outside", "require('fs').promises.unlink('/etc/x')", "require('fs').promises.unlink('/tmp/x')"),
];

#[test]
fn every_rule_and_its_near_misses() {
    let mut wrong = Vec::new();
    for (language, rule, code, near) in TABLE {
        if !names(*language, code).contains(rule) {
            wrong.push(format!("{rule} misses {code:?}: {:?}", names(*language, code)));
        }
        if names(*language, near).contains(rule) {
            wrong.push(format!("{rule} is found in {near:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for rule in rules().iter().filter(|rule| !["too-large", "too-many-findings", "not-analysed"].contains(&rule.name)) {
        for language in rule.languages {
            assert!(
                TABLE.iter().any(|(l, name, ..)| l == language && *name == rule.name),
                "{} {language:?}",
                rule.name
            );
        }
    }
    assert!(rules().windows(2).all(|pair| pair[0].name < pair[1].name));
}

#[test]
fn places_are_in_characters() {
    let found = analyse(Python, "ä.py", "\u{feff}x = 1\ns = 'äöü'; eval(s)\r\nif 1:\n\teval(\t2)\n".as_bytes());
    let places: Vec<_> = found.iter().map(|f| (f.line, f.column, f.code.as_str())).collect();
    assert_eq!(places, [(2, 12, "eval(s)"), (4, 2, "eval(\\t2)")]);
    assert_eq!(lint_text(&found[..1]), "ä.py:2:12: high: evaluate: runs text as code\n");
    let bytes = analyse(Python, "a\n", b"s = '\xff\xfe'; eval(s)");
    assert_eq!((bytes[0].line, bytes[0].column), (1, 11));
    assert!(lint_text(&bytes).starts_with("a\\n:1:11: "));
    let long = analyse(JavaScript, "a", format!("eval('{}')", "ä".repeat(200)).as_bytes());
    assert_eq!(long[0].code.chars().count(), 80);
}

#[test]
fn what_can_be_parsed_of_broken_code_counts() {
    let found = names(Python, "import os\nos.system('x')\ndef (:\n  pass\n)\nx = 1\neval(x)\n");
    assert!(found.contains(&"run-command") && found.contains(&"evaluate"), "{found:?}");
    assert_eq!(found.iter().filter(|rule| **rule == "syntax-error").count(), 1);
}

#[test]
fn deep_and_large_scripts() {
    let deep = |open: &str, close: &str| open.repeat(100_000) + close + ";\neval(x)";
    assert_eq!(names(JavaScript, &deep("[", &"]".repeat(100_000))), ["evaluate"]);
    assert_eq!(names(Python, &("(".repeat(100_000) + &")".repeat(100_000) + "\neval(x)")), ["evaluate"]);
    assert!(names(JavaScript, &deep("{a:", "")).contains(&"syntax-error"));
    assert!(names(Python, &deep("[", "")).contains(&"syntax-error"));
    assert_eq!(names(Python, &("x = a".to_owned() + &".b".repeat(20_000))), [""; 0]);
    assert_eq!(names(Python, &" ".repeat(SIZE + 1)), ["too-large"]);
    let many = names(JavaScript, &"eval(x);".repeat(FINDINGS + 5));
    assert_eq!((many.len(), many.last()), (FINDINGS + 1, Some(&"too-many-findings")));
}

#[test]
fn languages() {
    let of = |path: &str, line: &str| Language::of(Path::new(path), line.as_bytes());
    assert_eq!([of("a.py", ""), of("a.CJS", "#!/usr/bin/python3")], [Some(Python), Some(JavaScript)]);
    assert_eq!(
        [of("a", "#!/usr/bin/env -S python3.12 -u"), of("a", "#! /bin/nodejs\nx")],
        [Some(Python), Some(JavaScript)]
    );
    assert_eq!([of("a.rb", ""), of("a", "python"), of("a", "#!/bin/sh python"), of("a", "#!")], [None; 4]);
    assert_eq!(Python.name(), "Python");
}
