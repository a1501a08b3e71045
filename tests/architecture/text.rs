//! Rust source read as text, just well enough for the checks: comments and literals blanked, test items cut out,
//! `use` trees spread into whole paths, functions measured.
//! Holds: line numbers never change, so that a finding points at the real line.
//! Absent on purpose: a parser; what formatted code cannot contain is not handled.

/// Where a run of characters ends that is not code, and what to print in its place.
struct Blank {
    end: usize,
    filler: char,
}

/// The source with comments as spaces and literals as quotes, so that only code is left to match. ASCII only.
pub fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let blank = blank_at(&chars, at).unwrap_or(Blank { end: at, filler: ' ' });
        if blank.end == at {
            code.push(if chars[at].is_ascii() { chars[at] } else { '?' });
            at += 1;
        }
        while at < blank.end {
            code.push(if chars[at] == '\n' { '\n' } else { blank.filler });
            at += 1;
        }
    }
    code
}

fn blank_at(chars: &[char], at: usize) -> Option<Blank> {
    let follows = |offset: usize, wanted: char| chars.get(at + offset) == Some(&wanted);
    let find = |from: usize, wanted: char| {
        chars[from.min(chars.len())..].iter().position(|&c| c == wanted).map_or(chars.len(), |n| from + n)
    };
    match chars[at] {
        '/' if follows(1, '/') => Some(Blank { end: find(at, '\n'), filler: ' ' }),
        '/' if follows(1, '*') => Some(Blank { end: block_comment_end(chars, at), filler: ' ' }),
        '"' => Some(Blank { end: string_end(chars, at), filler: '"' }),
        'r' => raw_string_end(chars, at).map(|end| Blank { end, filler: '"' }),
        '\'' if follows(1, '\\') => Some(Blank { end: find(at + 3, '\'') + 1, filler: '"' }),
        '\'' if follows(2, '\'') => Some(Blank { end: at + 3, filler: '"' }),
        _ => None,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let opening = start + 1 + hashes;
    if chars.get(opening) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    let closing = (opening + 1..chars.len()).find(|&at| closes(at))?;
    Some(closing + 1 + hashes)
}

/// Code without the items marked `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    if code.contains("#![cfg(test)]") {
        return blanked(code, 0, code.len());
    }
    let mut code = code.to_owned();
    while let Some(start) = code.find(MARK) {
        let end = item_end(&code, start + MARK.len());
        code = blanked(&code, start, end);
    }
    code
}

fn blanked(code: &str, start: usize, end: usize) -> String {
    let hole: String = code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
    [&code[..start], &hole, &code[end..]].concat()
}

/// The end of the item that begins at `start`: its `;`, or the brace that closes its body.
fn item_end(code: &str, start: usize) -> usize {
    let mut nested = 0_i32;
    for (offset, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested -= 1,
            ';' if nested == 0 => return start + offset + 1,
            '{' if nested == 0 => return closing_brace(code, start + offset) + 1,
            _ => {}
        }
    }
    code.len()
}

fn closing_brace(code: &str, opening: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, c) in code[opening..].char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return opening + offset;
        }
    }
    code.len() - 1
}

/// Lines that hold code.
pub fn code_lines(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// A function and how many lines of code it takes, signature included.
#[derive(Debug, PartialEq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// Every function with a body.
pub fn functions(code: &str) -> Vec<Function> {
    let measured = |at: usize| {
        let name: String = code[at + 3..].chars().take_while(|&c| is_name(c)).collect();
        let end = item_end(code, at);
        let has_body = code[..end].ends_with('}');
        let line = line_of(code, at);
        (has_body && !name.is_empty()).then(|| Function { name, line, lines: code_lines(&code[at..end]) })
    };
    occurrences(code, "fn ").filter_map(measured).collect()
}

/// Every `use` of the code, its tree spread into whole paths: `use a::{b, c::d};` is `a::b` and `a::c::d`.
pub fn use_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for at in occurrences(code, "use ") {
        let tree = code[at + 4..].split(';').next().unwrap_or_default();
        let mut spread = Vec::new();
        spread_tree(tree, "", &mut spread);
        paths.extend(spread.into_iter().map(|path| (line_of(code, at), path)));
    }
    paths
}

