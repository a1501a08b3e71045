//! Globs over names: what routes, filters and sinks' allowed destinations are written in.
//! Holds: one meaning everywhere; pure, and linear in the text for each star.

/// `*` stands for any characters, also none and also dots; everything else for itself.
#[must_use]
pub fn matches(glob: &str, text: &str) -> bool {
    let mut pieces = glob.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_is_special() {
        for (sentence, glob, text, is_taken) in [
            ("a star alone takes all", "*", "a.b", true),
            ("a star may stand for nothing", "a*", "a", true),
            ("a prefix", "io.z-api.message.*", "io.z-api.message.received", true),
            ("a prefix does not take its own stem", "io.z-api.message.*", "io.z-api.message", false),
            ("no star means equality", "a.b", "a.bc", false),
            ("a dot is a dot", "a.b", "aXb", false),
            ("stars in the middle", "a*c*e", "abcde", true),
            ("pieces may not overlap", "ab*ba", "aba", false),
            ("an empty glob takes only nothing", "", "a", false),
        ] {
            assert_eq!(matches(glob, text), is_taken, "{sentence}");
        }
    }
}
