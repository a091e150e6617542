//! Where a knob's value comes from when no flag gives it: the environment, then `wushi.toml`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use toml::{Table, Value};

use crate::knobs::{KNOBS, Knob};

/// The name of the configuration file.
const FILE: &str = "wushi.toml";

/// Reads a value, or says what was expected.
pub(crate) type Parse<T> = fn(&str) -> Result<T, String>;

/// The environment and the configuration file.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    environment: Vec<(&'static Knob, String)>,
    file: Option<(PathBuf, Table)>,
}

/// A place for the values of a knob that can be given once, or several times.
pub(crate) trait Place<T> {
    /// Whether a layer above has filled it.
    fn is_filled(&self) -> bool;
    /// Fills it with the values of one layer.
    fn fill(&mut self, values: Vec<T>) -> Result<()>;
}

impl<T> Place<T> for Option<T> {
    fn is_filled(&self) -> bool {
        self.is_some()
    }

    fn fill(&mut self, values: Vec<T>) -> Result<()> {
        let count = values.len();
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (Some(value), None) => *self = Some(value),
            _ => bail!("expected one value, found {count}"),
        }
        Ok(())
    }
}

impl<T> Place<T> for Option<Vec<T>> {
    fn is_filled(&self) -> bool {
        self.is_some()
    }

    fn fill(&mut self, values: Vec<T>) -> Result<()> {
        *self = Some(values);
        Ok(())
    }
}

impl Layers {
    /// Reads the process's environment, and `wushi.toml` in the current folder, else in the user's configuration folder.
    pub(crate) fn read() -> Result<Layers> {
        let env = |name: &str| std::env::var_os(name);
        let mut layers = Layers { environment: environment(env)?, file: None };
        for path in files(env) {
            match fs::read_to_string(&path) {
                Ok(text) => {
                    let table = parse_file(&text).with_context(|| path.display().to_string())?;
                    layers.file = Some((path, table));
                    break;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(anyhow!("{}: {error}", path.display())),
            }
        }
        Ok(layers)
    }

    /// Says which environment variables look like knobs and are none: likely a slip of the pen.
    pub(crate) fn warn_of_strays() {
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("WUSHI_") && !KNOBS.iter().any(|knob| knob.env == name) {
                tracing::warn!("the environment variable {name} is no knob of Wushi and does nothing");
            }
        }
    }

    /// Fills `place` from the first layer that has a value, unless a flag has filled it.
    pub(crate) fn fill<T>(&self, place: &mut impl Place<T>, knob: &Knob, parse: Parse<T>) -> Result<()> {
        if place.is_filled() {
            return Ok(());
        }
        let (source, texts) = match self.environment.iter().find(|(declared, _)| declared.env == knob.env) {
            // A list in one variable has one value a line.
            Some((_, value)) => (knob.env.to_owned(), value.lines().map(str::to_owned).collect()),
            None => match &self.file {
                Some((path, table)) if table.contains_key(knob.flag) => {
                    let source = format!("{}: `{}`", path.display(), knob.flag);
                    let texts = texts(&table[knob.flag]).with_context(|| source.clone())?;
                    (source, texts)
                }
                _ => return Ok(()),
            },
        };
        let values: Result<Vec<T>> = texts
            .iter()
            .map(|text| {
                parse(text).map_err(|expected| anyhow!("{source}: invalid value `{text}`: {expected}"))
            })
            .collect();
        place.fill(values?).with_context(|| source.clone())
    }
}

/// The knobs that the environment sets; an empty variable counts as none.
fn environment(env: impl Fn(&str) -> Option<OsString>) -> Result<Vec<(&'static Knob, String)>> {
    let mut found = Vec::new();
    for knob in KNOBS {
        match env(knob.env).map(OsString::into_string) {
            None => {}
            Some(Ok(value)) if value.is_empty() => {}
            Some(Ok(value)) => found.push((knob, value)),
            Some(Err(value)) => bail!("{}: invalid value {value:?}: it is not UTF-8", knob.env),
        }
    }
    Ok(found)
}

