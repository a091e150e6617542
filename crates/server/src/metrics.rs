//! What is counted, for Prometheus and for the page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::video::VideoCounts;

/// Upper bounds of the time to the first token, in seconds.
const TTFT: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0];
/// Upper bounds of the time between tokens, in seconds.
const INTER_TOKEN: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];
/// Upper bounds of a request's time, in seconds.
const REQUEST: &[f64] = &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0];

/// Counts since the server started. Every lock is held for a few instructions.
pub(crate) struct Metrics {
    models: Mutex<BTreeMap<String, ModelMetrics>>,
    refusals: Mutex<BTreeMap<u16, u64>>,
}

/// Counts of one model.
#[derive(Clone)]
pub(crate) struct ModelMetrics {
    /// Requests by how they ended.
    requests: BTreeMap<&'static str, u64>,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) completion_tokens: u64,
    ttft: Histogram,
    inter_token: Histogram,
    duration: Histogram,
    /// Times since the page's last sample, in seconds.
    recent_ttft: Vec<f32>,
    recent_inter_token: Vec<f32>,
}

/// The most times that are kept for the page's next sample.
const RECENT: usize = 4096;

#[derive(Clone)]
struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    total: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len()], sum: 0.0, total: 0 }
    }

    fn observe(&mut self, seconds: f64) {
        if let Some(place) = self.bounds.iter().position(|&bound| seconds <= bound) {
            self.counts[place] += 1;
        }
        self.sum += seconds;
        self.total += 1;
    }
}

impl Default for ModelMetrics {
    fn default() -> ModelMetrics {
        ModelMetrics {
            requests: BTreeMap::new(),
            prompt_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            ttft: Histogram::new(TTFT),
            inter_token: Histogram::new(INTER_TOKEN),
            duration: Histogram::new(REQUEST),
            recent_ttft: Vec::new(),
            recent_inter_token: Vec::new(),
        }
    }
}

/// Times since the last sample.
#[derive(Default)]
pub(crate) struct Recent {
    pub(crate) ttft: Vec<f32>,
    pub(crate) inter_token: Vec<f32>,
}

impl Metrics {
    pub(crate) fn new(models: impl Iterator<Item = String>) -> Metrics {
        let models = models.map(|name| (name, ModelMetrics::default())).collect();
        Metrics { models: Mutex::new(models), refusals: Mutex::new(BTreeMap::new()) }
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<String, ModelMetrics>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn model(&self, name: &str, change: impl FnOnce(&mut ModelMetrics)) {
        if let Some(model) = self.models().get_mut(name) {
            change(model);
        }
    }

    /// A first token came, so long after its submission.
    pub(crate) fn first_token(&self, model: &str, after: Duration) {
        self.model(model, |model| {
            model.ttft.observe(after.as_secs_f64());
            model.completion_tokens += 1;
            keep(&mut model.recent_ttft, after);
        });
    }

    /// Another token came, so long after the one before it.
    pub(crate) fn inter_token(&self, model: &str, after: Duration) {
        self.model(model, |model| {
            model.inter_token.observe(after.as_secs_f64());
            model.completion_tokens += 1;
            keep(&mut model.recent_inter_token, after);
        });
    }

    /// A request has ended: `ok`, `cancelled` or `failed`, with so many tokens of prompts, some of them found in the
    /// prefix cache.
    pub(crate) fn ended(
        &self,
        model: &str,
        (prompt, cached): (usize, usize),
        how: &'static str,
        after: Duration,
    ) {
        self.model(model, |model| {
            *model.requests.entry(how).or_default() += 1;
            model.prompt_tokens += prompt as u64;
            model.cached_tokens += cached as u64;
            model.duration.observe(after.as_secs_f64());
        });
    }

    /// A request was answered with this error.
    pub(crate) fn refused(&self, status: u16) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
    }

    /// Takes the times that came since the last call; sums up tokens so far (prompt, completion).
    pub(crate) fn sample(&self) -> (Recent, u64, u64) {
        let (mut recent, mut prompt, mut completion) = (Recent::default(), 0, 0);
        for model in self.models().values_mut() {
            recent.ttft.append(&mut model.recent_ttft);
            recent.inter_token.append(&mut model.recent_inter_token);
            prompt += model.prompt_tokens;
            completion += model.completion_tokens;
        }
        (recent, prompt, completion)
    }

    /// In Prometheus' text format, with what engines and the jobs of videos say at this moment.
    pub(crate) fn text(&self, gauges: &[Gauge], videos: &VideoCounts) -> String {
        let mut page = Page(String::new());
        for gauge in gauges {
            page.head(gauge.name, gauge.kind, gauge.about);
            for (model, value) in &gauge.values {
                page.line(gauge.name, &[("model", model)], *value);
            }
        }
        let models = self.models().clone();
        page.head("wushi_requests_total", "counter", "Requests that have ended, by how");
        for (name, model) in &models {
            for (how, count) in &model.requests {
                page.line("wushi_requests_total", &[("model", name), ("outcome", how)], *count as f64);
            }
        }
        let counters: [Figure<u64>; 3] = [
            ("wushi_prompt_tokens_total", "Tokens of prompts", |model| &model.prompt_tokens),
            ("wushi_prefix_hit_tokens_total", "Tokens of prompts found in the prefix cache", |model| {
                &model.cached_tokens
            }),
            ("wushi_generated_tokens_total", "Tokens generated", |model| &model.completion_tokens),
        ];
        for (name, about, value) in counters {
            page.head(name, "counter", about);
            models
                .iter()
                .for_each(|(model, metrics)| page.line(name, &[("model", model)], *value(metrics) as f64));
        }
        let histograms: [Figure<Histogram>; 3] = [
            ("wushi_time_to_first_token_seconds", "From submission to the first token", |model| &model.ttft),
            ("wushi_inter_token_seconds", "Between two tokens of an answer", |model| &model.inter_token),
            ("wushi_request_seconds", "From arrival to the last token", |model| &model.duration),
        ];
        for (name, about, histogram) in histograms {
            page.head(name, "histogram", about);
            models.iter().for_each(|(model, metrics)| page.histogram(name, model, histogram(metrics)));
        }
        page.head("wushi_refusals_total", "counter", "Requests answered with an error, by status");
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (status, count) in refusals {
            page.line("wushi_refusals_total", &[("status", &status.to_string())], count as f64);
        }
        page.videos(videos);
        page.0
    }
}

