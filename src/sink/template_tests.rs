//! What a template makes of an event, and what a sender cannot make of a template.

use super::*;
use crate::config::Layers;
use crate::envelope::{Data, Extensions};

fn event(event_type: &str, subject: Option<&str>) -> Envelope {
    Envelope {
        id: "1".to_owned(),
        source: "//here".to_owned(),
        event_type: event_type.to_owned(),
        subject: subject.map(str::to_owned),
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: Extensions::from([
            ("hookbussource".into(), "shop".into()),
            ("fromme".into(), true.into()),
        ]),
        data: Data::None,
    }
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.'
}

#[test]
fn attributes_stand_in_braces_and_a_doubled_brace_is_one() {
    let event = event("order.made", None);
    for (sentence, template, name, value) in [
        ("no attribute", "events", "events", Some("events")),
        (
            "a context attribute and an extension",
            "h.{hookbussource}.{type}",
            "h.shop.order.made",
            Some("h.shop.order.made"),
        ),
        ("a boolean", "{fromme}", "true", Some("true")),
        ("an absent attribute", "a.{subject}.b", "a._.b", None),
        ("braces themselves", "{{a}}", "{a}", Some("{a}")),
        ("braces around an attribute", "{{{type}}}", "{order.made}", Some("{order.made}")),
    ] {
        let parsed = Template::parse(template).unwrap();
        assert_eq!(parsed.name(&event, word), name, "{sentence}");
        assert_eq!(parsed.value(&event).as_deref(), value, "{sentence}");
        assert_eq!(serde_json::to_value(&parsed).unwrap(), template, "{sentence}");
    }
}

#[test]
fn what_is_no_template_is_an_error() {
    for (template, error) in [
        ("", TemplateError::Empty),
        ("a{type", TemplateError::Unbalanced),
        ("a}", TemplateError::Unbalanced),
        ("{}", TemplateError::NotAnAttribute),
        ("{Type}", TemplateError::NotAnAttribute),
        ("{data}", TemplateError::NotAnAttribute),
        ("{a b}", TemplateError::NotAnAttribute),
    ] {
        assert_eq!(Template::parse(template), Err(error), "{template}");
    }
}

#[test]
fn no_character_that_is_not_safe_gets_into_a_name() {
    let template = Template::parse("h.{type}").unwrap();
    let hostile = event("a b\r\n>*#\u{20ac}\0", None);
    assert_eq!(template.name(&hostile, word), "h.a_b_______");
}

#[test]
fn a_name_stays_where_the_configuration_allows_it() {
    let destination = |template: &str, allowed: &[&str]| {
        let allowed = allowed.iter().map(|glob| (*glob).to_owned()).collect();
        Destination::new(Template::parse(template).unwrap(), allowed, word)
    };
    let one = destination("{type}", &["order.*", "stock"]);
    assert_eq!(one.name(&event("order.made", None)).unwrap(), "order.made");
    assert_eq!(one.name(&event("stock", None)).unwrap(), "stock");
    let refused = one.name(&event("admin.drop", None)).unwrap_err();
    assert_eq!(refused.reason, Reason::NotEncodable);
    assert_eq!(destination("h.{type}", &[]).name(&event("x", None)).unwrap(), "h.x");

    let layers = Layers::load(Some("a = 1"), None, &[]).unwrap();
    for (sentence, template, allowed, wrong) in [
        ("a prefix confines", "h.{type}", &[][..], false),
        ("a pattern confines", "{type}", &["order.*"], false),
        ("nothing confines", "{type}", &[], true),
        ("a constant needs neither", "events", &[], false),
        ("a constant outside its own pattern", "events", &["order.*"], true),
    ] {
        let mut errors = Vec::new();
        destination(template, allowed).check(&layers.root(), "subject", "subject_allowed", &mut errors);
        assert_eq!(!errors.is_empty(), wrong, "{sentence}: {errors:?}");
    }
}
