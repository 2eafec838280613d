//! Who may import whom. Comes in: the ```layers table of ARCHITECTURE.md and every file under src/.
//! Goes out: one line per import that points upward, sideways or at nothing the table knows.
//!
//! It reads text, not the compiler's tree: an import made by a macro is not seen, and code under
//! `#[cfg(test)]` is left out (a unit test may play another layer's part). Each rule has a planted
//! violation below that it must catch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The table: a layer's name and the names it may import, in the order written.
#[derive(Debug)]
struct Table {
    order: Vec<String>,
    may_import: BTreeMap<String, Vec<String>>,
}

impl Table {
    /// Reads the block that starts with "```layers". A line may name only layers above it, so a table
    /// that parses holds no cycle.
    fn parse(markdown: &str) -> Result<Self, String> {
        let block = markdown
            .split_once("```layers\n")
            .and_then(|(_, rest)| rest.split_once("```"))
            .map(|(block, _)| block)
            .ok_or("ARCHITECTURE.md has no ```layers block")?;
        let mut table = Self { order: Vec::new(), may_import: BTreeMap::new() };
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            let (name, imports) =
                line.split_once("->").ok_or_else(|| format!("no arrow in the layer line `{line}`"))?;
            let name = name.trim().to_owned();
            let imports: Vec<String> = imports.split_whitespace().map(str::to_owned).collect();
            for import in &imports {
                if !table.may_import.contains_key(import) {
                    return Err(format!("layer {name} names {import}, which does not stand above it"));
                }
            }
            if table.may_import.insert(name.clone(), imports).is_some() {
                return Err(format!("layer {name} stands twice in the table"));
            }
            table.order.push(name);
        }
        Ok(table)
    }

    /// The most specific layer that holds the module path.
    fn layer_of(&self, path: &[String]) -> Option<&str> {
        (1..=path.len()).rev().find_map(|count| {
            let prefix = path[..count].join("::");
            self.may_import.get_key_value(&prefix).map(|(name, _)| name.as_str())
        })
    }

    /// True for a module that only holds layers, such as `kernel`.
    fn is_parent_of_layers(&self, path: &[String]) -> bool {
        let prefix = path.iter().map(|part| format!("{part}::")).collect::<String>();
        self.order.iter().any(|name| name.starts_with(&prefix))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    PathSeparator,
    Mark(char),
}

/// Source text as tokens with their line, without comments, strings and character literals.
fn tokens(source: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut out = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        let c = chars[i];
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            i = end_of_block_comment(&chars, i);
        } else if c == '"' {
            i = end_of_string(&chars, i);
        } else if c == '\'' {
            i = end_of_quote(&chars, i);
        } else if c.is_alphabetic() || c == '_' {
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            let word: String = chars[start..i].iter().collect();
            if matches!(word.as_str(), "r" | "br" | "cr") && matches!(at(i), '"' | '#') {
                i = end_of_raw_string(&chars, i).unwrap_or(i);
            } else {
                out.push((line, Token::Word(word)));
            }
        } else if c == ':' && at(i + 1) == ':' {
            out.push((line, Token::PathSeparator));
            i += 2;
        } else {
            if !c.is_whitespace() {
                out.push((line, Token::Mark(c)));
            }
            i += 1;
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    out
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start + 2, 1);
    while i < chars.len() && depth > 0 {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (i, depth) = (i + 2, depth + 1),
            ('*', Some('/')) => (i, depth) = (i + 2, depth - 1),
            _ => i += 1,
        }
    }
    i
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// Past a character literal; past only the quote of a lifetime.
fn end_of_quote(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => {
            let mut i = start + 3;
            while i < chars.len() && chars[i] != '\'' {
                i += 1;
            }
            (i + 1).min(chars.len())
        }
        (Some(_), Some('\'')) => start + 3,
        _ => start + 1,
    }
}

/// `hashes` stands on the first `#` or quote after `r`. None: a raw identifier, not a string.
fn end_of_raw_string(chars: &[char], hashes: usize) -> Option<usize> {
    let mut i = hashes;
    while chars.get(i) == Some(&'#') {
        i += 1;
    }
    let count = i - hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    i += 1;
    while i < chars.len() {
        if chars[i] == '"' && chars[i + 1..].iter().take(count).filter(|c| **c == '#').count() == count {
            return Some(i + 1 + count);
        }
        i += 1;
    }
    Some(i)
}

