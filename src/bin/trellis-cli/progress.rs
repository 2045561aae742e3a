//! How far an import or export has come: a bar on a terminal, nothing elsewhere, and a summary at the end. Never decides anything.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};

/// Something under way.
pub(crate) struct Progress {
    bar: ProgressBar,
    verb: &'static str,
    pub(crate) done: u64,
    pub(crate) failed: u64,
}

impl Progress {
    /// Of so many steps, if that is known. A step is a byte or a key, as `style` shows it.
    pub(crate) fn of(verb: &'static str, steps: Option<u64>, in_bytes: bool) -> Self {
        let is_seen = std::io::stderr().is_terminal();
        let target = if is_seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let (position, of) = if in_bytes { ("{bytes}", "{total_bytes}") } else { ("{human_pos}", "{human_len}") };
        let (bar, template) = match steps {
            Some(steps) => (
                ProgressBar::with_draw_target(Some(steps), target),
                format!("[{{bar:30}}] {position} of {of}, {{eta}} left, {{msg}}"),
            ),
            None => (ProgressBar::with_draw_target(None, target), format!("{{spinner}} {position}, {{msg}}")),
        };
        bar.set_style(ProgressStyle::with_template(&template).expect("it was read by a person").progress_chars("=> "));
        Self { bar, verb, done: 0, failed: 0 }
    }

    /// So many steps more.
    pub(crate) fn step(&self, steps: u64) {
        self.bar.inc(steps);
    }

    /// Shows what has been done.
    pub(crate) fn show(&self) {
        self.bar.set_message(format!("{} keys", self.done));
    }

    /// Says something that stays.
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Ends it: what came of it, for people and for programs.
    pub(crate) fn finish(self) -> (String, Json) {
        let took = self.bar.elapsed();
        self.bar.finish_and_clear();
        let rate = self.done as f64 / took.as_secs_f64().max(1e-3);
        let Self { verb, done, failed, .. } = self;
        let text = format!("{verb} {done} keys in {:.1} s ({rate:.0}/s), {failed} failed", took.as_secs_f64());
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        (text, json!({ verb: done, "failed": failed, "took_ms": took_ms, "keys_per_s": rate.round() }))
    }
}
