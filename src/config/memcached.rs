//! The settings of the memcached port, checked. Never reads anything else. Tested in `config/tests.rs`.

use super::quantity::parse_size;
use super::{AdminPort, Config, ConfigError, SIZE, Settings, bad, number};

/// Longest item unless configured, memcached's own.
const ITEM_BYTES_DEFAULT: usize = 1024 * 1024;
/// Shortest and longest that can be configured, memcached's own.
const ITEM_BYTES: [u64; 2] = [1024, 1024 * 1024 * 1024];
const PORT: &str = "memcached-port";
const ITEM_SIZE: &str = "memcached-max-item-size";

/// What memcached clients are told and allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memcached {
    /// On the node's host; 0 takes a free one.
    pub port: u16,
    /// Longest item as memcached counts it: key, value and its own header together. Default 1 MiB, as there, or `value_bytes_max` where that is
    /// less.
    pub item_bytes_max: usize,
}

impl Memcached {
    /// What `settings` say; `None` where they name no port.
    pub(super) fn new(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let largest = super::value_bytes_max(settings.max_value_size.as_deref())?;
        let item_bytes_max = match settings.memcached_max_item_size.as_deref() {
            None => ITEM_BYTES_DEFAULT.min(largest),
            Some(text) => {
                let value = parse_size(text).ok_or_else(|| bad(ITEM_SIZE, text, SIZE))?;
                let (min, max) = (ITEM_BYTES[0], ITEM_BYTES[1].min(largest as u64));
                let fits = usize::try_from(value).ok().filter(|_| (min..=max).contains(&value));
                fits.ok_or(ConfigError::OutOfRange { name: ITEM_SIZE, value, min, max })?
            }
        };
        let port = settings.memcached_port.as_deref().map(|text| number(PORT, text, 0..=u16::MAX)).transpose()?;
        Ok(port.map(|port| Self { port, item_bytes_max }))
    }

    /// What must hold between these and other settings.
    pub(super) fn fits(&self, config: &Config) -> Result<(), ConfigError> {
        let taken = self.port != 0 && (self.port == config.port || config.admin == AdminPort::At(self.port));
        if taken { Err(ConfigError::SamePort { name: PORT, port: self.port }) } else { Ok(()) }
    }
}
