//! What a connection has to do with published messages: it subscribes through this node's hub, publishes there, and takes what comes for it.
//! And what members ask of each other about that. Who gets what is the hub's to say. Exercised by `tests/clients/check_pubsub.py` and
//! `tests/clients/differential_pubsub.py`.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use crate::base::channel::Kind;
use crate::base::counters::Counter;
use crate::base::limits::PUSH_BYTES_AHEAD;
use crate::base::reply::{BUSY, ReplyKind, STOPPING};
use crate::cluster::pubsub::Parcel;
use crate::protocol::native::frame;
use crate::protocol::native::{Answer, Ask, Key};
use crate::protocol::resp::command::Command;
use crate::protocol::resp::control::Replies;
use crate::protocol::resp::encode::ReplyBuf;
use crate::protocol::resp::subscriptions::{PubSubCommand, Pushed, Subscriptions};
use crate::protocol::resp::value::Value;

use super::super::pubsub::{self as hub, Counts, Deliver, Feed, Heed, Names, Publish, Subscribe, Unasked, Unsubscribe};
use super::transaction::Incoming;
use super::{Door, Entry, execute as commands};

const NO_MESSAGES: &str = "ERR this connection can't be sent messages, nothing was done";
pub(super) const MEMBERS_ONLY: Answer<'static> = Answer::Failed("ERR only members ask this");

/// What a connection has subscribed to, and what comes of that.
#[derive(Default)]
pub(super) struct Listening {
    is_allowed: Cell<bool>,
    own: RefCell<Subscriptions>,
    /// Made by the first subscription.
    feed: OnceCell<Feed>,
}

impl Listening {
    /// From now on it may subscribe: messages are written to it.
    pub(super) fn allow(&self) {
        self.is_allowed.set(true);
    }

    /// Bytes of the names it has subscribed to.
    pub(super) fn held_bytes(&self) -> usize {
        self.own.borrow().held_bytes()
    }

    /// The next message; never, if it has not subscribed to anything.
    pub(super) async fn next(&self) -> Pushed {
        match self.feed.get() {
            Some(feed) => feed.next().await,
            None => std::future::pending().await,
        }
    }
}

/// Appends messages that wait, as long as not much does.
pub(super) fn take(entry: &Entry, out: &mut ReplyBuf) {
    let Some(feed) = entry.listening.feed.get() else { return };
    while out.copied_bytes() < PUSH_BYTES_AHEAD
        && let Some(pushed) = feed.try_next()
    {
        pushed.put(out);
    }
}

/// Appends all messages that wait: what follows them must not come first.
fn take_all(entry: &Entry, out: &mut ReplyBuf) {
    while let Some(pushed) = entry.listening.feed.get().and_then(Feed::try_next) {
        pushed.put(out);
    }
}

/// What ends all subscriptions, if there are any. They are forgotten here.
fn ending(entry: &Entry) -> Option<Unsubscribe> {
    let own = std::mem::take(&mut *entry.listening.own.borrow_mut());
    let mut session = entry.session.borrow_mut();
    session.note_subscribed([0; 3]);
    let names = Kind::ALL.map(|kind| own.known(kind, &[]));
    (own.counts() != [0; 3]).then(|| Unsubscribe { id: session.id(), names })
}

/// Ends all subscriptions of a connection that is over.
pub(super) fn end(door: &Door, entry: &Entry) {
    ending(entry).into_iter().for_each(|ending| door.handles.hub.do_send(ending));
}

/// Ends all subscriptions without a word, after what has come for them.
pub(super) async fn reset(door: &Door, entry: &Entry, out: &mut ReplyBuf) {
    if let Some(ending) = ending(entry) {
        // A hub that is gone sends nothing any more.
        let _ = door.handles.hub.send(ending).await;
        take_all(entry, out);
    }
}

