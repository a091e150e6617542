//! How models are fetched, and where they are kept unless said otherwise.

use crate::HubError;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How models are fetched.
///
/// The limits on time are those of a source that others can replace. The last source left gets three times as long to
/// be found, to connect and to answer: there, being slow is better than failing.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where Hugging Face, or a mirror that speaks its protocol, answers. `HF_ENDPOINT`.
    pub hf_endpoint: String,
    /// Token for private and gated repositories, sent to `hf_endpoint` alone. `HF_TOKEN`.
    pub hf_token: Option<String>,
    /// Proxy for all but this machine: `http://`, `https://` or `socks5://`, with a password if need be.
    /// `HTTPS_PROXY`, else `ALL_PROXY`.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy: `host`, which stands for its subdomains too, or `*`. `NO_PROXY`.
    pub no_proxy: Vec<String>,
    /// The Python whose pip fetches packages.
    pub python: PathBuf,
    /// How long a name may take to resolve.
    pub resolve: Duration,
    /// How long a connection, TLS included, may take.
    pub connect: Duration,
    /// How long the first byte of an answer may take.
    pub respond: Duration,
    /// How long a transfer may go without a byte.
    pub stall: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            hf_endpoint: "https://huggingface.co".to_owned(),
            hf_token: None,
            proxy: None,
            no_proxy: Vec::new(),
            python: PathBuf::from(if cfg!(windows) { "python" } else { "python3" }),
            resolve: Duration::from_millis(2500),
            connect: Duration::from_secs(3),
            respond: Duration::from_secs(10),
            stall: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// The defaults, changed by the customary variables; `env` looks one up, for instance with `std::env::var_os`.
    /// An empty variable counts as none.
    pub fn from_env(env: impl Fn(&str) -> Option<OsString>) -> Options {
        let text = |name: &str| env(name)?.into_string().ok().filter(|value| !value.trim().is_empty());
        let either = |upper: &str| text(upper).or_else(|| text(&upper.to_lowercase()));
        let mut options = Options::default();
        if let Some(endpoint) = text("HF_ENDPOINT") {
            options.hf_endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        }
        options.hf_token = text("HF_TOKEN").map(|token| token.trim().to_owned());
        options.proxy = either("HTTPS_PROXY").or_else(|| either("ALL_PROXY"));
        let list = either("NO_PROXY").unwrap_or_default();
        options.no_proxy =
            list.split([',', ' ']).filter(|host| !host.is_empty()).map(str::to_lowercase).collect();
        options
    }

    /// The options for a source that no other can replace.
    pub(crate) fn patient(&self) -> Options {
        let more = |time: Duration| time.saturating_mul(3);
        Options {
            resolve: more(self.resolve),
            connect: more(self.connect),
            respond: more(self.respond),
            ..self.clone()
        }
    }

    /// Whether `host` (lower case) is reached without the proxy.
    pub(crate) fn bypasses_proxy(&self, host: &str) -> bool {
        self.no_proxy.iter().any(|entry| {
            let entry = entry.trim_start_matches('*').trim_start_matches('.');
            // What is left of "*" is nothing, which every host ends with.
            host == entry
                || host.strip_suffix(entry).is_some_and(|front| entry.is_empty() || front.ends_with('.'))
        })
    }
}

impl fmt::Debug for Options {
    /// Without the token and the proxy's password: this ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("hf_endpoint", &self.hf_endpoint)
            .field("hf_token", &self.hf_token.as_ref().map(|_| "…"))
            .field("proxy", &self.proxy.as_ref().map(|_| "…"))
            .field("no_proxy", &self.no_proxy)
            .field("python", &self.python)
            .field("resolve", &self.resolve)
            .field("connect", &self.connect)
            .field("respond", &self.respond)
            .field("stall", &self.stall)
            .finish()
    }
}

/// Where models are kept unless the caller knows better: `wushi` in the system's folder for a user's data
/// (`XDG_DATA_HOME`, `~/.local/share`, `~/Library/Application Support`, `%LOCALAPPDATA%`). `env` looks a variable up,
/// for instance with `std::env::var_os`; an empty one counts as none.
///
/// # Errors
/// [`HubError::NoHome`] if no variable says where a user's files go.
pub fn default_location(env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, HubError> {
    let folder = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library").join("Application Support"))
    } else {
        // The XDG base directory specification wants a relative path ignored.
        let xdg = folder("XDG_DATA_HOME").filter(|path| path.is_absolute());
        xdg.or_else(|| folder("HOME").map(|home| home.join(".local").join("share")))
    };
    data.map(|data| data.join("wushi")).ok_or(HubError::NoHome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn xdg_then_home() {
        let at = |pairs| default_location(env(pairs)).ok();
        assert_eq!(at(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), Some(PathBuf::from("/x/wushi")));
        assert_eq!(
            at(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]),
            Some(PathBuf::from("/h/.local/share/wushi"))
        );
        assert_eq!(at(&[("HOME", "/h")]), Some(PathBuf::from("/h/.local/share/wushi")));
        assert!(matches!(default_location(env(&[("HOME", "")])), Err(HubError::NoHome)));
    }

    #[test]
    fn the_customary_variables_are_honoured() {
        let options = Options::from_env(env(&[
            ("HF_ENDPOINT", "https://mirror.example/hf/"),
            ("HF_TOKEN", "hf_secret"),
            ("https_proxy", "http://proxy:3128"),
            ("NO_PROXY", "localhost, .Example.org"),
        ]));
        assert_eq!(options.hf_endpoint, "https://mirror.example/hf");
        assert_eq!(options.proxy.as_deref(), Some("http://proxy:3128"));
        assert!(options.bypasses_proxy("example.org") && options.bypasses_proxy("a.example.org"));
        assert!(!options.bypasses_proxy("notexample.org") && !options.bypasses_proxy("other.net"));
        assert!(!format!("{options:?}").contains("secret"));

        let all = Options::from_env(env(&[("NO_PROXY", "*"), ("HF_TOKEN", " ")]));
        assert!(all.bypasses_proxy("anything.net") && all.hf_token.is_none());
    }
}
