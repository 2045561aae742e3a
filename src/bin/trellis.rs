//! The node's process: settings, logging, then the node until it stops. Decides nothing but the exit code. Tested in `tests/options.rs`
//! and `tests/process.rs`.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use trellis::actors::clock::Clock;
use trellis::actors::node::{self, Node, World};
use trellis::base::limits::OUTBOX_BYTES_MAX;
use trellis::config::{AdminPort, CONNECTIONS_DEFAULT, Config};
use trellis::net::descriptors::{self, TooFew};
use trellis::net::{Net, PlainListener};
use trellis::{admin, options, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COULD_NOT_START: u8 = 1;
const BAD_SETTINGS: u8 = 2;
const INTERNAL_FAULT: u8 = 70;
/// Longest wait for the admin endpoint to close.
const ADMIN_STOP_MAX: Duration = Duration::from_millis(500);

/// Longest wait at the end for the log to be written: whoever should read it may do so no more.
const LOG_FLUSH_MAX: Duration = Duration::from_millis(200);

/// Woken by a panic anywhere: an actor that is gone can't be replaced, so the node stops.
static FAULT: OnceLock<Notify> = OnceLock::new();

fn main() -> ExitCode {
    let mut config = match options::from_process() {
        Ok(config) => config,
        Err(error) => return ExitCode::from(error.report()),
    };
    if let Err(error) = telemetry::init(config.log_format) {
        // Nothing is left to do when standard error is gone.
        let _ = writeln!(io::stderr(), "trellis: {error}");
        return ExitCode::from(BAD_SETTINGS);
    }
    let unknown = options::unknown_variables();
    if !unknown.is_empty() {
        tracing::warn!(names = unknown.join(" "), "these variables are no settings, see --help");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        // Huge pages round every small allocation pool up to 2 MiB: 16 MiB more for an idle node, 60 KiB more for an idle connection.
        tracing::warn!(%error, "huge pages stay on: the node will use more memory than it accounts for");
    }
    if let Err(error) = fit_connections(&mut config) {
        telemetry::say(format_args!("trellis: {error}"));
        telemetry::flush(LOG_FLUSH_MAX);
        return ExitCode::from(COULD_NOT_START);
    }
    if config.refuses_large_values() {
        tracing::warn!(
            "max-memory divided by threads is less than max-value-size: a value above its thread's part gets OOM"
        );
    }
    let fault = FAULT.get_or_init(Notify::new);
    std::panic::set_hook(Box::new(move |panic| {
        fault.notify_one();
        let thread = std::thread::current();
        telemetry::say(format_args!("thread '{}' {panic}", thread.name().unwrap_or_default()));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            telemetry::say(trace);
        }
        // A panic of the main thread is its end.
        telemetry::flush(LOG_FLUSH_MAX);
    }));
    let code = node::block_on(run(config, fault));
    telemetry::flush(LOG_FLUSH_MAX);
    code
}

/// Makes room for the clients that may connect, or takes fewer: out of descriptors, a node reaches its peers no more.
fn fit_connections(config: &mut Config) -> Result<(), TooFew> {
    let fit = match descriptors::raise() {
        Ok(limit) => descriptors::clients(limit, config.threads)?,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files is as it was");
            return Ok(());
        }
    };
    if fit < config.connections_max {
        let wanted = std::mem::replace(&mut config.connections_max, fit);
        if wanted == CONNECTIONS_DEFAULT {
            // Nobody asked for so many.
            tracing::info!(max_connections = fit, "the hard limit on open files allows this many clients");
        } else {
            tracing::warn!(
                wanted,
                max_connections = fit,
                "fewer clients than asked for: the hard limit on open files is low"
            );
        }
    }
    Ok(())
}

async fn run(config: Config, fault: &Notify) -> ExitCode {
    let started = async {
        let bound = node::bind(&config, Net::Os).await.map_err(io::Error::other)?;
        let listener = admin_listener(&config)?;
        let port = listener.as_ref().map(PlainListener::local_addr).transpose()?.map(|address| address.port());
        let world = World {
            net: Net::Os,
            clock: Clock::os(),
            seed: rand::random(),
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            rounds: true,
            threads: true,
        };
        let node = node::start(bound, &config, world, port).await.map_err(io::Error::other)?;
        let admin = listener.map(|listener| admin::serve(listener, node.handles.clone())).transpose()?;
        announce(&config, &node, port)?;
        Ok::<_, io::Error>((node, admin))
    };
    let (node, admin) = match started.await {
        Ok(started) => started,
        Err(error) => {
            telemetry::say(format_args!("trellis: {error}"));
            return ExitCode::from(COULD_NOT_START);
        }
    };
    let code = wait(fault, &node.handles.departed).await;
    let stopped = node.stop().await;
    // Last, so that its clients have their answers, and readiness says no meanwhile.
    if let Some(admin) = admin
        && tokio::time::timeout(ADMIN_STOP_MAX, admin.stop(false)).await.is_err()
    {
        tracing::error!("the admin endpoint did not stop in time");
    }
    match stopped {
        Ok(()) => {
            tracing::info!("stopped");
            code
        }
        Err(hung) => {
            tracing::error!(%hung, "internal fault: stopped out of order");
            ExitCode::from(INTERNAL_FAULT)
        }
    }
}

fn admin_listener(config: &Config) -> io::Result<Option<PlainListener>> {
    let port = match config.admin {
        AdminPort::Off => return Ok(None),
        AdminPort::Free => 0,
        AdminPort::At(port) => port,
    };
    let address = SocketAddr::new(config.host, port);
    let bound = PlainListener::bind(address);
    let reason = |error| format!("cannot listen on admin {address}: {error}; --admin-port takes another, 0 is none");
    bound.map(Some).map_err(|error| io::Error::other(reason(error)))
}

/// The ready line, the only thing on standard output.
fn announce(config: &Config, node: &Node, admin_port: Option<u16>) -> io::Result<()> {
    if config.is_exposed() {
        tracing::warn!(host = %config.host, "this node listens beyond loopback without TLS or a password: whoever reaches it owns it");
    }
    // Always HOST:PORT, for scripts; no admin endpoint is port 0, as in `--admin-port 0`.
    let admin = SocketAddr::new(config.host, admin_port.unwrap_or(0));
    let mut line = format!("trellis ready main={} admin={admin}", node.address);
    if let Some(memcached) = &node.handles.settings.memcached {
        line.push_str(&format!(" memcached={}", memcached.address));
    }
    if let Some(path) = &config.unix {
        line.push_str(&format!(" unix={}", path.display()));
    }
    let tell = move || {
        let mut out = io::stdout().lock();
        // Whoever started the node may not listen; that is no reason to stop.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    // Nor is it one to wait.
    std::thread::Builder::new().name("ready line".into()).spawn(tell).map(drop)
}

/// Waits for a reason to stop, and says with which code.
async fn wait(fault: &Notify, departed: &Notify) -> ExitCode {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        telemetry::say("trellis: cannot listen for signals");
        return ExitCode::from(COULD_NOT_START);
    };
    tokio::select! {
        _ = interrupt.recv() => {
            tracing::info!("stopping (SIGINT)");
            ExitCode::SUCCESS
        }
        _ = terminate.recv() => {
            tracing::info!("stopping (SIGTERM)");
            ExitCode::SUCCESS
        }
        () = departed.notified() => {
            tracing::info!("stopping (left the cluster)");
            ExitCode::SUCCESS
        }
        () = fault.notified() => {
            tracing::error!("internal fault: stopping");
            ExitCode::from(INTERNAL_FAULT)
        }
    }
}
