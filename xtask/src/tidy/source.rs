//! Tells the code of a Rust file from its comments and strings, line by line.

/// A Rust file split in two texts of the same lines: where one has something, the other has spaces. What stands in
/// string and character literals is in neither.
pub(super) struct Source {
    pub(super) code: String,
    pub(super) comments: String,
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        let mut scanner = Scanner {
            rest: text,
            code: String::with_capacity(text.len()),
            comments: String::new(),
        };
        while !scanner.rest.is_empty() {
            scanner.step();
        }
        Self {
            code: scanner.code,
            comments: scanner.comments,
        }
    }
}

/// The lines of `text` in which one of `words` stands, not as a part of a longer name: line number and word.
pub(super) fn find<'w>(text: &str, words: &[&'w str]) -> Vec<(usize, &'w str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in words {
            if has_word(line, word) {
                found.push((index + 1, *word));
            }
        }
    }
    found
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let starts = !word.starts_with(is_name) || !before.is_some_and(is_name);
        let ends = !word.ends_with(is_name) || !after.is_some_and(is_name);
        starts && ends
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Scanner<'a> {
    rest: &'a str,
    code: String,
    comments: String,
}

enum Kind {
    Code,
    Comment,
    Literal,
}

impl Scanner<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        if rest.starts_with("//") {
            return self.take(rest.find('\n').unwrap_or(rest.len()), &Kind::Comment);
        }
        if rest.starts_with("/*") {
            return self.take(block_comment_len(rest), &Kind::Comment);
        }
        if !self.code.ends_with(is_name)
            && let Some(len) = prefixed_string_len(rest)
        {
            return self.take(len, &Kind::Literal);
        }
        if rest.starts_with('"') {
            return self.take(string_len(rest), &Kind::Literal);
        }
        if let Some(len) = char_len(rest) {
            return self.take(len, &Kind::Literal);
        }
        let first = rest.chars().next().map_or(0, char::len_utf8);
        self.take(first, &Kind::Code);
    }

    fn take(&mut self, len: usize, kind: &Kind) {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        for c in taken.chars() {
            let blank = if c == '\n' { '\n' } else { ' ' };
            self.code.push(if matches!(kind, Kind::Code) { c } else { blank });
            self.comments
                .push(if matches!(kind, Kind::Comment) { c } else { blank });
        }
    }
}

/// Block comments nest.
fn block_comment_len(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"`, `cr"…"`; none for anything else, such as a raw name `r#type`.
fn prefixed_string_len(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c"]
        .into_iter()
        .find(|prefix| text.starts_with(prefix))?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if !rest[hashes..].starts_with('"') {
        return None;
    }
    if !prefix.ends_with('r') {
        return (hashes == 0).then(|| prefix.len() + string_len(rest));
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = prefix.len() + hashes + 1;
    Some(
        text[body..]
            .find(&end)
            .map_or(text.len(), |at| body + at + end.len()),
    )
}

fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal, none for a lifetime.
fn char_len(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    if rest.starts_with('\\') {
        let end = rest.char_indices().skip(2).find(|(_, c)| *c == '\'')?;
        return Some(1 + end.0 + 1);
    }
    let first = rest.chars().next()?;
    rest[first.len_utf8()..]
        .starts_with('\'')
        .then(|| 1 + first.len_utf8() + 1)
}
