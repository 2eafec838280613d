//! House rules that no compiler checks. Comes in: every text file of the repository. Goes out: one line
//! per breach. Each rule is a function over a file's text with a planted breach that it must find.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have without its test modules; past that a reader loses the thread.
const LINES_MAX: usize = 700;

/// One file: its path from the root with `/`, and its text.
struct File {
    path: String,
    text: String,
}

/// The repository's text files. Build output and hidden folders other than `.ci` are not ours.
fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = vec![root.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let relative = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && !matches!(name.as_str(), ".ci" | ".gitignore");
            if hidden || matches!(relative.as_str(), "target" | "fuzz/target" | "perf/results") {
                continue;
            }
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push(File { path: relative, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn is_rust(file: &File) -> bool {
    Path::new(&file.path).extension().is_some_and(|extension| extension == "rs")
}

/// This file and the one beside it hold planted breaches.
fn plants_breaches(file: &File) -> bool {
    matches!(file.path.as_str(), "tests/tidy.rs" | "tests/layers.rs")
}

fn report(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}: {} breaches\n{}", breaches.len(), breaches.join("\n"));
}

/// Lines before the first test module: tests stand last in a file.
fn lines_without_tests(text: &str) -> usize {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

fn too_long(file: &File) -> Option<String> {
    let lines = lines_without_tests(&file.text);
    (lines > LINES_MAX).then(|| format!("{}: {lines} lines without its tests", file.path))
}

#[test]
fn no_source_file_is_too_long() {
    let files = repository();
    let breaches: Vec<String> = files
        .iter()
        .filter(|file| is_rust(file) && !file.path.ends_with("tests.rs"))
        .filter_map(too_long)
        .collect();
    report(&format!("at most {LINES_MAX} lines"), &breaches);
    let planted = File { path: "a.rs".to_owned(), text: "x\n".repeat(LINES_MAX + 1) };
    assert!(too_long(&planted).is_some());
    let tests_do_not_count =
        format!("{}#[cfg(test)]\nmod tests {{\n{}}}", "x\n".repeat(LINES_MAX), "x\n".repeat(9));
    assert!(too_long(&File { path: "a.rs".to_owned(), text: tests_do_not_count }).is_none());
}

/// Words that say a thing is not there yet, or a test does not run.
fn unfinished(file: &File) -> Vec<String> {
    let words = ["todo!", "unimplemented!", "#[ignore", "unreachable_code", "FIXME", "XXX"];
    numbered(&file.text)
        .flat_map(|(number, line)| {
            words
                .iter()
                .filter(move |word| line.contains(**word))
                .map(move |word| format!("{}:{number}: {word}", file.path))
        })
        .collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[test]
fn nothing_is_left_unfinished() {
    let breaches: Vec<String> = repository()
        .iter()
        .filter(|file| is_rust(file) && !plants_breaches(file))
        .flat_map(unfinished)
        .collect();
    report("no unfinished code and no test that is skipped", &breaches);
    let planted =
        File { path: "a.rs".to_owned(), text: "fn f() { todo!() }\n#[ignore]\nfn g() {}".to_owned() };
    assert_eq!(unfinished(&planted).len(), 2);
}

/// The paths of the ```unsafe block of ARCHITECTURE.md, the first word of each line.
fn unsafe_allowed(markdown: &str) -> Vec<String> {
    markdown
        .split_once("```unsafe\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .map(|(block, _)| {
            block.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
        })
        .unwrap_or_default()
}

/// Code lines that use `unsafe`, outside comments and outside the listed paths.
fn unsafe_elsewhere(file: &File, allowed: &[String]) -> Vec<String> {
    if allowed.iter().any(|path| file.path.starts_with(path.as_str())) {
        return Vec::new();
    }
    numbered(&file.text)
        .filter(|(_, line)| {
            let code = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code"]
                .iter()
                .any(|word| code.contains(word))
        })
        .map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim()))
        .collect()
}

#[test]
fn unsafe_stays_where_architecture_says() {
    let files = repository();
    let architecture = files.iter().find(|file| file.path == "ARCHITECTURE.md").expect("ARCHITECTURE.md");
    let allowed = unsafe_allowed(&architecture.text);
    assert!(!allowed.is_empty(), "ARCHITECTURE.md has no ```unsafe block");
    let breaches: Vec<String> = files
        .iter()
        .filter(|file| is_rust(file) && !plants_breaches(file))
        .flat_map(|file| unsafe_elsewhere(file, &allowed))
        .collect();
    report("unsafe only in the listed places", &breaches);
    for path in &allowed {
        assert!(files.iter().any(|file| file.path.starts_with(path.as_str())), "no such place: {path}");
    }
    let planted =
        File { path: "src/x.rs".to_owned(), text: "// unsafe { }\nfn f() { unsafe { g() } }".to_owned() };
    assert_eq!(unsafe_elsewhere(&planted, &["src/y".to_owned()]).len(), 1);
    assert_eq!(unsafe_elsewhere(&planted, &["src/x".to_owned()]).len(), 0);
}

/// The text of each SAFETY comment, its lines joined, with where it stands.
fn safety_texts(file: &File) -> Vec<(String, String)> {
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let mut out = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(first) = line.strip_prefix("// SAFETY:") else { continue };
        let rest = lines[index + 1..].iter().map_while(|line| line.strip_prefix("//"));
        let text = std::iter::once(first).chain(rest).map(str::trim).collect::<Vec<_>>().join(" ");
        out.push((text.trim().to_owned(), format!("{}:{}", file.path, index + 1)));
    }
    out
}