/// Where the file may be, in order.
fn files(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || folder("HOME");
    let configuration = if cfg!(windows) {
        folder("APPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library").join("Application Support"))
    } else {
        // The XDG base directory specification wants a relative path ignored.
        let xdg = folder("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        xdg.or_else(|| home().map(|home| home.join(".config")))
    };
    let own = configuration.map(|folder| folder.join("wushi").join(FILE));
    std::iter::once(Path::new(FILE).to_owned()).chain(own).collect()
}

/// The file's table, if all its keys are knobs.
fn parse_file(text: &str) -> Result<Table> {
    let table: Table = text.parse().map_err(|error| anyhow!("{error}"))?;
    match table.keys().find(|key| !KNOBS.iter().any(|knob| knob.flag == key.as_str())) {
        None => Ok(table),
        Some(key) => {
            let known: Vec<&str> = KNOBS.iter().map(|knob| knob.flag).collect();
            bail!("`{key}` is no knob; there are {}", known.join(", "))
        }
    }
}

/// A value, or the values of a list, as a flag would give them.
fn texts(value: &Value) -> Result<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(truth) => Ok(truth.to_string()),
        other => Err(anyhow!("expected a text, a number or a truth value, found a {}", other.type_str())),
    };
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::{Compute, Generation};

    fn layers(environment: &[(&str, &str)], file: Option<&str>) -> Layers {
        let lookup = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        Layers {
            environment: super::environment(lookup).unwrap(),
            file: file.map(|text| (PathBuf::from("wushi.toml"), parse_file(text).unwrap())),
        }
    }

    #[test]
    fn flag_then_environment_then_file() {
        let both = layers(&[("WUSHI_THREADS", "3")], Some("threads = 5\nmemory = \"2G\""));
        let flag = Compute { threads: Some(1), ..Compute::default() };
        assert_eq!(flag.resolve(&both).unwrap().threads, Some(1));
        let given = Compute::default().resolve(&both).unwrap();
        assert_eq!((given.threads, given.memory), (Some(3), Some(2_000_000_000)));
        let file = layers(&[("WUSHI_THREADS", "")], Some("threads = 5"));
        assert_eq!(Compute::default().resolve(&file).unwrap().threads, Some(5));
        assert_eq!(Compute::default().resolve(&Layers::default()).unwrap().threads, None);
    }

    #[test]
    fn lists() {
        let given = layers(&[("WUSHI_STOP", "a\nb c")], Some("logit-bias = [\"5=-100\", \"6=1.5\"]"));
        let generation = Generation::default().resolve(&given).unwrap();
        assert_eq!(generation.stop, Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(generation.logit_bias, Some(vec![(5, -100.0), (6, 1.5)]));
    }

    #[test]
    fn bad_values_name_their_source() {
        let error = |environment: &[(&str, &str)], file| {
            let layers = layers(environment, file);
            format!("{:#}", Generation::default().resolve(&layers).unwrap_err())
        };
        let text = error(&[("WUSHI_TOP_P", "2")], None);
        assert_eq!(text, "WUSHI_TOP_P: invalid value `2`: expected a number above 0 and at most 1");
        let text = error(&[], Some("seed = -1"));
        assert!(text.starts_with("wushi.toml: `seed`: invalid value `-1`"), "{text}");
        let text = error(&[], Some("seed = [1, 2]"));
        assert_eq!(text, "wushi.toml: `seed`: expected one value, found 2");
        let text = error(&[], Some("seed = { a = 1 }"));
        assert!(text.contains("found a table"), "{text}");
    }

    #[test]
    fn unknown_keys_are_named() {
        let text = format!("{}", parse_file("thread = 1").unwrap_err());
        assert!(text.starts_with("`thread` is no knob; there are "), "{text}");
        assert!(parse_file("threads =").is_err());
    }
}
