//! A reader of WGSL text: enough to see identifiers and numbers outside comments.

/// The text with comments blanked, line by line as before. WGSL's block comments nest.
pub fn without_comments(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let (mut depth, mut in_line) = (0usize, false);
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        match (c, next) {
            ('\n', _) => {
                in_line = false;
                out.push('\n');
            }
            _ if in_line => {}
            ('/', Some('*')) => {
                chars.next();
                depth += 1;
            }
            ('*', Some('/')) if depth > 0 => {
                chars.next();
                depth -= 1;
                out.push(' ');
            }
            _ if depth > 0 => {}
            ('/', Some('/')) => in_line = true,
            _ => out.push(c),
        }
    }
    out
}

/// Words (identifiers, keywords and numbers, `1.5` and `.5` as one) with their line numbers.
pub fn words(source: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (at, line) in without_comments(source).lines().enumerate() {
        let mut word = String::new();
        for c in line.chars().chain([' ']) {
            // A point belongs to a number, and to nothing else: `a.x` is two words.
            let in_number = word.chars().next().is_none_or(|first| first.is_ascii_digit() || first == '.');
            if c.is_alphanumeric() || c == '_' || (c == '.' && in_number) {
                // `.x` is a member, `.5` a number.
                if word == "." && !c.is_ascii_digit() {
                    word.clear();
                }
                word.push(c);
            } else if !word.is_empty() {
                words.push((at + 1, std::mem::take(&mut word)));
            }
        }
    }
    words
}

/// Complaints about words that are float types or float literals.
pub fn float_tokens(source: &str) -> Vec<String> {
    let words = words(source).into_iter().filter(|(_, word)| is_float_word(word));
    words.map(|(line, word)| format!("line {line}: {word} is written")).collect()
}

fn is_float_word(word: &str) -> bool {
    let types = ["f16", "f32", "f64", "vec2f", "vec3f", "vec4f", "vec2h", "vec3h", "vec4h"];
    let matrix = word.strip_prefix("mat").is_some_and(|rest| rest.len() >= 3 && rest.as_bytes()[1] == b'x');
    if matrix || types.contains(&word) {
        return true;
    }
    let number = word.strip_prefix('.').unwrap_or(word);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let lower = word.to_ascii_lowercase();
    match lower.strip_prefix("0x") {
        // In hexadecimal `e` and `f` are digits, and a float has a point or a binary exponent.
        Some(hex) => hex.contains('.') || hex.contains('p'),
        None => lower.contains(['.', 'e', 'f', 'h']),
    }
}

mod tests {
    use super::*;

    #[test]
    fn comments_are_not_text() {
        let source = "a // b f32\nc /* d\n /* e */ f32 */ g\n";
        let found: Vec<String> =
            words(source).into_iter().map(|(line, word)| format!("{line}{word}")).collect();
        assert_eq!(found, ["1a", "2c", "3g"]);
    }

    #[test]
    fn float_words_are_told_from_the_others() {
        let floats = "f32 f16 vec2f vec4h mat3x3 mat2x4f 1.5 0.5 .5 1. 2f 1h 1e3 0x1p4 0x1.8";
        for word in floats.split(' ') {
            assert!(!float_tokens(&format!("x = {word};")).is_empty(), "{word} passes");
        }
        let others = "1u 17 0x7fe 0xfu 3i a.x v.f vec2u vec3<u32> mate e1 f32_free half matrix array<u32,4>";
        for word in others.split(' ') {
            assert_eq!(float_tokens(&format!("x = {word};")), Vec::<String>::new());
        }
        assert_eq!(float_tokens("\n\nlet a = 1u; let b = 2.0;"), ["line 3: 2.0 is written"]);
    }
}
