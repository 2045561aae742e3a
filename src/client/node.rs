//! One node as the client knows it: its few open links, and whether it is worth dialling. Which link takes a request stands in `pool`.
//! Exercised by `tests/client.rs`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use super::link::{DialError, Link};
use super::options::Options;
use super::pool::{self, Backoff, Choice};
use super::routes::Address;

/// A node that could not be reached is passed over for this long, as routers do.
const PASSED_OVER: Duration = Duration::from_millis(250);

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: Address,
    state: Mutex<State>,
    /// One dial at a time.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    links: Vec<Arc<Link>>,
    backoff: Backoff,
    avoided_until: Option<Instant>,
    /// Why the last dial failed, if no other has since.
    failure: Option<Arc<DialError>>,
}

impl Node {
    pub(super) fn new(address: Address) -> Self {
        Self { address, state: Mutex::default(), dialling: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes it over for a while.
    pub(super) fn avoid(&self) {
        self.state().avoided_until = Some(clock::now() + PASSED_OVER);
    }

    /// Whether it is passed over, or not worth a dial.
    pub(super) fn is_avoided(&self) -> bool {
        let now = clock::now();
        let state = self.state();
        let has_link = state.links.iter().any(|link| link.is_open());
        state.avoided_until.is_some_and(|until| until > now) || !has_link && !state.backoff.is_over(now)
    }

    /// Whether a link to it is open.
    pub(super) fn is_linked(&self) -> bool {
        self.state().links.iter().any(|link| link.is_open())
    }

    /// Why it can't be reached, if that is known.
    pub(super) fn failure(&self) -> Option<Arc<DialError>> {
        self.state().failure.clone()
    }

    /// A link for one more request, dialled if need be.
    ///
    /// # Errors
    /// Why there is none. Nothing was sent.
    pub(super) async fn link(&self, options: &Options) -> Result<Arc<Link>, Arc<DialError>> {
        match self.choose(options.connections_per_node) {
            (Choice::Use(_), Some(link)) => return Ok(link),
            // Whoever finds all links busy has the time to dial: it would wait for its turn anyway.
            (Choice::UseAndDial(_), Some(link)) => match self.dialling.try_lock() {
                Ok(_dialling) if self.state().backoff.is_over(clock::now()) => return self.dial(options).await,
                _ => return Ok(link),
            },
            _ => {}
        }
        let _dialling = self.dialling.lock().await;
        // Whoever dialled meanwhile has found out as much.
        match self.choose(options.connections_per_node) {
            (_, Some(link)) => Ok(link),
            (_, None) => {
                self.may_dial()?;
                self.dial(options).await
            }
        }
    }

    /// What is best done for one more request, and the link that would take it.
    fn choose(&self, links_max: usize) -> (Choice, Option<Arc<Link>>) {
        let mut state = self.state();
        state.links.retain(|link| link.is_open());
        let under_way: Vec<usize> = state.links.iter().map(|link| link.under_way()).collect();
        let choice = pool::choose(&under_way, links_max);
        let link = match choice {
            Choice::Use(n) | Choice::UseAndDial(n) => state.links.get(n).cloned(),
            Choice::Dial => None,
        };
        (choice, link)
    }

    fn may_dial(&self) -> Result<(), Arc<DialError>> {
        let state = self.state();
        match &state.failure {
            Some(failure) if !state.backoff.is_over(clock::now()) => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    async fn dial(&self, options: &Options) -> Result<Arc<Link>, Arc<DialError>> {
        let dialled = Link::dial(options.net, &self.address, options.cluster.as_str()).await;
        let mut state = self.state();
        match dialled {
            Ok(link) => {
                let link = Arc::new(link);
                state.links.push(link.clone());
                state.backoff.succeeded();
                (state.failure, state.avoided_until) = (None, None);
                Ok(link)
            }
            Err(error) => {
                let error = Arc::new(error);
                state.backoff.failed(clock::now(), rand::random());
                state.failure = Some(error.clone());
                match state.links.first() {
                    // Another link would have helped; this one does.
                    Some(link) => Ok(link.clone()),
                    None => Err(error),
                }
            }
        }
    }
}
