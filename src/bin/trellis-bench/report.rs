//! What runs came to, as a table for people and as JSON for programs. Never measures. Tested, as a process, in `tests/bench.rs`.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

use super::arguments::Arguments;
use super::command::Mix;
use super::figures::{Ratio, median, ratio, spread};
use super::run::{Run, Server};

/// Shares of requests whose latencies are told, and their names.
const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)];

impl Run {
    /// Successes a second.
    fn rate(&self) -> f64 {
        let seconds = self.tally.seconds();
        if seconds > 0.0 { self.tally.successes() as f64 / seconds } else { 0.0 }
    }

    /// Processor microseconds for each request, whatever became of it.
    fn micros(&self, used: Option<std::time::Duration>) -> Option<f64> {
        let requests = self.tally.successes() + self.tally.failures();
        used.map(|used| used.as_secs_f64() * 1e6 / requests as f64).filter(|micros| micros.is_finite())
    }

    fn server_micros(&self) -> Option<f64> {
        self.micros(self.server)
    }

    fn own_micros(&self) -> Option<f64> {
        self.micros(self.own)
    }
}

/// A latency in microseconds, of which nothing is none.
fn micros(latencies: &Histogram<u64>, share: f64) -> Option<f64> {
    (!latencies.is_empty()).then(|| latencies.value_at_quantile(share) as f64 / 1e3)
}

fn latencies(latencies: &Histogram<u64>) -> Json {
    let mut told = serde_json::Map::new();
    for (name, share) in PERCENTILES {
        told.insert(name.to_owned(), json!(micros(latencies, share)));
    }
    told.insert("max".to_owned(), json!(micros(latencies, 1.0)));
    Json::Object(told)
}

/// All that a run came to.
pub(crate) fn json_of(run: &Run, server: &Server, arguments: &Arguments, mix: &Mix) -> Json {
    let tally = &run.tally;
    let commands = mix.commands().iter().zip(&tally.commands).map(|(command, counted)| {
        let (successes, misses) = (counted.latencies.len(), counted.misses);
        let told = json!({ "successes": successes, "misses": misses, "latency_us": latencies(&counted.latencies) });
        (arguments.protocol.name(*command).to_owned(), told)
    });
    json!({
        "server": server.name,
        "addresses": server.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "seconds": tally.seconds(),
        "rate": run.rate(),
        "successes": tally.successes(),
        "failures": tally.failures(),
        "errors": tally.errors,
        "unsent": tally.unsent,
        "latency_us": latencies(&tally.latencies()),
        "server_cpu_us_per_request": run.server_micros(),
        "own_cpu_us_per_request": run.own_micros(),
        "commands": commands.collect::<serde_json::Map<_, _>>(),
    })
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// A whole number with its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// One run: a row a command, and what else there is to say.
pub(crate) fn shown(run: &Run, arguments: &Arguments, mix: &Mix) -> String {
    let mut table = table(&["command", "/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us", "misses"]);
    let seconds = run.tally.seconds();
    let mut row = |name: &str, successes: u64, misses: u64, latencies: &Histogram<u64>| {
        let mut cells = vec![name.to_owned(), thousands(if seconds > 0.0 { successes as f64 / seconds } else { 0.0 })];
        cells.extend(PERCENTILES.iter().map(|(_, share)| number(micros(latencies, *share), 0)));
        cells.extend([number(micros(latencies, 1.0), 0), misses.to_string()]);
        table.add_row(cells);
    };
    for (command, counted) in mix.commands().iter().zip(&run.tally.commands) {
        row(arguments.protocol.name(*command), counted.latencies.len(), counted.misses, &counted.latencies);
    }
    if mix.commands().len() > 1 {
        let misses = run.tally.commands.iter().map(|counted| counted.misses).sum();
        row("all", run.tally.successes(), misses, &run.tally.latencies());
    }
    let (server, own) = (number(run.server_micros(), 2), number(run.own_micros(), 2));
    let mut told = format!("{table}\nprocessor us a request: server {server}, generator {own}\n");
    for (error, count) in &run.tally.errors {
        told.push_str(&format!("failed: {count} {error}\n"));
    }
    if run.tally.unsent > 0 {
        told.push_str(&format!("never sent, though due: {}\n", run.tally.unsent));
    }
    told
}

/// One server's rounds, figure by figure.
struct Rounds<'a>(&'a [Run]);

