//! The chat page, the page of videos and the page about the server: files that are part of the binary, served by their names alone.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// What the pages may do: run their own scripts, and speak to this server. Text of a model cannot become a script:
/// strings become HTML through the sanitiser's policy alone.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types dompurify";

/// Pictures and films come from the API with a key in the request, so the page of videos has them as blobs of its own.
const VIDEO_POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
     media-src blob:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

struct Asset {
    name: &'static str,
    bytes: &'static [u8],
    tag: HeaderValue,
}

/// `files![a, b]`: each name with the bytes of the file.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, &include_bytes!(concat!("../page/", $name))[..])),*]
    };
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let files = files![
        "api.js",
        "base.css",
        "chat.css",
        "chat.js",
        "code.js",
        "composer.js",
        "conversation.js",
        "dialogs.js",
        "dom.js",
        "early.js",
        "generation.js",
        "i18n.js",
        "icon.svg",
        "index.html",
        "key.js",
        "lang-en.js",
        "lang-zh.js",
        "look.js",
        "markdown.js",
        "message.js",
        "panel.js",
        "plot.js",
        "sanitize.js",
        "scroll.js",
        "server.css",
        "server.html",
        "server.js",
        "settings.js",
        "sidebar.js",
        "store.js",
        "vendor/highlight.LICENSE.txt",
        "vendor/highlight.js",
        "vendor/marked.LICENSE.txt",
        "vendor/marked.js",
        "vendor/purify.LICENSE.txt",
        "vendor/purify.js",
        "video-api.js",
        "video-form.js",
        "video-job.js",
        "video-list.js",
        "video-plan.js",
        "video.css",
        "video.html",
        "video.js",
    ];
    files.into_iter().map(|(name, bytes)| Asset { name, bytes, tag: tag(bytes) }).collect()
});

fn tag(bytes: &[u8]) -> HeaderValue {
    let text = format!("\"{}\"", &blake3::hash(bytes).to_hex()[..24]);
    HeaderValue::try_from(text).expect("hexadecimal digits in quotes")
}

/// The routes of the pages and of what they need. No key is asked for here: there is nothing of anyone in it.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { serve("index.html", &headers) }))
        .route("/server", get(|headers: HeaderMap| async move { serve("server.html", &headers) }))
        .route("/video", get(|headers: HeaderMap| async move { serve("video.html", &headers) }))
        .route("/page/{*name}", get(file))
}

async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    serve(&name, &headers)
}

fn serve(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        let text = "no such file; the pages are /, /video and /server\n";
        return (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    };
    let common = [
        (ETAG, asset.tag.clone()),
        // Asked for again each time, and not sent again where it is the same: a new binary brings a new page.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy(name))),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    if known(headers, &asset.tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, content_type(name))], asset.bytes).into_response()
}

fn policy(name: &str) -> &'static str {
    if name == "video.html" { VIDEO_POLICY } else { POLICY }
}

/// Whether the client has this version: `If-None-Match` is a list of tags, weak ones too, or `*`.
fn known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn get(name: &str) -> Response {
        serve(name, &HeaderMap::new())
    }

    fn files(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("the page's folder") {
            let entry = entry.expect("an entry");
            let name = format!("{prefix}{}", entry.file_name().to_str().expect("UTF-8"));
            if entry.path().is_dir() {
                files(&entry.path(), &format!("{name}/"), found);
            } else if !name.ends_with(".md") {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_binary() {
        let mut found = BTreeSet::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("page"), "", &mut found);
        assert_eq!(found, ASSETS.iter().map(|asset| asset.name.to_string()).collect());
    }

    #[test]
    fn what_a_file_names_is_there() {
        for asset in ASSETS.iter().filter(|asset| !asset.name.starts_with("vendor/")) {
            let text = std::str::from_utf8(asset.bytes).expect("text");
            for part in text.split("\"/page/").skip(1) {
                let name = part.split('"').next().expect("the rest");
                assert_eq!(get(name).status(), StatusCode::OK, "{} names {name}", asset.name);
            }
            for part in text.split("from './").skip(1) {
                let name = part.split('\'').next().expect("the rest");
                assert_eq!(get(name).status(), StatusCode::OK, "{} imports {name}", asset.name);
            }
            assert!(!text.contains("style=\"") && !text.contains(" onclick="), "{}: inline", asset.name);
        }
    }

    #[test]
    fn headers_forbid_what_the_page_does_not_need() {
        for name in ["index.html", "server.html", "video.html", "chat.js", "vendor/marked.js"] {
            let response = get(name);
            let header = |name: HeaderName| response.headers()[name].to_str().expect("text").to_string();
            let policy = header(CONTENT_SECURITY_POLICY);
            assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
            assert_eq!(policy.contains("blob:"), name == "video.html", "{policy}");
            assert_eq!(header(X_CONTENT_TYPE_OPTIONS), "nosniff");
            assert_eq!(header(X_FRAME_OPTIONS), "DENY");
        }
        assert_eq!(get("chat.js").headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert_eq!(get("index.html").headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    }

    #[test]
    fn a_known_version_is_not_sent_again() {
        let tag = get("chat.js").headers()[ETAG].to_str().expect("text").to_string();
        for value in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_string()] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().expect("a header"))]);
            assert_eq!(serve("chat.js", &headers).status(), StatusCode::NOT_MODIFIED, "{value}");
        }
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("\"other\""))]);
        assert_eq!(serve("chat.js", &headers).status(), StatusCode::OK);
    }

    #[test]
    fn nothing_but_the_named_files() {
        for name in ["", "../Cargo.toml", "vendor/../chat.js", "/etc/passwd", "vendor", "chat.js/", "CHAT.JS"]
        {
            assert_eq!(get(name).status(), StatusCode::NOT_FOUND, "{name}");
        }
    }
}