fn spread_tree(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(opening) = tree.find('{') else {
        let path = tree.split_whitespace().next().unwrap_or_default();
        return paths.push(format!("{prefix}{path}"));
    };
    let prefix = format!("{prefix}{}", tree[..opening].trim());
    let inside = &tree[opening + 1..closing_brace(tree, opening)];
    let mut depth = 0_i32;
    let branches = inside.split(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    });
    for branch in branches.filter(|branch| !branch.trim().is_empty()) {
        spread_tree(branch, &prefix, paths);
    }
}

/// Lines on which `pattern` stands as a whole word or path, written out or by way of a `use` tree.
pub fn lines_naming(code: &str, pattern: &str) -> Vec<usize> {
    let mut lines: Vec<usize> = occurrences(code, pattern).map(|at| line_of(code, at)).collect();
    let used = use_paths(code);
    lines.extend(
        used.iter().filter(|(_, path)| occurrences(path, pattern).next().is_some()).map(|(line, _)| line),
    );
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// The names that follow `prefix` (`crate::`), written out or by way of a `use` tree.
pub fn names_after(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let name = |text: &str, at: usize| {
        text[at + prefix.len()..].chars().take_while(|&c| is_name(c)).collect::<String>()
    };
    let mut names: Vec<(usize, String)> =
        occurrences(code, prefix).map(|at| (line_of(code, at), name(code, at))).collect();
    for (line, path) in use_paths(code) {
        names.extend(occurrences(&path, prefix).map(|at| (line, name(&path, at))));
    }
    names.retain(|(_, name)| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

/// Where `pattern` begins and ends at the border of a word.
fn occurrences<'a>(code: &'a str, pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
    let open_end = !pattern.ends_with(is_name);
    let open_start = !pattern.starts_with(is_name);
    code.match_indices(pattern).map(|(at, _)| at).filter(move |&at| {
        let starts = open_start || !code[..at].ends_with(is_name);
        starts && (open_end || !code[at + pattern.len()..].starts_with(is_name))
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

#[test]
fn comments_and_literals_are_not_code() {
    for (sentence, source, code) in [
        ("a line comment", "a // crate::b\nc", "a            \nc"),
        ("a nested block comment", "a /* /* x */ y */ b", "a                 b"),
        ("a string with an escaped quote", r#"f("a\"b") + c"#, r#"f("""""") + c"#),
        ("a raw string with a quote inside", r###"f(r#"a"b"#)"###, r#"f("""""""")"#),
        ("a character that is a quote", "f('\"', x)", r#"f(""", x)"#),
        ("an escaped character", r"f('\'', x)", r#"f("""", x)"#),
        ("a lifetime is code", "fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
    ] {
        assert_eq!(code_only(source), code, "{sentence}");
    }
}

#[test]
fn test_items_are_cut_and_lines_stay_where_they_were() {
    let code = "a\n#[cfg(test)]\nmod tests {\n  { x }\n}\nb\n#[cfg(test)]\nfn f(x: [u8; 2]) { y }\nc\n#[cfg(test)]\nmod d;\ne";
    let left: Vec<&str> = without_tests(code).leak().lines().map(str::trim).collect();
    assert_eq!(left, ["a", "", "", "", "", "b", "", "", "c", "", "", "e"]);
    assert_eq!(without_tests("#![cfg(test)]\na").trim(), "");
}

#[test]
fn use_trees_are_spread() {
    let code = "use a::{b, c::{d as e, self}};\npub use crate::x::*;\nfn f() -> impl T + use<'a> {}";
    let paths = use_paths(code).into_iter().map(|(line, path)| format!("{line} {path}")).collect::<Vec<_>>();
    assert_eq!(paths, ["1 a::b", "1 a::c::d", "1 a::c::self", "2 crate::x::*"]);
}

#[test]
fn functions_are_measured_with_their_signature() {
    let code = "trait T {\n  fn g(&self);\n}\nfn f(\n  a: [u8; 4],\n) {\n\n  {}\n}\ntype F = fn(u8);";
    assert_eq!(functions(code), [Function { name: "f".to_owned(), line: 4, lines: 5 }]);
}

#[test]
fn patterns_match_whole_words_and_spread_paths() {
    let code = "use std::{fs, io};\ndescribe_counter!(x);\ncounter!(y);\nstd::fsx();\nx.unwrap();";
    assert_eq!(lines_naming(code, "std::fs"), [1]);
    assert_eq!(lines_naming(code, "counter!"), [3]);
    assert_eq!(lines_naming(code, ".unwrap()"), [5]);
    assert_eq!(names_after("use crate::{a::B, c};\nlet x = crate::d::E;", "crate::").len(), 3);
}