/// What one file says: the absolute paths it names, and the child modules that are only for tests.
struct Reading {
    paths: Vec<(usize, Vec<String>)>,
    test_only: Vec<String>,
}

/// Reads a file's tokens; `module` is the path of the module the file is.
fn read(source: &str, module: &[String]) -> Reading {
    let tokens = tokens(source);
    let mut reading = Reading { paths: Vec::new(), test_only: Vec::new() };
    let mut here = module.to_vec();
    // The depth at which each inline module was opened.
    let mut opened: Vec<usize> = Vec::new();
    let (mut depth, mut i) = (0_usize, 0);
    while i < tokens.len() {
        if is_cfg_test(&tokens[i..]) {
            i = skip_test_item(&tokens, i, &mut reading.test_only);
            continue;
        }
        match &tokens[i].1 {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => {
                depth = depth.saturating_sub(1);
                if opened.last() == Some(&depth) {
                    opened.pop();
                    here.pop();
                }
            }
            Token::Word(word) if word == "mod" => {
                if let (Some((_, Token::Word(name))), Some((_, Token::Mark('{')))) =
                    (tokens.get(i + 1), tokens.get(i + 2))
                {
                    here.push(name.clone());
                    opened.push(depth);
                    depth += 1;
                    i += 3;
                    continue;
                }
            }
            // A visibility names an ancestor of the module itself: no import.
            Token::Word(word) if word == "in" && i > 0 && tokens[i - 1].1 == Token::Mark('(') => {
                while i < tokens.len() && tokens[i].1 != Token::Mark(')') {
                    i += 1;
                }
            }
            Token::Word(word) if starts_path(word, &tokens, i) => {
                let line = tokens[i].0;
                let mut found = Vec::new();
                i = expand(&tokens, i, &[], &mut found);
                for path in found {
                    reading.paths.push((line, absolute(&path, &here)));
                }
                continue;
            }
            Token::Word(_) | Token::PathSeparator | Token::Mark(_) => {}
        }
        i += 1;
    }
    reading
}

fn starts_path(word: &str, tokens: &[(usize, Token)], i: usize) -> bool {
    matches!(word, "crate" | "super" | "self" | "ringfs")
        && tokens.get(i + 1).is_some_and(|(_, next)| *next == Token::PathSeparator)
        && (i == 0 || tokens[i - 1].1 != Token::PathSeparator)
}

fn is_cfg_test(tokens: &[(usize, Token)]) -> bool {
    let wanted = [
        Token::Mark('#'),
        Token::Mark('['),
        Token::Word("cfg".to_owned()),
        Token::Mark('('),
        Token::Word("test".to_owned()),
        Token::Mark(')'),
        Token::Mark(']'),
    ];
    tokens.len() >= wanted.len() && wanted.iter().zip(tokens).all(|(want, (_, have))| want == have)
}

/// Past the item that a `#[cfg(test)]` stands on; notes the name when it is a module in its own file.
fn skip_test_item(tokens: &[(usize, Token)], start: usize, test_only: &mut Vec<String>) -> usize {
    let (mut i, mut depth) = (start + 7, 0_usize);
    while i < tokens.len() {
        match &tokens[i].1 {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            Token::Mark(';') if depth == 0 => return i + 1,
            Token::Word(word) if word == "mod" && depth == 0 => {
                if let (Some((_, Token::Word(name))), Some((_, Token::Mark(';')))) =
                    (tokens.get(i + 1), tokens.get(i + 2))
                {
                    test_only.push(name.clone());
                }
            }
            Token::Word(_) | Token::PathSeparator | Token::Mark(_) => {}
        }
        i += 1;
    }
    i
}

