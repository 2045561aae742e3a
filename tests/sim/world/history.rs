//! What clients asked and were told, when, and a running hash over it by which two runs of one seed are compared.

use std::cell::{Cell, RefCell};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a client asked of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `SET key value`; values are unlike any other of the run.
    Set(String),
    /// `SET key value PX ms`.
    SetFor(String, u64),
    /// `GET key`.
    Get,
    /// `DEL key`.
    Delete,
    /// `INCR key`.
    Increment,
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The reply, `None` for null.
    Done(Option<String>),
    /// An error that says nothing was done.
    Refused(String),
    /// An error that does not say, or no answer at all.
    Unknown(String),
}

/// One operation, times in simulated microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Who asked.
    pub(crate) worker: usize,
    /// Which key.
    pub(crate) key: String,
    /// What.
    pub(crate) action: Action,
    /// When it was sent.
    pub(crate) asked_us: u64,
    /// When the answer came, or the client gave up.
    pub(crate) told_us: u64,
    /// The answer.
    pub(crate) told: Told,
}

impl Event {
    /// Whether it was done for certain.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.told, Told::Done(_))
    }

    /// It in one line.
    pub(crate) fn line(&self) -> String {
        let Self { worker, key, action, asked_us, told_us, told } = self;
        format!("{asked_us:>11} {told_us:>11} client {worker} {key} {action:?} -> {told:?}")
    }

    /// Whether it may have been done.
    pub(crate) fn may_be_done(&self) -> bool {
        !matches!(self.told, Told::Refused(_))
    }
}

/// Everything observed in a run.
#[derive(Default)]
pub(crate) struct History {
    events: RefCell<Vec<Event>>,
    hash: Cell<u64>,
    values: Cell<u64>,
    trace: bool,
}

impl History {
    /// An empty one, which prints what it notes if `trace`.
    pub(crate) fn new(trace: bool) -> Self {
        Self { trace, ..Self::default() }
    }

    /// Notes an operation.
    pub(crate) fn push(&self, event: Event) {
        self.note(&event.line());
        self.events.borrow_mut().push(event);
    }

    /// Notes anything else that must be the same in every run of a seed.
    pub(crate) fn note(&self, line: &str) {
        if self.trace {
            println!("{line}");
        }
        self.hash.set(xxh3_64_with_seed(line.as_bytes(), self.hash.get()));
    }

    /// Prints what is of no consequence.
    pub(crate) fn remark(&self, text: &str) {
        if self.trace {
            println!("{text}");
        }
    }

    /// The hash of everything noted so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// A value unlike any before.
    pub(crate) fn fresh(&self) -> u64 {
        self.values.set(self.values.get() + 1);
        self.values.get()
    }

    /// The operations so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }
}
