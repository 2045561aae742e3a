//! The settings as they were written, text for text, before anyone looked at their meaning. One field per option, under the option's name, so
//! that command line, environment and file meet in one type. Never validates: [`Config::new`](super::Config::new) does. Tested in
//! `config/tests.rs`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident => $name:literal,)*) => {
        /// What was asked for. A field that is `None` takes its default.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct Settings {
            $(
                $(#[$doc])*
                #[serde(default, deserialize_with = "scalar")]
                pub $field: Option<String>,
            )*
            /// Members to join through, `host:port`.
            #[serde(default)]
            pub seeds: Option<Vec<String>>,
        }

        impl Settings {
            /// Every setting by its name, in the order of declaration.
            pub const NAMES: &[&str] = &[$($name,)* "seeds"];

            /// These, and `lower`'s where these say nothing.
            pub fn over(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* seeds: self.seeds.or(lower.seeds) }
            }

            /// Name and text of everything that was asked for, in the order of declaration.
            pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
                [$(($name, self.$field.as_deref()),)*].into_iter().filter_map(|(name, text)| Some((name, text?)))
            }
        }
    };
}

settings! {
    /// Main port; 0 takes a free one.
    port => "port",
    /// Address to bind.
    host => "host",
    /// What others are told, `host[:port]`.
    advertise => "advertise",
    /// Admin port; 0 is off.
    admin_port => "admin-port",
    /// Memcached port.
    memcached_port => "memcached-port",
    /// Longest item of memcached clients.
    memcached_max_item_size => "memcached-max-item-size",
    /// Cluster name.
    cluster_name => "cluster-name",
    /// Unix socket.
    unix => "unix",
    /// Copies, or `all`.
    replication_factor => "replication-factor",
    /// Default level.
    consistency => "consistency",
    /// Budget of the store.
    max_memory => "max-memory",
    /// `lru` or `none`.
    eviction => "eviction",
    /// Room for hints.
    max_hints => "max-hints",
    /// Longest value.
    max_value_size => "max-value-size",
    /// Client connections.
    max_connections => "max-connections",
    /// Idle time of clients.
    client_timeout => "client-timeout",
    /// Events of keys that subscribers are told of.
    notify_keyspace_events => "notify-keyspace-events",
    /// Data directory.
    data_dir => "data-dir",
    /// When data reaches the disk.
    fsync => "fsync",
    /// Data arbiters.
    threads => "threads",
    /// Virtual nodes per unit of weight.
    vnodes => "vnodes",
    /// Share of the ring.
    weight => "weight",
    /// Failure domain.
    zone => "zone",
    /// Gossip probe period.
    heartbeat_interval => "heartbeat-interval",
    /// Longest silence of a live member.
    failure_timeout => "failure-timeout",
    /// Longest absence of a member that keeps its place.
    forget_after => "forget-after",
    /// Identity.
    node_id => "node-id",
    /// `text` or `json`.
    log_format => "log-format",
    /// Password of the default user.
    password_file => "password-file",
    /// Users and their rights.
    users_file => "users-file",
    /// Certificate.
    tls_cert => "tls-cert",
    /// Its key.
    tls_key => "tls-key",
    /// Authority that signs the others'.
    tls_ca => "tls-ca",
    /// Key of the gossip envelope.
    cluster_key_file => "cluster-key-file",
    /// Plain text on the open network.
    insecure => "insecure",
}

/// Takes `5000`, `"5000"` and `true` alike, so that a file may write numbers as numbers.
fn scalar<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    struct Scalar;
    impl Visitor<'_> for Scalar {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string, a whole number or a boolean")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_bool<E: Error>(self, truth: bool) -> Result<String, E> {
            Ok(truth.to_string())
        }
    }
    from.deserialize_any(Scalar).map(Some)
}
