//! What is signed, as a text with places: `{body}`, `{timestamp}.{body}`, `v0:{timestamp}:{body}`.

/// A piece of what is signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) enum Part {
    Text(String),
    Id,
    Timestamp,
    Body,
}

/// What is signed, piece by piece; the body is always among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) struct Template(Vec<Part>);

impl Template {
    /// Reads a template; the error says what is wrong with it.
    pub(in crate::source) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (before, after) = rest.split_once('{').unwrap_or((rest, ""));
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            if before.len() == rest.len() {
                break;
            }
            let (name, after) = after.split_once('}').ok_or("a brace that opens must close")?;
            parts.push(match name {
                "id" => Part::Id,
                "timestamp" => Part::Timestamp,
                "body" => Part::Body,
                _ => return Err("only {id}, {timestamp} and {body} can be signed"),
            });
            rest = after;
        }
        let template = Template(parts);
        if template.has(&Part::Body) {
            Ok(template)
        } else {
            Err("must contain {body}: what is not signed proves nothing")
        }
    }

    /// The body alone.
    pub(in crate::source) fn body() -> Self {
        Template(vec![Part::Body])
    }

    /// A time between two fixed texts, then the body.
    pub(in crate::source) fn dated(before: &str, between: &str) -> Self {
        let text = |text: &str| Part::Text(text.to_owned());
        Template(vec![text(before), Part::Timestamp, text(between), Part::Body])
    }

    pub(in crate::source) fn has(&self, part: &Part) -> bool {
        self.0.contains(part)
    }

    /// The bytes of every piece, in order.
    pub(super) fn fill<'a>(&'a self, id: &'a [u8], timestamp: &'a [u8], body: &'a [u8]) -> Vec<&'a [u8]> {
        let bytes = |part: &'a Part| match part {
            Part::Text(text) => text.as_bytes(),
            Part::Id => id,
            Part::Timestamp => timestamp,
            Part::Body => body,
        };
        self.0.iter().map(bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_piece_by_piece() {
        for (template, filled) in [
            ("{body}", "B"),
            ("{timestamp}.{body}", "T.B"),
            ("v1:{id}:{timestamp}:{body}:end", "v1:I:T:B:end"),
            ("{body}{body}", "BB"),
            ("}{body}", "}B"),
        ] {
            let parsed = Template::parse(template).unwrap();
            assert_eq!(parsed.fill(b"I", b"T", b"B").concat(), filled.as_bytes(), "{template}");
        }
        assert_eq!(Template::body(), Template::parse("{body}").unwrap());
        assert_eq!(Template::dated("v0:", ":"), Template::parse("v0:{timestamp}:{body}").unwrap());
    }

    #[test]
    fn a_template_without_a_body_or_with_a_strange_place_is_refused() {
        for template in ["", "body", "{timestamp}", "{body", "{}", "{body}{", "{{body}}", "{Body}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }
}
