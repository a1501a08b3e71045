//! A request's body as a dialect looks at it: how it travels, as what, and the texts of its fields.
//! Holds: R7 (the body is looked at, never written anew).

use super::cloudevents::Content;
use super::form::Form;
use super::json::{self, Pointer};
use super::{Request, Unreadable};
use crate::envelope::{ATTRIBUTE_BYTES_MAX, Data};
use http::header::CONTENT_TYPE;
use std::borrow::Cow;

/// One body.
pub(super) struct Payload<'a> {
    /// How it travels.
    pub(super) data: Data,
    /// The media type, as declared or as its bytes tell.
    pub(super) media_type: Option<String>,
    json: Option<Cow<'a, str>>,
    form: Form<'a>,
}

impl<'a> Payload<'a> {
    /// Looks at a body by its declared media type, or by its bytes where none is declared.
    pub(super) fn read(request: &Request<'a>) -> Result<Self, Unreadable> {
        let (data, media_type) = data(request)?;
        let json = match &data {
            Data::Json(_) => std::str::from_utf8(request.body).ok().map(Cow::Borrowed),
            Data::None | Data::Text(_) | Data::Binary(_) => None,
        };
        let is_form = declared(request).is_some_and(|text| essence(text) == FORM);
        let form = if is_form { Form::read(request.body) } else { Form::default() };
        Ok(Payload { data, media_type, json, form })
    }

    /// The same, with the JSON that some senders put into one field of a form.
    pub(super) fn with_json_of_field(mut self, field: &str) -> Self {
        if self.json.is_none() {
            let text = self.form.text(field).filter(|text| json::checked(text.as_bytes()).is_ok());
            self.json = text.map(|text| Cow::Owned(text.into_owned()));
        }
        self
    }

    /// The text or number that the pointer leads to; none where there is none or it is empty.
    pub(super) fn find(&self, pointer: &Pointer) -> Option<Cow<'_, str>> {
        pointer.find(self.json.as_deref()?).map(json::scalar).filter(|text| !text.is_empty())
    }

    /// [`Payload::find`] at a pointer that stands in the code.
    pub(super) fn at(&self, pointer: &str) -> Option<Cow<'_, str>> {
        self.find(&Pointer::parse(pointer)?)
    }

    /// The first that is there.
    pub(super) fn first_at(&self, pointers: &[&str]) -> Option<Cow<'_, str>> {
        pointers.iter().find_map(|pointer| self.at(pointer))
    }

    /// The field of a form; none where there is none or it is empty.
    pub(super) fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        self.form.text(name).filter(|text| !text.is_empty())
    }

    /// There is JSON to point into.
    pub(super) fn has_json(&self) -> bool {
        self.json.is_some()
    }
}

/// The media type of HTML forms.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// The declared media type without parameters, in lower case.
pub(super) fn essence(declared: &str) -> String {
    declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn declared<'a>(request: &Request<'a>) -> Option<&'a str> {
    let declared =
        request.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::trim);
    declared.filter(|text| !text.is_empty() && text.len() <= ATTRIBUTE_BYTES_MAX)
}

/// How the body travels, and as what.
fn data(request: &Request<'_>) -> Result<(Data, Option<String>), Unreadable> {
    let body = request.body.clone();
    let declared = declared(request);
    let media = declared.map(|text| Media::of(&essence(text)));
    // Between parameters a tab is as good as a space (RFC 9110, section 5.6.3), but no attribute may have one.
    let datacontenttype = declared.map(|text| text.replace('\t', " "));
    match media {
        Some(Media::Json) => {
            json::checked(&body)?;
            Ok((Data::Json(body), datacontenttype))
        }
        _ if body.is_empty() => Ok((Data::None, datacontenttype)),
        Some(Media::Text) if is_text_of_ours(declared, &body) => Ok((Data::Text(body), datacontenttype)),
        Some(Media::Text | Media::Other) => Ok((Data::Binary(body), datacontenttype)),
        None if json::checked(&body).is_ok() => Ok((Data::Json(body), Some("application/json".to_owned()))),
        None if std::str::from_utf8(&body).is_ok() => Ok((Data::Text(body), Some("text/plain".to_owned()))),
        None => Ok((Data::Binary(body), Some("application/octet-stream".to_owned()))),
    }
}

/// UTF-8, as the sender meant it: the bytes of another encoding may look like it, and are no such text.
fn is_text_of_ours(declared: Option<&str>, body: &[u8]) -> bool {
    match Content::of(declared) {
        Content::Json | Content::Text | Content::Other => std::str::from_utf8(body).is_ok(),
        Content::LikeAscii => body.is_ascii(),
        Content::Wide => false,
    }
}

enum Media {
    Json,
    Text,
    Other,
}

impl Media {
    fn of(essence: &str) -> Self {
        if essence == "application/json" || essence == "text/json" || essence.ends_with("+json") {
            Media::Json
        } else if essence.starts_with("text/")
            || essence.ends_with("+xml")
            || matches!(essence, "application/xml" | FORM)
        {
            Media::Text
        } else {
            Media::Other
        }
    }
}