fn repeated(texts: Vec<(String, String)>) -> Vec<String> {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (text, place) in texts {
        seen.entry(text).or_default().push(place);
    }
    seen.into_iter()
        .filter(|(text, places)| places.len() > 1 || text.len() < 20)
        .map(|(text, places)| format!("{}: \"{text}\"", places.join(", ")))
        .collect()
}

#[test]
fn no_safety_proof_fits_two_places() {
    let texts = repository()
        .iter()
        .filter(|file| is_rust(file) && !plants_breaches(file))
        .flat_map(safety_texts)
        .collect();
    report(
        "each SAFETY text proves one block: words that fit two places, or hardly any words, prove nothing",
        &repeated(texts),
    );
    let planted = "    // SAFETY: the buffer lives as\n    // long as the ring\n    unsafe {}\n";
    let twice = File { path: "a.rs".to_owned(), text: planted.repeat(2) };
    assert_eq!(repeated(safety_texts(&twice)).len(), 1);
    let once = File { path: "a.rs".to_owned(), text: planted.to_owned() };
    assert_eq!(repeated(safety_texts(&once)).len(), 0);
}

/// Paths that exist on one machine only.
fn machine_paths(file: &File) -> Vec<String> {
    let roots = ["work", "root", "farm"];
    numbered(&file.text)
        .filter(|(_, line)| {
            roots.iter().any(|root| {
                let path = format!("/{root}/");
                line.match_indices(&path).any(|(at, _)| {
                    // `target/work/x` is a path of the project, not of a machine.
                    !line[..at].ends_with(|c: char| {
                        c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '*' | '>')
                    })
                })
            })
        })
        .map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim()))
        .collect()
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let breaches: Vec<String> =
        repository().iter().filter(|file| !plants_breaches(file)).flat_map(machine_paths).collect();
    report("no path of one machine", &breaches);
    let planted =
        File { path: "a.md".to_owned(), text: "see /root/x\nand a/root/y\n$dir/\"/work/z\"".to_owned() };
    assert_eq!(machine_paths(&planted).len(), 2);
}

/// Attributes that silence a lint without saying why.
fn silent_allows(file: &File) -> Vec<String> {
    let mut out = Vec::new();
    for word in ["[allow(", "[expect("] {
        for (at, _) in file.text.match_indices(word) {
            let before = file.text[..at].chars().next_back();
            let rest = &file.text[at..];
            let attribute = rest.split_once(")]").map_or(rest, |(inside, _)| inside);
            if matches!(before, Some('#' | '!')) && !attribute.contains("reason") {
                out.push(format!("{}:{}", file.path, file.text[..at].lines().count()));
            }
        }
    }
    out
}

