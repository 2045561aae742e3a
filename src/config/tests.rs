//! Tests of `config`: every option's default, range and text, and what must hold between them.

use proptest::prelude::*;

use super::*;

/// Settings for port 5000 with one more of them.
fn with(change: impl FnOnce(&mut Settings)) -> Result<Config, ConfigError> {
    let mut settings = Settings { port: Some("5000".into()), ..Settings::default() };
    change(&mut settings);
    Config::new(&settings, 8)
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_defaults_are_those_of_the_interface() {
    let config = with(|_| ()).unwrap();
    assert_eq!(config.host.to_string(), "127.0.0.1");
    assert_eq!((config.port, config.admin), (5000, AdminPort::At(15_000)));
    assert_eq!((config.advertise, config.unix, config.zone, config.node_id), (None, None, None, None));
    assert_eq!(config.cluster_name.as_str(), "trellis");
    assert_eq!((config.replication, config.consistency), (Replication::Copies(3), Level::One));
    assert_eq!((config.memory_bytes_max, config.eviction), (None, Eviction::Lru));
    assert_eq!(config.hints_bytes_max, 64 << 20);
    assert_eq!((config.value_bytes_max, config.connections_max), (64 << 20, 20_000));
    assert_eq!((config.threads, config.vnodes, config.weight), (8, 128, 1));
    assert_eq!((config.heartbeat_interval, config.failure_timeout), (Duration::from_secs(1), Duration::from_secs(5)));
    assert_eq!((config.forget_after, config.client_timeout), (Some(Duration::from_secs(600)), None));
    assert_eq!((config.log_format, config.seeds), (LogFormat::Text, vec![]));
    assert_eq!(Config::on_port(5000), Config { threads: 1, ..with(|_| ()).unwrap() });
}

#[test]
fn a_port_is_needed() {
    let error = Config::new(&Settings::default(), 1).unwrap_err();
    assert_eq!(error.to_string(), "a port is needed: trellis <port> [seed ...]");
    for bad in ["", "abc", "-1", "+1", "5000 ", "0x10"] {
        let error = with(|s| s.port = text(bad)).unwrap_err();
        assert_eq!(error.to_string(), format!("port: `{bad}` is not a whole number"));
    }
    assert_eq!(with(|s| s.port = text("65536")).unwrap_err().to_string(), "port: 65536 is not within 0 to 65535");
}

#[test]
fn the_admin_port_follows_the_main_port_unless_named() {
    for (port, admin, expected) in [
        ("5000", None, AdminPort::At(15_000)),
        ("55535", None, AdminPort::At(65_535)),
        ("55536", None, AdminPort::Free),
        ("0", None, AdminPort::Free),
        ("0", text("0"), AdminPort::Off),
        ("5000", text("0"), AdminPort::Off),
        ("0", text("7000"), AdminPort::At(7000)),
    ] {
        let config = with(|s| (s.port, s.admin_port) = (text(port), admin.clone())).unwrap();
        assert_eq!(config.admin, expected, "{port} {admin:?}");
    }
    let error = with(|s| s.admin_port = text("5000")).unwrap_err();
    assert_eq!(error.to_string(), "admin-port 5000 is another listener's: give it another");
}

#[test]
fn an_unspecified_host_needs_an_address_to_tell_others() {
    for host in ["0.0.0.0", "::", "[::]"] {
        let error = with(|s| s.host = text(host)).unwrap_err();
        assert!(matches!(error, ConfigError::AdvertiseNeeded { .. }), "{error}");
        assert!(with(|s| (s.host, s.advertise) = (text(host), text("10.0.0.1"))).is_ok());
        assert!(with(|s| (s.host, s.advertise) = (text(host), text(host))).is_err(), "nobody can connect to {host}");
    }
}

#[test]
fn only_loopback_is_not_exposed() {
    for (host, exposed) in
        [("127.0.0.1", false), ("localhost", false), ("::1", false), ("127.9.9.9", false), ("10.0.0.1", true)]
    {
        assert_eq!(with(|s| s.host = text(host)).unwrap().is_exposed(), exposed, "{host}");
    }
    assert!(with(|s| s.host = text("example.org")).is_err(), "a name may stand for several addresses");
}

#[test]
fn advertise_is_a_host_with_or_without_a_port() {
    for (given, host, port) in [
        ("node-1", "node-1", None),
        ("node-1.example.org.", "node-1.example.org.", None),
        ("10.0.0.1:7000", "10.0.0.1", Some(7000)),
        ("::1", "::1", None),
        ("[::1]", "::1", None),
        ("[fe80::1]:7000", "fe80::1", Some(7000)),
    ] {
        let advertise = with(|s| s.advertise = text(given)).unwrap().advertise.unwrap();
        assert_eq!((advertise.host.as_str(), advertise.port), (host, port), "{given}");
    }
    for bad in [
        "",
        ":7000",
        "host:",
        "host:0",
        "host:70000",
        "host:+1",
        "a b",
        "http://a",
        "a..b",
        "-a",
        "0.0.0.0:1",
        "[::",
        "a:b:1",
    ] {
        assert!(with(|s| s.advertise = text(bad)).is_err(), "{bad}");
    }
}

#[test]
fn seeds_are_host_and_port() {
    let good = ["localhost:5000", "10.0.0.1:1", "[::1]:5000"].map(str::to_owned).to_vec();
    assert_eq!(with(|s| s.seeds = Some(good.clone())).unwrap().seeds, good);
    for bad in ["", "localhost", "5000", "[::1]", "::1", "host:0", "a b:1"] {
        let error = with(|s| s.seeds = Some(vec!["ok:1".into(), bad.into()])).unwrap_err();
        assert_eq!(error.to_string(), format!("seed: `{bad}` is not host:port"));
    }
    assert!(with(|s| s.seeds = Some(vec!["ok:1".into(); SEEDS_MAX])).is_ok());
    assert!(with(|s| s.seeds = Some(vec!["ok:1".into(); SEEDS_MAX + 1])).is_err());
}

#[test]
fn copies_are_a_number_or_all() {
    for (given, expected) in
        [("1", Replication::Copies(1)), ("255", Replication::Copies(255)), ("all", Replication::All)]
    {
        assert_eq!(with(|s| s.replication_factor = text(given)).unwrap().replication, expected);
    }
    for bad in ["0", "256", "-3", "some", ""] {
        assert!(with(|s| s.replication_factor = text(bad)).is_err(), "{bad}");
    }
    assert_eq!(
        (Replication::Copies(3).copies(2), Replication::Copies(3).copies(9), Replication::All.copies(9)),
        (2, 3, 9)
    );
}

#[test]
fn memory_and_values_are_sizes() {
    assert_eq!(with(|s| s.max_memory = text("512mb")).unwrap().memory_bytes_max, Some(512 << 20));
    assert_eq!(with(|s| s.max_memory = text("0")).unwrap().memory_bytes_max, None);
    assert!(with(|s| s.max_memory = text("lots")).is_err());
    assert_eq!(with(|s| s.max_value_size = text("512mb")).unwrap().value_bytes_max, 512 << 20);
    let refuses = |memory: &str, threads: &str| {
        with(|s| (s.max_memory, s.threads) = (text(memory), text(threads))).unwrap().refuses_large_values()
    };
    assert_eq!(with(|s| s.max_value_size = text("64kb")).unwrap().value_bytes_max, limits::KEY_BYTES_MAX);
    let error = with(|s| (s.max_memory, s.threads) = (text("4mb"), text("5"))).unwrap_err().to_string();
    assert!(error.starts_with("max-memory (4194304 bytes) is less than 1mb for each of the threads (5)"), "{error}");
    assert!(with(|s| (s.max_memory, s.threads) = (text("4mb"), text("4"))).is_ok());
    assert!(refuses("100mb", "2") && !refuses("128mb", "2") && !refuses("0", "2"));
    for bad in ["0", "1", "65535", "513mb", "big"] {
        assert!(with(|s| s.max_value_size = text(bad)).is_err(), "{bad}");
    }
}

#[test]
fn words_are_exact() {
    assert_eq!(with(|s| s.eviction = text("none")).unwrap().eviction, Eviction::Refuse);
    assert_eq!(with(|s| s.log_format = text("json")).unwrap().log_format, LogFormat::Json);
    assert_eq!(with(|s| s.consistency = text("quorum")).unwrap().consistency, Level::Quorum);
    for (name, policy) in [("allkeys-lru", Eviction::Lru), ("noeviction", Eviction::Refuse)] {
        assert_eq!(with(|s| s.eviction = text(name)).unwrap().eviction, policy);
    }
    let told = with(|s| s.eviction = text("lfu")).unwrap_err().to_string();
    assert!(told.starts_with("eviction: `lfu` is not lru or none"), "{told}");
    assert!(with(|s| s.log_format = text("xml")).is_err());
    assert!(with(|s| s.consistency = text("two")).is_err());
}

#[test]
fn counts_stay_in_range() {
    assert!(with(|s| s.threads = text("0")).is_err());
    assert!(with(|s| s.threads = text("257")).is_err());
    for (vnodes, weight) in [("0", "1"), ("4097", "1"), ("65537", "1"), ("1", "1025"), ("1", "65537")] {
        let error = with(|s| (s.vnodes, s.weight) = (text(vnodes), text(weight))).unwrap_err();
        assert!(matches!(error, ConfigError::OutOfRange { .. }), "{error}");
    }
    assert!(with(|s| s.max_connections = text("0")).is_err());
    assert_eq!(with(|s| s.weight = text("0")).unwrap().weight, 0, "a gateway");
    assert_eq!(Config::new(&Settings { port: text("1"), ..Settings::default() }, 0).unwrap().threads, 1);
    let error = with(|s| (s.vnodes, s.weight) = (text("4096"), text("17"))).unwrap_err();
    assert_eq!(error, ConfigError::TooManyTokens { vnodes: 4096, weight: 17 });
    assert!(with(|s| (s.vnodes, s.weight) = (text("4096"), text("16"))).is_ok());
}

#[test]
fn failure_detection_times_fit_each_other() {
    assert_eq!(with(|s| s.heartbeat_interval = text("500")).unwrap().heartbeat_interval, Duration::from_millis(500));
    assert_eq!(with(|s| s.failure_timeout = text("8s")).unwrap().failure_timeout, Duration::from_secs(8));
    for bad in ["9", "39", "61s", "soon"] {
        assert!(with(|s| s.heartbeat_interval = text(bad)).is_err(), "{bad}");
    }
    assert!(with(|s| (s.heartbeat_interval, s.failure_timeout) = (text("40"), text("199"))).is_err());
    // What is accepted here is accepted by the failure detector.
    assert!(with(|s| (s.heartbeat_interval, s.failure_timeout) = (text("40"), text("200"))).is_ok());
    let longest = |s: &mut Settings| (s.heartbeat_interval, s.failure_timeout) = (text("10m"), text("1h"));
    assert!(with(|s| (longest(s), s.forget_after = text("0")).1).is_ok());
    let error = with(|s| s.heartbeat_interval = text("5s")).unwrap_err();
    assert_eq!(error.to_string(), "heartbeat-interval (5s) must be below failure-timeout (5s)");
    let error = with(|s| s.forget_after = text("5s")).unwrap_err();
    assert_eq!(error.to_string(), "forget-after (5s) must be above failure-timeout (5s), or 0 for never");
    assert_eq!(with(|s| s.forget_after = text("0")).unwrap().forget_after, None);
    assert!(with(|s| s.forget_after = text("600")).is_err(), "a duration has a unit");
    assert_eq!(with(|s| s.client_timeout = text("5m")).unwrap().client_timeout, Some(Duration::from_secs(300)));
}

#[test]
fn names_are_plain() {
    assert_eq!(with(|s| s.node_id = text("n1")).unwrap().node_id.unwrap().as_str(), "n1");
    assert_eq!(with(|s| s.zone = text("eu-1a")).unwrap().zone.unwrap().as_str(), "eu-1a");
    assert!(with(|s| s.cluster_name = text("a b")).is_err());
    assert!(with(|s| s.node_id = text("")).is_err());
    assert!(with(|s| s.zone = text("x/y")).is_err());
    assert!(with(|s| s.unix = text(&"x".repeat(107))).is_ok());
    assert!(with(|s| s.unix = text(&"x".repeat(108))).is_err());
    assert!(with(|s| s.unix = text("")).is_err());
}

#[test]
fn options_of_later_versions_are_refused_by_name() {
    let changes: [fn(&mut Settings) -> &mut Option<String>; 9] = [
        |s| &mut s.data_dir,
        |s| &mut s.fsync,
        |s| &mut s.password_file,
        |s| &mut s.users_file,
        |s| &mut s.tls_cert,
        |s| &mut s.tls_key,
        |s| &mut s.tls_ca,
        |s| &mut s.cluster_key_file,
        |s| &mut s.insecure,
    ];
    for (field, name) in changes.into_iter().zip(LATER) {
        let error = with(|s| *field(s) = text("x")).unwrap_err();
        assert_eq!(error.to_string(), format!("{name} is not available in this version"));
    }
}

#[test]
fn the_memcached_port_is_its_own_and_its_items_are_values() {
    let port = |port: &'static str| with(move |s| s.memcached_port = text(port)).map(|config| config.memcached);
    assert_eq!(with(|_| {}).unwrap().memcached, None);
    assert_eq!(port("11211"), Ok(Some(Memcached { port: 11_211, item_bytes_max: 1 << 20 })));
    assert_eq!(port("0").unwrap().unwrap().port, 0);
    assert!(port("").is_err() && port("x").is_err() && port("65536").is_err());
    let items = |item: &'static str, value: Option<&'static str>| {
        with(move |s| {
            s.memcached_port = text("0");
            s.memcached_max_item_size = text(item);
            s.max_value_size = value.map(str::to_owned);
        })
    };
    assert_eq!(items("2mb", None).unwrap().memcached.unwrap().item_bytes_max, 2 << 20);
    assert!(items("1kb", None).is_ok() && items("1023", None).is_err() && items("2mb", Some("1mb")).is_err());
    let small = with(|s| (s.memcached_port, s.max_value_size) = (text("0"), text("64kb")));
    assert_eq!(small.unwrap().memcached.unwrap().item_bytes_max, 64 << 10);
    let main = Settings { port: text("7000"), memcached_port: text("7000"), ..Settings::default() };
    assert!(Config::new(&main, 1).is_err());
    let admin = Settings { port: text("7000"), memcached_port: text("17000"), ..Settings::default() };
    assert!(Config::new(&admin, 1).is_err());
}

#[test]
fn settings_above_hide_those_below() {
    let above = Settings { port: text("1"), seeds: Some(vec!["a:1".into()]), ..Settings::default() };
    let below = Settings { port: text("2"), zone: text("z"), seeds: Some(vec!["b:1".into()]), ..Settings::default() };
    let both = above.over(below);
    assert_eq!(both.given().collect::<Vec<_>>(), [("port", "1"), ("zone", "z")]);
    assert_eq!(both.seeds, Some(vec!["a:1".into()]));
}

proptest! {
    #[test]
    fn any_text_is_accepted_or_refused_in_one_line(value in "\\PC{0,40}|[0-9a-z.:\\[\\]]{0,12}|.*", field in 0usize..8) {
        let result = with(|s| *[
            &mut s.host, &mut s.advertise, &mut s.port, &mut s.unix, &mut s.max_memory,
            &mut s.forget_after, &mut s.cluster_name, &mut s.weight,
        ][field] = Some(value));
        if let Err(error) = result {
            let line = error.to_string();
            prop_assert!(!line.contains('\n') && line.len() < 500, "{line:?}");
        }
    }
}
