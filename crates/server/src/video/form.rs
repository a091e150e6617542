//! Bodies that come as JSON or, as the official clients send videos, as a form (`multipart/form-data`, RFC 7578).

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use multer::Multipart;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::App;
use crate::body::{parse, whole};
use crate::error::ApiError;

/// A request's body as JSON, or as a form whose fields are the members of that JSON, each of them a text.
pub(crate) struct JsonOrForm<T>(pub(crate) T);

/// More fields than any form here has.
const MAX_FIELDS: usize = 64;

impl<T: DeserializeOwned> FromRequest<App> for JsonOrForm<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        let bytes = whole(request, &app.limits).await?;
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("multipart/form-data") {
            return parse(&bytes).map(JsonOrForm);
        }
        let boundary = multer::parse_boundary(&kind)
            .map_err(|_| ApiError::invalid("the form's Content-Type names no boundary"))?;
        let fields = fields(bytes, boundary).await?;
        parse(Value::Object(fields).to_string().as_bytes()).map(JsonOrForm)
    }
}

/// The fields of a form by name.
async fn fields(body: Bytes, boundary: String) -> Result<Map<String, Value>, ApiError> {
    let broken = |error: multer::Error| ApiError::invalid(format!("the form cannot be read: {error}"));
    let mut form = Multipart::new(Once(Some(body)), boundary);
    let mut fields = Map::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(ApiError::invalid("a field of the form has no name"));
        }
        // Clients write what is within an object as `outer[inner]`.
        let outer = name.split('[').next().unwrap_or_default().to_owned();
        let file = field.file_name().is_some();
        let bytes = field.bytes().await.map_err(broken)?;
        if file && outer != "input_reference" {
            return Err(ApiError::parameter(&outer, format!("{outer}: a text is wanted, not a file")));
        }
        let text = if file {
            String::new()
        } else {
            let text = std::str::from_utf8(&bytes);
            text.map_err(|_| ApiError::parameter(&outer, format!("{outer}: it is not UTF-8")))?.to_owned()
        };
        let (nested, twice) = (outer != name, fields.contains_key(&outer));
        if twice && !nested {
            return Err(ApiError::parameter(&outer, format!("{outer} is there twice")));
        }
        if fields.len() == MAX_FIELDS {
            return Err(ApiError::invalid(format!("the form has more than {MAX_FIELDS} fields")));
        }
        let value = if nested { Value::Object(Map::new()) } else { Value::String(text) };
        fields.insert(outer, value);
    }
    Ok(fields)
}

/// A body that is there already, as the stream that it is read from.
struct Once(Option<Bytes>);

impl futures_core::Stream for Once {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.take().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each part is its headers behind `form-data; ` and its content.
    fn read(parts: &[(&str, &str)]) -> Result<Value, ApiError> {
        let mut body = String::new();
        for (about, content) in parts {
            body += &format!("--b\r\nContent-Disposition: form-data; {about}\r\n\r\n{content}\r\n");
        }
        body += "--b--\r\n";
        read_body(body)
    }

    fn read_body(body: impl Into<Bytes>) -> Result<Value, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(fields(body.into(), "b".to_owned())).map(Value::Object)
    }

    #[test]
    fn fields_become_members() {
        let found = read(&[("name=\"prompt\"", "a river\r\nat night, 河"), ("name=\"seconds\"", "4")]);
        assert_eq!(found.unwrap(), json!({ "prompt": "a river\r\nat night, 河", "seconds": "4" }));
        assert_eq!(read(&[]).unwrap(), json!({}));
        let nested =
            read(&[("name=\"input_reference[file_id]\"", "x"), ("name=\"input_reference[b]\"", "y")]);
        assert_eq!(nested.unwrap(), json!({ "input_reference": {} }));
        let file = read(&[("name=\"input_reference\"; filename=\"a.png\"", "\u{1}")]);
        assert_eq!(file.unwrap(), json!({ "input_reference": "" }));
    }

    #[test]
    fn what_is_wrong_with_a_form_is_said() {
        let param = |parts: &[(&str, &str)]| read(parts).unwrap_err().param;
        assert_eq!(param(&[("name=\"prompt\"; filename=\"p.txt\"", "x")]).as_deref(), Some("prompt"));
        assert_eq!(param(&[("name=\"seed\"", "1"), ("name=\"seed\"", "2")]).as_deref(), Some("seed"));
        assert_eq!(read(&[("filename=\"a\"", "")]).unwrap_err().message, "a field of the form has no name");
        let many: Vec<String> = (0..=MAX_FIELDS).map(|number| format!("name=\"f{number}\"")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|about| (about.as_str(), "")).collect();
        assert!(read(&many).unwrap_err().message.contains("more than 64 fields"));
        let bytes = b"--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n\xff\r\n--b--\r\n";
        assert_eq!(read_body(&bytes[..]).unwrap_err().message, "prompt: it is not UTF-8");
        for body in
            ["", "--b", "no form", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nnever ends"]
        {
            let error = read_body(body).unwrap_err();
            assert!(error.message.starts_with("the form cannot be read"), "{}", error.message);
        }
    }
}