#[test]
fn every_allow_gives_a_reason() {
    let breaches: Vec<String> = repository()
        .iter()
        .filter(|file| is_rust(file) && !plants_breaches(file))
        .flat_map(silent_allows)
        .collect();
    report("an allowed lint says why", &breaches);
    let planted = "#[allow(dead_code)]\nfn f() {}\n#![expect(\n    unused,\n    reason = \"x\"\n)]";
    assert_eq!(silent_allows(&File { path: "a.rs".to_owned(), text: planted.to_owned() }), ["a.rs:1"]);
}

/// What docs/semantics.md names as proofs: the words in backticks after `Test:` or `Tests:` on a line.
fn proofs(markdown: &str) -> Vec<(usize, String)> {
    numbered(markdown)
        .filter_map(|(number, line)| {
            line.split_once("Test: ").or_else(|| line.split_once("Tests: ")).map(|(_, rest)| (number, rest))
        })
        .flat_map(|(number, rest)| {
            rest.split('`').skip(1).step_by(2).map(move |name| (number, name.to_owned())).collect::<Vec<_>>()
        })
        .collect()
}

/// A proof is a test function (`name`, or `path::name`), or a check of a script (`tests/x.sh: word`).
fn proof_exists(proof: &str, files: &[File]) -> bool {
    if let Some((path, check)) = proof.split_once(": ") {
        return files.iter().any(|file| file.path == path && file.text.contains(check));
    }
    if proof.contains('/') {
        return files.iter().any(|file| file.path == proof);
    }
    let name = proof.rsplit("::").next().unwrap_or(proof);
    let function = format!("fn {name}(");
    files.iter().any(|file| is_rust(file) && file.text.contains(&function))
}

#[test]
fn semantics_names_only_tests_that_exist() {
    let files = repository();
    let semantics = files.iter().find(|file| file.path == "docs/semantics.md").expect("docs/semantics.md");
    let named = proofs(&semantics.text);
    assert!(!named.is_empty(), "docs/semantics.md names no test");
    let breaches: Vec<String> = named
        .iter()
        .filter(|(_, proof)| !proof_exists(proof, &files))
        .map(|(number, proof)| format!("docs/semantics.md:{number}: {proof}"))
        .collect();
    report("a promise names tests that exist", &breaches);
    let planted = [File { path: "tests/a.rs".to_owned(), text: "fn it_holds() {}".to_owned() }];
    assert_eq!(
        proofs("x\nHolds. Tests: `it_holds`, `a::b`"),
        [(2, "it_holds".to_owned()), (2, "a::b".to_owned())]
    );
    assert!(proof_exists("a::it_holds", &planted) && proof_exists("tests/a.rs: it_holds", &planted));
    assert!(!proof_exists("it_hold", &planted) && !proof_exists("tests/a.rs: it_breaks", &planted));
}

/// Promises, one to a list item, that name no proof at all.
fn unproven(markdown: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut item: Option<(usize, String)> = None;
    for (number, line) in numbered(markdown).chain(std::iter::once((0, ""))) {
        if line.starts_with("  ") && !line.trim().is_empty() {
            if let Some((_, text)) = &mut item {
                text.push_str(line);
            }
            continue;
        }
        if let Some((start, text)) = item.take()
            && !text.contains("Test: ")
            && !text.contains("Tests: ")
        {
            out.push(format!("docs/semantics.md:{start}: {text}"));
        }
        item = line.starts_with("- ").then(|| (number, line.to_owned()));
    }
    out
}

#[test]
fn every_promise_names_a_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/semantics.md"))
        .expect("docs/semantics.md");
    report("a promise names its test", &unproven(&text));
    assert_eq!(unproven("- it holds.\n  Test: `a`\n- it floats\n\n- it sinks. Tests: `b`").len(), 1);
}

#[test]
fn the_changelog_has_an_entry_for_this_version() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("CHANGELOG.md")).expect("CHANGELOG.md");
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(
        text.lines().any(|line| line.starts_with(&heading)),
        "CHANGELOG.md has no line that starts with {heading}"
    );
}