/// Expands the path at `i`, braces included, and returns the index after it.
fn expand(tokens: &[(usize, Token)], mut i: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(i).map(|(_, token)| token) {
            Some(Token::Word(word)) => {
                path.push(word.clone());
                i += 1;
            }
            Some(Token::Mark('{')) => {
                i += 1;
                while i < tokens.len() && tokens[i].1 != Token::Mark('}') {
                    let before = i;
                    if matches!(tokens[i].1, Token::Word(_) | Token::Mark('*')) {
                        i = expand(tokens, i, &path, out);
                        // `as name`: the new name is no part of the path.
                        if tokens.get(i).is_some_and(|(_, token)| *token == Token::Word("as".to_owned())) {
                            i += 2;
                        }
                    }
                    if i == before {
                        i += 1;
                    }
                }
                return i + 1;
            }
            Some(Token::Mark('*')) => {
                out.push(path);
                return i + 1;
            }
            _ => break,
        }
        if tokens.get(i).is_some_and(|(_, token)| *token == Token::PathSeparator) {
            i += 1;
        } else {
            break;
        }
    }
    out.push(path);
    i
}

/// Turns `crate::a`, `self::a`, `super::a`, `ringfs::a` into the path from the crate's root.
fn absolute(path: &[String], here: &[String]) -> Vec<String> {
    let mut base = match path[0].as_str() {
        "crate" | "ringfs" => Vec::new(),
        "super" => here[..here.len().saturating_sub(1)].to_vec(),
        _ => here.to_vec(),
    };
    for part in &path[1..] {
        match part.as_str() {
            "super" => {
                base.pop();
            }
            "self" => {}
            name => base.push(name.to_owned()),
        }
    }
    base
}

/// All complaints about one file.
fn complaints(table: &Table, module: &[String], file: &str, source: &str) -> Vec<String> {
    let name = module.join("::");
    let own = table.layer_of(module);
    let mut out = Vec::new();
    if own.is_none() && !module.is_empty() && !table.is_parent_of_layers(module) {
        out.push(format!("{file}: module {name} belongs to no layer of the table"));
        return out;
    }
    for (line, path) in read(source, module).paths {
        let target = path.join("::");
        match (own, table.layer_of(&path)) {
            (Some(own), Some(other))
                if own == other || table.may_import[own].iter().any(|may| may == other) => {}
            (Some(own), Some(other)) => {
                out.push(format!("{file}:{line}: {own} may not import {other} ({target})"))
            }
            // A module that only holds layers may name what is inside it, the root may name anything.
            (None, Some(_)) if path.starts_with(module) => {}
            (None, Some(other)) => {
                out.push(format!("{file}:{line}: {name} holds layers and may not import {other}"))
            }
            // A module's own folder seen through `super`/`self`, as in `super::Thing` of the same layer.
            (_, None) if module.is_empty() || path.is_empty() => {}
            (_, None) => out.push(format!("{file}:{line}: {target} is in no layer of the table")),
        }
    }
    out
}

/// `src/a/b/mod.rs` and `src/a/b.rs` are both `a::b`; lib.rs and main.rs are the root.
fn module_of(relative: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a source folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn imports_follow_the_layer_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let markdown = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let table = Table::parse(&markdown).expect("a layer table without a cycle");
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let sources: Vec<(Vec<String>, String, String)> = files
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(root.join("src")).expect("below src");
            let text = fs::read_to_string(path).expect("a source file");
            (module_of(relative), format!("src/{}", relative.display()), text)
        })
        .collect();
    // Modules declared under #[cfg(test)] live in files of their own: those are left out, with all below them.
    let test_only: Vec<Vec<String>> = sources
        .iter()
        .flat_map(|(module, _, text)| {
            read(text, module).test_only.into_iter().map(move |name| [module.as_slice(), &[name]].concat())
        })
        .collect();
    let wrong: Vec<String> = sources
        .iter()
        .filter(|(module, _, _)| !test_only.iter().any(|test| module.starts_with(test)))
        .flat_map(|(module, file, text)| complaints(&table, module, file, text))
        .collect();
    assert!(wrong.is_empty(), "{} imports against the layer table:\n{}", wrong.len(), wrong.join("\n"));
    // A layer nobody lives in is a table that no longer tells the truth.
    for layer in &table.order {
        assert!(
            sources.iter().any(|(module, _, _)| module.join("::") == *layer),
            "the table names {layer}, but src/ has no such module"
        );
    }
}

/// The planted violations: a small table and what each rule must say about a small file.
mod planted {
    use super::{Table, complaints};