/// A command, or its refusal by a connection that is to ask for nothing but messages.
pub(super) fn restricted(entry: &Entry, parsed: Incoming) -> Incoming {
    let command = match &parsed {
        Ok((command, _)) => Some(*command),
        Err(error) => error.command.filter(|_| error.is_late),
    };
    match command.and_then(|command| entry.session.borrow().refuses(command)) {
        Some(refusal) => Err(refusal),
        None => parsed,
    }
}

/// Does what a command about channels asks, and answers it.
pub(super) async fn execute(
    door: &Rc<Door>,
    entry: &Entry,
    command: &'static Command,
    asked: PubSubCommand,
    out: &mut ReplyBuf,
) {
    let started = door.handles.clock.monotonic();
    let before = out.replies();
    match asked {
        PubSubCommand::Subscribe(kind, names) => subscribe(door, entry, (kind, &names), out).await,
        PubSubCommand::Unsubscribe(kind, names) => unsubscribe(door, entry, (kind, &names), out).await,
        PubSubCommand::Publish { kind, channel, payload } => {
            publish(door, entry, Publish { kind, channel, payload }, out).await;
        }
        asked => match door.admission.admit(1, 0) {
            None => commands::refuse(door, Counter::Busy, BUSY, 1, out),
            Some(_permit) => match ask(door, asked).await {
                Ok(value) => out.push_value(&value),
                Err(unasked) => {
                    door.count(Counter::NoQuorum);
                    out.push_error(unasked.to_string().as_bytes());
                }
            },
        },
    }
    if out.kind(before) == Some(ReplyKind::Error) {
        door.count(Counter::CommandErrors);
    }
    commands::record(door, &[command], started.elapsed());
}