fn keep(recent: &mut Vec<f32>, time: Duration) {
    if recent.len() < RECENT {
        recent.push(time.as_secs_f32());
    }
}

/// Name, what it is about, and where it is found.
type Figure<T> = (&'static str, &'static str, fn(&ModelMetrics) -> &T);

/// A number of each model at this moment.
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    /// `gauge` or `counter`.
    pub(crate) kind: &'static str,
    pub(crate) about: &'static str,
    pub(crate) values: Vec<(String, f64)>,
}

/// The text being written. Writing to a string cannot fail.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, about: &str) {
        let _ = writeln!(self.0, "# HELP {name} {about}.\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        let _ = match labels[..] {
            [] => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    fn videos(&mut self, counts: &VideoCounts) {
        for (name, kind, about, value) in [
            ("wushi_videos_queued", "gauge", "Videos that wait for their turn", counts.queued as f64),
            ("wushi_videos_running", "gauge", "Videos that are being made", counts.running as f64),
            ("wushi_videos_submitted_total", "counter", "Videos asked for", counts.submitted as f64),
            ("wushi_videos_completed_total", "counter", "Videos made", counts.completed as f64),
            ("wushi_videos_failed_total", "counter", "Videos that failed", counts.failed as f64),
            (
                "wushi_videos_cancelled_total",
                "counter",
                "Videos deleted before they were made",
                counts.cancelled as f64,
            ),
            ("wushi_videos_disk_bytes", "gauge", "Bytes of all files of videos", counts.disk_bytes as f64),
            ("wushi_videos_disk_limit_bytes", "gauge", "The most they may take", counts.disk_budget as f64),
        ] {
            self.head(name, kind, about);
            self.line(name, &[], value);
        }
        for (name, about, seconds, count) in [
            (
                "wushi_video_step_seconds",
                "Steps of denoising, and how long they took",
                counts.step_seconds,
                counts.steps,
            ),
            (
                "wushi_video_frame_seconds",
                "Frames decoded, and how long they took",
                counts.frame_seconds,
                counts.frames,
            ),
        ] {
            self.head(name, "summary", about);
            self.line(&format!("{name}_sum"), &[], seconds);
            self.line(&format!("{name}_count"), &[], count as f64);
        }
    }

    fn histogram(&mut self, name: &str, model: &str, histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let mut so_far = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            so_far += count;
            self.line(&bucket, &[("model", model), ("le", &bound.to_string())], so_far as f64);
        }
        self.line(&bucket, &[("model", model), ("le", "+Inf")], histogram.total as f64);
        self.line(&format!("{name}_sum"), &[("model", model)], histogram.sum);
        self.line(&format!("{name}_count"), &[("model", model)], histogram.total as f64);
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::new(["a\"b".to_owned()].into_iter());
        metrics.first_token("a\"b", Duration::from_millis(30));
        metrics.inter_token("a\"b", Duration::from_secs(100));
        metrics.refused(404);
        let gauge = Gauge {
            name: "wushi_running",
            kind: "gauge",
            about: "Running",
            values: vec![("a\"b".to_owned(), 2.0)],
        };
        let videos = VideoCounts { completed: 3, steps: 4, step_seconds: 1.5, ..VideoCounts::default() };
        let text = metrics.text(&[gauge], &videos);
        for line in [
            "# TYPE wushi_videos_completed_total counter",
            "wushi_videos_completed_total 3",
            "# TYPE wushi_video_step_seconds summary",
            "wushi_video_step_seconds_sum 1.5",
            "wushi_video_step_seconds_count 4",
            "# TYPE wushi_running gauge",
            "wushi_running{model=\"a\\\"b\"} 2",
            "wushi_time_to_first_token_seconds_bucket{model=\"a\\\"b\",le=\"0.02\"} 0",
            "wushi_time_to_first_token_seconds_bucket{model=\"a\\\"b\",le=\"0.05\"} 1",
            "wushi_inter_token_seconds_bucket{model=\"a\\\"b\",le=\"2\"} 0",
            "wushi_inter_token_seconds_bucket{model=\"a\\\"b\",le=\"+Inf\"} 1",
            "wushi_generated_tokens_total{model=\"a\\\"b\"} 2",
            "wushi_refusals_total{status=\"404\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn samples_are_taken_once() {
        let metrics = Metrics::new(["m".to_owned()].into_iter());
        metrics.first_token("m", Duration::from_millis(30));
        let (recent, _, completion) = metrics.sample();
        assert_eq!((recent.ttft.len(), completion), (1, 1));
        assert_eq!(metrics.sample().0.ttft.len(), 0);
    }
}