    const TABLE: &str = "```layers\nbase ->\nwire -> base\nclient::data -> base wire\nclient::link -> base wire\n\
                         client::mount -> base client::data client::link\n```";

    fn found(module: &str, source: &str) -> Vec<String> {
        let table = Table::parse(TABLE).expect("the small table");
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        complaints(&table, &module, "x.rs", source)
    }

    #[test]
    fn an_import_that_the_table_allows_passes() {
        assert_eq!(
            found("client::mount", "use crate::base::Ino; use super::data::{Cache, layout::Chunk};"),
            [""; 0]
        );
        assert_eq!(
            found("client::data::cache", "use super::Budget; use super::super::data::X; use self::y::Z;"),
            [""; 0]
        );
        assert_eq!(
            found("client", "pub mod mount; pub use mount::Mount; pub use self::mount::Other;"),
            [""; 0]
        );
    }

    #[test]
    fn an_upward_import_is_found() {
        assert_eq!(found("wire", "\nuse crate::client::mount::Mount;").len(), 1);
        assert!(
            found("wire", "\nuse crate::client::mount::Mount;")[0]
                .starts_with("x.rs:2: wire may not import client::mount")
        );
    }

    #[test]
    fn an_import_of_a_sibling_is_found() {
        assert_eq!(found("client::data", "use crate::client::link::Link;").len(), 1);
    }

    #[test]
    fn an_import_through_super_is_found() {
        assert_eq!(found("client::data", "use super::link::Link;").len(), 1);
        assert_eq!(found("client::data::cache", "use super::super::link::Link;").len(), 1);
        assert_eq!(found("client::data", "mod inner { use super::super::link::Link; }").len(), 1);
        assert_eq!(found("client::data", "mod inner { fn f() {} } use super::link::Link;").len(), 1);
    }

    #[test]
    fn an_import_inside_braces_is_found() {
        assert_eq!(
            found("client::data", "use crate::{base::Ino, client::{self as c, link::{Link as L, Pipe}}};")
                .len(),
            3
        );
        assert_eq!(found("wire", "use crate::{base::{Ino as I, Name}, client::mount};").len(), 1);
    }

    #[test]
    fn a_path_written_out_in_code_is_found() {
        assert_eq!(
            found("wire", "fn f() -> crate::client::mount::Mount { ringfs::client::mount::new::<u8>() }")
                .len(),
            2
        );
        assert_eq!(
            found("wire", "fn f<'a>(c: char) { if c == '\"' { crate::client::mount::f() } }").len(),
            1
        );
    }

    #[test]
    fn a_file_without_a_layer_is_found() {
        assert_eq!(found("client::extra", "").len(), 1);
        assert_eq!(found("wire", "use crate::client::extra::X;").len(), 1);
    }

    #[test]
    fn a_parent_module_that_imports_from_outside_is_found() {
        assert_eq!(found("client", "use crate::wire::Frame;").len(), 1);
    }

    #[test]
    fn comments_strings_and_tests_are_not_imports() {
        let quiet = [
            "// use crate::client::mount::Mount;",
            "/* crate::client /* nested */ ::mount::Mount */ fn f() {}",
            "const A: &str = \"crate::client::mount\"; const B: &str = r#\"a \" crate::client::mount\"#;",
            "#[cfg(test)]\nmod tests { use crate::client::mount::Mount; fn f() { {} } }",
            "#[cfg(test)]\nuse crate::client::mount::Mount;",
            "pub(in crate::client::mount) fn f() {}",
        ];
        for source in quiet {
            assert_eq!(found("wire", source), [""; 0], "{source}");
        }
        // What follows a test module is read again.
        assert_eq!(
            found("wire", "#[cfg(test)] mod tests { fn f() {} } use crate::client::mount::Mount;").len(),
            1
        );
    }

    #[test]
    fn a_table_with_a_cycle_is_refused() {
        let error = Table::parse("```layers\na -> b\nb -> a\n```").expect_err("a cycle");
        assert!(error.contains("does not stand above"), "{error}");
        assert!(Table::parse("```layers\na -> a\n```").is_err());
        assert!(Table::parse("```layers\na ->\na ->\n```").is_err());
        assert!(Table::parse("no table").is_err());
    }
}
