//! Who may ask: keys, and the Host header where the server listens to this machine alone.

use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::ApiError;
use crate::store::Key;

/// The key of a request that has been let in, where keys are needed.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Option<Key>);

/// Paths that show nothing of anybody's.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/server" | "/video" | "/health" | "/ready") || path.starts_with("/page/")
}

/// Lets requests in, or not.
pub(crate) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let checked = check_host(&app, request.headers()).and_then(|()| match is_open(path) {
        true => Ok(None),
        // Seldom the database is looked at: others are served meanwhile.
        false => tokio::task::block_in_place(|| check_key(&app, request.headers())),
    });
    match checked {
        Ok(key) => {
            request.extensions_mut().insert(Caller(key));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// A page elsewhere could make a browser on this machine ask under a name of its own (DNS rebinding).
fn check_host(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !app.loopback || is_loopback(host) {
        return Ok(());
    }
    let message = "the server is for this machine alone: ask for localhost, 127.0.0.1 or [::1]";
    Err(ApiError::new(StatusCode::FORBIDDEN, message))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Where no key is needed, a page elsewhere could have a visitor's browser ask in his stead.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let elsewhere = matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"));
    let foreign =
        text("origin").is_some_and(|origin| origin.split_once("://").map(|(_, host)| host) != text("host"));
    if elsewhere || foreign {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "pages of other sites are not served without a key",
        ));
    }
    Ok(())
}

fn check_key(app: &App, headers: &HeaderMap) -> Result<Option<Key>, ApiError> {
    let store = app.ledger.store();
    if app.open && !app.had_keys.load(Ordering::Relaxed) {
        if !store.has_keys()? {
            check_origin(headers)?;
            return Ok(None);
        }
        // Removing the last key lets nobody in.
        app.had_keys.store(true, Ordering::Relaxed);
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    let refuse =
        |message: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"));
    let Some(secret) = bearer.or_else(|| text("x-api-key")) else {
        return refuse(
            "a key is needed: send it as `Authorization: Bearer KEY` (made by `wushi key add NAME`)",
        );
    };
    match store.authenticate(secret)? {
        Some(key) => Ok(Some(key)),
        None => refuse("this key is not known here, or was removed"),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::{check_origin, is_loopback};

    #[test]
    fn pages_of_other_sites_are_refused() {
        let ask = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(*name, value.parse().expect("a value"));
            }
            check_origin(&headers).is_ok()
        };
        let host = ("host", "localhost:8000");
        assert!(ask(&[host]), "no browser");
        assert!(ask(&[host, ("origin", "http://localhost:8000"), ("sec-fetch-site", "same-origin")]));
        assert!(!ask(&[host, ("origin", "https://example.com")]));
        assert!(!ask(&[host, ("origin", "http://localhost:9000")]));
        assert!(!ask(&[host, ("origin", "null")]));
        assert!(!ask(&[host, ("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn only_names_of_this_machine_pass() {
        for host in ["localhost", "LocalHost:8000", "127.0.0.1:1", "127.1.2.3", "[::1]", "[::1]:80"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "example.com", "localhost.example.com:8000", "192.168.0.1", "[::2]:80", "127.0.0.1.nip.io"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
