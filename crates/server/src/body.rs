//! Bodies of requests: bounded in size and time, JSON in UTF-8, errors in the API's form.

use std::marker::PhantomData;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::app::{App, Limits};
use crate::error::ApiError;
use crate::strict::Strict;

/// A request's body as JSON.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        parse(&whole(request, &app.limits).await?).map(JsonBody)
    }
}

/// A request's body, within limits.
pub(crate) async fn whole(request: Request, limits: &Limits) -> Result<Bytes, ApiError> {
    let coding = request.headers().get(header::CONTENT_ENCODING);
    if coding.is_some_and(|coding| coding != "identity") {
        let message = "the body is compressed: send it as it is";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    read(request.into_body(), limits.body_bytes, limits.body_time).await
}

/// A text or a list, where an API takes either. Unlike an untagged enum it says what is wrong with the list.
pub(crate) enum TextOrList<T> {
    Text(String),
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOrList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOrList<T>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a text or a list")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TextOrList<T>, E> {
                Ok(TextOrList::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<TextOrList<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(TextOrList::List)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

async fn read(body: Body, limit: usize, time: Duration) -> Result<Bytes, ApiError> {
    let bytes = tokio::time::timeout(time, to_bytes(body, limit)).await;
    let bytes = bytes.map_err(|_| {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", time.as_secs()),
        )
    })?;
    bytes.map_err(|error| {
        let mut source = Some(&error as &dyn std::error::Error);
        while let Some(cause) = source {
            if cause.is::<http_body_util::LengthLimitError>() {
                let message = format!("the body has more than the {limit} bytes that are allowed");
                return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message);
            }
            source = cause.source();
        }
        ApiError::invalid("the body broke off")
    })
}

/// JSON that fits a type; the error names the place.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ApiError::invalid("the body is not UTF-8"))?;
    if text.trim().is_empty() {
        return Err(ApiError::invalid("the body is empty: JSON is expected"));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(Strict(&mut json)).map_err(|error| {
        let path = error.path().to_string();
        let message = error.inner().to_string();
        // `?` stands for a place before anything has been understood.
        if path == "." || path == "?" {
            ApiError::invalid(format!("the body cannot be used: {message}"))
        } else {
            ApiError::parameter(path.clone(), format!("{path}: {message}"))
        }
    })?;
    json.end().map_err(|error| ApiError::invalid(format!("the body cannot be used: {error}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{TextOrList, parse};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(rename = "list")]
        _list: Vec<u32>,
    }

    #[derive(Deserialize)]
    struct Spoken {
        input: TextOrList<u8>,
    }

    #[test]
    fn errors_name_their_place() {
        assert!(parse::<Body>(br#"{"list": [1]}"#).is_ok());
        let param = |bytes: &[u8]| parse::<Body>(bytes).unwrap_err().param;
        assert_eq!(param(br#"{"list": [1, "x"]}"#).as_deref(), Some("list[1]"));
        assert_eq!(param(br#"{"list": [], "other": 1}"#).as_deref(), Some("other"));
        assert_eq!(param(br#"{"list": []} and more"#), None);
        assert_eq!(param(b"{\"list\": \xff}"), None);
        assert_eq!(param(b""), None);
    }

    #[test]
    fn a_list_says_what_is_wrong_with_it() {
        let spoken = |body: &str| parse::<Spoken>(body.as_bytes()).map(|spoken| spoken.input);
        assert!(matches!(spoken(r#"{"input": "x"}"#), Ok(TextOrList::Text(text)) if text == "x"));
        assert!(matches!(spoken(r#"{"input": [1, 2]}"#), Ok(TextOrList::List(list)) if list == [1, 2]));
        let wrong = spoken(r#"{"input": [1, "one"]}"#).map(|_| ()).unwrap_err();
        assert_eq!(wrong.param.as_deref(), Some("input[1]"));
        assert!(wrong.message.contains("invalid type: string \"one\", expected u8"), "{}", wrong.message);
        let wrong = spoken(r#"{"input": 5}"#).map(|_| ()).unwrap_err();
        assert!(wrong.message.contains("expected a text or a list"), "{}", wrong.message);
    }
}