impl Rounds<'_> {
    fn figures(&self, of: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        self.0.iter().filter_map(of).collect()
    }

    fn rates(&self) -> Vec<f64> {
        self.figures(|run| Some(run.rate()))
    }

    fn percentile(&self, share: f64) -> Vec<f64> {
        self.figures(|run| micros(&run.tally.latencies(), share))
    }

    fn failures(&self) -> u64 {
        self.0.iter().map(|run| run.tally.failures() + run.tally.unsent).sum()
    }
}

fn both(ratio: Option<Ratio>) -> String {
    ratio.map_or_else(
        || "-".to_owned(),
        |Ratio { medians, spread: (least, most) }| format!("{medians:.2} ({least:.2}-{most:.2})"),
    )
}

/// Servers beside the first of them: ratios of medians, in brackets the least and the greatest of a round.
pub(crate) fn compared(rounds: &[(Server, Vec<Run>)]) -> String {
    let header = [
        "server",
        "median /s",
        "spread",
        "ratio",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "p99 ratio",
        "CPU us",
        "own us",
        "failed",
    ];
    let (mut table, first) = (table(&header), Rounds(&rounds[0].1));
    for (server, runs) in rounds {
        let mine = Rounds(runs);
        let rates = mine.rates();
        let (least, most) = spread(&rates).unwrap_or_default();
        let percentile = |share| number(median(&mine.percentile(share)), 0);
        table.add_row([
            server.name.clone(),
            thousands(median(&rates).unwrap_or_default()),
            format!("{} - {}", thousands(least), thousands(most)),
            both(ratio(&rates, &first.rates())),
            percentile(0.5),
            percentile(0.99),
            percentile(0.999),
            both(ratio(&mine.percentile(0.99), &first.percentile(0.99))),
            number(median(&mine.figures(Run::server_micros)), 2),
            number(median(&mine.figures(Run::own_micros)), 2),
            mine.failures().to_string(),
        ]);
    }
    format!("{table}\n")
}

/// The same for programs.
pub(crate) fn json_compared(rounds: &[(Server, Vec<Run>)]) -> Json {
    let first = Rounds(&rounds[0].1);
    let told = |ratio: Option<Ratio>| {
        ratio.map(|ratio| json!({ "medians": ratio.medians, "least": ratio.spread.0, "most": ratio.spread.1 }))
    };
    let one = |(server, runs): &(Server, Vec<Run>)| {
        let mine = Rounds(runs);
        let of = |values: &[f64]| {
            let spread = spread(values).unwrap_or_default();
            json!({ "median": median(values), "least": spread.0, "most": spread.1 })
        };
        let percentiles: serde_json::Map<String, Json> = PERCENTILES
            .iter()
            .map(|(name, share)| {
                let (own, theirs) = (mine.percentile(*share), first.percentile(*share));
                ((*name).to_owned(), json!({ "us": of(&own), "ratio": told(ratio(&own, &theirs)) }))
            })
            .collect();
        let (cpu, first_cpu) = (mine.figures(Run::server_micros), first.figures(Run::server_micros));
        json!({
            "server": server.name,
            "rate": of(&mine.rates()),
            "rate_ratio": told(ratio(&mine.rates(), &first.rates())),
            "latency": percentiles,
            "server_cpu_us_per_request": of(&cpu),
            "server_cpu_ratio": told(ratio(&cpu, &first_cpu)),
            "own_cpu_us_per_request": of(&mine.figures(Run::own_micros)),
            "failures": mine.failures(),
        })
    };
    rounds.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (value, expected) in [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1234567.8, "1,234,568")] {
            assert_eq!(thousands(value), expected);
        }
    }
}