fn number(count: u64) -> Value {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

/// What the cluster knows of subscriptions.
async fn ask(door: &Door, asked: PubSubCommand) -> Result<Value, Unasked> {
    let handles = &door.handles;
    match asked {
        PubSubCommand::Channels(kind, pattern) => {
            let names = hub::names(handles, kind, pattern).await?;
            Ok(Value::Array(names.into_iter().map(Value::Bulk).collect()))
        }
        PubSubCommand::CountPatterns => {
            let names = hub::names(handles, Kind::Pattern, Bytes::from_static(b"*")).await?;
            Ok(Value::Int(names.len() as i64))
        }
        PubSubCommand::Subscribers(kind, names) => {
            let counts = hub::subscribers(handles, kind, &names).await?;
            let pair = |(name, count): (Bytes, u64)| [Value::Bulk(name), number(count)];
            Ok(Value::Array(names.into_iter().zip(counts).flat_map(pair).collect()))
        }
        PubSubCommand::Subscribe(..) | PubSubCommand::Unsubscribe(..) | PubSubCommand::Publish { .. } => {
            unreachable!("nothing is asked by these")
        }
    }
}

async fn subscribe(door: &Rc<Door>, entry: &Entry, (kind, names): (Kind, &[Bytes]), out: &mut ReplyBuf) {
    let listening = &entry.listening;
    let news = match listening.own.borrow().news(kind, names) {
        _ if !listening.is_allowed.get() => Err(NO_MESSAGES),
        news => news,
    };
    let news = match news {
        Ok(news) => news,
        Err(text) => {
            door.count(Counter::SubscriptionsRefused);
            return out.push_error(text.as_bytes());
        }
    };
    if !news.is_empty() {
        let feed = listening.feed.get_or_init(|| {
            let task = entry.task.borrow().clone().expect("a connection that is served has a task");
            Feed::new(door.handles.waiting.clone(), task)
        });
        let id = entry.session.borrow().id();
        let asked = Subscribe { id, inbox: feed.inbox(), kind, names: news.clone() };
        // Known here before it is done there: whenever this connection ends, it ends what it may have subscribed to.
        let mut told = ReplyBuf::new(out.wire());
        listening.own.borrow_mut().subscribe(kind, names, news.clone(), &mut told);
        let refused = match door.handles.hub.send(asked).await {
            Ok(Ok(())) => None,
            Ok(Err(full)) => Some(full.to_string()),
            Err(_) => Some(STOPPING.to_owned()),
        };
        if let Some(text) = refused {
            listening.own.borrow_mut().unsubscribe(kind, &news, &mut told);
            return out.push_error(text.as_bytes());
        }
        entry.session.borrow_mut().note_subscribed(listening.own.borrow().counts());
        return out.append(&told, 0..1);
    }
    listening.own.borrow_mut().subscribe(kind, names, news, out);
}

async fn unsubscribe(door: &Rc<Door>, entry: &Entry, (kind, names): (Kind, &[Bytes]), out: &mut ReplyBuf) {
    let own = &entry.listening.own;
    let known = own.borrow().known(kind, names);
    if !known.is_empty() {
        let mut ended: [Vec<Bytes>; 3] = Default::default();
        ended[kind as usize] = known;
        let id = entry.session.borrow().id();
        // A hub that is gone sends nothing any more.
        let _ = door.handles.hub.send(Unsubscribe { id, names: ended }).await;
        // What was published before comes before the confirmation.
        take_all(entry, out);
    }
    own.borrow_mut().unsubscribe(kind, names, out);
    entry.session.borrow_mut().note_subscribed(own.borrow().counts());
}

async fn publish(door: &Rc<Door>, entry: &Entry, publish: Publish, out: &mut ReplyBuf) {
    if door.is_stopping() {
        return commands::refuse(door, Counter::Shutdown, STOPPING, 1, out);
    }
    let bytes = publish.channel.len() + publish.payload.len();
    let Some(_permit) = door.admission.admit(1, bytes) else {
        return commands::refuse(door, Counter::Busy, BUSY, 1, out);
    };
    let Ok(count) = door.handles.hub.send(publish).await else {
        return commands::refuse(door, Counter::Shutdown, STOPPING, 1, out);
    };
    // Who publishes to itself gets the message first, as in Redis; one that wants no replies gets it with the next.
    if entry.session.borrow().replies() == Replies::On {
        take_all(entry, out);
    }
    out.push_value(&number(count));
}

/// Answers what another member asks about subscriptions.
pub(super) async fn answer(door: &Rc<Door>, entry: &Entry, ask: Ask<'_>, payload: &Bytes, reply: &impl Fn(Answer<'_>)) {
    if !entry.is_peer() {
        return reply(MEMBERS_ONLY);
    }
    let gone = || reply(Answer::Failed(STOPPING));
    let hub = &door.handles.hub;
    match ask {
        Ask::Interest(wanted) => {
            let Ok(node) = wanted.node.parse() else { return reply(Answer::Failed("ERR not a name of a node")) };
            let asked = Heed { node, incarnation: wanted.incarnation, change: hub::change(&wanted) };
            match hub.send(asked).await {
                Ok(true) => reply(Answer::Done),
                Ok(false) => reply(Answer::Failed("ERR tell all of it")),
                Err(_) => gone(),
            }
        }
        Ask::Publish(published) => {
            let share = |key: &Key<'_>| frame::share(payload, key.0);
            let parcel = published.iter().map(|message| Parcel {
                kind: message.kind,
                channel: share(&message.channel),
                payload: share(&message.payload),
                ticket: None,
            });
            match hub.send(Deliver(parcel.collect())).await {
                Ok(counts) => reply(Answer::Counts(counts)),
                Err(_) => gone(),
            }
        }
        Ask::Channels { kind, pattern } => match hub.send(Names(kind, Bytes::copy_from_slice(pattern))).await {
            Ok(names) => reply(Answer::Names(names.iter().map(|name| Key(name)).collect())),
            Err(_) => gone(),
        },
        Ask::Subscribers { kind, names } => {
            let names = names.iter().map(|Key(name)| Bytes::copy_from_slice(name)).collect();
            match hub.send(Counts(kind, names)).await {
                Ok(counts) => reply(Answer::Counts(counts)),
                Err(_) => gone(),
            }
        }
        _ => unreachable!("not about subscriptions"),
    }
}
