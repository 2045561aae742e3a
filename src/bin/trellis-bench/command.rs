//! What can be asked, of whom, and in what mixture. Never encodes anything. Tested below.

use std::str::FromStr;

use rand::RngExt;
use rand::rngs::SmallRng;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// Redis's, version 2
    Resp,
    /// memcached's, text and meta
    Memcached,
}

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Get,
    Gets,
    Set,
    Add,
    Delete,
    Incr,
    Touch,
    Ping,
    MetaGet,
    MetaSet,
    MetaDelete,
    MetaArithmetic,
    MetaNoop,
}

const RESP: [(&str, Command); 5] = [
    ("get", Command::Get),
    ("set", Command::Set),
    ("incr", Command::Incr),
    ("del", Command::Delete),
    ("ping", Command::Ping),
];
const MEMCACHED: [(&str, Command); 12] = [
    ("get", Command::Get),
    ("gets", Command::Gets),
    ("set", Command::Set),
    ("add", Command::Add),
    ("delete", Command::Delete),
    ("incr", Command::Incr),
    ("touch", Command::Touch),
    ("mg", Command::MetaGet),
    ("ms", Command::MetaSet),
    ("md", Command::MetaDelete),
    ("ma", Command::MetaArithmetic),
    ("mn", Command::MetaNoop),
];

impl Protocol {
    /// Its commands by the names that it has for them.
    fn commands(self) -> &'static [(&'static str, Command)] {
        match self {
            Self::Resp => &RESP,
            Self::Memcached => &MEMCACHED,
        }
    }

    /// What it calls a command, which is one of its own.
    pub(crate) fn name(self, command: Command) -> &'static str {
        self.commands().iter().find(|(_, known)| *known == command).map_or("?", |(name, _)| name)
    }
}

impl Command {
    /// Whether it carries a value.
    pub(crate) fn stores(self) -> bool {
        matches!(self, Self::Set | Self::Add | Self::MetaSet)
    }

    /// Whether it works on a number, whose keys are apart from those of values.
    pub(crate) fn counts(self) -> bool {
        matches!(self, Self::Incr | Self::MetaArithmetic)
    }
}

/// Names and weights as they were given: `get:90,set:10`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MixText(Vec<(String, u32)>);

impl FromStr for MixText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
            match weight.parse() {
                Ok(1..=WEIGHT_MAX) => Ok((name.to_ascii_lowercase(), weight.parse().expect("it was just parsed"))),
                _ => Err(format!("a weight is a number from 1 to {WEIGHT_MAX}: `{part}`")),
            }
        };
        text.split(',').map(part).collect::<Result<_, _>>().map(Self)
    }
}

/// Keeps sums of weights small.
const WEIGHT_MAX: u32 = 1_000_000;

/// Commands, each as often as its weight says.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    commands: Vec<Command>,
    /// Upper end of each one's part of the sum, exclusive.
    ends: Vec<u64>,
}

impl Mix {
    /// What `text` means to servers of this protocol.
    ///
    /// # Errors
    /// A name that is no command of the protocol's, in words for the user.
    pub(crate) fn new(text: &MixText, protocol: Protocol) -> Result<Self, String> {
        let (mut commands, mut ends, mut sum) = (Vec::new(), Vec::new(), 0);
        for (name, weight) in &text.0 {
            let known = protocol.commands();
            let Some((_, command)) = known.iter().find(|(known, _)| known == name) else {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                return Err(format!("no command `{name}` there; known: {}", names.join(" ")));
            };
            if commands.contains(command) {
                return Err(format!("`{name}` is named twice"));
            }
            sum += u64::from(*weight);
            commands.push(*command);
            ends.push(sum);
        }
        Ok(Self { commands, ends })
    }

    /// Nothing but one command.
    pub(crate) fn only(command: Command) -> Self {
        Self { commands: vec![command], ends: vec![1] }
    }

    /// All of them, in the order they were named in.
    pub(crate) fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The index of the next one.
    pub(crate) fn draw(&self, random: &mut SmallRng) -> usize {
        match self.ends.as_slice() {
            [_] => 0,
            ends => {
                let at = random.random_range(0..*ends.last().expect("a mix is not empty"));
                ends.partition_point(|end| *end <= at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn each_command_comes_as_often_as_its_weight_says() {
        let mix = Mix::new(&"get:90,set:9,incr".parse().unwrap(), Protocol::Resp).unwrap();
        let (mut random, mut seen) = (SmallRng::seed_from_u64(1), [0u32; 3]);
        for _ in 0..100_000 {
            seen[mix.draw(&mut random)] += 1;
        }
        for (seen, expected) in seen.iter().zip([90_000u32, 9_000, 1_000]) {
            assert!(seen.abs_diff(expected) < 600, "{seen} instead of {expected}");
        }
    }

    #[test]
    fn a_command_belongs_to_its_protocol() {
        let mix = |text: &str, protocol| Mix::new(&text.parse().unwrap(), protocol).map(|mix| mix.commands);
        assert_eq!(mix("MG:1,ms:2", Protocol::Memcached), Ok(vec![Command::MetaGet, Command::MetaSet]));
        assert!(mix("mg", Protocol::Resp).unwrap_err().contains("known: get set incr del ping"));
        assert!(mix("get,get:2", Protocol::Resp).unwrap_err().contains("twice"));
        for protocol in [Protocol::Resp, Protocol::Memcached] {
            for (name, command) in protocol.commands() {
                assert_eq!(protocol.name(*command), *name);
            }
        }
    }

    #[test]
    fn weights_that_are_none_are_refused() {
        for text in ["get:0", "get:", "get:x", "get:-1", "get:1000001"] {
            assert!(text.parse::<MixText>().is_err(), "{text}");
        }
    }
}
