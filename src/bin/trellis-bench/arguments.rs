//! What `trellis-bench` can be told on its command line, and whether it makes sense. Never talks to a server. Tested below and, as a
//! process, in `tests/bench.rs`.

use std::time::Duration;

use clap::Parser;

use trellis::config::quantity::parse_duration;

use super::command::{MixText, Protocol};
use super::keys::{Distribution, KEYS_MAX};
use super::sizes::Sizes;

/// Loads Redis and memcached servers, one or several in turn, and says how they did.
#[derive(Clone, Debug, Parser)]
#[command(name = "trellis-bench", version, max_term_width = 110, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The server; several are nodes of one cluster, any of which is asked for any key
    #[arg(value_name = "HOST:PORT", required_unless_present = "compare")]
    pub(crate) servers: Vec<String>,
    /// Servers to take turns, `name=host:port[,host:port...]`; the first is what the others are compared with
    #[arg(long, value_name = "NAME=ADDRESS", num_args = 2.., value_parser = named, conflicts_with = "servers")]
    pub(crate) compare: Vec<(String, Vec<String>)>,
    /// Turns of each server that is compared
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// What the servers speak
    #[arg(long, value_enum, default_value_t = Protocol::Resp)]
    pub(crate) protocol: Protocol,
    /// Commands and weights: `get:90,set:10`
    #[arg(short, long, value_name = "MIX", default_value = "get")]
    pub(crate) mix: MixText,
    /// Connections, in all
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) connections: u32,
    /// Threads of the generator
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
    /// Requests outstanding on a connection: sent together, and after the last reply the next
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) pipeline: u32,
    /// Requests a second, evenly, whether or not replies come (open loop); each is timed from when it was due
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) rate: Option<u64>,
    /// Sizes of values: `64`, `16-1kb` or `64:90,4kb:10`
    #[arg(short = 'd', long, value_name = "SIZES", default_value = "64")]
    pub(crate) value_size: Sizes,
    /// Keys there are
    #[arg(short = 'r', long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub(crate) keys: u64,
    /// Before the twelve digits of a key
    #[arg(long, value_name = "TEXT", default_value = "key:", value_parser = prefix)]
    pub(crate) prefix: String,
    /// How often which key
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    pub(crate) distribution: Distribution,
    /// Of the zipfian distribution
    #[arg(long, value_name = "S", default_value_t = 0.99, value_parser = exponent)]
    pub(crate) exponent: f64,
    /// Requests that count, instead of a duration
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,
    /// How long to count
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Before counting begins
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// First store every key once
    #[arg(long)]
    pub(crate) load: bool,
    /// Do nothing but that
    #[arg(long, conflicts_with = "rate")]
    pub(crate) load_only: bool,
    /// Compare values that are read with what this program stores; without it only the form of a reply is checked
    #[arg(long)]
    pub(crate) verify: bool,
    /// Ask the owner of a key, as CLUSTER SLOTS names it before the run
    #[arg(long)]
    pub(crate) cluster: bool,
    /// The server's process, one for each server compared [default: who listens there, on this machine]
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// Seed of all draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// One JSON document instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

const AFTER_HELP: &str = "Commands of resp: get set incr del ping; of memcached: get gets set add delete incr touch mg ms md ma mn.\n\
Durations: 500ms 60s 10m 2h. Sizes: 64 4kb 1mb.\n\
Exit codes: 0 done, 1 some requests failed, 2 bad usage, 3 no server reached.";

impl Arguments {
    /// What no single option can know.
    ///
    /// # Errors
    /// What does not go together, in words for the user.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.cluster && self.protocol != Protocol::Resp {
            return Err("--cluster is for Redis's protocol".into());
        }
        if self.duration.is_zero() {
            return Err("--duration 0 measures nothing".into());
        }
        let servers = self.compare.len().max(1);
        if !self.pid.is_empty() && self.pid.len() != servers {
            return Err(format!("--pid names {} processes for {servers} servers", self.pid.len()));
        }
        let mut names: Vec<&str> = self.compare.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("--compare names `{}` twice", pair[0])),
            None => Ok(()),
        }
    }
}

fn named(text: &str) -> Result<(String, Vec<String>), String> {
    match text.split_once('=') {
        Some((name, addresses)) if !name.is_empty() && !addresses.is_empty() => {
            Ok((name.to_owned(), addresses.split(',').map(str::to_owned).collect()))
        }
        _ => Err("expected name=host:port".into()),
    }
}

/// What both protocols take as a key.
fn prefix(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 200;
    let fits = text.len() <= BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err(format!("expected up to {BYTES_MAX} letters, without spaces")) }
}

fn exponent(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s| (0.0..=10.0).contains(s)).ok_or_else(|| "expected a number from 0 to 10".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(7 * 24 * 3600);
    let duration = parse_duration(text).filter(|duration| *duration <= MAX);
    duration.ok_or_else(|| "a duration is a number and ms, s, m or h, up to 168h".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["trellis-bench"].into_iter().chain(line.split(' ')))
    }

    #[test]
    fn the_command_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_that_redis_benchmark_has_are_spelled_the_same() {
        let arguments = parse("h:1 -c 10 -n 1000 -d 3 -r 500 -P 16").unwrap();
        assert_eq!((arguments.connections, arguments.requests, arguments.keys), (10, Some(1000), 500));
        assert_eq!((arguments.value_size, arguments.pipeline), (Sizes::Fixed(3), 16));
    }

    #[test]
    fn servers_that_are_compared_have_names_and_any_number_of_addresses() {
        let arguments = parse("--compare a=h:1 b=h:2,h:3 --rounds 3").unwrap();
        let expected = [("a", vec!["h:1"]), ("b", vec!["h:2", "h:3"])];
        let named = |(name, addresses): (&str, Vec<&str>)| {
            (name.to_owned(), addresses.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(arguments.compare, expected.map(named));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--rounds 3",
            "h:1 --compare a=h:1 b=h:2",
            "--compare a=h:1",
            "--compare a b",
            "h:1 -c 0",
            "h:1 -P 0",
            "h:1 -r 0",
            "h:1 -n 0",
            "h:1 -n 5 --duration 1s",
            "h:1 --rate 0",
            "h:1 --duration 5",
            "h:1 --exponent -1",
            "h:1 --exponent nan",
            "h:1 --mix get:0",
            "h:1 -d 5-1",
            "h:1 --protocol http",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in
            ["h:1 --cluster --protocol memcached", "h:1 --duration 0", "h:1 --pid 1 --pid 2", "--compare a=h:1 a=h:2"]
        {
            assert!(parse(line).unwrap().check().is_err(), "{line}");
        }
    }
}
