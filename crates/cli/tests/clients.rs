//! The official clients of OpenAI and Anthropic against the real binary. What is tested stands in `clients/`.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::server::{Server, Setup};
use support::{programs, smollm2, tiny, tiny_video};

const NEEDED: &str = "the clients' tests need Python 3.10 or newer with venv, Node.js 18 or newer and npm: \
     apt-get install python3 python3-venv nodejs npm";

/// A tiny model whose template shows the variables it is given.
const SHOWING: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if reasoning_effort %}effort {{ reasoning_effort }}\n{% endif %}{% if mood %}mood {{ mood }}\n{% endif %}\
    <|im_start|>assistant\n";

/// Writes the tiny model with [`SHOWING`] in place of its template, of the same length.
fn write_thinker(path: &Path) {
    let mut bytes = fs::read(tiny("llama-tiny-q4_1.gguf")).expect("a fixture");
    let find = |bytes: &[u8], text: &str| {
        bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("a template")
    };
    let begin = find(&bytes, "{% for message in messages %}");
    let end =
        begin + find(&bytes[begin..], "assistant\\n' }}{% endif %}") + "assistant\\n' }}{% endif %}".len();
    let padding = "-".repeat(end - begin - SHOWING.len() - "{##}".len());
    bytes[begin..end].copy_from_slice(format!("{{#{padding}#}}{SHOWING}").as_bytes());
    fs::write(path, bytes).expect("written");
}

/// The servers that all suites ask.
struct Servers {
    open: Server,
    keyed: Server,
    key: String,
}

impl Servers {
    fn start(thinker: &Path) -> Servers {
        let keyed = Setup::new();
        let key = keyed.key("clients", &[]);
        let models = [
            format!("smollm2={}", smollm2().display()),
            format!("thinker={}", thinker.display()),
            format!("bert={}", tiny("bert-tiny.gguf")),
            format!("wan={}", tiny_video().display()),
            format!("tiny={}", tiny("llama-tiny-q4_1.gguf")),
        ];
        let [smollm2, thinker, bert, wan, tiny] = models.each_ref().map(String::as_str);
        Servers { open: Server::start(&[smollm2, thinker, bert, wan]), keyed: keyed.start(&[tiny]), key }
    }

    /// The report of a suite that must pass.
    fn pass(&self, what: &str, suite: &mut Command) -> String {
        suite.env("OPEN_SERVER", &self.open.address).env("KEYED_SERVER", &self.keyed.address);
        suite.env("SERVER_KEY", &self.key);
        programs::report(what, suite)
    }
}

#[test]
fn official_clients_are_served_without_a_change() {
    let (python, scripts) = programs::python("clients/python", NEEDED);
    let (node, modules) = programs::node("clients/node", NEEDED);
    let folder = tempfile::tempdir().expect("a folder");
    let thinker = folder.path().join("thinker.gguf");
    write_thinker(&thinker);
    let servers = Servers::start(&thinker);
    let mut suite = Command::new(python);
    suite.args(["-m", "unittest", "discover", "--failfast"]).current_dir(scripts);
    let report = servers.pass("Python", &mut suite);
    assert!(report.contains("\nOK"), "no report: {report}");
    let mut suite = Command::new(node);
    suite.arg("suite.mjs").current_dir(modules);
    let report = servers.pass("Node.js", &mut suite);
    assert!(report.contains("# fail 0") || report.contains("ℹ fail 0"), "no report: {report}");
}
